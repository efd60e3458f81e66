//! Whole I/Os over a real connection: host and target take turns on one reactor, so both are counted, and nothing
//! depends on how two threads meet.

use super::load::{self, Work};
use super::raw;
use super::reactor::on_reactor;
use super::served::{Device, Options, Served};
use super::{Case, Failure};
use sledge_nvme::io::Operation;

/// 4 KiB I/Os of a section.
const SMALL: u64 = 640;
/// 128 KiB I/Os of a section.
const LARGE: u64 = 64;
/// I/Os of a section one after another.
const SINGLE: u64 = 100;
/// I/Os of a section over many queues; a multiple of 64 queues of 4.
const SPREAD: u64 = 512;

const NULL: Options = Options { device: Device::Null, queues: 1, depth: 32, digests: false };
const MALLOC: Options = Options { device: Device::Malloc, ..NULL };
/// A drive that answers at once, by our own driver.
const DRIVE: Options = Options { device: Device::Drive, ..NULL };
/// Few enough that a round fits into the sockets: how the kernel cuts a stream that does not differs each time.
const FEW: u16 = 2;

pub fn cases() -> [Case; 18] {
    use Operation::{Read, Write};
    let case = |name, operations, run| Case { name, operations, run };
    [
        case("io/read-4k-null", SMALL, || io(NULL, Read, 4096, SMALL)),
        case("io/read-4k-malloc", SMALL, || io(MALLOC, Read, 4096, SMALL)),
        case("io/write-4k-null", SMALL, || io(NULL, Write, 4096, SMALL)),
        case("io/write-4k-malloc", SMALL, || io(MALLOC, Write, 4096, SMALL)),
        case("io/read-4k-null-qd1", SINGLE, || io(Options { depth: 1, ..NULL }, Read, 4096, SINGLE)),
        case("io/read-4k-null-64-queues", SPREAD, || {
            io(Options { queues: 64, depth: 4, ..NULL }, Read, 4096, SPREAD)
        }),
        case("io/read-4k-null-digests", SMALL, || io(Options { digests: true, ..NULL }, Read, 4096, SMALL)),
        case("io/write-4k-null-digests", SMALL, || io(Options { digests: true, ..NULL }, Write, 4096, SMALL)),
        case("io/read-128k-null", LARGE, || io(Options { depth: FEW, ..NULL }, Read, 128 << 10, LARGE)),
        case("io/read-128k-malloc", LARGE, || io(Options { depth: FEW, ..MALLOC }, Read, 128 << 10, LARGE)),
        case("io/write-128k-null", LARGE, || io(Options { depth: FEW, ..NULL }, Write, 128 << 10, LARGE)),
        case("io/write-128k-malloc", LARGE, || io(Options { depth: FEW, ..MALLOC }, Write, 128 << 10, LARGE)),
        case("target/read-4k-null", SMALL, || target(NULL, Read)),
        case("target/read-4k-malloc", SMALL, || target(MALLOC, Read)),
        case("target/write-4k-null", SMALL, || target(NULL, Write)),
        case("target/write-4k-malloc", SMALL, || target(MALLOC, Write)),
        case("target/read-4k-drive", SMALL, || target(DRIVE, Read)),
        case("target/write-4k-drive", SMALL, || target(DRIVE, Write)),
    ]
}

/// Our own host and the target.
fn io(options: Options, operation: Operation, bytes: u32, operations: u64) -> Result<(), Failure> {
    on_reactor(move || async move {
        let served = Served::start(options).await?;
        let pairs = served.open_all().await?;
        load::run(pairs, Work { operation, bytes, depth: options.depth, operations }).await?;
        served.stop().await
    })
}

/// The target alone: commands come from a host that costs next to nothing.
fn target(options: Options, operation: Operation) -> Result<(), Failure> {
    on_reactor(move || async move {
        let served = Served::start(options).await?;
        raw::run(&served, operation, 4096, options.depth, SMALL).await?;
        served.stop().await
    })
}
