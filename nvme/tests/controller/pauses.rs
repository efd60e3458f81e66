//! Admin commands that change namespaces, for which I/O waits.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sledge_nvme::Command;
use sledge_nvme::driver::{AdminBuffer, DriverError};
use sledge_nvme::model::{ModelNamespace, ModelOptions};
use sledge_nvme::opcode::Admin;
use sledge_reactor::{sleep, spawn_local};

use crate::rig::{Rig, collect, is_io, on_reactors, read, submit, works, write};

fn format(nsid: u32) -> Command {
    Command::new(Admin::FormatNvm.value(), nsid)
}

fn is_format(queue: u16, command: &Command) -> bool {
    queue == 0 && command.opcode == Admin::FormatNvm.value()
}

// Deleting this lets a namespace be formatted while the controller still has commands that count in its old blocks.
#[test]
fn a_format_is_not_sent_before_io_has_ended() {
    on_reactors(1, || async {
        let rig = Rig::new(ModelOptions::default()).await;
        let mut channel = rig.channel();
        rig.model.hold(is_io);
        submit(&mut *channel, write(1, 2, 40, 8));
        channel.poll(&mut Vec::new());
        let refused = rig.controller.admin(format(1), AdminBuffer::None).await;
        assert!(matches!(refused, Err(DriverError::Timeout { .. })), "{refused:?}");
        assert_eq!(rig.model.statistics().admin_commands.get(&Admin::FormatNvm.value()), None);
        rig.model.hold_none();
        rig.model.release_all();
        assert!(collect(&mut *channel, 1).await[0].status.is_success());
        works(&mut *channel, 3).await;
        assert!(rig.controller.admin(format(1), AdminBuffer::None).await.is_ok());
        rig.end().await;
    });
}

// Deleting this lets I/O go on under a format because another one has ended.
#[test]
fn io_waits_for_each_of_several_formats() {
    on_reactors(2, || async {
        let namespaces = vec![ModelNamespace::new(1, 1 << 12, 512), ModelNamespace::new(2, 1 << 12, 512)];
        let rig = Rig::new(ModelOptions { namespaces, ..Default::default() }).await;
        let mut channel = rig.channel();
        rig.model.hold(is_format);
        let formats = [1, 2].map(|nsid| {
            let controller = rig.controller.clone();
            spawn_local(async move { controller.admin(format(nsid), AdminBuffer::None).await })
        });
        for left in [2, 1] {
            sleep(Duration::from_millis(100)).await;
            assert_eq!(rig.model.held().len(), 1, "one at a time");
            let before = rig.model.statistics().io_commands;
            submit(&mut *channel, read(left, 0, 8));
            sleep(Duration::from_millis(100)).await;
            channel.poll(&mut Vec::new());
            assert_eq!(rig.model.statistics().io_commands, before, "{left} to go");
            assert!(rig.model.release(0));
            assert!(collect(&mut *channel, 1).await[0].status.is_success());
        }
        for format in formats {
            assert!(format.await.is_ok());
        }
        rig.end().await;
    });
}

// Deleting this lets I/O reach a namespace that may still be being formatted, because the answer did not come in time.
#[test]
fn io_waits_for_the_reset_that_ends_a_format() {
    on_reactors(1, || async {
        let rig = Rig::new(ModelOptions::default()).await;
        let mut channel = rig.channel();
        // Whether a format is under way, and whether I/O came meanwhile.
        let seen = Arc::new(Mutex::new((false, false)));
        let place = seen.clone();
        rig.model.hold(move |queue, command| {
            let mut seen = place.lock().unwrap();
            if is_format(queue, command) {
                seen.0 = true;
                return true;
            }
            if queue == 0 && command.opcode == Admin::CreateIoSubmissionQueue.value() {
                seen.0 = false;
            }
            seen.1 |= seen.0 && is_io(queue, command);
            false
        });
        let controller = rig.controller.clone();
        let limit = Duration::from_secs(1);
        let formatting =
            spawn_local(async move { controller.admin_within(limit, format(1), AdminBuffer::None).await });
        sleep(Duration::from_millis(100)).await;
        submit(&mut *channel, write(1, 2, 40, 8));
        assert!(collect(&mut *channel, 1).await[0].status.is_success());
        assert!(matches!(formatting.await, Err(DriverError::Timeout { .. })));
        assert_eq!(*seen.lock().unwrap(), (false, false));
        assert_eq!(rig.controller.statistics().resets, 1);
        rig.model.hold_none();
        rig.end().await;
    });
}
