//! The NVMe driver's data path over a drive that is nothing but two rings. What the drive does is not counted, but where
//! the whole target is: there it takes some thirty instructions a command.

use super::bare_drive::{BareDrive, DEPTH, channel};
use super::reactor::on_reactor;
use super::{Case, Failure};
use crate::measure::{SECTIONS, Section, WARM_UP};
use sledge_nvme::Command;
use sledge_nvme::driver::queue_pair::QueuePair;
use sledge_nvme::io::{Channel, IoCommand, IoCompletion, Operation, Submitted};
use sledge_reactor::memory::allocate;
use sledge_reactor::now;
use std::hint::black_box;
use std::sync::Arc;

/// Commands of a section, all under way at once.
const COMMANDS: u64 = 512;
/// Blocks of the drive, of 512 bytes.
const BLOCKS: u64 = 1 << 16;

pub fn cases() -> [Case; 6] {
    let case = |name, run| Case { name, operations: COMMANDS, run };
    [
        case("drive/queue-pair-submit", || queue_pair(Half::Submit)),
        case("drive/queue-pair-reap", || queue_pair(Half::Complete)),
        case("drive/read-4k-submit", || io(Operation::Read, 8, Half::Submit)),
        case("drive/read-4k-complete", || io(Operation::Read, 8, Half::Complete)),
        case("drive/write-4k-submit", || io(Operation::Write, 8, Half::Submit)),
        case("drive/read-64k-submit", || io(Operation::Read, 128, Half::Submit)),
    ]
}

/// Which half of a command's life is counted. Between the two the drive works.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    Submit,
    Complete,
}

impl Half {
    fn section(self, round: usize, half: Half) -> Option<Section> {
        (self == half && round >= WARM_UP).then(Section::begin)
    }
}

/// A channel, with the doorbells.
fn io(operation: Operation, blocks: u32, counted: Half) -> Result<(), Failure> {
    on_reactor(move || async move {
        let (drive, queue) = BareDrive::start(false)?;
        let mut channel = channel(&queue, BLOCKS)?;
        let mut done: Vec<IoCompletion> = Vec::with_capacity(COMMANDS as usize);
        let mut commands = Vec::with_capacity(COMMANDS as usize);
        for round in 0..WARM_UP + SECTIONS {
            for token in 0..COMMANDS {
                let mut io = IoCommand::new(token, operation, token * 8, blocks);
                if operation == Operation::Write {
                    io.data = allocate(blocks as usize * 512).ok_or("the pool is dry")?.into();
                }
                commands.push(io);
            }
            let section = counted.section(round, Half::Submit);
            for io in commands.drain(..) {
                if let Submitted::Done(refused) = channel.submit(io) {
                    return Err(format!("refused: {}", refused.status).into());
                }
            }
            channel.poll(&mut done);
            drop(section);
            drive.complete();
            let section = counted.section(round, Half::Complete);
            channel.poll(black_box(&mut done));
            drop(section);
            let good = done.drain(..).filter(|done| done.status.is_success()).count();
            if good as u64 != COMMANDS {
                return Err(format!("{good} of {COMMANDS} were done").into());
            }
        }
        Ok(())
    })
}

/// A queue pair alone.
fn queue_pair(counted: Half) -> Result<(), Failure> {
    on_reactor(move || async move {
        let drive = Arc::new(BareDrive::default());
        let mut pair: QueuePair<u64> = QueuePair::new(drive.clone(), 1, DEPTH, 4)?;
        drive.at(pair.submission_address(), pair.completion_address(), false);
        for round in 0..WARM_UP + SECTIONS {
            let now = now();
            let section = counted.section(round, Half::Submit);
            for token in 0..COMMANDS {
                if pair.submit(black_box(Command::read(1, token, 8)), token, now).is_err() {
                    return Err("the queue is full".into());
                }
            }
            pair.ring();
            drop(section);
            drive.complete();
            let section = counted.section(round, Half::Complete);
            let mut sum = 0;
            let count = pair.reap(usize::MAX, |token, completion| {
                sum += token + u64::from(completion.status().bits());
            });
            pair.ring();
            drop(section);
            if (count as u64, sum) != (COMMANDS, COMMANDS * (COMMANDS - 1) / 2) {
                return Err(format!("{count} of {COMMANDS} were done").into());
            }
        }
        Ok(())
    })
}
