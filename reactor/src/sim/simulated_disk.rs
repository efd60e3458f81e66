//! A test's hand on one simulated disk: its size, its speed, its faults, and its content.
//!
//! Invariant: what is done here takes no virtual time and is no event of the trace. Made by
//! [`super::Simulation::disk`].

use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::rc::Rc;
use std::time::Duration;

use super::clockwork::NodeId;
use super::disks::{DiskCounters, DiskFault, DiskState};
use super::medium::Content;
use super::world::{State, World};

/// A node's disk of one name, whether or not it exists yet.
#[derive(Clone)]
pub struct SimulatedDisk {
    world: Rc<World>,
    node: NodeId,
    name: String,
}

impl SimulatedDisk {
    /// The disk of that name.
    pub(super) fn new(world: Rc<World>, node: NodeId, name: &str) -> SimulatedDisk {
        SimulatedDisk { world, node, name: name.to_owned() }
    }

    /// Creates the disk, all holes, unless it exists. `len_bytes` is a multiple of `block_bytes`, which is
    /// 512 or 4096.
    ///
    /// # Panics
    /// When a size is none of these.
    pub fn create(self, len_bytes: u64, block_bytes: u32) -> SimulatedDisk {
        assert!(block_bytes == 512 || block_bytes == 4096, "blocks are 512 or 4096 bytes");
        assert!(len_bytes.is_multiple_of(u64::from(block_bytes)), "the length is whole blocks");
        self.world.with(|state| state.disks.create(self.node, &self.name, len_bytes, block_bytes));
        self
    }

    /// Whether it has been created, here or by a program that opened it.
    pub fn exists(&self) -> bool {
        self.world.with(|state| state.disks.find(self.node, &self.name).is_some())
    }

    /// Length in bytes.
    ///
    /// # Panics
    /// As all below: when the disk does not exist.
    pub fn len_bytes(&self) -> u64 {
        self.state(|disk| disk.medium.len_bytes())
    }

    /// Sets how long each request takes; wider ranges bring more reordering.
    pub fn set_latency(&self, latency: RangeInclusive<Duration>) {
        self.state(|disk| disk.latency = Some(latency));
    }

    /// Sets whether completed writes may be lost in a crash until they are flushed (they may, at first).
    pub fn set_volatile_cache(&self, volatile: bool) {
        self.state(|disk| disk.volatile_cache = volatile);
    }

    /// Sets whether a crash may leave a 512-byte sector half old and half new (it may, at first), rather
    /// than only blocks of several sectors.
    pub fn set_sector_tearing(&self, tears: bool) {
        self.state(|disk| disk.medium.tears_sectors = tears);
    }

    /// Lets this many of a million requests fail with a media error.
    pub fn set_error_rate(&self, per_million: u32) {
        self.state(|disk| disk.errors_per_million = per_million);
    }

    /// Lets the next `count` requests fail to which the fault applies.
    pub fn fail_next(&self, count: u32, fault: DiskFault) {
        self.state(|disk| disk.fail_next = (count > 0).then_some((count, fault)));
    }

    /// Lets every request fail that touches these bytes, until [`SimulatedDisk::clear_faults`].
    pub fn fail_range(&self, bytes: Range<u64>, fault: DiskFault) {
        self.state(|disk| disk.fail_ranges.push((bytes, fault)));
    }

    /// Ends all injected errors.
    pub fn clear_faults(&self) {
        self.state(|disk| {
            disk.errors_per_million = 0;
            disk.fail_next = None;
            disk.fail_ranges.clear();
        });
    }

    /// Stops all requests where they are, those to come included, until [`SimulatedDisk::release`].
    pub fn hold(&self) {
        self.state(|disk| disk.stuck = true);
    }

    /// Lets the requests go on that [`SimulatedDisk::hold`] stopped.
    pub fn release(&self) {
        let number = self.number();
        self.world.with(|state| state.disks.release(&mut state.clockwork, number));
    }

    /// Bytes that are allocated: written and not discarded.
    pub fn allocated_bytes(&self) -> u64 {
        self.state(|disk| disk.medium.allocated_bytes())
    }

    /// Blocks whose newest content a crash could lose.
    pub fn unsynced_blocks(&self) -> u64 {
        self.state(|disk| disk.medium.unsynced_blocks())
    }

    /// What it has done since it was created.
    pub fn counters(&self) -> DiskCounters {
        self.state(|disk| disk.counters)
    }

    /// Reads as a program would, without faults and delays.
    ///
    /// # Panics
    /// When the range is past the end.
    pub fn read_bytes(&self, bytes: Range<u64>) -> Vec<u8> {
        self.state(|disk| {
            assert!(bytes.end <= disk.medium.len_bytes(), "a range past the end of the disk");
            let block_bytes = u64::from(disk.medium.block_bytes());
            let mut read = Vec::with_capacity((bytes.end - bytes.start) as usize);
            let mut at = bytes.start;
            while at < bytes.end {
                let block = at / block_bytes;
                let start = at - block * block_bytes;
                let end = block_bytes.min(bytes.end - block * block_bytes);
                read.extend_from_slice(&disk.medium.read(block)[start as usize..end as usize]);
                at = (block + 1) * block_bytes;
            }
            read
        })
    }

    /// Changes bytes behind the program's back, durably: decay of the medium.
    ///
    /// # Panics
    /// When the range is past the end.
    pub fn write_bytes(&self, offset: u64, bytes: &[u8]) {
        self.state(|disk| {
            let end = offset + bytes.len() as u64;
            assert!(end <= disk.medium.len_bytes(), "a range past the end of the disk");
            let block_bytes = u64::from(disk.medium.block_bytes());
            for block in offset / block_bytes..end.div_ceil(block_bytes) {
                let start = block * block_bytes;
                let mut data: Box<[u8]> = disk.medium.read(block).into();
                for (at, byte) in data.iter_mut().enumerate() {
                    let position = start + at as u64;
                    if (offset..end).contains(&position) {
                        *byte = bytes[(position - offset) as usize];
                    }
                }
                disk.medium.write(block, Content::Data(data), true);
            }
        });
    }

    fn number(&self) -> usize {
        match self.world.with(|state| state.disks.find(self.node, &self.name)) {
            Some(number) => number,
            None => panic!("no disk {:?} was created on node {}", self.name, self.node.0),
        }
    }

    fn state<T>(&self, change: impl FnOnce(&mut DiskState) -> T) -> T {
        let number = self.number();
        self.world.with(|state: &mut State| change(state.disks.state(number)))
    }
}

impl fmt::Debug for SimulatedDisk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SimulatedDisk")
            .field("node", &self.node)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
