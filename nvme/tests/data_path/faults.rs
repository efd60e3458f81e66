//! What the data path does when the device does not behave, or is taken away.

use std::time::Duration;

use sledge_nvme::driver::RawIo;
use sledge_nvme::driver::io_queue::{IoQueueOptions, QueueState, Reclaim};
use sledge_nvme::io::{Channel, IoCommand, Operation, Submitted};
use sledge_nvme::model::ModelOptions;
use sledge_nvme::opcode::Nvm;
use sledge_nvme::{Command, Status};
use sledge_reactor::memory::{self, Segments};
use sledge_reactor::time::{now, sleep};
use sledge_reactor::yield_now;

use crate::rig::{Rig, bytes_of, collect, data, pattern, read, run, simulated, submit, write};

fn small() -> IoQueueOptions {
    IoQueueOptions { depth: 4, ..IoQueueOptions::default() }
}

// Deleting this lets a completion that is late, doubled or unasked be taken for another command's.
#[test]
fn completions_of_nobody_go_nowhere() {
    simulated(|| async {
        let rig = Rig::new(ModelOptions::default(), small());
        let mut channel = rig.channel(1);
        rig.model.duplicate(2);
        for token in 0..5 {
            assert_eq!(run(&mut channel, read(token, 0, 1)).await.status, Status::SUCCESS);
        }
        let late = rig.queue.statistics().queue.late;
        assert_eq!(late, 2, "each of the doubled completions");
        rig.model.hold(|queue, _| queue == 1);
        submit(&mut channel, read(9, 0, 1));
        let mut done = Vec::new();
        channel.poll(&mut done);
        let cid = rig.model.held()[0].1.cid.get();
        for other in [cid ^ 1, cid.wrapping_add(4), 0xffff, cid | 3] {
            rig.model.inject_completion(1, other, Status::SUCCESS);
            channel.poll(&mut done);
        }
        assert!(done.is_empty(), "{done:?}");
        assert_eq!(rig.queue.statistics().queue.late, late + 4);
        rig.model.release_all();
        assert_eq!(collect(&mut channel, 1).await[0].token, 9);
    });
}

// Deleting this lets a passing failure reach the host, a lasting one be tried for ever, or DNR be ignored.
#[test]
fn passing_failures_are_tried_again_a_few_times() {
    simulated(|| async {
        let delays = [Duration::from_millis(300), Duration::ZERO, Duration::ZERO];
        let options = IoQueueOptions { retry_count: 3, retry_delays: delays, ..small() };
        let rig = Rig::new(ModelOptions { mdts: 1, ..ModelOptions::default() }, options);
        let mut channel = rig.channel(1);
        let bytes = pattern(1, 64 * 512);
        let failing = |count, status| rig.model.fail(count, status, |queue, _| queue == 1);
        failing(3, Status::NAMESPACE_NOT_READY.with_retry_delay(1));
        let started = now();
        assert_eq!(run(&mut channel, write(1, 0, 64, data(&bytes, 1 << 20))).await.status, Status::SUCCESS);
        assert!(now() - started >= Duration::from_millis(300), "the device asked for a delay");
        assert!(bytes_of(&run(&mut channel, read(2, 0, 64)).await.data) == bytes);
        assert_eq!(rig.queue.statistics().retried, 3);
        failing(4, Status::COMMAND_INTERRUPTED);
        assert!(run(&mut channel, read(3, 0, 1)).await.status.is(Status::COMMAND_INTERRUPTED));
        assert_eq!(rig.queue.statistics().retried, 6, "tried three times, and then no more");
        failing(1, Status::COMMAND_INTERRUPTED.do_not_retry());
        assert!(run(&mut channel, read(4, 0, 1)).await.status.is_do_not_retry());
        failing(1, Status::UNRECOVERED_READ_ERROR);
        assert!(run(&mut channel, read(5, 0, 160)).await.status.is(Status::UNRECOVERED_READ_ERROR));
        assert_eq!((rig.queue.statistics().retried, channel.outstanding()), (6, 0));
        rig.assert_faultless();
    });
}

// Deleting this lets a channel accept without bound, or lose what it accepted when the queue is full.
#[test]
fn the_backlog_is_bounded_and_kept() {
    simulated(|| async {
        let rig = Rig::new(ModelOptions::default(), IoQueueOptions { backlog: 8, ..small() });
        let mut channel = rig.channel(1);
        rig.model.automatic(false);
        for token in 0..8 {
            submit(&mut channel, read(token, token, 1));
        }
        let Submitted::Done(refused) = channel.submit(read(8, 0, 1)) else { panic!("more than the backlog") };
        assert_eq!((refused.token, refused.status), (8, Status::COMMAND_INTERRUPTED));
        let mut done = Vec::new();
        while done.len() < 8 {
            channel.poll(&mut done);
            rig.model.step();
        }
        assert_eq!(done.iter().map(|done| done.token).collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());
        rig.assert_faultless();
    });
}

// Deleting this lets I/Os that need memory wait for ever while the pool is dry, or hold up what needs none.
#[test]
fn a_dry_pool_delays_but_does_not_stop() {
    simulated(|| async {
        let rig = Rig::new(ModelOptions::default(), small());
        let mut channel = rig.channel(1);
        let mut hoard = Vec::new();
        let written = data(&[1; 512], 1 << 20);
        while let Some(buffer) = memory::allocate(4096) {
            hoard.push(buffer);
        }
        submit(&mut channel, read(1, 0, 1));
        submit(&mut channel, read(2, 0, 1));
        // It needs no memory, so it goes on, and gives memory back that lets the oldest go on.
        let done = run(&mut channel, write(3, 0, 1, written)).await;
        assert_eq!(channel.outstanding(), 2);
        drop(done);
        let first = collect(&mut channel, 1).await;
        assert_eq!(first[0].token, 1);
        sleep(Duration::from_secs(11)).await;
        let second = collect(&mut channel, 1).await;
        assert_eq!((second[0].token, second[0].status), (2, Status::COMMAND_INTERRUPTED));
        drop((first, hoard));
        assert_eq!(run(&mut channel, read(4, 0, 1)).await.status, Status::SUCCESS);
        rig.assert_faultless();
    });
}

// Deleting this lets a reset lose commands, answer them twice, or repeat what must not be repeated.
#[test]
fn commands_outlive_a_reset_of_the_controller() {
    simulated(|| async {
        let rig = Rig::new(ModelOptions { mdts: 1, ..ModelOptions::default() }, small());
        let mut channel = rig.channel(1);
        let bytes = pattern(2, 40 * 512);
        rig.model.hold(|queue, _| queue == 1);
        submit(&mut channel, write(1, 0, 40, data(&bytes, 1 << 20)));
        submit(&mut channel, read(2, 0, 1));
        submit(&mut channel, read(3, 0, 1));
        channel.poll(&mut Vec::new());
        assert_eq!(rig.model.held().len(), 3);
        rig.disable();
        rig.model.hold_none();
        assert_eq!(rig.queue.state(), QueueState::Stopped);
        submit(&mut channel, read(4, 0, 40));
        rig.restart(Reclaim::Retry);
        let mut done = collect(&mut channel, 4).await;
        done.sort_by_key(|done| done.token);
        assert_eq!(done.iter().map(|done| done.token).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert!(done.iter().all(|done| done.status.is_success()), "{done:?}");
        assert!(bytes_of(&run(&mut channel, read(5, 0, 40)).await.data) == bytes);

        // A pair that the device may have done, and a raw command, are not done again.
        let pair = [[0; 512], [1; 512]].concat();
        let pair =
            IoCommand { data: data(&pair, 1 << 20), ..IoCommand::new(6, Operation::CompareAndWrite, 99, 1) };
        rig.model.hold(|queue, _| queue == 1);
        submit(&mut channel, pair);
        let command = Command::new(Nvm::Flush.value(), 1);
        channel.submit_raw(RawIo { token: 7, command, data: Segments::new(), metadata: Segments::new() });
        channel.poll(&mut Vec::new());
        rig.disable();
        rig.model.hold_none();
        rig.restart(Reclaim::Retry);
        let done = collect(&mut channel, 1).await;
        assert_eq!((done[0].token, done[0].status), (6, Status::ABORTED_SQ_DELETION));
        let mut raw = Vec::new();
        channel.poll_raw(&mut raw);
        assert_eq!((raw.len(), raw[0].completion.status()), (1, Status::ABORTED_SQ_DELETION));
        assert_eq!((channel.outstanding(), rig.queue.outstanding()), (0, 0));
        rig.assert_faultless();
    });
}

// Deleting this lets resets that never help be tried for ever, or I/Os hang when the controller is given up.
#[test]
fn a_controller_that_is_given_up_answers_all() {
    simulated(|| async {
        let rig = Rig::new(ModelOptions::default(), IoQueueOptions { retry_count: 1, ..small() });
        let mut channel = rig.channel(1);
        for round in 0..2 {
            rig.model.hold(|queue, _| queue == 1);
            if round == 0 {
                submit(&mut channel, read(1, 0, 1));
            }
            let mut done = Vec::new();
            channel.poll(&mut done);
            assert!(done.is_empty(), "{done:?}");
            rig.disable();
            rig.restart(Reclaim::Retry);
        }
        let done = collect(&mut channel, 1).await;
        assert_eq!((done[0].token, done[0].status), (1, Status::ABORTED_SQ_DELETION));

        for token in 0..6 {
            submit(&mut channel, read(token, 0, 1));
        }
        channel.poll(&mut Vec::new());
        rig.disable();
        rig.queue.fail(Status::INTERNAL_ERROR);
        let mut done = Vec::new();
        channel.poll(&mut done);
        assert_eq!(
            done.len(),
            3,
            "those that the device has are not answered while it may write to their memory"
        );
        rig.queue.reclaim(Reclaim::Fail(Status::INTERNAL_ERROR));
        channel.poll(&mut done);
        assert_eq!((done.len(), channel.outstanding()), (6, 0));
        assert!(done.iter().all(|done| done.status.is(Status::INTERNAL_ERROR)));
        assert!(
            matches!(channel.submit(read(9, 0, 1)), Submitted::Done(done) if done.status.is(Status::INTERNAL_ERROR))
        );
    });
}

// Deleting this lets memory be given to somebody else while the device can still write to it.
#[test]
fn memory_of_a_dropped_channel_stays_with_the_device() {
    simulated(|| async {
        let rig = Rig::new(ModelOptions::default(), small());
        let mut channel = rig.channel(1);
        let mut other = rig.channel(1);
        rig.model.hold(|queue, _| queue == 1);
        for token in 0..5 {
            submit(&mut channel, read(token, 0, 8));
        }
        channel.poll(&mut Vec::new());
        submit(&mut other, read(77, 0, 8));
        assert_eq!(rig.model.held().len(), 3);
        drop(channel);
        let held = memory::statistics().used_buffers;
        assert_eq!(held, 3, "what the device has");
        assert_eq!(rig.queue.statistics().orphans, 3);
        // The queue's own poller takes their answers; nobody else is there.
        rig.model.hold_none();
        rig.model.release_all();
        while rig.queue.statistics().orphans > 0 {
            yield_now().await;
        }
        assert_eq!(collect(&mut other, 1).await[0].token, 77);
        assert_eq!(memory::statistics().used_buffers, 0);
        rig.assert_faultless();
    });
}

// Deleting this lets memory be reused that a device writes to which nobody could stop.
#[test]
fn memory_of_a_device_that_can_not_be_stopped_is_left_behind() {
    simulated(|| async {
        let rig = Rig::new(ModelOptions::default(), small());
        let mut channel = rig.channel(1);
        rig.model.hold(|queue, _| queue == 1);
        for token in 0..5 {
            submit(&mut channel, read(token, 0, 8));
        }
        channel.poll(&mut Vec::new());
        let mapped = rig.model.mapped_bytes();
        rig.queue.leak(Status::INTERNAL_ERROR);
        let mut done = Vec::new();
        channel.poll(&mut done);
        assert_eq!(done.len(), 3);
        assert!(done.iter().all(|done| done.data.is_empty() && done.status.is(Status::INTERNAL_ERROR)));
        assert_eq!((memory::statistics().used_buffers, rig.model.mapped_bytes()), (3, mapped));
        assert_eq!(rig.queue.statistics().queue.submitted, 3, "counts outlive the queue pair");
        // What the device had nothing of waits, and goes on with another function.
        let second = Rig::new(ModelOptions::default(), small());
        drop(second);
        rig.model.release_all();
        assert_eq!(rig.model.faults(), [], "it reached only what was left to it");
        rig.queue.fail(Status::INTERNAL_ERROR);
        channel.poll(&mut done);
        assert_eq!(done.len(), 5);
    });
}

// Deleting this lets an aborted command touch the device, be answered twice, or never be asked to be aborted.
#[test]
fn aborts_take_back_what_waits_and_name_what_flies() {
    simulated(|| async {
        let rig = Rig::new(ModelOptions::default(), small());
        let mut channel = rig.channel(1);
        rig.model.hold(|queue, _| queue == 1);
        for token in 0..5 {
            submit(&mut channel, read(token, 0, 1));
        }
        let mut done = Vec::new();
        channel.poll(&mut done);
        assert!(channel.abort(4), "it waits");
        assert!(!channel.abort(4) && !channel.abort(99));
        assert!(!channel.abort(1), "the device has it");
        channel.poll(&mut done);
        assert_eq!((done.len(), done[0].token, done[0].status), (1, 4, Status::ABORTED_BY_REQUEST));
        let before = now();
        let cid = rig.queue.abort_candidate(before).unwrap();
        assert_eq!(rig.queue.abort_candidate(before), None, "each is named once");
        let held = rig.model.held();
        assert_eq!(held.iter().filter(|(_, command)| command.cid.get() == cid).count(), 1);
        sleep(Duration::from_secs(1)).await;
        let old: Vec<u16> = std::iter::from_fn(|| rig.queue.abort_candidate(now())).collect();
        assert_eq!(old.len(), 2, "the other two are overdue");
        assert_eq!(rig.admin(Command::abort(1, cid)).result.get() & 1, 0, "it was aborted");
        rig.model.hold_none();
        rig.model.release_all();
        done.extend(collect(&mut channel, 4).await);
        let aborted: Vec<u64> = done
            .iter()
            .filter(|done| done.status.is(Status::ABORTED_BY_REQUEST))
            .map(|done| done.token)
            .collect();
        assert_eq!(aborted, [4, 1], "the one that was given up is not tried again");
        rig.assert_faultless();
    });
}
