//! Everything at once: I/O on three reactors, some without a queue of their own, while the device stalls, fails, resets, dies, goes and comes back.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use sledge_nvme::Status;
use sledge_nvme::driver::{ControllerOptions, State};
use sledge_nvme::model::{Model, ModelOptions, Readiness};
use sledge_nvme::opcode::Admin;
use sledge_reactor::{peers, sleep};

use crate::rig::{Rig, load, on_seeded_reactors, options};

/// Something that passes.
#[derive(Clone, Debug)]
enum Trouble {
    None,
    Reset,
    Fatal,
    RemoveForAWhile,
    /// Every n-th command stays with the controller; of admin commands those that would help.
    Stall(u32),
    Recover,
    Fail(usize),
    Duplicate(usize),
    IgnoreAborts(bool),
    SlowToBeReady,
    SlowToStop,
    Stranger(u16),
}

fn trouble() -> impl Strategy<Value = (Trouble, u64)> {
    let trouble = prop_oneof![
        2 => Just(Trouble::None),
        2 => Just(Trouble::Reset),
        1 => Just(Trouble::Fatal),
        1 => Just(Trouble::RemoveForAWhile),
        3 => (2..20u32).prop_map(Trouble::Stall),
        2 => Just(Trouble::Recover),
        1 => (1..20usize).prop_map(Trouble::Fail),
        1 => (1..20usize).prop_map(Trouble::Duplicate),
        1 => any::<bool>().prop_map(Trouble::IgnoreAborts),
        1 => Just(Trouble::SlowToBeReady),
        1 => Just(Trouble::SlowToStop),
        1 => any::<u16>().prop_map(Trouble::Stranger),
    ];
    // Mostly short, at times long enough for everything to time out.
    (trouble, prop_oneof![6 => 0..100_000u64, 1 => 0..15_000_000u64])
}

async fn cause(rig: &Rig, trouble: Trouble) {
    let model = &rig.model;
    match trouble {
        Trouble::None => {}
        Trouble::Reset => drop(rig.controller.reset().await),
        Trouble::Fatal => model.set_fatal(),
        Trouble::RemoveForAWhile => {
            model.remove();
            rig.until(State::Removed).await;
            model.insert();
            // It may have trouble again at once; the end sees to it that it comes back.
            drop(rig.controller.replace(model.clone()).await);
        }
        Trouble::Stall(every) => {
            let mut count = 0;
            model.hold(move |queue, command| {
                let helps = [Admin::Abort, Admin::DeleteIoSubmissionQueue, Admin::DeleteIoCompletionQueue];
                count += 1;
                count % every == 0 && (queue != 0 || helps.iter().any(|help| help.value() == command.opcode))
            });
        }
        Trouble::Recover => recover(model),
        Trouble::Fail(count) => model.fail(count, Status::NAMESPACE_NOT_READY, |queue, _| queue != 0),
        Trouble::Duplicate(count) => model.duplicate(count),
        Trouble::IgnoreAborts(on) => model.ignore_aborts(on),
        Trouble::SlowToBeReady => model.set_readiness(Readiness::AfterReads(30), Readiness::AtOnce),
        Trouble::SlowToStop => model.set_readiness(Readiness::AtOnce, Readiness::AfterReads(30)),
        // Of a slot that these queues don't have.
        Trouble::Stranger(cid) => drop(model.inject_completion(1, cid | 0xf, Status::SUCCESS)),
    }
}

fn recover(model: &Model) {
    model.hold_none();
    model.fail_none();
    model.release_all();
    model.ignore_aborts(false);
    model.set_readiness(Readiness::AtOnce, Readiness::AtOnce);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, max_shrink_time: 20_000, ..ProptestConfig::default() })]

    // Deleting this lets troubles that come together lose I/O, answer it twice, or lose its data, though each passes.
    #[test]
    fn io_survives_all_that_passes(
        troubles in prop::collection::vec(trouble(), 1..12),
        shadow_doorbells in any::<bool>(),
        max_io_queues in 1..4u16,
        seed in any::<u64>(),
    ) {
        on_seeded_reactors(seed, 3, move || async move {
            let patient = ControllerOptions {
                retry_count: 255,
                max_resets: 100,
                removal_timeout: Duration::from_secs(3600),
                reset_delay: Duration::from_millis(50),
                ..options()
            };
            let model = ModelOptions { shadow_doorbells, max_io_queues, timeout_500ms: 4, ..Default::default() };
            let rig = Rig::with(Model::new(model), patient).await.unwrap();
            rig.model.reorder(Some(seed));
            let stop = Arc::new(Mutex::new(false));
            let loads: Vec<_> = (0..3)
                .map(|index| {
                    let (controller, stop) = (rig.controller.clone(), stop.clone());
                    peers()[index].spawn(move || load(controller, index as u64 * 100, Duration::from_millis(10), stop))
                })
                .collect();
            for (trouble, microseconds) in troubles {
                cause(&rig, trouble).await;
                sleep(Duration::from_micros(microseconds)).await;
            }
            recover(&rig.model);
            for _ in 0..1000 {
                match rig.controller.state() {
                    State::Live => break,
                    State::Failed | State::Removed => {
                        drop(rig.controller.replace(rig.model.clone()).await);
                    }
                    _ => sleep(Duration::from_millis(100)).await,
                }
            }
            rig.until(State::Live).await;
            *stop.lock().unwrap() = true;
            for load in loads {
                load.await.unwrap();
            }
            rig.model.duplicate(0);
            rig.end().await;
        });
    }
}
