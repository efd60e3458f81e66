//! Attaching, using and detaching.

use std::time::Duration;

use sledge_nvme::Command;
use sledge_nvme::driver::{AdminBuffer, Controller, ControllerOptions, DriverError, QueueReport, State};
use sledge_nvme::identify::{Cns, ControllerData, IDENTIFY_BYTES};
use sledge_nvme::io::Operation;
use sledge_nvme::model::{ModelNamespace, ModelOptions, Readiness};
use sledge_nvme::property::Version;
use sledge_reactor::task::spawn_local;
use sledge_reactor::time::sleep;
use zerocopy::FromBytes;

use crate::rig::{Rig, options, read, write};

// Deleting this lets a controller not come up, not do I/O, or leave something mapped, enabled or shut down uncleanly.
#[test]
fn a_controller_comes_up_does_io_and_is_let_go_of() {
    let mut rig = Rig::new(1, 2, ModelOptions::default());
    let controller = rig.attach(options()).unwrap();
    assert_eq!(controller.state(), State::Live);
    let identity = controller.identity().unwrap();
    assert_eq!((identity.serial(), identity.firmware(), identity.io_queues), ("SLEDGE0001", "1.0", 2));
    assert_eq!(identity.io_queue_depth, 16);
    assert_eq!(rig.model.io_queues(), [1, 2]);
    for reactor in 0..2u8 {
        let user = controller.clone();
        rig.run_on(reactor.into(), move || async move {
            assert!(write(&user, reactor.into(), reactor + 1).await.is_success());
            assert_eq!(read(&user, reactor.into()).await, Ok(reactor + 1));
        });
    }
    let user = controller.clone();
    let reports = rig.run(move || async move { user.queues().await });
    let counts = |report: &QueueReport| (report.reactor, report.id, report.counts.queue.completed);
    assert_eq!(reports.iter().map(counts).collect::<Vec<_>>(), [(0, Some(1), 2), (1, Some(2), 2)]);
    let user = controller.clone();
    rig.run(move || async move { user.detach().await.unwrap() });
    assert_eq!(controller.state(), State::Detached);
    assert_eq!(rig.model.statistics().shutdowns, 1);
    rig.assert_clean();
    rig.assert_nothing_mapped();
    let user = controller.clone();
    rig.run(move || async move {
        assert!(matches!(user.detach().await, Err(DriverError::Detached)));
        assert!(matches!(user.reset().await, Err(DriverError::Detached)));
        assert!(matches!(user.open_channel(1), Err(DriverError::Detached)));
    });
}

// Deleting this lets a controller whose doorbells lie beyond its registers end the reactor that rings them, with all
// that it serves.
#[test]
fn doorbells_that_can_not_be_reached_are_not_rung() {
    // 16 KiB from one doorbell to the next: of the admin queue, and of one pair of I/O queues.
    let far = |register_bytes| ModelOptions {
        doorbell_stride: 12,
        register_bytes: Some(register_bytes),
        ..ModelOptions::default()
    };
    let mut rig = Rig::new(1, 2, far(0x1000 + 3 * 16384 + 4));
    let controller = rig.attach(options()).unwrap();
    assert_eq!((controller.identity().unwrap().io_queues, rig.model.io_queues()), (1, vec![1]));
    for reactor in 0..2 {
        let user = controller.clone();
        rig.run_on(reactor, move || async move { assert!(write(&user, 3, 4).await.is_success()) });
    }
    rig.assert_clean();
    for register_bytes in [0x1000 + 3 * 16384, 0x1000 + 16384 + 4, 0x1000 + 16384, 0x1000, 64] {
        let mut rig = Rig::new(1, 1, far(register_bytes));
        let refused = rig.attach(options());
        assert!(matches!(refused, Err(DriverError::Unsupported(_))), "{register_bytes:#x}: {refused:?}");
        rig.assert_nothing_mapped();
    }
}

// Deleting this lets the driver assume what a controller need not have: deep queues, dense doorbells, quick starts, lists
// of namespaces, many events.
#[test]
fn controllers_of_many_kinds_come_up() {
    let plain = ModelOptions::default;
    let kinds = [
        ModelOptions { max_queue_entries: 2, ..plain() },
        ModelOptions { doorbell_stride: 4, ..plain() },
        ModelOptions { scattered: true, sgl: true, ..plain() },
        ModelOptions { version: Version::V1_3, event_limit_minus_one: 0, ..plain() },
        ModelOptions { shadow_doorbells: true, ..plain() },
        ModelOptions { enabling: Readiness::After(Duration::from_millis(900)), timeout_500ms: 2, ..plain() },
        ModelOptions {
            enabling: Readiness::After(Duration::from_millis(900)),
            timeout_500ms: 1,
            ready_timeout_500ms: Some(2),
            ..plain()
        },
        ModelOptions { disabling: Readiness::AfterReads(3), enabling: Readiness::AfterReads(3), ..plain() },
        ModelOptions { namespaces: vec![ModelNamespace::new(1, 1000, 512).with_metadata(1)], ..plain() },
    ];
    for (seed, kind) in kinds.into_iter().enumerate() {
        let words = format!("{kind:?}");
        let mut rig = Rig::new(seed as u64, 1, kind);
        let controller = rig.attach(options()).unwrap_or_else(|error| panic!("{error}: {words}"));
        let user = controller.clone();
        rig.run(move || async move {
            for lba in 0..40 {
                assert!(write(&user, lba, lba as u8).await.is_success());
            }
            for lba in 0..40 {
                assert_eq!(read(&user, lba).await, Ok(lba as u8));
            }
            user.reset().await.unwrap();
            assert_eq!(read(&user, 3).await, Ok(3));
            user.detach().await.unwrap();
        });
        rig.assert_clean();
        rig.assert_nothing_mapped();
    }
}

// Deleting this lets a controller that does not come up leave memory behind, or the caller without a reason.
#[test]
fn a_controller_that_does_not_come_up_says_why_and_leaves_nothing() {
    let plain = ModelOptions::default;
    let never = ModelOptions { enabling: Readiness::Never, timeout_500ms: 1, ..plain() };
    let mut rig = Rig::new(1, 2, never);
    let error = rig.attach(options()).unwrap_err();
    assert!(matches!(error, DriverError::Timeout { what: "setting CSTS.RDY", .. }), "{error}");
    rig.assert_clean();
    rig.assert_nothing_mapped();

    let mut rig = Rig::new(2, 2, plain());
    rig.model.remove();
    assert!(matches!(rig.attach(options()).unwrap_err(), DriverError::Removed));
    rig.assert_nothing_mapped();

    let mut rig = Rig::new(3, 2, plain());
    rig.model.set_fatal();
    // A reset clears it.
    assert!(rig.attach(options()).is_ok());

    for successes in 0..12 {
        let mut rig = Rig::new(4, 2, plain());
        rig.model.fail_allocation(successes);
        match rig.attach(options()) {
            Ok(controller) => {
                let user = controller.clone();
                rig.run(move || async move { user.detach().await.unwrap() });
            }
            Err(error) => assert!(matches!(error, DriverError::Dma(_)), "{error}"),
        }
        rig.assert_clean();
        rig.assert_nothing_mapped();
    }

    let mut rig = Rig::new(5, 1, plain());
    let bad = ControllerOptions { io_queue_depth: 1, ..options() };
    assert!(matches!(rig.attach(bad).unwrap_err(), DriverError::Option(_)));
}

// Deleting this lets a controller that nobody holds a handle of stay attached until the process ends.
#[test]
fn an_attachment_that_nobody_waits_for_is_undone() {
    for seed in 0..20 {
        let slow = Readiness::After(Duration::from_millis(1));
        let mut rig = Rig::new(seed, 2, ModelOptions { enabling: slow, ..ModelOptions::default() });
        let (model, handles) = (rig.model.clone(), rig.sim.handles(rig.node));
        rig.run(move || async move {
            let owner = handles[1].clone();
            let attaching = spawn_local(Controller::attach(model, owner, handles, options()));
            sleep(Duration::from_micros(seed * 120)).await;
            if attaching.is_finished() {
                attaching.await.unwrap().detach().await.unwrap();
            } else {
                attaching.abort();
            }
        });
        rig.run_for(100);
        rig.assert_clean();
        rig.assert_nothing_mapped();
    }
}

// Deleting this lets namespaces be lost, be offered in a form that is served wrong, or be refused without a reason.
#[test]
fn namespaces_of_all_kinds_are_told_apart() {
    let namespaces = vec![
        ModelNamespace::new(1, 1000, 512),
        ModelNamespace::new(2, 2000, 4096),
        ModelNamespace::new(5, 100, 512).zoned(),
        ModelNamespace::new(6, 100, 512).with_metadata(0),
        ModelNamespace::new(7, 100, 4096).with_metadata(1),
    ];
    let mut rig = Rig::new(1, 1, ModelOptions { namespaces, ..ModelOptions::default() });
    let controller = rig.attach(options()).unwrap();
    let found: Vec<_> = controller
        .namespaces()
        .iter()
        .map(|namespace| (namespace.nsid, namespace.geometry.block_bytes, namespace.refused.is_some()))
        .collect();
    assert_eq!(found, [(1, 512, false), (2, 4096, false), (5, 512, true), (6, 512, true), (7, 4096, false)]);
    assert!(controller.namespace(5).unwrap().refused.unwrap().contains("zoned"));
    assert!(controller.namespace(2).unwrap().supports(Operation::Deallocate));
    let user = controller.clone();
    rig.run(move || async move {
        assert!(matches!(user.open_channel(5), Err(DriverError::NamespaceRefused { nsid: 5, .. })));
        assert!(matches!(user.open_channel(3), Err(DriverError::NoNamespace { nsid: 3 })));
        assert!(user.open_channel(7).is_ok());
    });
    rig.assert_clean();
}

// Deleting this lets users' admin commands go astray, or the driver's own be sent by users.
#[test]
fn admin_commands_of_users_pass_when_they_may() {
    let mut rig = Rig::new(1, 1, ModelOptions::default());
    let controller = rig.attach(options()).unwrap();
    let user = controller.clone();
    rig.run(move || async move {
        let identify = Command::identify(Cns::Controller.value(), 0);
        let (completion, data) = user.admin(identify, AdminBuffer::In(IDENTIFY_BYTES)).await.unwrap();
        assert!(completion.status().is_success());
        let data = ControllerData::read_from_bytes(&data).unwrap();
        assert_eq!(data.serial_number(), "SLEDGE0001");
        let unknown = Command::new(0xc0, 0);
        let (completion, _) = user.admin(unknown, AdminBuffer::None).await.unwrap();
        assert!(!completion.status().is_success());
        let delete = Command::delete_io_submission_queue(1);
        assert!(matches!(user.admin(delete, AdminBuffer::None).await, Err(DriverError::Option(_))));
    });
    assert_eq!(controller.statistics().admin_errors, 1);
    rig.assert_clean();
}
