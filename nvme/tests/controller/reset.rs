//! Resets, with I/O in flight: asked for, because of CSTS.CFS, and of controllers that do not go along.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sledge_nvme::Status;
use sledge_nvme::driver::{ControllerEvent, DriverError, State};
use sledge_nvme::model::{ModelOptions, Readiness};
use sledge_reactor::{peers, sleep, spawn_local};

use crate::rig::{Rig, check, collect, is_io, load, on_reactors, pattern, read, run, submit, works, write};

// Deleting this lets a reset lose I/O, answer it twice, or bring back old data, on one reactor or between several.
#[test]
fn io_goes_on_through_resets() {
    for (shadow_doorbells, max_io_queues, resets) in
        [(false, 64, 10), (true, 64, 10), (true, 1, 3), (false, 2, 3)]
    {
        on_reactors(3, move || async move {
            let rig = Rig::new(ModelOptions { shadow_doorbells, max_io_queues, ..Default::default() }).await;
            let stop = Arc::new(Mutex::new(false));
            let loads: Vec<_> = (0..3)
                .map(|index| {
                    let (controller, stop) = (rig.controller.clone(), stop.clone());
                    peers()[index]
                        .spawn(move || load(controller, index as u64 * 100, Duration::from_micros(50), stop))
                })
                .collect();
            for _ in 0..resets {
                sleep(Duration::from_millis(3)).await;
                rig.controller.reset().await.unwrap();
            }
            assert_eq!(rig.controller.statistics().resets, resets);
            assert_eq!(rig.events(), vec![ControllerEvent::Reset; resets as usize]);
            sleep(Duration::from_millis(3)).await;
            *stop.lock().unwrap() = true;
            for load in loads {
                assert!(load.await.unwrap() > 40, "I/O went on");
            }
            rig.end().await;
        });
    }
}

// Deleting this lets commands that the controller had at the reset be lost, or answered before they are done again.
#[test]
fn what_the_controller_had_is_done_again() {
    on_reactors(1, || async {
        let rig = Rig::new(ModelOptions::default()).await;
        let mut channel = rig.channel();
        rig.model.hold(is_io);
        for token in 0..40 {
            submit(&mut *channel, write(token, 1, token * 4, 4));
        }
        let mut done = Vec::new();
        channel.poll(&mut done);
        assert_eq!((done.len(), rig.model.held().len(), channel.outstanding()), (0, 15, 40));
        rig.model.hold_none();
        rig.controller.reset().await.unwrap();
        let done = collect(&mut *channel, 40).await;
        assert!(done.iter().all(|done| done.status.is_success()));
        let found = run(&mut *channel, read(0, 0, 160)).await;
        assert!(crate::rig::bytes_of(&found.data) == pattern(1, 0, 160));
        rig.end().await;
    });
}

// Deleting this lets a controller in its fatal state be used on, or its I/O be lost.
#[test]
fn fatal_status_resets() {
    on_reactors(1, || async {
        let rig = Rig::new(ModelOptions::default()).await;
        let mut channel = rig.channel();
        rig.model.hold(is_io);
        submit(&mut *channel, write(7, 3, 40, 8));
        channel.poll(&mut Vec::new());
        rig.model.hold_none();
        rig.model.set_fatal();
        let done = collect(&mut *channel, 1).await;
        assert_eq!((done[0].token, done[0].status), (7, Status::SUCCESS));
        let statistics = rig.controller.statistics();
        assert_eq!((statistics.resets, statistics.fatal_resets, statistics.failures), (1, 1, 0));
        assert_eq!(rig.events(), [ControllerEvent::Reset]);
        works(&mut *channel, 1).await;
        rig.end().await;
    });
}

// Deleting this lets a controller that does not come back be tried for ever, or its I/O wait for ever.
#[test]
fn a_controller_that_does_not_come_back_fails_and_can_be_tried_again() {
    on_reactors(1, || async {
        let rig = Rig::new(ModelOptions { timeout_500ms: 2, ..Default::default() }).await;
        let mut channel = rig.channel();
        rig.model.hold(is_io);
        submit(&mut *channel, write(7, 3, 40, 8));
        channel.poll(&mut Vec::new());
        rig.model.set_readiness(Readiness::Never, Readiness::AtOnce);
        rig.model.set_fatal();
        let done = collect(&mut *channel, 1).await;
        assert!(!done[0].status.is_success());
        rig.until(State::Failed).await;
        assert_eq!(rig.events(), [ControllerEvent::Failed]);
        assert!(rig.controller.last_error().is_some());
        assert_eq!(rig.model.statistics().enables, 1 + 2, "max_resets attempts");
        assert!(!run(&mut *channel, read(8, 0, 1)).await.status.is_success());
        assert!(matches!(rig.controller.reset().await, Err(DriverError::Timeout { .. })));

        rig.model.set_readiness(Readiness::AfterReads(3), Readiness::AtOnce);
        rig.model.hold_none();
        rig.controller.reset().await.unwrap();
        works(&mut *channel, 2).await;
        rig.end().await;
    });
}

// Deleting this lets a controller that stays ready keep memory that is given to others, or be left alone for ever.
#[test]
fn a_controller_that_can_not_be_disabled_is_cut_off() {
    // The function can be reset: it comes back.
    on_reactors(1, || async {
        let rig = Rig::new(ModelOptions { timeout_500ms: 2, ..Default::default() }).await;
        let mut channel = rig.channel();
        rig.model.hold(is_io);
        submit(&mut *channel, write(7, 3, 40, 8));
        channel.poll(&mut Vec::new());
        rig.model.set_readiness(Readiness::AtOnce, Readiness::Never);
        rig.model.hold_none();
        rig.controller.reset().await.unwrap();
        assert_eq!(rig.model.statistics().function_resets, 1);
        assert_eq!(rig.controller.statistics().isolations, 1);
        assert_eq!(collect(&mut *channel, 1).await[0].status, Status::SUCCESS);
        works(&mut *channel, 2).await;
        rig.model.set_readiness(Readiness::AtOnce, Readiness::AtOnce);
        rig.end().await;
    });
    // It can't: bus mastering is off, everything fails, and the memory can be given back.
    on_reactors(1, || async {
        let rig =
            Rig::new(ModelOptions { timeout_500ms: 2, function_reset: false, ..Default::default() }).await;
        let mut channel = rig.channel();
        rig.model.hold(is_io);
        submit(&mut *channel, write(7, 3, 40, 8));
        channel.poll(&mut Vec::new());
        rig.model.set_readiness(Readiness::AtOnce, Readiness::Never);
        assert!(rig.controller.reset().await.is_err());
        assert_eq!(rig.controller.state(), State::Failed);
        assert!(!collect(&mut *channel, 1).await[0].status.is_success());
        // What it does now reaches nothing.
        let before = rig.model.faults().len();
        rig.model.release_all();
        assert!(rig.model.faults().len() > before);
        rig.controller.detach().await.unwrap();
        assert_eq!(rig.model.mapped_bytes(), 0);
        assert_eq!(rig.controller.statistics().leaks, 0);
    });
}

// Deleting this lets resets that come at the same time, or a detach in the middle of one, get stuck.
#[test]
fn requests_at_once_do_not_get_stuck() {
    on_reactors(2, || async {
        let rig = Rig::new(ModelOptions { enabling: Readiness::AfterReads(20), ..Default::default() }).await;
        let resets: Vec<_> = (0..5)
            .map(|_| {
                let controller = rig.controller.clone();
                spawn_local(async move { controller.reset().await })
            })
            .collect();
        for reset in resets {
            reset.await.unwrap();
        }
        works(&mut *rig.channel(), 1).await;
        let controller = rig.controller.clone();
        let reset = spawn_local(async move { controller.reset().await });
        sleep(Duration::from_micros(300)).await;
        rig.controller.detach().await.unwrap();
        assert!(reset.await.is_err());
        check(&rig.model);
        assert_eq!(rig.model.mapped_bytes(), 0);
    });
}
