//! Tests of the timer wheel.

use std::sync::{Arc, Mutex};
use std::task::Wake;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// Notes its number when woken.
struct Note {
    number: usize,
    woken: Arc<Mutex<Vec<usize>>>,
}

impl Wake for Note {
    fn wake(self: Arc<Self>) {
        self.woken.lock().unwrap().push(self.number);
    }
}

fn waker(number: usize, woken: &Arc<Mutex<Vec<usize>>>) -> Waker {
    Waker::from(Arc::new(Note { number, woken: woken.clone() }))
}

/// A timer of the model: its deadline, its key, and whether it is still expected to fire.
struct Expected {
    deadline: Instant,
    key: TimerKey,
    armed: bool,
}

#[derive(Clone, Debug)]
enum Step {
    /// 2^.0 + .1 nanoseconds from now.
    Insert(u32, u64),
    Cancel(prop::sample::Index),
    /// Likewise.
    Advance(u32, u64),
    /// To what `next` says.
    AdvanceToNext,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u32..63, 0u64..5_000).prop_map(|(power, more)| Step::Insert(power, more)),
        1 => any::<prop::sample::Index>().prop_map(Step::Cancel),
        2 => (0u32..45, 0u64..5_000).prop_map(|(power, more)| Step::Advance(power, more)),
        2 => Just(Step::AdvanceToNext),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    // Without it a timer could fire early, late, twice, after it was cancelled, or never.
    #[test]
    fn the_wheel_fires_like_a_sorted_list(
        start in any::<u32>(),
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut now = Instant::from_nanos(u64::from(start) << 8);
        let timers = Timers::new(now);
        let woken = Arc::new(Mutex::new(Vec::new()));
        let mut model: Vec<Expected> = Vec::new();
        let tick = |instant: Instant| instant.as_nanos().div_ceil(1 << TICK_SHIFT);
        for step in steps {
            let before = now;
            match step {
                Step::Insert(power, more) => {
                    let deadline = now + Duration::from_nanos((1 << power) + more);
                    let key = timers.insert(deadline, waker(model.len(), &woken));
                    model.push(Expected { deadline, key, armed: true });
                }
                Step::Cancel(which) if !model.is_empty() => {
                    let which = which.index(model.len());
                    timers.cancel(model[which].key);
                    model[which].armed = false;
                }
                Step::Cancel(_) => {}
                Step::Advance(power, more) => now += Duration::from_nanos((1 << power) + more),
                Step::AdvanceToNext => if let Some(next) = timers.next() {
                    // At or before every deadline (to the tick), and always ahead.
                    prop_assert!(next > now);
                    let first = model.iter().filter(|timer| timer.armed).map(|timer| tick(timer.deadline)).min();
                    prop_assert!(first.is_some_and(|first| tick(next) <= first));
                    now = next;
                },
            }
            let fired = timers.advance(now);
            let mut due: Vec<usize> = (0..model.len())
                .filter(|index| model[*index].armed)
                // At the first tick at or after the deadline.
                .filter(|index| tick(model[*index].deadline) <= now.as_nanos() >> TICK_SHIFT)
                .collect();
            due.sort_by_key(|index| (tick(model[*index].deadline), *index));
            prop_assert_eq!(std::mem::take(&mut *woken.lock().unwrap()), due.clone(), "{:?} to {:?}", before, now);
            prop_assert_eq!(fired as usize, due.len());
            for index in due {
                model[index].armed = false;
            }
            prop_assert_eq!(timers.armed(), model.iter().filter(|timer| timer.armed).count());
            prop_assert_eq!(timers.next().is_some(), timers.armed() > 0);
        }
    }
}

// Without it the farthest deadline could fall off the wheel's end.
#[test]
fn the_clocks_end_is_on_the_wheel() {
    let timers = Timers::new(Instant::from_nanos(0));
    let woken = Arc::new(Mutex::new(Vec::new()));
    timers.insert(Instant::from_nanos(u64::MAX), waker(0, &woken));
    assert_eq!(timers.advance(Instant::from_nanos(u64::MAX / 2)), 0);
    assert_eq!(timers.advance(Instant::from_nanos(u64::MAX)), 1);
}

// Without it a task that moved to another waker could be woken through the old one.
#[test]
fn a_refreshed_timer_wakes_the_newer_waker() {
    let timers = Timers::new(Instant::from_nanos(0));
    let woken = Arc::new(Mutex::new(Vec::new()));
    let key = timers.insert(Instant::from_nanos(5_000), waker(1, &woken));
    assert!(timers.refresh(key, &waker(2, &woken)));
    timers.advance(Instant::from_nanos(10_000));
    assert_eq!(*woken.lock().unwrap(), [2]);
    assert!(!timers.refresh(key, &waker(3, &woken)));
    // The place is another timer's now; the old key must not touch it.
    let other = timers.insert(Instant::from_nanos(20_000), waker(4, &woken));
    timers.cancel(key);
    assert!(timers.refresh(other, &waker(4, &woken)));
}
