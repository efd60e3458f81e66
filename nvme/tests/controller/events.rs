//! What a controller reports by itself, and admin commands of users.

use std::time::Duration;

use sledge_nvme::async_event::{EventResult, HealthEvent, Notice};
use sledge_nvme::driver::{AdminBuffer, ControllerEvent, DriverError};
use sledge_nvme::log_page::{CriticalWarning, HealthLog};
use sledge_nvme::model::{ModelNamespace, ModelOptions};
use sledge_nvme::opcode::Admin;
use sledge_nvme::{Command, Status};
use sledge_reactor::sleep;
use zerocopy::FromBytes;

use crate::rig::{Rig, on_reactors, read, run, works};

const SOON: Duration = Duration::from_millis(200);

// Deleting this lets namespaces that come, go or grow go unnoticed.
#[test]
fn namespaces_come_and_go() {
    on_reactors(1, || async {
        let rig = Rig::new(ModelOptions::default()).await;
        let numbers = |rig: &Rig| -> Vec<u32> {
            rig.controller.namespaces().iter().map(|namespace| namespace.nsid).collect()
        };
        rig.model.set_namespace(ModelNamespace::new(3, 500, 4096));
        sleep(SOON).await;
        assert_eq!((numbers(&rig), rig.events()), (vec![1, 3], vec![ControllerEvent::NamespacesChanged]));
        let mut channel = rig.controller.open_channel(3).unwrap();
        assert!(run(&mut *channel, read(1, 0, 4)).await.status.is_success());
        rig.model.set_namespace(ModelNamespace::new(3, 1500, 4096));
        sleep(SOON).await;
        assert_eq!(rig.controller.namespace(3).unwrap().geometry.blocks, 1500);
        rig.model.remove_namespace(3);
        sleep(SOON).await;
        assert_eq!(numbers(&rig), [1]);
        assert_eq!(rig.events().len(), 2);
        assert!(!run(&mut *channel, read(1, 0, 4)).await.status.is_success());
        works(&mut *rig.channel(), 1).await;
        rig.end().await;
    });
}

// Deleting this lets warnings of health be lost, or told once only.
#[test]
fn health_warnings_are_told_each_time() {
    on_reactors(1, || async {
        let rig = Rig::new(ModelOptions::default()).await;
        let critical = CriticalWarning::default().with_spare_low(true);
        rig.model.set_critical_warning(critical);
        for _ in 0..3 {
            rig.model.raise(EventResult::health(HealthEvent::SpareBelowThreshold));
            sleep(SOON).await;
            let events = rig.events();
            let [ControllerEvent::Health(warning)] = events[..] else { panic!("{events:?}") };
            assert_eq!((warning.critical, warning.temperature_kelvins), (critical, 300));
        }
        rig.model.raise(EventResult::notice(Notice::FirmwareActivationStarting));
        sleep(SOON).await;
        assert_eq!(rig.events(), [ControllerEvent::FirmwareActivation]);
        assert_eq!(rig.controller.statistics().health_warnings, 3);
        // After a reset, too.
        rig.controller.reset().await.unwrap();
        rig.model.raise(EventResult::health(HealthEvent::Reliability));
        sleep(SOON).await;
        assert!(matches!(rig.events()[..], [ControllerEvent::Reset, ControllerEvent::Health(_)]));
        rig.end().await;
    });
}

// Deleting this lets users' admin commands fail, transfer less, or take the driver's queues from it.
#[test]
fn admin_commands_pass_but_not_all() {
    on_reactors(1, || async {
        let rig = Rig::new(ModelOptions::default()).await;
        let log = Command::get_log_page(2, 0xffff_ffff, 0, 512);
        let (completion, bytes) = rig.controller.admin(log, AdminBuffer::In(512)).await.unwrap();
        assert_eq!((completion.status(), bytes.len()), (Status::SUCCESS, 512));
        assert_eq!(HealthLog::read_from_bytes(&bytes).unwrap().composite_temperature.get(), 300);
        let (completion, _) =
            rig.controller.admin(Command::identify(0x77, 0), AdminBuffer::In(4096)).await.unwrap();
        assert_eq!(completion.status(), Status::INVALID_FIELD.do_not_retry(), "an answer is an answer");
        for own in [
            Admin::CreateIoSubmissionQueue,
            Admin::DeleteIoSubmissionQueue,
            Admin::DeleteIoCompletionQueue,
            Admin::CreateIoCompletionQueue,
            Admin::AsynchronousEventRequest,
            Admin::DoorbellBufferConfig,
        ] {
            let refused = rig.controller.admin(Command::new(own.value(), 0), AdminBuffer::None).await;
            assert!(matches!(refused, Err(DriverError::Option(_))), "{own}");
        }
        works(&mut *rig.channel(), 1).await;
        // Format: the namespace is another one afterwards.
        let mut format = Command::new(Admin::FormatNvm.value(), 1);
        format.cdw10.set(1);
        let (completion, _) = rig.controller.admin(format, AdminBuffer::None).await.unwrap();
        assert_eq!(completion.status(), Status::SUCCESS);
        assert_eq!(rig.controller.namespace(1).unwrap().geometry.block_bytes, 4096);
        // One that is not answered: the controller is reset, and works.
        rig.model.hold(|queue, command| queue == 0 && command.opcode == Admin::DeviceSelfTest.value());
        let test = Command::new(Admin::DeviceSelfTest.value(), 0);
        let lost = rig.controller.admin(test, AdminBuffer::None).await;
        assert!(matches!(lost, Err(DriverError::Timeout { .. } | DriverError::Reset)), "{lost:?}");
        sleep(Duration::from_secs(1)).await;
        rig.controller.admin(Command::identify(1, 0), AdminBuffer::In(4096)).await.unwrap();
        assert_eq!(rig.controller.statistics().timeout_resets, 1);
        rig.end().await;
    });
}
