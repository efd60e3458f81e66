//! What a person makes and removes: devices, subsystems, namespaces, listeners.

use std::fs;
use std::net::TcpListener;

use serde_json::json;

use crate::support::{Target, cells, free_port};

const NQN: &str = "nqn.2026-01.io.sledge:command";

// Without it: a kind of device could be made with another shape than was asked for, or not be listed or deleted.
#[test]
fn devices_come_and_go() {
    let target = Target::start();
    let none = "there are no devices; create one with `sledge device create`\n";
    assert_eq!(target.says(&["device", "list"]), none);
    assert_eq!(target.json(&["device", "list"]), json!([]));

    assert_eq!(target.says(&["device", "create", "malloc", "--size", "1M"]), "created Malloc0\n");
    assert_eq!(
        target.json(&["device", "create", "malloc", "M", "--size", "64k", "--block-size", "512"]),
        json!("M")
    );
    assert_eq!(target.says(&["device", "create", "null", "N", "--size", "1.5T"]), "created N\n");
    // The target may run in another folder: the path is taken from where the command runs.
    assert_eq!(
        target.says(&["device", "create", "file", "F", "disk.img", "--size", "2M", "--block-size", "4096"]),
        "created F\n"
    );
    assert_eq!(fs::metadata(target.folder.path().join("disk.img")).unwrap().len(), 2 << 20);
    assert_eq!(
        target.says(&["device", "create", "delay", "D", "M", "--read", "5", "--write-p99", "9"]),
        "created D\n"
    );
    assert_eq!(target.says(&["device", "create", "error", "N"]), "created EE_N\n");

    let listed = target.says(&["device", "list"]);
    assert_eq!(
        cells(&listed),
        [
            vec!["NAME", "KIND", "SIZE", "BLOCK", "USED BY"],
            vec!["Malloc0", "Malloc disk", "1 MiB", "4096", "-"],
            vec!["M", "Malloc disk", "64 KiB", "512", "device D"],
            vec!["N", "Null disk", "1.5 TiB", "4096", "device EE_N"],
            vec!["F", "URING bdev", "2 MiB", "4096", "-"],
            vec!["D", "delay", "64 KiB", "512", "-"],
            vec!["EE_N", "Error Injection Disk", "1.5 TiB", "4096", "-"],
        ],
        "{listed}"
    );
    assert!(listed.lines().all(|line| line == line.trim_end()), "{listed:?}");
    let devices = target.json(&["devices", "list"]);
    let latencies = &devices[4]["driver_specific"]["delay"];
    assert_eq!((&latencies["avg_read_latency"], &latencies["p99_read_latency"]), (&json!(5), &json!(5)));
    assert_eq!((&latencies["avg_write_latency"], &latencies["p99_write_latency"]), (&json!(0), &json!(9)));

    let stats = target.says(&["device", "stats"]);
    assert_eq!(
        cells(&stats)[0],
        ["DEVICE", "READS", "READ", "MEAN TIME", "WRITES", "WRITTEN", "MEAN TIME", "OTHERS", "FAILED"]
    );
    assert_eq!(cells(&stats)[2], ["M", "0", "0 B", "0.0 us", "0", "0 B", "0.0 us", "0", "0"]);
    assert_eq!(target.json(&["device", "stats", "M", "--reset"])["bdevs"][0]["name"], "M");
    assert_eq!(target.says(&["device", "stats", "M", "--by-reactor"]), "nobody has used it yet\n");
    assert_eq!(target.run(&["device", "stats", "--by-reactor"]).status.code(), Some(2));
    assert!(target.refuses(&["device", "stats", "X"]).contains("no device named X"));

    assert_eq!(target.says(&["device", "resize", "N", "2T"]), "N has 2 TiB\n");
    assert!(target.refuses(&["device", "resize", "N", "1T"]).contains("can only grow"));
    assert!(target.refuses(&["device", "resize", "M", "1G"]).contains("M is a Malloc disk"));
    assert!(target.refuses(&["device", "resize", "N", "512k"]).contains("multiple of 1M"));
    fs::File::options()
        .write(true)
        .open(target.folder.path().join("disk.img"))
        .unwrap()
        .set_len(4 << 20)
        .unwrap();
    assert_eq!(target.json(&["device", "rescan", "F"])["num_blocks"], 1024);

    assert!(target.refuses(&["device", "delete", "M"]).contains("in use by device D: remove that first"));
    for name in ["D", "EE_N", "F", "N", "M", "Malloc0"] {
        assert_eq!(target.says(&["device", "delete", name]), format!("deleted {name}\n"));
    }
    assert!(target.folder.path().join("disk.img").exists(), "the file went with its device");
    let missing = target.refuses(&["device", "delete", "D"]);
    assert!(missing.contains("there is no device named D"), "{missing}");
    assert_eq!(target.says(&["device", "list"]), none);
}

// Without it: a person who asks for a device that can't be would get half of it, or no reason.
#[test]
fn devices_that_can_not_be_are_explained() {
    let target = Target::start();
    target.says(&["device", "create", "null", "N", "--size", "1M"]);
    for (arguments, reason) in [
        (&["null", "N", "--size", "1M"][..], "choose another name"),
        (&["null", "X", "--size", "1000"], "not a multiple of the block size, 4096"),
        (&["null", "X", "--size", "0"], "not a multiple of the block size"),
        (&["null", "X", "--size", "1M", "--block-size", "1024"], "it must be 512 or 4096"),
        (&["null", "a b", "--size", "1M"], "must not contain spaces"),
        (&["malloc", "X", "--size", "1000T"], "make it smaller, or use a file"),
        (&["file", "X", "missing.img"], "missing.img"),
        (&["delay", "X", "missing"], "there is no device named missing"),
        (&["error", "missing"], "list them with bdev_get_bdevs"),
    ] {
        let said = target.refuses(&[&["device", "create"], arguments].concat());
        assert!(said.contains(reason), "{arguments:?}: {said}");
    }
    let usage = target.run(&["device", "create", "null", "X"]);
    assert_eq!(usage.status.code(), Some(2));
    assert!(String::from_utf8(usage.stderr).unwrap().contains("--size"));
    assert_eq!(target.json(&["device", "list"]).as_array().unwrap().len(), 1);
}

// Without it: a person could not serve a disk step by step, or not see what is served, or not take it away.
#[test]
fn a_disk_is_served_step_by_step() {
    let target = Target::start();
    let (port, other) = (free_port(), free_port());
    // Not every machine has IPv6.
    let second = if TcpListener::bind("[::1]:0").is_ok() { "[::1]" } else { "127.0.0.2" };
    let (address, local) = (format!("127.0.0.1:{port}"), format!("{second}:{other}"));
    for (noun, none) in [("subsystem", "create one"), ("namespace", "add a device"), ("listener", "add one")]
    {
        let said = target.says(&[noun, "list"]);
        assert!(said.contains(none) && said.contains("`sledge "), "{said}");
    }
    target.says(&["device", "create", "malloc", "M", "--size", "1M"]);
    target.says(&["device", "create", "null", "N", "--size", "1G"]);

    let created = target.says(&["subsystem", "create", NQN, "--serial", "S1", "--model", "Test", "--ana"]);
    assert_eq!(created, format!("created {NQN}; let hosts in with `sledge subsystem allow-host`\n"));
    assert_eq!(
        target.says(&["namespace", "add", NQN, "M", "--nsid", "7"]),
        format!("M is namespace 7 of {NQN}\n")
    );
    let uuid = "6f1d2a34-58c1-4a8b-9d11-3c2f00000001";
    assert_eq!(target.json(&["namespace", "add", NQN, "N", "--uuid", uuid]), json!(1));
    assert_eq!(target.says(&["listener", "add", NQN, &address]), format!("{NQN} listens on {address}\n"));
    target.says(&["listener", "add", NQN, &local]);
    let host = "nqn.2026-01.io.sledge:host";
    assert_eq!(
        target.says(&["subsystem", "allow-host", NQN, host]),
        format!("{host} may connect to {NQN}\n")
    );

    assert_eq!(
        cells(&target.says(&["subsystem", "list"])),
        [vec!["NQN", "NAMESPACES", "HOSTS", "LISTENERS"], vec![NQN, "2", "1", &format!("{address} {local}")]]
    );
    assert_eq!(
        cells(&target.says(&["namespaces", "list", NQN])),
        [
            vec!["SUBSYSTEM", "NSID", "DEVICE", "SIZE", "UUID"],
            vec![NQN, "1", "N", "1 GiB", uuid],
            vec![NQN, "7", "M", "1 MiB", target.json(&["device", "list"])[0]["uuid"].as_str().unwrap()],
        ]
    );
    assert_eq!(
        cells(&target.says(&["listener", "list"])),
        [
            vec!["SUBSYSTEM", "ADDRESS", "ANA"],
            vec![NQN, &address, "optimized"],
            vec![NQN, &local, "optimized"]
        ]
    );
    let shown = target.says(&["subsystem", "show", NQN]);
    for words in [host, "S1", "Test", "1 (N) 7 (M) of at most 32", &address] {
        assert!(shown.contains(words), "{shown}");
    }
    let shown = target.json(&["subsystem", "show", NQN]);
    assert_eq!(shown["hosts"], json!([{"nqn": host}]));
    assert_eq!(target.says(&["subsystem", "allow-any", NQN]), format!("any host may connect to {NQN}\n"));
    assert!(target.says(&["subsystem", "show", NQN]).contains("hosts        any"));
    target.says(&["subsystem", "allow-any", NQN, "--off"]);
    assert_eq!(target.json(&["subsystem", "show", NQN])["allow_any_host"], false);
    let denied = target.says(&["subsystem", "deny-host", NQN, host]);
    assert_eq!(denied, format!("{host} is no longer listed for {NQN}\n"));

    let status = target.json(&["status"]);
    for (name, value) in [("devices", 2), ("subsystems", 1), ("namespaces", 2), ("listeners", 2)] {
        assert_eq!(status[name], value, "{status}");
    }
    let status = target.says(&["status"]);
    assert!(status.contains("1, with 2 namespaces and 2 listeners"), "{status}");
    let reactors = target.says(&["reactor", "list"]);
    assert_eq!(cells(&reactors)[0][..3], ["REACTOR", "CORE", "WAIT"]);
    assert_eq!(cells(&reactors)[1][..3], ["0", "0", "adaptive"]);
    assert_eq!(target.json(&["reactor", "list"])[0]["responding"], true);

    assert_eq!(target.says(&["namespace", "remove", NQN, "7"]), format!("removed namespace 7 of {NQN}\n"));
    assert_eq!(
        target.says(&["listener", "remove", NQN, &local]),
        format!("{NQN} no longer listens on {local}\n")
    );
    assert_eq!(target.json(&["listener", "list", NQN]).as_array().unwrap().len(), 1);
    assert_eq!(target.says(&["subsystem", "delete", NQN]), format!("deleted {NQN}\n"));
    assert_eq!(target.json(&["namespace", "list"]), json!([]));
    TcpListener::bind(&address).expect("the port is free again");
    assert_eq!(target.json(&["device", "list"]).as_array().unwrap().len(), 2, "devices stay");
}

// Without it: a mistake in a name or an address would leave a person without a next step.
#[test]
fn mistakes_are_explained() {
    let target = Target::start();
    target.says(&["subsystem", "create", NQN, "--allow-any", "--max-namespaces", "2"]);
    target.says(&["device", "create", "null", "N", "--size", "1M"]);
    target.says(&["namespace", "add", NQN, "N"]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let other = "nqn.2026-01.io.sledge:other";
    for (arguments, reason) in [
        (&["subsystem", "create", NQN][..], "already"),
        (&["subsystem", "create", "disk1"], "is not an NQN, as nqn.2026-01.com.example:disk1"),
        (&["subsystem", "create", other, "--serial", "123456789012345678901"], "1 to 20 printable"),
        (&["subsystem", "show", other], "there is no subsystem"),
        (&["subsystem", "delete", other], "there is no subsystem"),
        (&["subsystem", "deny-host", NQN, other], "is not among the hosts"),
        (&["namespace", "add", NQN, "missing"], "there is no device named missing"),
        (&["namespace", "add", NQN, "N"], "in use by namespace 1"),
        (&["namespace", "add", NQN, "N", "--nsid", "3"], "is more than 2 (max_namespaces)"),
        (&["namespace", "remove", NQN, "2"], "has no namespace 2"),
        (&["namespace", "list", other], "there is no subsystem"),
        (&["listener", "add", NQN, &taken], "choose another address"),
        (&["listener", "remove", NQN, "127.0.0.1"], "does not listen on 127.0.0.1:4420"),
        (&["device", "delete", "N"], "remove that first"),
        (&["rpc", "bdev_get_bdevs", "[]"], "must be a JSON object"),
        (&["rpc", "bdev_get_bdevs", "{"], "are not JSON"),
        (&["rpc", "bdev_get_bdevs", "{\"nmae\": \"N\"}"], "unknown field `nmae`"),
        (&["rpc", "nosuch"], "there is no method nosuch: `sledge rpc rpc_get_methods` lists them"),
    ] {
        let said = target.refuses(arguments);
        assert!(said.contains(reason), "{arguments:?}: {said}");
    }
    let usage = target.run(&["listener", "add", NQN, "localhost"]);
    assert_eq!(usage.status.code(), Some(2));
    assert!(String::from_utf8(usage.stderr).unwrap().contains("not an IP address, as 192.0.2.1"));
    // Nothing of all that has changed anything.
    assert_eq!(target.json(&["subsystem", "list"]).as_array().unwrap().len(), 2);
    assert_eq!(target.json(&["listener", "list"]), json!([]));
}
