//! What a reactor does by itself: turns, tasks, messages, timers.

use super::served::{Options, Served};
use super::{Case, Failure};
use crate::measure::{SECTIONS, Section, WARM_UP, sections};
use sledge_reactor::memory::PoolOptions;
use sledge_reactor::options::{CoreList, ReactorOptions, Wait};
use sledge_reactor::poller::{Poller, Turn, register_poller};
use sledge_reactor::sim::Simulation;
use sledge_reactor::time::{Instant, now, sleep, sleep_until};
use sledge_reactor::{Reactors, current, spawn_local, yield_now};
use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

/// Turns in a section.
const TURNS: u64 = 200;
/// Tasks or messages in a section: as many as one turn takes.
const MESSAGES: u64 = 256;
/// Timers in a section.
const TIMERS: u64 = 512;
/// Connections of the target that has nothing to do.
const CONNECTIONS: u16 = 16;

pub fn cases() -> [Case; 6] {
    let case = |name, operations, run| Case { name, operations, run };
    [
        case("reactor/idle-turn", TURNS, || on_reactor(idle_turns)),
        case("reactor/idle-turn-of-a-target", TURNS, || on_reactor(idle_turns_of_a_target)),
        case("reactor/task", MESSAGES, || on_reactor(tasks)),
        case("reactor/message-and-answer", MESSAGES, || on_reactor(messages)),
        case("reactor/timer-cancelled", TIMERS, || on_simulation(timers_cancelled)),
        case("reactor/timer-expired", TIMERS, || on_simulation(timers_expired)),
    ]
}

/// Runs something on a reactor of its own, which never sleeps.
pub fn on_reactor<F, Fut>(make: F) -> Result<(), Failure>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<(), Failure>> + 'static,
{
    let reactors = Reactors::start(ReactorOptions {
        cores: CoreList::floating(1),
        wait: Wait::Busy,
        pool: PoolOptions { total_bytes: 64 << 20 },
    })?;
    let result = reactors.handles()[0].spawn(make).wait_blocking()?;
    reactors.stop();
    result
}

/// Runs something in the simulator, whose clock is the same every time: what a timer costs depends on the clock.
fn on_simulation<F, Fut>(make: F) -> Result<(), Failure>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<(), Failure>> + 'static,
{
    let mut simulation = Simulation::new(1);
    let node = simulation.add_node("one", 1);
    simulation.block_on(node, make)?
}

/// Counts the turns of the warm-up, then those of the sections.
struct TurnCounter {
    turns: u64,
    section: Option<Section>,
    finished: Rc<Cell<bool>>,
}

impl Poller for TurnCounter {
    fn name(&self) -> &'static str {
        "turns"
    }

    fn poll(&mut self) -> Turn {
        if self.turns.is_multiple_of(TURNS) {
            self.section = None;
            let round = self.turns / TURNS;
            let rounds = (WARM_UP + SECTIONS) as u64;
            if (WARM_UP as u64..rounds).contains(&round) {
                self.section = Some(Section::begin());
            }
            self.finished.set(round >= rounds);
        }
        self.turns += 1;
        Turn::Idle
    }
}

async fn idle_turns() -> Result<(), Failure> {
    let finished = Rc::new(Cell::new(false));
    let poller = register_poller(TurnCounter { turns: 0, section: None, finished: finished.clone() });
    while !finished.get() {
        sleep(Duration::from_millis(20)).await;
    }
    drop(poller);
    Ok(())
}

async fn idle_turns_of_a_target() -> Result<(), Failure> {
    let served = Served::start(Options { queues: CONNECTIONS, ..Options::default() }).await?;
    let pairs = served.open_all().await?;
    idle_turns().await?;
    drop(pairs);
    served.stop().await
}

async fn tasks() -> Result<(), Failure> {
    let mut handles = Vec::with_capacity(MESSAGES as usize);
    for round in 0..WARM_UP + SECTIONS {
        let section = (round >= WARM_UP).then(Section::begin);
        for _ in 0..MESSAGES {
            handles.push(spawn_local(yield_now()));
        }
        for handle in handles.drain(..) {
            handle.await;
        }
        drop(section);
    }
    Ok(())
}

/// Messages of a reactor to itself: they take the same ring, wake-up and task as those between two.
async fn messages() -> Result<(), Failure> {
    let this = current();
    let mut remotes = Vec::with_capacity(MESSAGES as usize);
    for round in 0..WARM_UP + SECTIONS {
        let section = (round >= WARM_UP).then(Section::begin);
        for number in 0..MESSAGES {
            remotes.push(this.spawn(move || async move { number }));
        }
        for remote in remotes.drain(..) {
            remote.await?;
        }
        drop(section);
    }
    Ok(())
}

async fn timers_cancelled() -> Result<(), Failure> {
    let mut context = Context::from_waker(Waker::noop());
    let start = now();
    let mut late = false;
    sections(|| {
        for number in 0..TIMERS {
            // Spread as timeouts are: milliseconds to half a minute.
            let timer = pin!(sleep_until(start + Duration::from_millis(1 + number * number / 8)));
            late |= timer.poll(&mut context).is_ready();
        }
    });
    if late { Err("a timer was late".into()) } else { Ok(()) }
}

async fn timers_expired() -> Result<(), Failure> {
    let mut context = Context::from_waker(Waker::noop());
    for round in 0..WARM_UP + SECTIONS {
        // Always at the same place of the wheel.
        let start = Instant::from_nanos((1 << 34) * (1 + round as u64));
        sleep_until(start).await;
        let due = start + Duration::from_millis(100);
        let mut timers: Vec<_> = (0..TIMERS).map(|_| Box::pin(sleep_until(due))).collect();
        let section = (round >= WARM_UP).then(Section::begin);
        for timer in &mut timers {
            // Pending: the wheel holds it from now on.
            let _ = timer.as_mut().poll(&mut context);
        }
        sleep_until(due).await;
        drop(section);
        if timers.iter_mut().any(|timer| timer.as_mut().poll(&mut context).is_pending()) {
            return Err("a timer did not expire".into());
        }
    }
    Ok(())
}
