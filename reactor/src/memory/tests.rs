//! Tests of the pool and of segments.

use std::cell::RefCell;
use std::ptr::NonNull;
use std::rc::Rc;

use proptest::prelude::*;

use super::*;

fn pool(mib: usize) -> Pool {
    Pool::ordinary(&PoolOptions { total_bytes: mib << 20 }).unwrap()
}

/// Lengths of every size class equally often.
fn length() -> impl Strategy<Value = usize> {
    (10u32..=20, any::<u16>())
        .prop_map(|(power, more)| ((1usize << power) + usize::from(more) % (1 << power)).min(1 << 20))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    // Without it two I/Os could be given the same memory, or memory could be lost with every use.
    #[test]
    fn a_byte_has_at_most_one_owner(
        steps in prop::collection::vec((length(), any::<bool>(), any::<prop::sample::Index>()), 1..400)
    ) {
        let pool = pool(4);
        let mut out: Vec<(Buffer, u8)> = Vec::new();
        let mut mark = 0u8;
        for (len, give_back, which) in steps {
            if give_back && !out.is_empty() {
                let (buffer, mark) = out.swap_remove(which.index(out.len()));
                // Whoever else had this memory would have written another mark.
                prop_assert!(buffer.iter().step_by(512).all(|byte| *byte == mark));
            } else if let Some(mut buffer) = pool.allocate(len) {
                prop_assert_eq!(buffer.len(), len);
                prop_assert!(buffer.capacity() >= len);
                prop_assert_eq!(buffer.as_ptr() as usize % 4096, 0);
                let range = |buffer: &Buffer| {
                    let start = buffer.as_ptr() as usize;
                    start..start + buffer.capacity()
                };
                let own = range(&buffer);
                for (other, _) in &out {
                    let other = range(other);
                    prop_assert!(own.end <= other.start || other.end <= own.start);
                }
                mark = mark.wrapping_add(1);
                buffer.fill(mark);
                out.push((buffer, mark));
            }
            let used: usize = out.iter().map(|(buffer, _)| buffer.capacity()).sum();
            prop_assert_eq!(pool.statistics().used_bytes, used);
            prop_assert_eq!(pool.statistics().used_buffers, out.len() as u64);
        }
        out.clear();
        // Everything is back: the whole pool serves any size again.
        for len in [4096, 1 << 20, 128 << 10] {
            let all: Vec<Buffer> = std::iter::from_fn(|| pool.allocate(len)).collect();
            prop_assert_eq!(all.len(), (4 << 20) / len);
        }
    }
}

// Without it a buffer that outlives its reactor could point to unmapped memory.
#[test]
fn a_buffer_outlives_its_pool() {
    let pool = pool(1);
    let mut buffer = pool.allocate(4096).unwrap();
    drop(pool);
    buffer.fill(9);
    assert!(buffer.iter().all(|byte| *byte == 9));
}

// Without it a device could write to memory that is no longer ours, after its reactor has ended.
#[test]
fn a_range_keeps_the_memory_of_its_pool() {
    let pool = pool(3);
    let range = pool.lasting_range();
    let mut buffer = pool.allocate(1 << 20).unwrap();
    buffer.fill(7);
    let at = NonNull::from(&buffer[0]);
    let offset = at.addr().get() - range.start().addr().get();
    assert!(offset + buffer.len() <= range.bytes() && range.bytes() == 3 << 20);
    drop((buffer, pool));
    // SAFETY: the range keeps the memory mapped, which was initialised, and nobody else has it.
    let bytes = unsafe { std::slice::from_raw_parts(range.start().as_ptr().add(offset), 1 << 20) };
    assert!(bytes.iter().all(|byte| *byte == 7));
}

// Without it lengths could grow past the memory that a buffer owns.
#[test]
fn lengths_stay_inside_the_buffer() {
    let pool = pool(1);
    assert!(pool.allocate((1 << 20) + 1).is_none());
    assert_eq!(pool.statistics().refused, 0);
    let mut buffer = pool.allocate(5000).unwrap();
    buffer.truncate(6000);
    assert_eq!(buffer.len(), 5000);
    buffer.truncate(10);
    assert_eq!(buffer.len(), 10);
    buffer.resize(usize::MAX);
    assert_eq!(buffer.len(), 8192);
    assert!(pool.allocate(1 << 20).is_none());
    assert_eq!(pool.statistics().refused, 1);
    assert!(pool.allocate(0).is_some_and(|empty| empty.is_empty()));
}

// Without it a machine without huge pages or locked memory could fail to start.
#[test]
fn the_best_memory_is_there_in_some_form() {
    let pool = Pool::new(&PoolOptions { total_bytes: 3 << 20 }).unwrap();
    assert_eq!(pool.statistics().total_bytes, 3 << 20);
    let all: Vec<Buffer> = std::iter::from_fn(|| pool.allocate(1 << 20)).collect();
    assert_eq!(all.len(), 3);
    assert!(all.iter().all(|buffer| buffer.iter().step_by(512).all(|byte| *byte == 0)));
}

struct Owner {
    memory: Vec<u8>,
    given_back: RefCell<Vec<(u64, usize)>>,
}

impl LendOwner for Owner {
    fn give_back(&self, key: u64, len: usize) {
        self.given_back.borrow_mut().push((key, len));
    }
}

fn lend(owner: &Rc<Owner>, from: usize, len: usize, key: u64) -> Lent {
    let start = NonNull::from(&owner.memory[from..from + len]).cast();
    // SAFETY: the memory is part of `owner`, which the loan keeps alive and nobody changes.
    unsafe { Lent::new(start, len, owner.clone(), key) }
}

// Without it data could land in the wrong place of an I/O, or in a device's memory.
#[test]
fn copies_cross_segments_and_stop_at_loans() {
    let pool = pool(1);
    let memory: Vec<u8> = (0..100).collect();
    let owner = Rc::new(Owner { memory, given_back: RefCell::default() });
    let mut segments = Segments::from(pool.allocate(10).unwrap());
    segments.push(pool.allocate(5).unwrap()).unwrap();
    segments.push(lend(&owner, 40, 20, 77)).unwrap();
    assert_eq!((segments.count(), segments.len_bytes()), (3, 35));

    // From the middle of the first into the second, and no further than the loan.
    assert_eq!(segments.copy_from(8, &[1, 2, 3, 4]), 4);
    assert_eq!(segments.copy_from(14, &[9; 10]), 1);
    assert_eq!(segments.copy_from(35, &[9]), 0);
    let mut bytes = [0; 12];
    assert_eq!(segments.copy_to(8, &mut bytes[..4]), 4);
    assert_eq!(bytes[..4], [1, 2, 3, 4]);
    assert_eq!(segments.copy_to(14, &mut bytes[..3]), 3);
    assert_eq!(bytes[..3], [9, 40, 41]);
    assert_eq!(segments.copy_to(30, &mut bytes), 5);
    assert_eq!(bytes[..5], [55, 56, 57, 58, 59]);

    segments.push(pool.allocate(1).unwrap()).unwrap();
    let Full(refused) = segments.push(lend(&owner, 0, 1, 78)).unwrap_err();
    drop(refused);
    assert_eq!(*owner.given_back.borrow(), [(78, 1)]);
    assert!(segments.pop().is_some_and(|last| last.len() == 1));
    drop(segments);
    assert_eq!(*owner.given_back.borrow(), [(78, 1), (77, 20)]);
}
