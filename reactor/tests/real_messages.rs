//! Real reactors: wakes, messages, their ends, and what they count.
#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sledge_reactor::{
    CoreList, Handle, PoolOptions, ReactorGone, ReactorOptions, Reactors, StartError, Turn, Wait, current,
    now, peers, precise_now, register_poller, sleep, spawn_local, yield_now,
};

fn start(count: usize, wait: Wait) -> Reactors {
    let pool = PoolOptions { total_bytes: 4 << 20 };
    Reactors::start(ReactorOptions { cores: CoreList::floating(count), wait, pool }).unwrap()
}

const SLEEPY: Wait = Wait::Adaptive { spin: Duration::ZERO };

// Without it a lost wake-up could go unnoticed: with no spinning at all, every message meets a reactor that is
// just falling asleep, and one that is missed stops the game for good.
#[test]
fn no_message_is_missed_by_a_reactor_that_falls_asleep() {
    let reactors = start(2, SLEEPY);
    let [first, second] = reactors.handles() else { panic!("two reactors") };
    let partner = second.clone();
    let rounds = first.spawn(move || async move {
        let mut rounds = 0;
        for round in 0..20_000u64 {
            let answer = partner.spawn(move || async move { round + 1 }).await.unwrap();
            assert_eq!(answer, round + 1);
            rounds += 1;
        }
        rounds
    });
    assert_eq!(rounds.wait_blocking(), Ok(20_000));
    reactors.stop();
}

// Without it a task's waker used from another thread could lose the wake or queue the task twice.
#[test]
fn wakers_work_from_other_threads() {
    let reactors = start(2, SLEEPY);
    let handles: Vec<Handle> = reactors.handles().to_vec();
    let mut games = Vec::new();
    // Several tasks on each reactor wait for results of the other, so that wakes meet wakes.
    for _ in 0..8 {
        for (own, other) in [(0, 1), (1, 0)] {
            let other = handles[other].clone();
            games.push(handles[own].spawn(move || async move {
                let mut sum = 0;
                for round in 0..1_000u64 {
                    sum += other
                        .spawn(move || async move {
                            yield_now().await;
                            round
                        })
                        .await
                        .unwrap();
                }
                sum
            }));
        }
    }
    for game in games {
        assert_eq!(game.wait_blocking(), Ok(499_500));
    }
    reactors.stop();
}

// Without it a burst larger than the ring could lose messages or stop a sender for ever.
#[test]
fn a_full_inbox_loses_nothing() {
    let reactors = start(2, SLEEPY);
    let [first, second] = reactors.handles() else { panic!("two reactors") };
    let counted = Arc::new(AtomicU64::new(0));
    let partner = second.clone();
    let sender_count = counted.clone();
    // One task sends more than the ring holds before anybody awaits; half are awaited, half are dropped.
    let sent = first.spawn(move || async move {
        let mut kept = Vec::new();
        for number in 0..20_000 {
            let counted = sender_count.clone();
            let remote = partner.spawn(move || async move {
                counted.fetch_add(1, Ordering::Relaxed);
            });
            if number % 2 == 0 { kept.push(remote) } else { drop(remote) }
        }
        for remote in kept {
            remote.await.unwrap();
        }
    });
    assert_eq!(sent.wait_blocking(), Ok(()));
    // A last message comes after all those in the ring; those beyond it are taken when the ring is empty.
    while counted.load(Ordering::Relaxed) < 20_000 {
        second.spawn(|| async {}).wait_blocking().unwrap();
    }
    reactors.stop();
    assert_eq!(counted.load(Ordering::Relaxed), 20_000);
}

// Without it a management call to a reactor that ends could hang instead of failing.
#[test]
fn the_end_of_a_reactor_answers_everybody_and_drops_its_tasks() {
    struct Dropped(Arc<AtomicU64>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            // A drop may still use the reactor.
            let _ = current();
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let reactors = start(1, Wait::default());
    let handle = reactors.handles()[0].clone();
    let dropped = Arc::new(AtomicU64::new(0));
    let witness = dropped.clone();
    let waiting = handle.spawn(move || async move {
        let _witness = Dropped(witness);
        std::future::pending::<()>().await;
    });
    handle.spawn(|| async {}).wait_blocking().unwrap();
    reactors.stop();
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
    assert_eq!(waiting.wait_blocking(), Err(ReactorGone));
    assert!(handle.is_gone());
    assert_eq!(handle.spawn(|| async { 1 }).wait_blocking(), Err(ReactorGone));
}

// Without it a panic on a reactor could leave its callers waiting for ever.
#[test]
fn a_panic_ends_the_reactor_and_answers_its_callers() {
    let reactors = start(2, SLEEPY);
    let [first, second] = reactors.handles() else { panic!("two reactors") };
    assert_eq!(
        first.spawn(|| async { panic!("on purpose: a test of panics") }).wait_blocking(),
        Err::<(), _>(ReactorGone)
    );
    assert_eq!(second.spawn(|| async { 7 }).wait_blocking(), Ok(7));
    reactors.stop();
}

// Without it an idle target could burn a core unnoticed: an idle reactor must sleep, not turn.
#[test]
fn an_idle_reactor_hardly_turns() {
    let reactors = start(1, Wait::default());
    let handle = &reactors.handles()[0];
    let before = handle.statistics().wait_blocking().unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let after = handle.statistics().wait_blocking().unwrap();
    // A reactor that polls makes more than 100,000 turns in that time. The spinning after each message is
    // 50 µs, some hundreds of turns.
    let turns = after.turns - before.turns;
    assert!(turns < 5_000, "{turns} turns while idle");
    assert!(after.idle_ns > before.idle_ns);
    reactors.stop();
}

// Without it a sleeping reactor could miss its timers, or fire them early.
#[test]
fn timers_end_the_sleep_in_order_and_not_early() {
    let reactors = start(1, SLEEPY);
    let fired = reactors.handles()[0].spawn(|| async {
        let fired = Rc::new(std::cell::RefCell::new(Vec::new()));
        let start = now();
        let tasks: Vec<_> = [30u64, 10, 20, 0]
            .into_iter()
            .map(|delay| {
                let fired = fired.clone();
                spawn_local(async move {
                    sleep(Duration::from_millis(delay)).await;
                    assert!(precise_now() - start >= Duration::from_millis(delay));
                    fired.borrow_mut().push(delay);
                })
            })
            .collect();
        for task in tasks {
            task.await;
        }
        Rc::try_unwrap(fired).unwrap().into_inner()
    });
    assert_eq!(fired.wait_blocking(), Ok(vec![0, 10, 20, 30]));
    reactors.stop();
}

// Without it statistics could name the wrong poller or count wrongly.
#[test]
fn pollers_are_counted_and_removed_with_their_handles() {
    struct Counter(Rc<Cell<u32>>);
    impl sledge_reactor::Poller for Counter {
        fn name(&self) -> &'static str {
            "counter"
        }
        fn poll(&mut self) -> Turn {
            match self.0.get() {
                10 => Turn::Idle,
                // KeepPolling in between: it must not count as work.
                count if count % 2 == 0 => {
                    self.0.set(count + 1);
                    Turn::Worked(3)
                }
                count => {
                    self.0.set(count + 1);
                    Turn::KeepPolling
                }
            }
        }
    }
    let reactors = start(1, SLEEPY);
    let handle = &reactors.handles()[0];
    let ran = handle.spawn(|| async {
        let count = Rc::new(Cell::new(0));
        let poller = register_poller(Counter(count.clone()));
        while count.get() < 10 {
            yield_now().await;
        }
        let statistics = current().statistics().await.unwrap();
        drop(poller);
        let after = current().statistics().await.unwrap();
        (statistics, after)
    });
    let (statistics, after) = ran.wait_blocking().unwrap();
    let [counter] = &statistics.pollers[..] else { panic!("one poller: {statistics:?}") };
    assert_eq!((counter.name, counter.work), ("counter", 15));
    assert!(counter.runs >= 10);
    assert!(after.pollers.is_empty());
    assert!(statistics.turns > 0 && statistics.messages > 0 && statistics.tasks_run > 0);
    reactors.stop();
}

// Without it reactors could see each other in another order than the core list's.
#[test]
fn peers_are_all_reactors_in_order() {
    let reactors = start(3, SLEEPY);
    for handle in reactors.handles() {
        let own = handle.id();
        let seen =
            handle.spawn(|| async { (current().id(), peers().iter().map(Handle::id).collect::<Vec<_>>()) });
        assert_eq!(seen.wait_blocking(), Ok((own, vec![0, 1, 2])));
    }
    reactors.stop();
}

// Without it a busy reactor could fall asleep, or not end.
#[test]
fn a_busy_reactor_polls_on_and_ends() {
    let reactors = start(1, Wait::Busy);
    let handle = &reactors.handles()[0];
    let before = handle.statistics().wait_blocking().unwrap().turns;
    // Not a matter of time: the turns come if it never sleeps, however slowly.
    while handle.statistics().wait_blocking().unwrap().turns < before + 1_000 {}
    reactors.stop();
}

// Without it a core that is not there could be reported as something else, or leave reactors behind.
#[test]
fn a_core_that_is_not_there_is_named() {
    let cores = CoreList::parse("1023").unwrap();
    let started = Reactors::start(ReactorOptions { cores, ..ReactorOptions::default() });
    assert!(matches!(started, Err(StartError::CoreNotAvailable { core: 1023, .. })), "{started:?}");
}

// Without it an aborted task could run on, or take another task's place with it.
#[test]
fn tasks_are_joined_detached_and_aborted() {
    let reactors = start(1, SLEEPY);
    let done = reactors.handles()[0].spawn(|| async {
        let ran = Rc::new(Cell::new(0));
        let joined = spawn_local(async { 5 });
        let aborted = {
            let ran = ran.clone();
            spawn_local(async move {
                yield_now().await;
                ran.set(ran.get() + 100);
            })
        };
        let detached = ran.clone();
        drop(spawn_local(async move { detached.set(detached.get() + 1) }));
        aborted.abort();
        // Takes the place of the aborted one, whose late wake and second abort must not touch it.
        let replaced = ran.clone();
        let replacement = spawn_local(async move {
            yield_now().await;
            replaced.set(replaced.get() + 10);
        });
        aborted.abort();
        replacement.await;
        assert!(!aborted.is_finished());
        (joined.await, ran.get())
    });
    assert_eq!(done.wait_blocking(), Ok((5, 11)));
    reactors.stop();
}
