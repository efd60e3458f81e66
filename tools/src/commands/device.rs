//! `sledge device`.

use serde_json::{Value, json};

use super::given;
use crate::arguments::{CreateDevice, Device, Shape};
use crate::client::{Client, Failure};
use crate::output::{Report, Rows, items, text};
use crate::size;

pub(super) fn run(client: &mut Client, command: Device) -> Result<Report, Failure> {
    match command {
        Device::List => list(client),
        Device::Create(wanted) => create(client, wanted),
        Device::Stats { name, by_reactor, reset } => stats(client, name, by_reactor, reset),
        Device::Resize { name, size } => resize(client, &name, size),
        Device::Rescan { name } => {
            client.call("bdev_uring_rescan", json!({"name": name}))?;
            with_its_size(client, &name)
        }
        Device::Delete { name } => delete(client, &name),
    }
}

fn list(client: &mut Client) -> Result<Report, Failure> {
    let all = client.ask("bdev_get_bdevs")?;
    let mut rows = Rows::new(&["NAME", "KIND", "#SIZE", "#BLOCK", "USED BY"]);
    for device in items(&all) {
        rows.add([
            text(&device["name"]),
            text(&device["product_name"]),
            size::show(bytes(device)),
            text(&device["block_size"]),
            text(&device["claimed_by"]),
        ]);
    }
    Ok(Report::table(all, rows, "there are no devices; create one with `sledge device create`"))
}

fn stats(
    client: &mut Client,
    name: Option<String>,
    by_reactor: bool,
    reset: bool,
) -> Result<Report, Failure> {
    let params = given([
        ("names", json!(name.map(|name| vec![name]))),
        ("per_channel", json!(by_reactor)),
        ("reset_mode", if reset { json!("all") } else { Value::Null }),
    ]);
    let found = client.call("bdev_get_iostat", params)?;
    let columns =
        ["#READS", "#READ", "#MEAN TIME", "#WRITES", "#WRITTEN", "#MEAN TIME", "#OTHERS", "#FAILED"];
    let first = if by_reactor { "REACTOR" } else { "DEVICE" };
    let mut rows = Rows::new(&[&[first], &columns[..]].concat());
    let counted = if by_reactor { &found["channels"] } else { &found["bdevs"] };
    for row in items(counted) {
        let number = |name: &str| row[name].as_u64().unwrap_or(0);
        let all = |kinds: &[&str], what: &str| -> u64 {
            kinds.iter().map(|kind| number(&format!("num_{kind}_{what}"))).sum()
        };
        let mean = |kind: &str| {
            let (ticks, operations) = (number(&format!("{kind}_latency_ticks")), all(&[kind], "ops"));
            let second = found["tick_rate"].as_u64().unwrap_or(0).max(1);
            format!("{:.1} us", ticks as f64 * 1e6 / second as f64 / operations.max(1) as f64)
        };
        let others = ["unmap", "flush", "write_zeroes", "compare"];
        rows.add([
            // Threads are numbered from 1, reactors from 0.
            if by_reactor { number("thread_id").saturating_sub(1).to_string() } else { text(&row["name"]) },
            number("num_read_ops").to_string(),
            size::show(number("bytes_read")),
            mean("read"),
            number("num_write_ops").to_string(),
            size::show(number("bytes_written")),
            mean("write"),
            all(&others, "ops").to_string(),
            (all(&others, "errors") + all(&["read", "write"], "errors")).to_string(),
        ]);
    }
    let none = if by_reactor { "nobody has used it yet" } else { "there are no devices" };
    Ok(Report::table(found, rows, none))
}

/// A device's size.
pub(super) fn bytes(device: &Value) -> u64 {
    let number = |name: &str| device[name].as_u64().unwrap_or(0);
    number("num_blocks").saturating_mul(number("block_size"))
}

/// Unit of sizes in `bdev_null_resize`.
const MIB: u64 = 1 << 20;

fn resize(client: &mut Client, name: &str, size: u64) -> Result<Report, Failure> {
    if !size.is_multiple_of(MIB) {
        return Err(Failure::Usage(format!("the new size, {size} bytes, is not a multiple of 1M")));
    }
    client.call("bdev_null_resize", json!({"name": name, "new_size": size / MIB}))?;
    with_its_size(client, name)
}

fn with_its_size(client: &mut Client, name: &str) -> Result<Report, Failure> {
    let found = client.call("bdev_get_bdevs", json!({"name": name}))?;
    let device = items(&found).first().cloned().unwrap_or(Value::Null);
    let said = format!("{name} has {}", size::show(bytes(&device)));
    Ok(Report::say(device, said))
}

fn blocks(shape: &Shape) -> Result<u64, Failure> {
    let block = u64::from(shape.block_size);
    if block == 0 || !shape.size.is_multiple_of(block) || shape.size == 0 {
        let reason = format!("the size, {} bytes, is not a multiple of the block size, {block}", shape.size);
        return Err(Failure::Usage(reason));
    }
    Ok(shape.size / block)
}

fn create(client: &mut Client, wanted: CreateDevice) -> Result<Report, Failure> {
    let (method, params) = match wanted {
        CreateDevice::Malloc { name, shape } => (
            "bdev_malloc_create",
            given([
                ("name", json!(name)),
                ("num_blocks", json!(blocks(&shape)?)),
                ("block_size", json!(shape.block_size)),
            ]),
        ),
        CreateDevice::Null { name, shape } => (
            "bdev_null_create",
            json!({"name": name, "num_blocks": blocks(&shape)?, "block_size": shape.block_size}),
        ),
        CreateDevice::File { name, path, size, block_size } => {
            // The target may run in another folder than this command.
            let filename = std::path::absolute(&path)
                .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
            let params = given([
                ("name", json!(name)),
                ("filename", json!(filename)),
                ("create_bytes", json!(size)),
                ("block_size", json!(block_size)),
            ]);
            ("bdev_uring_create", params)
        }
        CreateDevice::Delay { name, base, read, write, read_p99, write_p99 } => (
            "bdev_delay_create",
            json!({
                "name": name,
                "base_bdev_name": base,
                "avg_read_latency": read,
                "p99_read_latency": read_p99.unwrap_or(read),
                "avg_write_latency": write,
                "p99_write_latency": write_p99.unwrap_or(write),
            }),
        ),
        CreateDevice::Error { base } => ("bdev_error_create", json!({"base_name": base})),
    };
    let name = client.call(method, params)?;
    let said = format!("created {}", text(&name));
    Ok(Report::say(name, said))
}

/// Each kind has a method of its own; the kind is the one name in what is particular to the device.
fn delete(client: &mut Client, name: &str) -> Result<Report, Failure> {
    let found = client.call("bdev_get_bdevs", json!({"name": name}))?;
    if items(&found).first().is_some_and(|device| device["driver_specific"]["nvme"].is_array()) {
        let reason = format!("{name} comes and goes with its controller: `sledge nvme detach` it");
        return Err(Failure::Usage(reason));
    }
    let kind = items(&found)
        .first()
        .and_then(|device| device["driver_specific"].as_object())
        .and_then(|particular| particular.keys().next().cloned())
        .ok_or_else(|| Failure::Usage(format!("the target does not say what kind of device {name} is")))?;
    let result: Value = client.call(&format!("bdev_{kind}_delete"), json!({"name": name}))?;
    Ok(Report::say(result, format!("deleted {name}")))
}
