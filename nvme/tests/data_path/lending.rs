//! A reactor without a queue pair, which submits through another reactor's.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sledge_nvme::Status;
use sledge_nvme::driver::NamespaceChannel;
use sledge_nvme::driver::io_queue::{IoQueue, IoQueueOptions, Reclaim};
use sledge_nvme::io::{Channel, IoCommand, Operation};
use sledge_nvme::model::{Model, ModelOptions};
use sledge_reactor::local::LocalKey;
use sledge_reactor::sim::Simulation;
use sledge_reactor::time::sleep;
use sledge_reactor::{Handle, memory, peers};

use crate::rig::{Rig, bytes_of, collect, data, pattern, read, run, submit, write};

/// The reactor with the queue pair, as the other sees it.
struct Lender {
    handle: Handle,
    rig: LocalKey<Rig>,
    model: Arc<Model>,
}

impl Lender {
    /// Does something on the reactor with the queue pair.
    async fn run<T: Send + 'static>(&self, act: impl FnOnce(&Rig) -> T + Send + 'static) -> T {
        let rig = self.rig;
        self.handle.spawn(move || async move { act(&rig.get().unwrap()) }).await.unwrap()
    }
}

/// Runs a test on a reactor whose queue borrows that of another, of four entries.
fn borrowing<Fut: Future<Output = ()> + 'static>(
    test: impl FnOnce(Lender, Rc<IoQueue>, NamespaceChannel) -> Fut + 'static,
) {
    let mut simulation = Simulation::new(3);
    let node = simulation.add_node("host", 2);
    let body = move || async move {
        let (handle, rig) = (peers()[0].clone(), LocalKey::new());
        let options = IoQueueOptions { depth: 4, ..IoQueueOptions::default() };
        let made = options.clone();
        let (model, lane, shape) = handle
            .spawn(move || async move {
                let new = Rig::new(ModelOptions { mdts: 4, ..ModelOptions::default() }, made);
                let parts = (new.model.clone(), new.queue.lend().unwrap(), new.shape(1).unwrap());
                rig.set(Rc::new(new));
                parts
            })
            .await
            .unwrap();
        let queue = IoQueue::borrowing(model.clone(), &options, lane).unwrap();
        assert_eq!((queue.addresses(), queue.lend().is_none()), (None, true));
        queue.start();
        let channel = queue.open_channel(Arc::new(shape)).unwrap();
        test(Lender { handle, rig, model }, queue, channel).await;
    };
    simulation.block_on_reactor(node, 1, body).unwrap();
}

fn assert_faultless(model: &Model) {
    assert_eq!(model.faults(), []);
    assert_eq!(model.violations(), Vec::<String>::new());
}

// Deleting this lets reactors beyond the controller's queues do no I/O, or another's, or wait for one that sleeps.
#[test]
fn io_goes_through_another_reactor() {
    borrowing(|lender, queue, mut channel| async move {
        for (token, blocks) in [(1, 1), (2, 16), (3, 300), (4, 2000)] {
            let bytes = pattern(token, blocks as usize * 512);
            let written = run(&mut channel, write(token, 50, blocks, data(&bytes, 1 << 20))).await;
            assert_eq!(written.status, Status::SUCCESS);
            let got = run(&mut channel, read(token, 50, blocks)).await;
            assert!(got.status.is_success() && bytes_of(&got.data) == bytes, "{blocks} blocks");
            // The lender goes to sleep, and is woken.
            sleep(Duration::from_secs(1)).await;
        }
        let pair = |old: u8, new: u8| IoCommand {
            data: data(&[[old; 512], [new; 512]].concat(), 1 << 20),
            ..IoCommand::new(5, Operation::CompareAndWrite, 7000, 1)
        };
        for token in 0..20 {
            submit(&mut channel, read(token, 0, 8));
        }
        collect(&mut channel, 20).await;
        assert_eq!(run(&mut channel, pair(0, 1)).await.status, Status::SUCCESS);
        assert!(run(&mut channel, pair(0, 2)).await.status.is(Status::COMPARE_FAILURE));
        assert_eq!(lender.model.content(1, 7000), vec![1; 512]);
        assert_eq!((queue.outstanding(), memory::statistics().used_buffers), (0, 0));
        assert_faultless(&lender.model);
        // When the borrower ends, so does the lane.
        drop((channel, queue));
        while lender.run(|rig| rig.queue.statistics().lanes).await > 0 {
            sleep(Duration::from_millis(1)).await;
        }
        // And when the borrower could not even be made: a lender has room for few.
        drop(lender.run(|rig| rig.queue.lend()).await.unwrap());
        while lender.run(|rig| rig.queue.statistics().lanes).await > 0 {
            sleep(Duration::from_millis(1)).await;
        }
    });
}

// Deleting this lets a reset lose what other reactors had on the device or in the lane, or answer it twice.
#[test]
fn what_was_lent_outlives_a_reset() {
    borrowing(|lender, queue, mut channel| async move {
        for reclaim in [Reclaim::Retry, Reclaim::Fail(Status::INTERNAL_ERROR)] {
            lender.model.hold(|queue, _| queue == 1);
            for token in 0..3 {
                submit(&mut channel, read(token, 0, 8));
            }
            channel.poll(&mut Vec::new());
            while lender.model.held().len() < 3 {
                sleep(Duration::from_millis(1)).await;
            }
            lender.run(|rig| rig.disable()).await;
            queue.stop();
            submit(&mut channel, read(3, 0, 8));
            lender.model.hold_none();
            lender.run(move |rig| rig.restart(reclaim)).await;
            queue.reclaim(reclaim);
            assert_eq!(queue.outstanding(), 0, "the lender's reclaiming answered all");
            queue.start();
            let mut done = collect(&mut channel, 4).await;
            done.sort_by_key(|done| done.token);
            assert_eq!(done.iter().map(|done| done.token).collect::<Vec<_>>(), [0, 1, 2, 3]);
            let failed = done.iter().filter(|done| done.status.is(Status::INTERNAL_ERROR)).count();
            assert_eq!(failed, if reclaim == Reclaim::Retry { 0 } else { 3 }, "{done:?}");
        }
        assert_faultless(&lender.model);
    });
}

// Deleting this lets I/O hang when the lender is given up, or memory be reused that the device may write to.
#[test]
fn a_lender_that_is_given_up_answers_the_borrower() {
    borrowing(|lender, queue, mut channel| async move {
        lender.model.hold(|queue, _| queue == 1);
        for token in 0..2 {
            submit(&mut channel, read(token, 0, 8));
        }
        channel.poll(&mut Vec::new());
        while lender.model.held().len() < 2 {
            sleep(Duration::from_millis(1)).await;
        }
        lender.run(|rig| rig.queue.leak(Status::INTERNAL_ERROR)).await;
        lender.run(|rig| rig.queue.fail(Status::INTERNAL_ERROR)).await;
        let done = collect(&mut channel, 2).await;
        assert!(done.iter().all(|done| done.data.is_empty() && done.status.is(Status::INTERNAL_ERROR)));
        assert_eq!(memory::statistics().used_buffers, 2, "the device may still write to them");
        let late = run(&mut channel, read(3, 0, 8)).await;
        assert!(late.status.is(Status::INTERNAL_ERROR), "nothing goes into a lane for ever");
        drop((channel, queue));
        lender.model.release_all();
        assert_faultless(&lender.model);
    });
}
