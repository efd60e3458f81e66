//! Resets while several reactors submit.

use std::time::Duration;

use sledge_nvme::driver::{ControllerEvent, DriverError, State};
use sledge_nvme::model::{ModelOptions, Readiness};
use sledge_reactor::random_u64;
use sledge_reactor::time::sleep;

use crate::load::Tally;
use crate::rig::{Rig, listen, options};

// Deleting this lets a reset lose a command, answer one twice, let a late completion be taken for another command, or
// memory be reused while the controller still had it: each seed interleaves the reactors' I/O with the resets otherwise.
#[test]
fn io_survives_resets() {
    for seed in 0..30 {
        let kind = ModelOptions {
            shadow_doorbells: seed % 3 == 0,
            disabling: if seed % 2 == 0 {
                Readiness::AtOnce
            } else {
                Readiness::After(Duration::from_millis(3))
            },
            enabling: if seed % 5 == 0 {
                Readiness::AtOnce
            } else {
                Readiness::After(Duration::from_millis(2))
            },
            ..ModelOptions::default()
        };
        let mut rig = Rig::new(seed, 3, kind);
        // Some completions are late: the commands are held, and are run in some other order.
        rig.model.reorder(Some(seed));
        rig.model.automatic(seed % 4 != 0);
        let stepper = rig.model.clone();
        let node = rig.node;
        rig.sim.spawn_on(node, 2, move || async move {
            loop {
                stepper.step();
                sleep(Duration::from_micros(20 + random_u64() % 300)).await;
            }
        });
        let controller = rig.attach(options()).unwrap();
        let heard = listen(&controller);
        let tally = Tally::start(&mut rig, &controller);
        let user = controller.clone();
        rig.run(move || async move {
            for _ in 0..5 {
                sleep(Duration::from_micros(random_u64() % 5000)).await;
                user.reset().await.unwrap();
            }
        });
        tally.finish(&mut rig);
        assert!(tally.done() > 100, "seed {seed}: {}", tally.done());
        assert_eq!(tally.failed(), 0, "seed {seed}");
        assert_eq!(controller.state(), State::Live);
        assert_eq!(*heard.lock().unwrap(), [ControllerEvent::Reset; 5], "seed {seed}");
        assert_eq!((controller.statistics().resets, controller.statistics().brought_up), (5, 6));
        let user = controller.clone();
        rig.run(move || async move { user.detach().await.unwrap() });
        rig.assert_clean();
        rig.assert_nothing_mapped();
    }
}

// Deleting this lets a fatal controller stay as it is, or take its users' commands with it.
#[test]
fn a_fatal_controller_is_reset() {
    for seed in 0..10 {
        let mut rig = Rig::new(seed, 2, ModelOptions::default());
        let controller = rig.attach(options()).unwrap();
        let tally = Tally::start(&mut rig, &controller);
        for _ in 0..3 {
            rig.run_for(5 + seed % 7);
            rig.model.set_fatal();
            rig.run_for(150);
            assert_eq!(controller.state(), State::Live, "seed {seed}");
        }
        tally.finish(&mut rig);
        assert_eq!((tally.failed(), controller.statistics().fatal_resets), (0, 3), "seed {seed}");
        rig.assert_clean();
    }
}

// Deleting this lets a controller that does not come back be tried for ever, or leave commands without an answer.
#[test]
fn a_controller_that_does_not_come_back_is_failed_and_may_be_reset_later() {
    let kind = ModelOptions { timeout_500ms: 1, ..ModelOptions::default() };
    let mut rig = Rig::new(1, 2, kind);
    let controller = rig.attach(options()).unwrap();
    let heard = listen(&controller);
    let tally = Tally::start(&mut rig, &controller);
    rig.run_for(5);
    rig.model.set_readiness(Readiness::Never, Readiness::AtOnce);
    let user = controller.clone();
    rig.run(move || async move {
        assert!(matches!(user.reset().await, Err(DriverError::Timeout { .. })));
    });
    assert_eq!(controller.state(), State::Failed);
    assert_eq!(controller.statistics().bring_up_failures, 3);
    rig.run_for(50);
    tally.finish(&mut rig);
    assert!(tally.failed() > 0);
    assert_eq!(*heard.lock().unwrap(), [ControllerEvent::Failed]);
    rig.assert_clean();

    rig.model.set_readiness(Readiness::AtOnce, Readiness::AtOnce);
    let user = controller.clone();
    rig.run(move || async move { user.reset().await.unwrap() });
    assert_eq!(controller.state(), State::Live);
    let tally = Tally::start(&mut rig, &controller);
    rig.run_for(5);
    tally.finish(&mut rig);
    assert_eq!(tally.failed(), 0);
    assert!(tally.done() > 0);
}

// Deleting this lets memory be given back while a controller that does not let itself be stopped may still write to it.
#[test]
fn a_controller_that_stays_ready_is_cut_off() {
    for function_reset in [true, false] {
        let kind = ModelOptions { timeout_500ms: 1, function_reset, ..ModelOptions::default() };
        let mut rig = Rig::new(1, 2, kind);
        let controller = rig.attach(options()).unwrap();
        let tally = Tally::start(&mut rig, &controller);
        rig.run_for(5);
        rig.model.set_readiness(Readiness::AtOnce, Readiness::Never);
        let user = controller.clone();
        let result = rig.run(move || async move { user.reset().await });
        assert_eq!(controller.statistics().isolations, 1);
        if function_reset {
            result.unwrap();
            assert_eq!((controller.state(), rig.model.statistics().function_resets), (State::Live, 1));
        } else {
            assert!(result.is_err());
            assert_eq!(controller.state(), State::Failed);
        }
        assert_eq!(controller.statistics().leaks, 0);
        rig.run_for(5);
        tally.finish(&mut rig);
        assert_eq!(tally.failed() > 0, !function_reset);
        let user = controller.clone();
        rig.model.set_readiness(Readiness::AtOnce, Readiness::AtOnce);
        rig.run(move || async move { user.detach().await.unwrap() });
        rig.assert_clean();
        rig.assert_nothing_mapped();
    }
}
