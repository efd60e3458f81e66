//! Devices that are taken out, come back, or are replaced by others.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sledge_nvme::Status;
use sledge_nvme::driver::{ControllerEvent, DriverError, State};
use sledge_nvme::function::Presence;
use sledge_nvme::io::{IoCommand, Operation};
use sledge_nvme::model::{Model, ModelOptions};
use sledge_reactor::{now, peers, sleep};

use crate::rig::{Rig, check, collect, is_io, load, on_reactors, read, run, submit, works, write};

// Deleting this lets I/O be lost, or answered twice, when a device goes and comes back under load.
#[test]
fn io_waits_for_a_device_that_returns() {
    // With a queue for each reactor, and with one for both.
    for max_io_queues in [64, 1] {
        io_waits(max_io_queues);
    }
}

fn io_waits(max_io_queues: u16) {
    on_reactors(2, move || async move {
        let rig = Rig::new(ModelOptions { max_io_queues, ..Default::default() }).await;
        let stop = Arc::new(Mutex::new(false));
        let loads: Vec<_> = (0..2)
            .map(|index| {
                let (controller, stop) = (rig.controller.clone(), stop.clone());
                peers()[index]
                    .spawn(move || load(controller, index as u64 * 100, Duration::from_micros(50), stop))
            })
            .collect();
        for _ in 0..4 {
            sleep(Duration::from_millis(2)).await;
            rig.model.remove();
            rig.until(State::Removed).await;
            assert_eq!(rig.model.mapped_bytes(), 0, "nothing is mapped for a device that is gone");
            sleep(Duration::from_secs(2)).await;
            rig.model.insert();
            rig.controller.replace(rig.model.clone()).await.unwrap();
        }
        let told = [ControllerEvent::Removed, ControllerEvent::Returned];
        assert_eq!(rig.events(), told.repeat(4));
        let statistics = rig.controller.statistics();
        assert_eq!((statistics.removals, statistics.returns), (4, 4));
        sleep(Duration::from_millis(3)).await;
        *stop.lock().unwrap() = true;
        for load in loads {
            assert!(load.await.unwrap() > 40, "I/O went on");
        }
        rig.end().await;
    });
}

// Deleting this lets I/O wait for ever for a device that does not come back.
#[test]
fn io_fails_when_a_device_stays_away() {
    on_reactors(1, || async {
        let rig = Rig::new(ModelOptions::default()).await;
        let mut channel = rig.channel();
        rig.model.hold(is_io);
        for token in 0..30 {
            submit(&mut *channel, write(token, 1, token, 1));
        }
        channel.poll(&mut Vec::new());
        let before = now();
        rig.model.remove();
        let done = collect(&mut *channel, 30).await;
        assert!(done.iter().all(|done| !done.status.is_success()));
        assert!(now() - before >= Duration::from_secs(20), "not before the removal timeout");
        assert_eq!(rig.events(), [ControllerEvent::Removed, ControllerEvent::Failed]);
        assert!(!run(&mut *channel, read(1, 0, 1)).await.status.is_success());

        rig.model.hold_none();
        rig.model.insert();
        rig.controller.replace(rig.model.clone()).await.unwrap();
        works(&mut *channel, 2).await;
        rig.end().await;
    });
}

// Deleting this lets another drive's content be taken for that of the one that was removed.
#[test]
fn another_device_is_not_taken_for_the_one_that_went() {
    on_reactors(1, || async {
        let rig = Rig::new(ModelOptions::default()).await;
        let mut channel = rig.channel();
        works(&mut *channel, 2).await;
        rig.model.remove();
        rig.until(State::Removed).await;
        let other = Model::new(ModelOptions { serial: "OTHER".into(), ..Default::default() });
        let refused = rig.controller.replace(other.clone()).await;
        assert!(matches!(refused, Err(DriverError::AnotherController { .. })), "{refused:?}");
        check(&other);
        assert_eq!(other.statistics().io_commands.len(), 0);

        rig.model.insert();
        rig.controller.replace(rig.model.clone()).await.unwrap();
        assert_eq!(other.mapped_bytes(), 0);
        let found = run(&mut *channel, read(1, 40, 8)).await;
        assert_eq!(found.status, Status::SUCCESS);
        rig.end().await;
    });
}

// Deleting this lets a device that the system asks for be pulled from under its I/O, instead of being shut down.
#[test]
fn a_device_that_is_asked_for_is_let_go_of_in_order() {
    on_reactors(1, || async {
        let rig = Rig::new(ModelOptions { volatile_write_cache: true, ..Default::default() }).await;
        let mut channel = rig.channel();
        works(&mut *channel, 2).await;
        rig.model.set_presence(Presence::Leaving);
        rig.until(State::Removed).await;
        assert_eq!(rig.model.statistics().shutdowns, 1);
        assert_eq!((rig.model.mapped_bytes(), rig.model.io_queues()), (0, vec![]));
        assert_eq!(rig.events(), [ControllerEvent::Removed]);
        submit(&mut *channel, read(1, 40, 8));
        rig.model.cycle_power();
        rig.model.insert();
        rig.controller.replace(rig.model.clone()).await.unwrap();
        assert_eq!(collect(&mut *channel, 1).await[0].status, Status::SUCCESS);
        rig.end().await;
    });
}

// Deleting this lets a host take its writes for durable that the drive lost with its power: it learns of the loss by
// the flush that it relies on, and by nothing else.
#[test]
fn a_flush_fails_when_the_cache_went_with_the_device() {
    on_reactors(1, || async {
        let rig = Rig::new(ModelOptions { volatile_write_cache: true, ..Default::default() }).await;
        let (mut before, mut waits) = (rig.channel(), rig.channel());
        let flush = |token| IoCommand::new(token, Operation::Flush, 0, 0);
        works(&mut *before, 2).await;
        rig.model.remove();
        rig.until(State::Removed).await;
        submit(&mut *waits, flush(1));
        rig.model.cycle_power();
        rig.model.insert();
        rig.controller.replace(rig.model.clone()).await.unwrap();
        let told = [collect(&mut *waits, 1).await.remove(0), run(&mut *before, flush(1)).await];
        for done in told {
            let status = done.status;
            assert!(status.is(Status::WRITE_FAULT) && status.is_do_not_retry(), "{status}");
        }
        // Each was told once.
        for channel in [&mut before, &mut waits] {
            works(&mut **channel, 3).await;
            assert_eq!(run(&mut **channel, flush(2)).await.status, Status::SUCCESS);
        }
        let mut after = rig.channel();
        assert_eq!(run(&mut *after, flush(3)).await.status, Status::SUCCESS);

        // One that was shut down took nothing with it.
        rig.model.set_presence(Presence::Leaving);
        rig.until(State::Removed).await;
        rig.model.cycle_power();
        rig.model.insert();
        rig.controller.replace(rig.model.clone()).await.unwrap();
        assert_eq!(run(&mut *before, flush(4)).await.status, Status::SUCCESS);
        rig.end().await;
    });
}

// Deleting this lets a removal during something else (a reset, an escalation, an orderly removal) get stuck or lose I/O.
#[test]
fn removal_at_any_moment_ends_removed() {
    for moment in 0..60_u64 {
        on_reactors(2, move || async move {
            let slow = sledge_nvme::model::Readiness::After(Duration::from_millis(30));
            let rig = Rig::new(ModelOptions { enabling: slow, disabling: slow, ..Default::default() }).await;
            let mut channel = rig.channel();
            rig.model.hold(is_io);
            for token in 0..20 {
                submit(&mut *channel, write(token, 1, token, 1));
            }
            channel.poll(&mut Vec::new());
            let controller = rig.controller.clone();
            let reset = sledge_reactor::spawn_local(async move { controller.reset().await });
            sleep(Duration::from_micros(moment * moment * 50)).await;
            rig.model.remove();
            rig.until(State::Removed).await;
            let _ = reset.await;
            rig.model.hold_none();
            rig.model.insert();
            rig.controller.replace(rig.model.clone()).await.unwrap();
            let done = collect(&mut *channel, 20).await;
            assert!(done.iter().all(|done| done.status.is_success()), "removed after {moment}");
            rig.end().await;
        });
    }
}
