//! Which I/O comes next on one queue, and what verification expects of it.
//!
//! Invariant: a queue has its own range of units, so that no two queues touch the same blocks; with verification no
//! two I/Os of a queue touch the same unit at once.

/// A unit is as many bytes as one I/O transfers.
pub type Unit = u64;

/// Most units of one queue that verification keeps track of (4 bytes each).
pub const MAX_VERIFIED_UNITS: u64 = 16 << 20;

/// Versions of what verification wrote; its highest bit marks a unit that an I/O is using.
#[derive(Debug)]
struct Versions {
    versions: Vec<u32>,
}

const IN_USE: u32 = 1 << 31;

/// The next I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// True for a write.
    pub write: bool,
    /// Where.
    pub unit: Unit,
    /// With verification: the version to write, or the one to expect; zero expects nothing.
    pub version: u32,
}

/// One queue's sequence of I/Os.
#[derive(Debug)]
pub struct Workload {
    random: bool,
    read_percent: u64,
    first: Unit,
    units: u64,
    cursor: u64,
    state: u64,
    versions: Option<Versions>,
    next_version: u32,
}

impl Workload {
    /// I/Os on `units` (at least 1) units from `first`.
    pub fn new(random: bool, read_percent: u8, first: Unit, units: u64, seed: u64, verify: bool) -> Self {
        let versions = verify.then(|| Versions { versions: vec![0; units as usize] });
        Self {
            random,
            read_percent: u64::from(read_percent),
            first,
            units,
            cursor: 0,
            state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            versions,
            next_version: 0,
        }
    }

    fn draw(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    /// The next I/O. None when every unit is in use, with verification.
    pub fn step(&mut self) -> Option<Step> {
        let write = match self.read_percent {
            100 => false,
            0 => true,
            percent => (self.draw() >> 32) % 100 >= percent,
        };
        let mut index = if self.random {
            // The high half of the product is uniform over the units, without a division.
            ((u128::from(self.draw()) * u128::from(self.units)) >> 64) as u64
        } else {
            let index = self.cursor;
            self.cursor = if index + 1 == self.units { 0 } else { index + 1 };
            index
        };
        let mut version = 0;
        if let Some(versions) = self.versions.as_mut() {
            let mut tries = 0;
            while versions.versions[index as usize] & IN_USE != 0 {
                index = if index + 1 == self.units { 0 } else { index + 1 };
                tries += 1;
                if tries == self.units {
                    return None;
                }
            }
            version = versions.versions[index as usize];
            if write {
                self.next_version = if self.next_version == IN_USE - 1 { 1 } else { self.next_version + 1 };
                version = self.next_version;
            }
            versions.versions[index as usize] |= IN_USE;
        }
        Some(Step { write, unit: self.first + index, version })
    }

    /// An I/O ended. A write that failed leaves its unit unknown.
    pub fn end(&mut self, step: Step, success: bool) {
        if let Some(versions) = self.versions.as_mut() {
            let place = &mut versions.versions[(step.unit - self.first) as usize];
            *place &= !IN_USE;
            if step.write {
                *place = if success { step.version } else { 0 };
            }
        }
    }

    /// From now on: read back every unit whose content is known, once. Only with verification, and with nothing
    /// outstanding.
    pub fn read_back(&mut self) -> ReadBack {
        ReadBack { next: 0 }
    }

    /// The next unit to read back.
    pub fn read_back_step(&mut self, position: &mut ReadBack) -> Option<Step> {
        let versions = &mut self.versions.as_mut()?.versions;
        while let Some(version) = versions.get_mut(position.next) {
            position.next += 1;
            if *version & !IN_USE != 0 {
                let step =
                    Step { write: false, unit: self.first + position.next as u64 - 1, version: *version };
                *version |= IN_USE;
                return Some(step);
            }
        }
        None
    }
}

/// How far reading back is.
#[derive(Clone, Copy, Debug)]
pub struct ReadBack {
    next: usize,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    // Without it queues could overlap, or sequential load skip or leave its range.
    #[test]
    fn sequences_stay_in_their_range() {
        let mut sequential = Workload::new(false, 100, 10, 3, 1, false);
        let units: Vec<u64> = (0..5).map(|_| sequential.step().unwrap().unit).collect();
        assert_eq!(units, [10, 11, 12, 10, 11]);
        let mut random = Workload::new(true, 50, 100, 7, 1, false);
        let mut seen = [0; 7];
        let mut writes = 0;
        for _ in 0..7000 {
            let step = random.step().unwrap();
            seen[(step.unit - 100) as usize] += 1;
            writes += u32::from(step.write);
        }
        assert!(seen.iter().all(|count| (800..1200).contains(count)), "{seen:?}");
        assert!((3200..3800).contains(&writes), "{writes}");
    }

    // Without it verification could expect a version that a concurrent write is replacing.
    #[test]
    fn verified_units_are_used_one_at_a_time() {
        let mut workload = Workload::new(true, 0, 0, 2, 1, true);
        let one = workload.step().unwrap();
        let two = workload.step().unwrap();
        assert_ne!(one.unit, two.unit);
        assert_eq!(workload.step(), None);
        workload.end(one, true);
        workload.end(two, false);
        let mut position = workload.read_back();
        let step = workload.read_back_step(&mut position).unwrap();
        assert_eq!((step.unit, step.version, step.write), (one.unit, one.version, false));
        assert_eq!(workload.read_back_step(&mut position), None, "a failed write is not read back");
    }
}
