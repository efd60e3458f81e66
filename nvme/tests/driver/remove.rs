//! Devices that go away, with or without a word, and come back.

use std::time::Duration;

use sledge_nvme::driver::{ControllerEvent, DriverError, State};
use sledge_nvme::function::Presence;
use sledge_nvme::model::{Model, ModelOptions};
use sledge_reactor::time::sleep;

use crate::load::Tally;
use crate::rig::{Rig, listen, options, write};

// Deleting this lets commands be lost or answered twice when a device is pulled and put back under load, or the driver
// hold on to the function that is gone.
#[test]
fn commands_wait_for_a_device_that_was_pulled() {
    for seed in 0..16 {
        // Some reactors submit through others.
        let kind = ModelOptions { max_io_queues: 1 + seed as u16 % 4, ..ModelOptions::default() };
        let mut rig = Rig::new(seed, 3, kind);
        let controller = rig.attach(options()).unwrap();
        let heard = listen(&controller);
        let tally = Tally::start(&mut rig, &controller);
        for _ in 0..2 {
            rig.run_for(3 + seed % 5);
            rig.model.remove();
            if seed % 3 == 0 {
                // Only the registers say so.
                rig.model.set_presence(Presence::Present);
            }
            rig.run_for(200);
            assert_eq!(controller.state(), State::Removed, "seed {seed}");
            rig.assert_nothing_mapped();
            rig.model.insert();
            let (user, model) = (controller.clone(), rig.model.clone());
            rig.run(move || async move { user.replace(model).await.unwrap() });
            assert_eq!(controller.state(), State::Live);
        }
        rig.run_for(5);
        tally.finish(&mut rig);
        assert_eq!(tally.failed(), 0, "seed {seed}");
        let counts = controller.statistics();
        assert_eq!((counts.removals, counts.returns), (2, 2));
        let turns = [ControllerEvent::Removed, ControllerEvent::Returned];
        assert_eq!(*heard.lock().unwrap(), [turns, turns].concat(), "seed {seed}");
        let user = controller.clone();
        rig.run(move || async move { user.detach().await.unwrap() });
        rig.assert_clean();
        rig.assert_nothing_mapped();
    }
}

// Deleting this lets commands wait for ever for a device that does not return, or not be served when it does later.
#[test]
fn waiting_for_a_device_ends() {
    let mut rig = Rig::new(1, 2, ModelOptions::default());
    let controller = rig.attach(options()).unwrap();
    let heard = listen(&controller);
    let tally = Tally::start(&mut rig, &controller);
    rig.run_for(3);
    rig.model.remove();
    rig.run_for(500);
    assert_eq!((controller.state(), tally.failed()), (State::Removed, 0));
    rig.run_for(1000);
    assert!(tally.failed() > 0);
    tally.finish(&mut rig);
    assert_eq!(*heard.lock().unwrap(), [ControllerEvent::Removed, ControllerEvent::Failed]);
    rig.model.insert();
    let (user, model) = (controller.clone(), rig.model.clone());
    rig.run(move || async move {
        user.replace(model).await.unwrap();
        assert!(write(&user, 0, 1).await.is_success());
    });
    rig.assert_clean();
}

// Deleting this lets another drive in the same slot be written to as if it were the one that was there.
#[test]
fn another_device_does_not_take_the_place() {
    let mut rig = Rig::new(1, 1, ModelOptions::default());
    let controller = rig.attach(options()).unwrap();
    let (user, model) = (controller.clone(), rig.model.clone());
    rig.run(move || async move {
        assert!(matches!(user.replace(model).await, Err(DriverError::NotReady(State::Live))));
    });
    rig.model.remove();
    rig.run_for(200);
    let other = Model::new(ModelOptions { serial: "OTHER".into(), ..ModelOptions::default() });
    let (user, stranger) = (controller.clone(), other.clone());
    rig.run(move || async move {
        let error = user.replace(stranger).await.unwrap_err();
        assert!(matches!(error, DriverError::AnotherController { .. }), "{error}");
    });
    assert_eq!(controller.state(), State::Failed);
    assert!(other.faults().is_empty() && other.violations().is_empty());
    rig.model.insert();
    let (user, model) = (controller.clone(), rig.model.clone());
    rig.run(move || async move {
        user.replace(model).await.unwrap();
        assert!(write(&user, 0, 1).await.is_success());
    });
    assert_eq!(other.mapped_bytes(), 0);
    rig.assert_clean();
}

// Deleting this lets a device that the system asks for be pulled while it is in use, or the system wait for it.
#[test]
fn a_device_that_is_asked_for_is_shut_down_and_let_go_of() {
    let mut rig = Rig::new(1, 2, ModelOptions::default());
    let controller = rig.attach(options()).unwrap();
    let tally = Tally::start(&mut rig, &controller);
    rig.run_for(5);
    rig.model.set_presence(Presence::Leaving);
    rig.run_for(500);
    assert_eq!((controller.state(), rig.model.statistics().shutdowns), (State::Removed, 1));
    rig.assert_nothing_mapped();
    rig.model.set_presence(Presence::Present);
    let (user, model) = (controller.clone(), rig.model.clone());
    rig.run(move || async move { user.replace(model).await.unwrap() });
    tally.finish(&mut rig);
    assert_eq!(tally.failed(), 0);
    rig.assert_clean();
}

// Deleting this lets a device be brought up, reset and removed at the same time and end in no state at all.
#[test]
fn whatever_comes_together_ends_settled() {
    for seed in 0..32 {
        let kind = ModelOptions { max_io_queues: 1 + seed as u16 / 16, ..ModelOptions::default() };
        let mut rig = Rig::new(seed, 2, kind);
        let controller = rig.attach(options()).unwrap();
        let tally = Tally::start(&mut rig, &controller);
        rig.run_for(1 + seed % 3);
        let (user, model) = (controller.clone(), rig.model.clone());
        rig.run(move || async move {
            let resetter = user.clone();
            let reset = sledge_reactor::task::spawn_local(async move { resetter.reset().await });
            sleep(Duration::from_micros(seed * 20)).await;
            match seed % 4 {
                0 => model.remove(),
                1 => model.set_fatal(),
                2 => user.detach().await.unwrap(),
                _ => user.reset().await.unwrap(),
            }
            let _ = reset.await;
        });
        rig.run_for(150);
        let state = controller.state();
        match seed % 4 {
            0 => assert_eq!(state, State::Removed, "seed {seed}"),
            2 => assert_eq!(state, State::Detached, "seed {seed}"),
            _ => assert_eq!(state, State::Live, "seed {seed}"),
        }
        if state == State::Removed {
            // Until waiting ends.
            rig.run_for(1500);
        }
        tally.finish(&mut rig);
        if state != State::Detached {
            let user = controller.clone();
            rig.run(move || async move { user.detach().await.unwrap() });
            assert!(rig.run(move || async move { controller.open_channel(1).is_err() }));
        }
        rig.assert_clean();
        rig.assert_nothing_mapped();
    }
}
