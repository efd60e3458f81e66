//! What controllers report by themselves.

use std::time::Duration;

use sledge_nvme::async_event::{EventResult, HealthEvent, Notice};
use sledge_nvme::driver::{ControllerEvent, State};
use sledge_nvme::io::{IoCommand, Operation, Submitted};
use sledge_nvme::log_page::CriticalWarning;
use sledge_nvme::model::{ModelNamespace, ModelOptions};

use sledge_reactor::time::sleep;

use crate::rig::{Rig, listen, options, read, write};

// Deleting this lets namespaces come and go unseen, or be told of only once because the log page was not read.
#[test]
fn namespaces_that_come_and_go_are_published() {
    let mut rig = Rig::new(1, 2, ModelOptions::default());
    let controller = rig.attach(options()).unwrap();
    let heard = listen(&controller);
    let nsids = || controller.namespaces().iter().map(|namespace| namespace.nsid).collect::<Vec<_>>();
    rig.model.set_namespace(ModelNamespace::new(2, 500, 4096));
    rig.run_for(50);
    assert_eq!(nsids(), [1, 2]);
    rig.model.set_namespace(ModelNamespace::new(2, 800, 4096));
    rig.run_for(50);
    assert_eq!(controller.namespace(2).unwrap().geometry.blocks, 800);
    assert!(rig.model.remove_namespace(2));
    rig.run_for(50);
    assert_eq!(nsids(), [1]);
    assert_eq!(*heard.lock().unwrap(), [ControllerEvent::NamespacesChanged; 3]);
    assert_eq!(controller.statistics().namespace_changes, 3);
    rig.assert_clean();
}

// Deleting this lets a channel that was opened before write blocks of the wrong size, to another namespace of the same
// number, or past the end of memory; or be cut off because the namespace has grown.
#[test]
fn channels_end_with_their_namespace_and_grow_with_it() {
    let mut rig = Rig::new(1, 2, ModelOptions::default());
    let controller = rig.attach(options()).unwrap();
    let outcome = |rig: &mut Rig, change: Option<ModelNamespace>, slba: u64| {
        let (user, model) = (controller.clone(), rig.model.clone());
        rig.run_on(1, move || async move {
            let mut channel = user.open_channel(1).unwrap();
            if let Some(namespace) = change {
                model.set_namespace(namespace);
            }
            sleep(Duration::from_millis(50)).await;
            let mut done = Vec::new();
            let read = IoCommand::new(1, Operation::Read, slba, 1);
            if let Submitted::Done(completion) = channel.submit(read) {
                return completion.status;
            }
            while done.is_empty() {
                sleep(Duration::from_micros(50)).await;
                channel.poll(&mut done);
            }
            done[0].status
        })
    };
    let plain = ModelNamespace::new(1, 1 << 20, 512);
    assert!(outcome(&mut rig, None, 5).is_success());
    let grown = ModelNamespace { blocks: 2 << 20, ..plain.clone() };
    assert!(outcome(&mut rig, Some(grown), 3 << 19).is_success());
    let formatted = ModelNamespace::new(1, 1 << 17, 4096);
    assert!(!outcome(&mut rig, Some(formatted.clone()), 5).is_success());
    assert!(outcome(&mut rig, None, 5).is_success(), "a new channel is of the new format");
    let another = ModelNamespace { nguid: [1; 16], ..formatted };
    assert!(!outcome(&mut rig, Some(another), 5).is_success());
    assert!(outcome(&mut rig, None, 5).is_success());
    rig.assert_clean();
}

// Deleting this lets a drive die without a word to anybody, or warn only once.
#[test]
fn warnings_of_health_are_told_each_time() {
    let mut rig = Rig::new(1, 1, ModelOptions::default());
    let controller = rig.attach(options()).unwrap();
    let heard = listen(&controller);
    let warning = CriticalWarning::from_bits(0).with_spare_low(true);
    rig.model.set_critical_warning(warning);
    // More often than there are requests.
    for count in 1..=9 {
        rig.model.raise(EventResult::health(HealthEvent::SpareBelowThreshold));
        rig.run_for(50);
        let heard = heard.lock().unwrap();
        assert_eq!(heard.len(), count);
        match heard.last() {
            Some(ControllerEvent::Health(told)) => assert_eq!(told.critical, warning),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((controller.statistics().health_warnings, controller.statistics().events), (9, 9));
    rig.assert_clean();
}

// Deleting this lets events stop after a reset, when all requests are gone.
#[test]
fn events_go_on_after_a_reset() {
    let mut rig = Rig::new(1, 1, ModelOptions::default());
    let controller = rig.attach(options()).unwrap();
    let user = controller.clone();
    rig.run(move || async move { user.reset().await.unwrap() });
    let heard = listen(&controller);
    rig.model.raise(EventResult::notice(Notice::FirmwareActivationStarting));
    rig.run_for(50);
    assert_eq!(*heard.lock().unwrap(), [ControllerEvent::FirmwareActivation]);
    rig.model.set_namespace(ModelNamespace::new(9, 500, 512));
    rig.run_for(50);
    assert_eq!(heard.lock().unwrap().last(), Some(&ControllerEvent::NamespacesChanged));
    let user = controller.clone();
    rig.run(move || async move {
        assert!(write(&user, 0, 1).await.is_success());
        assert_eq!(read(&user, 0).await, Ok(1));
    });
    assert_eq!(controller.state(), State::Live);
    rig.assert_clean();
}
