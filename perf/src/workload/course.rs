//! A way through the range with holes, runs or zones, or with a place of its own for each direction, as fio has it.
//!
//! All is counted in blocks from the start of the range. Invariant: every I/O lies within the range, whatever its size,
//! as long as the range holds the largest. Where fio would end a job at the end of its file, this goes on from the start,
//! as it does when it is told to run for a time.

use super::Kind;
use super::offsets::Offsets;
use super::random::Random;
use crate::job::Walk;

/// Where a job is on its way.
#[derive(Clone, Debug)]
pub struct Course {
    /// Blocks of the range.
    range: u64,
    stride: i64,
    run: u32,
    /// I/Os until a random place is due.
    left: u32,
    again: bool,
    zones: Option<Zones>,
    /// The random places of a zone, or of all, and which share of those that are due are taken, out of 2^32.
    random: Option<(Box<Offsets>, u64)>,
    /// Where the zone starts.
    first: u64,
    /// Where the last I/O of each direction started and ended; the start of the zone without any.
    last: [(u64, u64); 3],
}

/// Zones in blocks.
#[derive(Clone, Copy, Debug)]
struct Zones {
    size: u64,
    range: u64,
    skip: u64,
    /// What was moved in this zone.
    moved: u64,
}

impl Course {
    /// A way through `range` blocks of `block_bytes` bytes. What `random` gives is a number of grains from the start of
    /// the zone, or of the range.
    pub fn new(walk: &Walk, range: u64, block_bytes: u32, random: Option<(Offsets, u64)>) -> Self {
        let block_bytes = u64::from(block_bytes);
        let zones = walk.zones.map(|zones| Zones {
            size: (zones.size / block_bytes).max(1),
            range: (zones.range / block_bytes).max(1),
            skip: zones.skip / block_bytes,
            moved: 0,
        });
        Self {
            range,
            stride: walk.stride / block_bytes as i64,
            run: walk.run.max(1),
            left: 1,
            again: walk.again,
            zones,
            random: random.map(|(places, share)| (Box::new(places), share)),
            first: 0,
            last: [(0, 0); 3],
        }
    }

    /// Where an I/O of `blocks` blocks starts.
    pub fn next(&mut self, random: &mut Random, kind: Kind, blocks: u32, grain: u64) -> u64 {
        let direction = match kind {
            Kind::Read => 0,
            Kind::Write | Kind::Zeroes | Kind::Flush => 1,
            Kind::Trim => 2,
        };
        self.enter_zone(direction);
        let at = match self.drawn(random, grain) {
            Some(place) => place,
            None if self.again && self.random.is_some() => self.last[direction].0,
            None => self.behind(direction, blocks, random, grain),
        };
        let at = if at + u64::from(blocks) > self.range { self.restart() } else { at };
        self.last[direction] = (at, at + u64::from(blocks));
        if let Some(zones) = self.zones.as_mut() {
            zones.moved += u64::from(blocks);
        }
        at
    }

    /// The next zone, when enough was moved in this one; or its start again, when its end is reached.
    fn enter_zone(&mut self, direction: usize) {
        let Some(zones) = self.zones.as_mut() else { return };
        if zones.moved >= zones.size {
            zones.moved = 0;
            self.first += zones.range + zones.skip;
            if self.first >= self.range {
                self.first = 0;
            }
        }
        if zones.moved.is_multiple_of(zones.range) {
            self.last = [(self.first, self.first); 3];
        } else if self.last[direction].1 >= self.first + zones.range {
            self.last[direction].1 = self.first;
        }
    }

    /// A random place, when one is due.
    fn drawn(&mut self, random: &mut Random, grain: u64) -> Option<u64> {
        let (places, share) = self.random.as_ref()?;
        self.left -= 1;
        if self.left > 0 {
            return None;
        }
        self.left = self.run;
        let is_taken = *share == 1 << 32 || (random.draw() >> 32) < *share;
        is_taken.then(|| self.first + places.draw(random) * grain)
    }

    /// Behind the last I/O of this direction, or before it; a random place where a run comes to the end.
    fn behind(&mut self, direction: usize, blocks: u32, random: &mut Random, grain: u64) -> u64 {
        let from_first = self.last[direction].1 - self.first;
        if from_first == 0 {
            return self.first;
        }
        let (next, range) = (from_first as i64 + self.stride, self.range as i64);
        let next = match self.stride {
            0 => next,
            _ if (0..range).contains(&next) => next,
            // Over the end it goes on at the start, and the other way round.
            stride if stride < 0 => range + stride,
            _ => 0,
        };
        let at = self.first + next as u64;
        match &self.random {
            Some((places, _)) if at + u64::from(blocks) > self.range => {
                self.first + places.draw(random) * grain
            }
            _ => at,
        }
    }

    /// An I/O would reach over the end of the range: all begins again.
    fn restart(&mut self) -> u64 {
        self.first = 0;
        self.last = [(0, 0); 3];
        if let Some(zones) = self.zones.as_mut() {
            zones.moved = 0;
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::ZoneWalk;

    /// The first `count` places, in blocks of 4 KiB, of I/Os of one block each in a range of `range` of them.
    fn places(walk: Walk, range: u64, count: usize) -> Vec<u64> {
        let mut course = Course::new(&walk, range, 4096, None);
        let mut random = Random::new(1);
        (0..count).map(|_| course.next(&mut random, Kind::Read, 1, 1)).collect()
    }

    fn zones(size: u64, range: u64, skip: u64) -> Walk {
        let [size, range, skip] = [size, range, skip].map(|blocks| blocks * 4096);
        Walk { zones: Some(ZoneWalk { size, range, skip }), ..Walk::default() }
    }

    // The places are those of fio 3.33, as its iologs have them. Without it a stride could be another one than that of
    // fio, and a comparison of both compare different loads.
    #[test]
    fn holes_are_those_of_fio() {
        let walk = |stride: i64| Walk { stride: stride * 4096, ..Walk::default() };
        assert_eq!(places(walk(2), 10, 6), [0, 3, 6, 9, 0, 3]);
        assert_eq!(places(walk(-2), 8, 9), [0, 6, 5, 4, 3, 2, 1, 0, 6]);
    }

    // Likewise of zones.
    #[test]
    fn zones_are_those_of_fio() {
        assert_eq!(places(zones(2, 4, 1), 13, 8), [0, 1, 5, 6, 10, 11, 0, 1]);
        // More is moved in a zone than it has: it is gone through again.
        assert_eq!(places(zones(5, 3, 1), 8, 12), [0, 1, 2, 0, 1, 4, 5, 6, 4, 5, 0, 1]);
    }

    // Without it an I/O could reach over the end of the range, into what belongs to another lane.
    #[test]
    fn nothing_reaches_over_the_end() {
        let mut random = Random::new(9);
        let uniform = || Some((Offsets::uniform(64), 1 << 31));
        for (walk, with) in [
            (Walk { stride: 7 * 512, ..Walk::default() }, None),
            (Walk { stride: -9 * 512, ..Walk::default() }, None),
            (Walk { run: 5, ..Walk::default() }, uniform()),
            (Walk { run: 5, again: true, ..Walk::default() }, uniform()),
            (zones(3, 1, 2), uniform()),
            (Walk { stride: 512, ..zones(3, 1, 2) }, None),
        ] {
            let mut course = Course::new(&walk, 100, 512, with);
            for number in 0..10_000 {
                let (kind, blocks) = if number % 3 == 0 { (Kind::Read, 16) } else { (Kind::Write, 3) };
                let at = course.next(&mut random, kind, blocks, 1);
                assert!(at + u64::from(blocks) <= 100, "{walk:?}: {at} {blocks}");
            }
        }
    }

    // Without it a run could be shorter or longer than was asked for, or not go on behind one another.
    #[test]
    fn runs_have_their_length() {
        for again in [false, true] {
            let walk = Walk { run: 4, again, ..Walk::default() };
            let mut course = Course::new(&walk, 1 << 40, 512, Some((Offsets::uniform(1 << 39), 1 << 32)));
            let mut random = Random::new(3);
            let places: Vec<u64> = (0..400).map(|_| course.next(&mut random, Kind::Read, 8, 1)).collect();
            let step = if again { 0 } else { 8 };
            for run in places.chunks(4) {
                assert!(run.windows(2).all(|pair| pair[1] == pair[0] + step), "{run:?}");
            }
            assert!(places.chunks(4).zip(places[4..].chunks(4)).all(|(one, next)| one[3] + step != next[0]));
        }
    }

    // Without it the reads and writes of a sequential mix would share their places, and leave half of the range out each.
    #[test]
    fn each_direction_goes_its_own_way() {
        let mut course = Course::new(&Walk::default(), 4, 512, None);
        let mut random = Random::new(1);
        let mut next = |kind| course.next(&mut random, kind, 1, 1);
        assert_eq!([next(Kind::Read), next(Kind::Read), next(Kind::Write), next(Kind::Read)], [0, 1, 0, 2]);
        assert_eq!([next(Kind::Write), next(Kind::Read)], [1, 3]);
    }
}
