//! Commands that are not answered: Abort, deleting the queue, resetting the controller, failing it; and what comes late.

use std::time::Duration;

use sledge_nvme::Status;
use sledge_nvme::driver::{ControllerEvent, State};
use sledge_nvme::io::{Channel, IoCompletion};
use sledge_nvme::model::ModelOptions;
use sledge_nvme::opcode::Admin;
use sledge_reactor::{now, peers, sleep, spawn_local};

use crate::rig::{Rig, collect, is_io, on_reactors, pattern, read, run, submit, works, write};

/// Submits a write that the controller sits on.
fn stall(rig: &Rig, channel: &mut dyn Channel) {
    // Only the first: what is tried again goes through.
    let mut stalled = false;
    rig.model.hold(move |queue, command| is_io(queue, command) && !std::mem::replace(&mut stalled, true));
    submit(channel, write(7, 3, 40, 8));
    channel.poll(&mut Vec::new());
    assert_eq!(rig.model.held().len(), 1);
}

async fn succeeds_once(rig: &Rig, channel: &mut dyn Channel) {
    let done = collect(channel, 1).await;
    assert_eq!((done[0].token, done[0].status), (7, Status::SUCCESS));
    // Whatever the controller still says of it, nobody hears.
    rig.model.release_all();
    sleep(Duration::from_secs(1)).await;
    let mut more: Vec<IoCompletion> = Vec::new();
    channel.poll(&mut more);
    assert_eq!(more.len(), 0);
    let found = run(channel, read(8, 40, 8)).await;
    assert!(crate::rig::bytes_of(&found.data) == pattern(3, 40, 8));
}

// Deleting this lets a stalled command wait for ever, or more be done about it than is needed.
#[test]
fn an_overdue_command_is_aborted_and_tried_again() {
    on_reactors(1, || async {
        let rig = Rig::new(ModelOptions::default()).await;
        let mut channel = rig.channel();
        let before = now();
        stall(&rig, &mut *channel);
        succeeds_once(&rig, &mut *channel).await;
        assert!(now() - before >= Duration::from_secs(8), "not before it is overdue");
        let statistics = rig.controller.statistics();
        assert_eq!((statistics.overdue, statistics.aborts, statistics.aborted), (1, 1, 1));
        assert_eq!((statistics.queue_deletions, statistics.resets), (0, 0));
        rig.end().await;
    });
}

// Deleting this lets a controller that does not abort keep the command.
#[test]
fn a_queue_that_does_not_abort_is_deleted_and_made_again() {
    for answered in [true, false] {
        on_reactors(2, move || async move {
            let rig = Rig::new(ModelOptions { shadow_doorbells: answered, ..Default::default() }).await;
            let mut channel = rig.channel();
            if answered {
                rig.model.ignore_aborts(true);
                stall(&rig, &mut *channel);
            } else {
                stall(&rig, &mut *channel);
                let mut stalled = false;
                rig.model.hold(move |queue, command| {
                    queue == 0
                        && command.opcode == Admin::Abort.value()
                        && !std::mem::replace(&mut stalled, true)
                });
            }
            succeeds_once(&rig, &mut *channel).await;
            let statistics = rig.controller.statistics();
            assert_eq!((statistics.aborts, statistics.aborted), (1, 0));
            assert_eq!((statistics.queue_deletions, statistics.resets), (1, 0));
            works(&mut *channel, 1).await;
            rig.end().await;
        });
    }
}

// Deleting this lets a controller that answers no admin command either keep the command.
#[test]
fn a_controller_whose_queue_can_not_be_deleted_is_reset() {
    on_reactors(1, || async {
        let rig = Rig::new(ModelOptions::default()).await;
        let mut channel = rig.channel();
        stall(&rig, &mut *channel);
        // It answers nothing until it is reset.
        rig.model.hold(|queue, command| {
            let silent = [Admin::Abort.value(), Admin::DeleteIoSubmissionQueue.value()];
            queue == 0 && silent.contains(&command.opcode)
        });
        succeeds_once(&rig, &mut *channel).await;
        let statistics = rig.controller.statistics();
        assert_eq!((statistics.aborts, statistics.queue_deletions, statistics.timeout_resets), (1, 1, 1));
        assert_eq!((statistics.resets, statistics.failures), (1, 0));
        assert_eq!(rig.events(), [ControllerEvent::Reset]);
        rig.model.hold_none();
        rig.end().await;
    });
}

// Deleting this lets a controller that never works again be reset for ever while its I/O waits.
#[test]
fn a_controller_that_resets_do_not_help_is_failed() {
    on_reactors(1, || async {
        let rig = Rig::new(ModelOptions::default()).await;
        let mut channel = rig.channel();
        rig.model.hold(|queue, command| {
            let silent = [Admin::Abort.value(), Admin::DeleteIoSubmissionQueue.value()];
            queue != 0 || silent.contains(&command.opcode)
        });
        for token in 0..30 {
            submit(&mut *channel, write(token, 1, token * 8, 8));
        }
        let done = collect(&mut *channel, 30).await;
        assert!(done.iter().all(|done| !done.status.is_success()));
        rig.until(State::Failed).await;
        let statistics = rig.controller.statistics();
        assert!(statistics.timeout_resets == 2 && statistics.failures == 1, "{statistics:?}");
        assert_eq!(rig.events().last(), Some(&ControllerEvent::Failed));
        assert!(!run(&mut *channel, read(1, 0, 1)).await.status.is_success());
        rig.model.hold_none();
        rig.controller.reset().await.unwrap();
        works(&mut *channel, 1).await;
        rig.end().await;
    });
}

// Deleting this lets a command that completes while it is being aborted be answered twice, or be done again after its
// submitter has heard of it.
#[test]
fn a_command_that_completes_while_it_is_aborted_is_answered_once() {
    for aborted_first in [false, true] {
        on_reactors(1, move || async move {
            let rig = Rig::new(ModelOptions::default()).await;
            let mut channel = rig.channel();
            let mut stalled = false;
            rig.model.hold(move |queue, command| {
                let abort = queue == 0 && command.opcode == Admin::Abort.value();
                abort || is_io(queue, command) && !std::mem::replace(&mut stalled, true)
            });
            submit(&mut *channel, write(7, 3, 40, 8));
            channel.poll(&mut Vec::new());
            let model = rig.model.clone();
            let race = spawn_local(async move {
                while model.held().len() < 2 {
                    sleep(Duration::from_millis(5)).await;
                }
                // The command is the first of the two, and Abort the second.
                model.release(usize::from(aborted_first));
                sleep(Duration::from_millis(20)).await;
                model.release_all();
            });
            succeeds_once(&rig, &mut *channel).await;
            race.await;
            let statistics = rig.controller.statistics();
            assert_eq!((statistics.aborts, statistics.aborted), (1, u64::from(aborted_first)));
            assert_eq!((statistics.queue_deletions, statistics.resets), (0, 0));
            rig.end().await;
        });
    }
}

// Deleting this lets completions that nobody waits for end I/O that goes on.
#[test]
fn completions_of_nobody_change_nothing() {
    on_reactors(1, || async {
        let rig = Rig::new(ModelOptions::default()).await;
        let mut channel = rig.channel();
        rig.model.duplicate(1000);
        for tag in 0..60 {
            works(&mut *channel, tag).await;
            rig.model.inject_completion(1, 0x0fff, Status::WRITE_FAULT);
        }
        rig.model.duplicate(0);
        rig.end().await;
    });
}

// Deleting this lets a failure that passes reach the host, or one that does not be tried for ever.
#[test]
fn failures_are_tried_again_or_told() {
    on_reactors(1, || async {
        let rig = Rig::new(ModelOptions::default()).await;
        let mut channel = rig.channel();
        rig.model.fail(3, Status::NAMESPACE_NOT_READY, is_io);
        works(&mut *channel, 1).await;
        for status in [Status::UNRECOVERED_READ_ERROR, Status::NAMESPACE_NOT_READY.do_not_retry()] {
            rig.model.fail(1, status, is_io);
            assert_eq!(run(&mut *channel, read(1, 0, 1)).await.status, status);
        }
        rig.model.fail(100, Status::NAMESPACE_NOT_READY, is_io);
        let status = run(&mut *channel, read(1, 0, 1)).await.status;
        assert!(status.is(Status::NAMESPACE_NOT_READY));
        rig.model.fail_none();
        works(&mut *channel, 2).await;
        rig.end().await;
    });
}

// Deleting this lets a stalled command of a reactor that has no queue of its own wait for ever, or be answered to the
// reactor whose queue it is.
#[test]
fn borrowed_queues_are_watched_too() {
    on_reactors(3, || async {
        let rig = Rig::new(ModelOptions { max_io_queues: 1, ..Default::default() }).await;
        assert_eq!(rig.model.io_queues(), [1]);
        let mut stalled = 0;
        rig.model.ignore_aborts(true);
        rig.model.hold(move |queue, command| {
            stalled += u32::from(is_io(queue, command));
            is_io(queue, command) && stalled <= 3
        });
        let writes: Vec<_> = peers()
            .into_iter()
            .zip(0..)
            .map(|(peer, index)| {
                let controller = rig.controller.clone();
                peer.spawn(move || async move {
                    let mut channel = controller.open_channel(1).unwrap();
                    let done = run(&mut *channel, write(index, 9, index * 8, 8)).await;
                    (done.token, done.status, channel.outstanding())
                })
            })
            .collect();
        for (written, index) in writes.into_iter().zip(0..) {
            assert_eq!(written.await.unwrap(), (index, Status::SUCCESS, 0));
        }
        let found = run(&mut *rig.channel(), read(8, 0, 24)).await;
        assert!(crate::rig::bytes_of(&found.data) == pattern(9, 0, 24));
        assert_eq!(rig.controller.statistics().queue_deletions, 1);
        rig.end().await;
    });
}
