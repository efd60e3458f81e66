use std::cell::UnsafeCell;
use std::sync::Arc;

use super::*;

/// A slot of the model checker.
struct Modelled(loom::sync::atomic::AtomicU32);

impl Word for Modelled {
    fn load(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    fn replace(&self, current: u32, new: u32) -> bool {
        self.0.compare_exchange(current, new, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn clear(&self, bits: u32) {
        self.0.fetch_and(!bits, Ordering::Release);
    }

    fn decrement(&self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// A gate of the model checker, and data that only holders may touch.
struct Room {
    gate: Gate<Modelled>,
    data: loom::cell::UnsafeCell<(u32, u32)>,
}

// SAFETY: the gate under test orders all accesses to `data`; the model checker reports any that it does not.
unsafe impl Sync for Room {}
// SAFETY: as above.
unsafe impl Send for Room {}

fn room(slots: usize) -> loom::sync::Arc<Room> {
    let slots = (0..slots).map(|_| Modelled(loom::sync::atomic::AtomicU32::new(0))).collect();
    loom::sync::Arc::new(Room {
        gate: Gate { slots, hashed: false },
        data: loom::cell::UnsafeCell::new((0, 0)),
    })
}

fn enter(room: &Room, kind: Kind, pages: u64) -> Hold {
    let mut hold = Hold::new(kind, 0, pages * PAGE_BYTES);
    while !room.gate.advance(&mut hold) {
        loom::thread::yield_now();
    }
    hold
}

fn write(room: &Room, pages: u64) {
    let hold = enter(room, Kind::Exclusive, pages);
    // SAFETY: we hold the gate alone.
    room.data.with_mut(|data| unsafe {
        (*data).0 += 1;
        (*data).1 += 1;
    });
    room.gate.release(hold);
}

fn read(room: &Room, pages: u64) {
    let hold = enter(room, Kind::Share, pages);
    // SAFETY: no writer is inside while we share.
    room.data.with(|data| unsafe { assert_eq!((*data).0, (*data).1) });
    room.gate.release(hold);
}

/// Two attempts to enter, then gives up: three threads that wait for each other have no end in the model.
fn attempt_twice(room: &Room, kind: Kind) {
    let mut hold = Hold::new(kind, 0, 1);
    if room.gate.advance(&mut hold) || room.gate.advance(&mut hold) {
        match kind {
            // SAFETY: no writer is inside while we share.
            Kind::Share => room.data.with(|data| unsafe { assert_eq!((*data).0, (*data).1) }),
            // SAFETY: we hold the gate alone.
            Kind::Exclusive => room.data.with_mut(|data| unsafe {
                (*data).0 += 1;
                (*data).1 += 1;
            }),
        }
    }
    room.gate.release(hold);
}

fn model(test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(test);
}

// Deleting this lets a reader see half a write, or a memory order that is too weak.
#[test]
fn model_reader_and_writer_exclude_each_other() {
    model(|| {
        let room = room(1);
        let other = room.clone();
        let writer = loom::thread::spawn(move || write(&other, 1));
        read(&room, 1);
        writer.join().unwrap();
        assert!(room.gate.is_idle());
    });
}

// Deleting this loses the check of the marks of waiting readers and writers against each other, which takes three.
#[test]
fn model_three_with_marks() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(|| {
        let room = room(1);
        let threads: Vec<_> = [Kind::Exclusive, Kind::Share]
            .into_iter()
            .map(|kind| {
                let room = room.clone();
                loom::thread::spawn(move || attempt_twice(&room, kind))
            })
            .collect();
        attempt_twice(&room, Kind::Exclusive);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(room.gate.is_idle());
    });
}

// Deleting this lets two writers in at once, or lets a waiting writer's mark lock everybody out.
#[test]
fn model_writers_exclude_each_other_over_two_slots() {
    model(|| {
        let room = room(2);
        let other = room.clone();
        let writer = loom::thread::spawn(move || write(&other, 2));
        write(&room, 2);
        writer.join().unwrap();
        room.data.with(|data| {
            // SAFETY: the other thread is gone.
            assert_eq!(unsafe { *data }, (2, 2));
        });
        assert!(room.gate.is_idle());
    });
}

// Deleting this lets a command that gave up leave its mark behind, after which nobody enters.
#[test]
fn model_giving_up_leaves_no_mark() {
    for (kind, other_kind) in [(Kind::Exclusive, Kind::Share), (Kind::Share, Kind::Exclusive)] {
        model(move || {
            let room = room(1);
            let other = room.clone();
            let thread = loom::thread::spawn(move || {
                let mut hold = Hold::new(kind, 0, 1);
                let _ = other.gate.advance(&mut hold);
                other.gate.release(hold);
            });
            for _ in 0..2 {
                let hold = enter(&room, other_kind, 1);
                room.gate.release(hold);
            }
            thread.join().unwrap();
            assert!(room.gate.is_idle());
        });
    }
}

// Deleting this lets a stream of readers keep a writer out for ever.
#[test]
fn a_waiting_writer_is_next() {
    let gate = Gate::exact(8192);
    let mut reader = Hold::new(Kind::Share, 0, 1);
    assert!(gate.advance(&mut reader));
    let mut writer = Hold::new(Kind::Exclusive, 0, 1);
    assert!(!gate.advance(&mut writer));
    let mut late = Hold::new(Kind::Share, 0, 1);
    assert!(!gate.advance(&mut late), "a reader passed a waiting writer");
    gate.release(reader);
    assert!(!gate.advance(&mut late));
    assert!(gate.advance(&mut writer));
    // The reader has waited: it goes before any further writer.
    let mut second = Hold::new(Kind::Exclusive, 0, 1);
    assert!(!gate.advance(&mut second));
    gate.release(writer);
    assert!(!gate.advance(&mut second), "a writer passed a waiting reader");
    assert!(gate.advance(&mut late));
    assert!(!gate.advance(&mut second));
    gate.release(late);
    assert!(gate.advance(&mut second));
    gate.release(second);
    assert!(gate.is_idle());
}

// Deleting this lets a range be locked short, twice or out of order in the hashed table.
#[test]
fn hashed_ranges_cover_each_page_once_and_ascend() {
    let gate = Gate::hashed();
    let pages = [0, 1, 65_535, 65_536, 70_000, 3 * 65_536 - 1, 1 << 40];
    for first in pages {
        for count in [1, 2, 33, 8192, 65_535, 65_536, 1 << 33] {
            let hold = Hold::new(Kind::Exclusive, first * PAGE_BYTES, count * PAGE_BYTES);
            let runs = gate.runs(&hold);
            let slots: Vec<u64> = runs.slots(0).collect();
            assert!(slots.is_sorted_by(|a, b| a < b), "{first} {count}");
            assert_eq!(slots.len() as u64, runs.count());
            assert!(slots.len() as u64 <= count && slots.last().unwrap() < &65_536);
            assert_eq!(runs.slots(1).collect::<Vec<_>>(), slots[1..]);
            // Each page alone falls on one of them.
            for page in [first, first + count / 2, first + count - 1] {
                let one = Hold::new(Kind::Share, page * PAGE_BYTES, 1);
                let slot = gate.runs(&one).slots(0).next().unwrap();
                assert!(slots.binary_search(&slot).is_ok(), "{first} {count} {page}");
            }
        }
    }
}

struct Pages(Vec<UnsafeCell<[u64; 4]>>);
// SAFETY: the gate under test orders all accesses.
unsafe impl Sync for Pages {}

// Deleting this loses the check on real cores: torn pages, lost wake-ups or marks under contention of three
// threads with overlapping ranges.
#[test]
fn stress_ranges_on_real_threads() {
    const PAGES: u64 = 8;
    for gate in [Gate::exact(PAGES * PAGE_BYTES), Gate::hashed()] {
        let gate = Arc::new(gate);
        let pages = Arc::new(Pages((0..PAGES).map(|_| UnsafeCell::new([0; 4])).collect()));
        let threads: Vec<_> = (0..3u64)
            .map(|thread| {
                let (gate, pages) = (gate.clone(), pages.clone());
                std::thread::spawn(move || {
                    let mut random = thread + 1;
                    for turn in 0..4000u64 {
                        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let first = (random >> 33) % PAGES;
                        let count = 1 + (random >> 40) % (PAGES - first);
                        let kind = if random >> 63 == 0 { Kind::Share } else { Kind::Exclusive };
                        let mut hold = Hold::new(kind, first * PAGE_BYTES, count * PAGE_BYTES);
                        let mut patience = 1 + (random >> 50) % 2000;
                        while !gate.advance(&mut hold) && patience > 0 {
                            patience -= 1;
                            std::thread::yield_now();
                        }
                        if patience > 0 {
                            for page in first..first + count {
                                let page = pages.0[page as usize].get();
                                // SAFETY: we hold the page, alone if we write.
                                unsafe {
                                    assert!((*page).iter().all(|word| *word == (*page)[0]));
                                    if kind == Kind::Exclusive {
                                        (*page).iter_mut().for_each(|word| *word = turn);
                                    }
                                }
                            }
                        }
                        gate.release(hold);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(gate.is_idle());
    }
}
