//! Attaching: what the controller is told, what is learnt of it, what happens when it does not come up.

use std::time::Duration;

use sledge_nvme::driver::{Controller, DriverError, State};
use sledge_nvme::identify::CommandSet;
use sledge_nvme::io::Operation;
use sledge_nvme::model::{Model, ModelNamespace, ModelOptions, Readiness};
use sledge_nvme::opcode::Admin;
use sledge_nvme::{Command, Status};
use sledge_reactor::{now, peers, sleep};

use crate::rig::{BLOCK, Rig, check, on_reactors, options, pattern, read, run, works, write};

// Deleting this lets a controller be misread: its names, its namespaces, which of them can be used and why not.
#[test]
fn a_controller_says_what_it_is() {
    on_reactors(2, || async {
        let mut named = ModelNamespace::new(2, 1000, 4096);
        (named.eui64, named.uuid) = ([1; 8], [2; 16]);
        let protected = ModelNamespace::new(7, 300, 512).with_metadata(1);
        let rig = Rig::new(ModelOptions {
            serial: "S123".into(),
            mdts: 3,
            namespaces: vec![
                ModelNamespace::new(1, 2000, 512),
                named.clone(),
                ModelNamespace::new(5, 100, 512).zoned(),
                ModelNamespace::new(6, 100, 512).with_metadata(0),
                protected,
            ],
            ..Default::default()
        })
        .await;
        let identity = rig.controller.identity().unwrap();
        assert_eq!((identity.serial(), identity.firmware()), ("S123", "1.0"));
        assert_eq!((identity.io_queues, identity.io_queue_depth), (2, 16));
        assert_eq!(identity.max_transfer_bytes, Some(32768));
        let found = rig.controller.namespaces();
        let numbers: Vec<u32> = found.iter().map(|namespace| namespace.nsid).collect();
        assert_eq!(numbers, [1, 2, 5, 6, 7]);
        assert_eq!((found[1].geometry.blocks, found[1].geometry.block_bytes), (1000, 4096));
        assert_eq!((found[1].eui64, found[1].uuid), (Some([1; 8]), Some([2; 16])));
        assert_eq!(found[1].nguid, Some(named.nguid));
        assert_eq!(found[2].command_set, Some(CommandSet::Zoned));
        let reasons: Vec<_> = found.iter().map(|namespace| namespace.refused.as_deref()).collect();
        assert!(reasons[2].unwrap().contains("zone") && reasons[3].unwrap().contains("metadata"));
        assert_eq!((reasons[0], reasons[1], reasons[4]), (None, None, None));
        assert!(matches!(rig.controller.open_channel(5), Err(DriverError::NamespaceRefused { nsid: 5, .. })));
        assert!(matches!(rig.controller.open_channel(3), Err(DriverError::NoNamespace { nsid: 3 })));
        works(&mut *rig.channel(), 3).await;
        works(&mut *rig.controller.open_channel(7).unwrap(), 3).await;
        assert_eq!(rig.model.io_queues(), [1, 2]);
        let model = rig.model.clone();
        rig.end().await;
        assert_eq!(model.statistics().shutdowns, 1, "an orderly shutdown");
    });
}

// Deleting this lets reactors share a queue, or read other blocks than others wrote.
#[test]
fn each_reactor_has_its_own_queue() {
    on_reactors(3, || async {
        let rig = Rig::new(ModelOptions::default()).await;
        works(&mut *rig.channel(), 9).await;
        for peer in peers() {
            let controller = rig.controller.clone();
            let found = peer.spawn(move || async move {
                let mut channel = controller.open_channel(1).unwrap();
                let done = run(&mut *channel, read(7, 40, 8)).await;
                assert!(done.status.is_success() && channel.outstanding() == 0);
                crate::rig::bytes_of(&done.data)
            });
            assert!(found.await.unwrap() == pattern(9, 40, 8));
        }
        assert_eq!(rig.model.io_queues(), [1, 2, 3]);
        rig.end().await;
    });
}

// Deleting this lets the limits of small or odd controllers be passed.
#[test]
fn odd_controllers_come_up() {
    let odd = [
        ModelOptions { max_queue_entries: 2, ..Default::default() },
        ModelOptions { max_queue_entries: 3, mdts: 1, doorbell_stride: 4, ..Default::default() },
        ModelOptions { mdts: 0, sgl: true, shadow_doorbells: true, doorbell_stride: 2, ..Default::default() },
        ModelOptions { scattered: true, volatile_write_cache: true, ..Default::default() },
        ModelOptions { event_limit_minus_one: 0, abort_limit_minus_one: 0, ..Default::default() },
        ModelOptions {
            version: sledge_nvme::property::Version::from_bits(0x0001_0000),
            ..Default::default()
        },
        ModelOptions { namespaces: Vec::new(), ..Default::default() },
        ModelOptions {
            compare: false,
            compare_and_write: false,
            write_zeroes: false,
            dataset_management: false,
            verify: false,
            ..Default::default()
        },
    ];
    for model in odd {
        on_reactors(1, || async {
            let empty = model.namespaces.is_empty();
            let rig = Rig::new(model).await;
            if !empty {
                let mut channel = rig.channel();
                works(&mut *channel, 5).await;
                for count in [1, 70, 200] {
                    assert_eq!(run(&mut *channel, write(1, 6, 3, count)).await.status, Status::SUCCESS);
                    let found = run(&mut *channel, read(2, 3, count)).await;
                    assert!(crate::rig::bytes_of(&found.data) == pattern(6, 3, count));
                }
                for operation in [Operation::WriteZeroes { deallocate: true }, Operation::Verify] {
                    let io = sledge_nvme::io::IoCommand::new(3, operation, 3, 200);
                    assert_eq!(run(&mut *channel, io).await.status, Status::SUCCESS);
                }
                assert_eq!(rig.model.content(1, 202), [0; BLOCK]);
            }
            rig.end().await;
        });
    }
}

// Deleting this lets the driver give up on a controller that is as slow as it says, or wait for ever for one that is
// slower.
#[test]
fn readiness_is_waited_for_as_long_as_the_controller_says() {
    for (claimed, taken, ready) in [(4, 1900, true), (4, 2600, false), (0, 400, true), (4, 86_400_000, false)]
    {
        on_reactors(1, move || async move {
            let model = Model::new(ModelOptions {
                timeout_500ms: claimed,
                enabling: Readiness::After(Duration::from_millis(taken)),
                ..Default::default()
            });
            let before = now();
            let attached = Rig::with(model.clone(), options()).await;
            let waited = now() - before;
            if ready {
                assert!(waited >= Duration::from_millis(taken));
                attached.unwrap().end().await;
            } else {
                assert!(matches!(attached, Err(DriverError::Timeout { .. })));
                // As long again before it is disabled: that waits for readiness, too (Base 3.1.3.5, CC.EN).
                assert!((2000..4500).contains(&waited.as_millis()), "{waited:?}");
                check(&model);
                assert_eq!(model.mapped_bytes(), 0);
            }
        });
    }
    // CRTO counts where there is one.
    on_reactors(1, || async {
        let enabling = Readiness::After(Duration::from_secs(9));
        let limits = ModelOptions {
            timeout_500ms: 255,
            ready_timeout_500ms: Some(20),
            enabling,
            ..Default::default()
        };
        Rig::new(limits).await.end().await;
    });
}

// Deleting this lets a controller that someone left enabled keep using their memory, or be enabled a second time.
#[test]
fn a_controller_that_was_left_enabled_is_disabled_first() {
    on_reactors(1, || async {
        let model = Model::new(ModelOptions { disabling: Readiness::AfterReads(20), ..Default::default() });
        let rig = Rig::with(model.clone(), options()).await.unwrap();
        // Another one, without a goodbye.
        let again = Rig::with(model.clone(), options()).await.unwrap();
        works(&mut *again.channel(), 1).await;
        assert_eq!(model.statistics().enables, 2);
        check(&model);
        again.controller.detach().await.unwrap();
        // The first one finds out that its queues are gone; it is not to hang.
        rig.controller.detach().await.unwrap();
    });
}

// Deleting this lets a bring-up that fails half way leave memory mapped, queues made, or a task behind.
#[test]
fn whatever_fails_on_the_way_nothing_is_left() {
    let mut failures = 0;
    for successes in 0..60 {
        let failed = std::rc::Rc::new(std::cell::Cell::new(false));
        let seen = failed.clone();
        on_reactors(2, move || async move {
            let model = Model::new(ModelOptions { shadow_doorbells: true, ..Default::default() });
            model.fail_allocation(successes);
            match Rig::with(model.clone(), options()).await {
                Ok(rig) => rig.end().await,
                Err(error) => {
                    assert!(matches!(error, DriverError::Dma(_)), "{error}");
                    seen.set(true);
                }
            }
            check(&model);
            assert_eq!(model.mapped_bytes(), 0, "after {successes} allocations");
        });
        failures += u32::from(failed.get());
    }
    assert!((8..50).contains(&failures), "{failures} allocations");
    for opcode in
        [Admin::Identify, Admin::SetFeatures, Admin::CreateIoCompletionQueue, Admin::CreateIoSubmissionQueue]
    {
        on_reactors(1, move || async move {
            let model = Model::new(ModelOptions::default());
            let chosen = move |queue, command: &Command| queue == 0 && command.opcode == opcode.value();
            model.fail(100, Status::INTERNAL_ERROR.do_not_retry(), chosen);
            let error = Rig::with(model.clone(), options()).await.err();
            assert!(matches!(error, Some(DriverError::Command { .. })), "{opcode}: {error:?}");
            check(&model);
            assert_eq!((model.mapped_bytes(), model.io_queues()), (0, vec![]));
        });
        // And when it is not answered at all.
        on_reactors(1, move || async move {
            let model = Model::new(ModelOptions::default());
            model.hold(move |queue, command| queue == 0 && command.opcode == opcode.value());
            let error = Rig::with(model.clone(), options()).await.err();
            assert!(matches!(error, Some(DriverError::Timeout { .. })), "{opcode}: {error:?}");
            check(&model);
            assert_eq!((model.mapped_bytes(), model.io_queues()), (0, vec![]));
        });
    }
}

// Deleting this lets a device that is dead, or goes, during bring-up be waited for.
#[test]
fn devices_that_are_dead_or_go_are_given_up() {
    on_reactors(1, || async {
        let model = Model::new(ModelOptions::default());
        model.remove();
        assert!(matches!(Rig::with(model.clone(), options()).await.err(), Some(DriverError::Removed)));
        assert_eq!(model.mapped_bytes(), 0);
        model.insert();

        model.set_readiness(Readiness::After(Duration::from_secs(5)), Readiness::AtOnce);
        let removed = model.clone();
        let remover = sledge_reactor::spawn_local(async move {
            sleep(Duration::from_secs(1)).await;
            removed.remove();
        });
        assert!(matches!(Rig::with(model.clone(), options()).await.err(), Some(DriverError::Removed)));
        remover.await;
        assert_eq!(model.mapped_bytes(), 0);
        model.insert();

        let fatal = model.clone();
        let killer = sledge_reactor::spawn_local(async move {
            sleep(Duration::from_secs(1)).await;
            fatal.set_fatal();
        });
        assert!(matches!(Rig::with(model.clone(), options()).await.err(), Some(DriverError::Fatal)));
        killer.await;
        check(&model);
        assert_eq!(model.mapped_bytes(), 0);
    });
}

// Deleting this lets handles go on using a controller that is detached, or I/O after it hang.
#[test]
fn a_detached_controller_answers_everything() {
    on_reactors(1, || async {
        let rig = Rig::new(ModelOptions::default()).await;
        let controller: Controller = rig.controller.clone();
        let mut channel = rig.channel();
        // One that does not end: the shutdown does not wait for ever.
        rig.model.hold(crate::rig::is_io);
        crate::rig::submit(&mut *channel, write(1, 1, 0, 1));
        let mut polled = Vec::new();
        channel.poll(&mut polled);
        rig.end().await;
        let done = crate::rig::collect(&mut *channel, 1).await;
        assert!(!done[0].status.is_success() && polled.is_empty());
        assert!(!run(&mut *channel, read(2, 0, 1)).await.status.is_success());
        assert!(matches!(controller.open_channel(1), Err(DriverError::Detached)));
        assert!(matches!(controller.reset().await, Err(DriverError::Detached)));
        assert!(matches!(controller.detach().await, Err(DriverError::Detached)));
        assert_eq!(controller.state(), State::Detached);
    });
}
