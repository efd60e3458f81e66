//! What the tests of devices share: reactors, devices in a temporary folder, and I/O as futures.

#![allow(dead_code, clippy::unwrap_used, missing_docs)]

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use sledge_bdev::BlockDevice;
use sledge_bdev::malloc::{MallocDevice, MallocOptions};
use sledge_bdev::uring::{UringDevice, UringOptions};
use sledge_nvme::Status;
use sledge_nvme::io::{Channel, IoCommand, IoCompletion, Operation, Submitted};
use sledge_reactor::memory::{self, PoolOptions, Segments};
use sledge_reactor::{CoreList, ReactorOptions, Reactors, Wait, yield_now};

/// Starts reactors that share the cores with the other tests.
pub fn reactors(count: usize) -> Reactors {
    Reactors::start(ReactorOptions {
        cores: CoreList::floating(count),
        wait: Wait::default(),
        pool: PoolOptions { total_bytes: 16 << 20 },
    })
    .unwrap()
}

/// Runs a test on one real reactor.
pub fn on_reactor<T, Fut>(test: impl FnOnce() -> Fut + Send + 'static) -> T
where
    T: Send + 'static,
    Fut: Future<Output = T> + 'static,
{
    let reactors = reactors(1);
    let result = reactors.handles()[0].spawn(test).wait_blocking().unwrap();
    reactors.stop();
    result
}

pub fn malloc(num_blocks: u64, block_size: u32) -> Arc<dyn BlockDevice> {
    let options = MallocOptions {
        name: "Malloc0".to_owned(),
        uuid: None,
        num_blocks,
        block_size,
        optimal_io_boundary: 0,
        hugepages: false,
    };
    Arc::new(MallocDevice::new(options).unwrap())
}

/// A folder on the disk that holds the build, which is less likely to be in memory than the usual one.
pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

pub fn uring_options(path: &Path, num_blocks: u64, block_size: u32) -> UringOptions {
    UringOptions {
        name: "Uring0".to_owned(),
        filename: path.to_owned(),
        block_size: Some(block_size),
        uuid: None,
        create_bytes: Some(num_blocks * u64::from(block_size)),
    }
}

/// A file device; `None` where the disk of the build folder has no such small blocks.
pub fn uring(path: &Path, num_blocks: u64, block_size: u32) -> Option<Arc<dyn BlockDevice>> {
    match UringDevice::open(uring_options(path, num_blocks, block_size)) {
        Ok(device) => Some(Arc::new(device)),
        Err(sledge_bdev::DeviceError::Parameter { parameter: "block_size", problem, .. }) => {
            eprintln!("left out: {problem}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Polls a channel until a command that is pending has ended.
pub async fn finish(channel: &mut dyn Channel) -> IoCompletion {
    let mut done = Vec::new();
    loop {
        channel.poll(&mut done);
        if let Some(completion) = done.pop() {
            assert!(done.is_empty(), "one command was under way");
            settle(channel);
            return completion;
        }
        yield_now().await;
    }
}

/// What a reactor's next turn does after the last command: a device may give a range back late.
fn settle(channel: &mut dyn Channel) {
    if channel.outstanding() == 0 && channel.needs_polling() {
        let mut done = Vec::new();
        channel.poll(&mut done);
        assert!(done.is_empty());
    }
}

/// Does one command.
pub async fn run(channel: &mut dyn Channel, io: IoCommand) -> IoCompletion {
    let token = io.token;
    let completion = match channel.submit(io) {
        Submitted::Done(completion) => completion,
        Submitted::Pending => finish(channel).await,
    };
    assert_eq!(completion.token, token);
    settle(channel);
    completion
}

/// Segments with these bytes, cut at `cuts`.
pub fn segments(bytes: &[u8], cuts: &[usize]) -> Segments {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.push(0);
    cuts.push(bytes.len());
    cuts.sort_unstable();
    cuts.dedup();
    let mut segments = Segments::new();
    for cut in cuts.windows(2) {
        let mut buffer = memory::allocate(cut[1] - cut[0]).unwrap();
        buffer.copy_from_slice(&bytes[cut[0]..cut[1]]);
        segments.push(buffer).unwrap();
    }
    segments
}

pub fn bytes_of(segments: &Segments) -> Vec<u8> {
    segments.iter().flat_map(|segment| segment.as_slice().iter().copied()).collect()
}

pub fn command(operation: Operation, slba: u64, blocks: u32, data: Segments) -> IoCommand {
    let mut io = IoCommand::new(slba + 1000, operation, slba, blocks);
    io.data = data;
    io
}

pub async fn write(channel: &mut dyn Channel, slba: u64, bytes: &[u8], block_size: u32) -> Status {
    let blocks = bytes.len() as u32 / block_size;
    run(channel, command(Operation::Write, slba, blocks, segments(bytes, &[]))).await.status
}

pub async fn read(channel: &mut dyn Channel, slba: u64, blocks: u32) -> (Status, Vec<u8>) {
    let completion = run(channel, IoCommand::new(7, Operation::Read, slba, blocks)).await;
    (completion.status, bytes_of(&completion.data))
}

/// Adds 1 to the number in block 3, `times` times, by compare-and-write; others do the same meanwhile.
pub async fn count_up(device: Arc<dyn BlockDevice>, times: u64) {
    let block = device.geometry().block_bytes as usize;
    let mut channel = device.open_channel().unwrap();
    let mut wins = 0;
    while wins < times {
        let (status, before) = read(channel.as_mut(), 3, 1).await;
        assert_eq!(status, Status::SUCCESS);
        let number = u64::from_le_bytes(before[..8].try_into().unwrap());
        assert!(before[8..].iter().all(|byte| *byte == before[0]), "a block is torn");
        let mut both = before;
        both.extend_from_slice(&(number + 1).to_le_bytes());
        both.extend(std::iter::repeat_n((number + 1) as u8, block - 8));
        let completion =
            run(channel.as_mut(), command(Operation::CompareAndWrite, 3, 1, segments(&both, &[]))).await;
        match completion.status {
            Status::SUCCESS => wins += 1,
            Status::COMPARE_FAILURE => {}
            status => panic!("{status}"),
        }
        yield_now().await;
    }
}
