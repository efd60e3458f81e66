//! The simulated schedule under programs: virtual time, messages between reactors, crashes of tasks, and the
//! bounds that end a run.
#![allow(clippy::unwrap_used)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use sledge_reactor::sim::{Simulation, SimulationConfig, Stalled, for_seeds};
use sledge_reactor::{
    PollerHandle, ReactorGone, Turn, current, now, peers, precise_now, random_u64, register_poller, sleep,
    spawn_local, yield_now,
};

// Without this, tests of hours (keep-alive, leases) would take hours.
#[test]
fn an_hour_takes_milliseconds() {
    let started = std::time::Instant::now();
    let mut simulation = Simulation::new(1);
    let node = simulation.add_node("node", 1);
    let passed = simulation
        .block_on(node, || async {
            let before = now();
            for _ in 0..360 {
                sleep(Duration::from_secs(10)).await;
            }
            now() - before
        })
        .unwrap();
    assert!(passed >= Duration::from_secs(3600) && passed < Duration::from_secs(3601), "{passed:?}");
    assert!(started.elapsed() < Duration::from_secs(300));
}

// Without this, the simulator would run reactors in one order only and find no race.
#[test]
fn the_seed_decides_who_runs_first() {
    let mut orders = BTreeSet::new();
    for seed in 0..60 {
        let mut simulation = Simulation::new(seed);
        let order = Rc::new(RefCell::new(Vec::new()));
        let node = simulation.add_node("node", 3);
        for reactor in 0..3 {
            let order = order.clone();
            simulation.spawn_on(node, reactor, || async move { order.borrow_mut().push(reactor) });
        }
        simulation.run_for(Duration::from_millis(1));
        orders.insert(order.borrow().clone());
    }
    assert_eq!(orders.len(), 6, "{orders:?}");
}

// Without this, messages between reactors could be lost, or their result never arrive.
#[test]
fn messages_and_their_results_cross_reactors_and_nodes() {
    for_seeds(50, |seed| {
        let mut simulation = Simulation::new(seed);
        let (a, b) = (simulation.add_node("a", 2), simulation.add_node("b", 2));
        let elsewhere = simulation.handle(b, 1);
        let sum = simulation.block_on(a, || async move {
            let mut sum = 0;
            for handle in peers() {
                sum += handle.spawn(|| async { current().id() + 1 }).await.unwrap();
            }
            let far = elsewhere.spawn(|| async {
                sleep(Duration::from_millis(5)).await;
                current().id()
            });
            sum * 10 + far.await.unwrap()
        });
        assert_eq!(sum, Ok(31));
    });
}

// Without this, a message to a crashed node would be awaited for ever, and tasks could outlive their node.
#[test]
fn a_crash_drops_tasks_and_answers_gone() {
    struct Tells(Rc<Cell<u32>>);
    impl Drop for Tells {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    let mut simulation = Simulation::new(5);
    let (a, b) = (simulation.add_node("a", 1), simulation.add_node("b", 2));
    let drops = Rc::new(Cell::new(0));
    for reactor in 0..2 {
        let tells = Tells(drops.clone());
        simulation.spawn_on(b, reactor, || async move {
            sleep(Duration::from_secs(3600)).await;
            drop(tells);
        });
    }
    let old = simulation.handle(b, 0);
    let waiting = old.spawn(|| async { sleep(Duration::from_secs(60)).await });
    simulation.run_for(Duration::from_millis(1));
    simulation.crash(b);
    assert_eq!(drops.get(), 2);
    assert_eq!(simulation.block_on(a, || waiting), Ok(Err(ReactorGone)));
    assert!(old.is_gone());
    let down = simulation.block_on(b, || async {});
    assert_eq!(down, Err(Stalled::NodeDown { seed: 5, node: "b".into() }));
    simulation.restart(b);
    assert!(!simulation.handle(b, 0).is_gone());
    assert_eq!(simulation.block_on(b, || async { current().id() }), Ok(0));
}

// Without this, a lost wake-up would hang a test instead of failing it with its seed.
#[test]
fn a_world_that_cannot_go_on_says_so_with_its_seed() {
    let mut simulation = Simulation::new(77);
    let node = simulation.add_node("node", 1);
    let stalled = simulation.block_on(node, std::future::pending::<()>).unwrap_err();
    assert!(matches!(stalled, Stalled::Deadlock { seed: 77, .. }), "{stalled:?}");
    assert!(stalled.to_string().contains("SLEDGE_SEED=77"), "{stalled}");

    let config = SimulationConfig { max_steps: 1_000, ..SimulationConfig::default() };
    let mut simulation = Simulation::with_config(78, config);
    let node = simulation.add_node("node", 1);
    let forever = || async {
        loop {
            yield_now().await;
        }
    };
    let stalled = simulation.block_on(node, forever).unwrap_err();
    assert!(matches!(stalled, Stalled::TooManySteps { seed: 78, steps: 1_000, .. }), "{stalled:?}");

    let config = SimulationConfig { max_time: Duration::from_secs(60), ..SimulationConfig::default() };
    let mut simulation = Simulation::with_config(79, config);
    let node = simulation.add_node("node", 1);
    simulation.spawn(node, || async {
        loop {
            sleep(Duration::from_secs(1)).await;
        }
    });
    let stalled = simulation.block_on(node, std::future::pending::<()>).unwrap_err();
    assert!(matches!(stalled, Stalled::TooLong { seed: 79, .. }), "{stalled:?}");
}

// Without this, a poller that must not sleep would stop, or make a minute of waiting take a minute.
#[test]
fn keep_polling_goes_on_without_stopping_the_clock() {
    struct Waits(Rc<Cell<u64>>);
    impl sledge_reactor::Poller for Waits {
        fn name(&self) -> &'static str {
            "waits"
        }
        fn poll(&mut self) -> Turn {
            self.0.set(self.0.get() + 1);
            Turn::KeepPolling
        }
    }
    let mut simulation = Simulation::new(6);
    let node = simulation.add_node("node", 1);
    let polls = Rc::new(Cell::new(0));
    let counter = polls.clone();
    let kept: Rc<RefCell<Option<PollerHandle>>> = Rc::default();
    let keep = kept.clone();
    simulation.spawn(node, || async move { *keep.borrow_mut() = Some(register_poller(Waits(counter))) });
    simulation.run_for(Duration::from_secs(1));
    let polled = polls.get();
    assert!((5_000..50_000).contains(&polled), "{polled} polls in a second");
    kept.borrow_mut().take();
    simulation.run_for(Duration::from_secs(1));
    assert!(polls.get() <= polled + 1);
}

// Without this, randomness above the simulator would make seeds worthless.
#[test]
fn random_numbers_come_from_the_seed_and_differ_by_reactor() {
    let draw = |seed, reactor| {
        let mut simulation = Simulation::new(seed);
        let node = simulation.add_node("node", 2);
        simulation.block_on_reactor(node, reactor, || async { (random_u64(), random_u64()) }).unwrap()
    };
    assert_eq!(draw(1, 0), draw(1, 0));
    assert_ne!(draw(1, 0), draw(1, 1));
    assert_ne!(draw(1, 0), draw(2, 0));
    assert_ne!(draw(1, 0).0, draw(1, 0).1);
}

// Without this, time could stand still within a run of turns, or run on within a turn.
#[test]
fn time_passes_between_turns_only() {
    let mut simulation = Simulation::new(8);
    let node = simulation.add_node("node", 1);
    simulation
        .block_on(node, || async {
            let (first, precise) = (now(), precise_now());
            assert_eq!(first, precise);
            let task = spawn_local(async { now() });
            yield_now().await;
            assert!(now() > first);
            assert!(task.await > first);
        })
        .unwrap();
}

// Without this, a failing seed would have to be searched for again by hand.
#[test]
fn a_failing_seed_stops_the_run() {
    if std::env::var_os("SLEDGE_SEED").is_some() || std::env::var_os("SLEDGE_SEEDS").is_some() {
        return;
    }
    let mut ran = Vec::new();
    let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for_seeds(10, |seed| {
            ran.push(seed);
            assert!(seed < 3, "this failure is meant");
        });
    }));
    assert!(failed.is_err());
    assert_eq!(ran, [0, 1, 2, 3]);
}
