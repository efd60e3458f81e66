//! Registers, readiness, Identify, queues, features, events.

use zerocopy::FromBytes;

use super::super::{Model, ModelNamespace, ModelOptions, Readiness};
use super::{Host, host_with_queue, prp};
use crate::async_event::{EventResult, HealthEvent, Notice};
use crate::feature::{AsyncEventConfiguration, Feature, NumberOfQueues};
use crate::function::{Function, Presence};
use crate::identify::{
    CommandSet, ControllerData, NamespaceData, NamespaceIdentifier, NamespaceIdentifiers, NamespaceList,
};
use crate::opcode::Admin;
use crate::property::{Configuration, Property, ShutdownNotification, ShutdownStatus};
use crate::{Command, Status};

// Deleting this lets the model come up otherwise than the specification says, and the driver's tests with it.
#[test]
fn comes_up_and_keeps_data() {
    let mut host = Host::new(ModelOptions::default());
    assert!(host.status().ready());
    let data = host.identify(Command::identify(1, 0)).unwrap();
    let data = ControllerData::read_from_bytes(&data).unwrap();
    assert_eq!((data.serial_number(), data.nn.get(), data.mdts), ("SLEDGE0001", 16, 5));
    let list = NamespaceList::read_from_bytes(&host.identify(Command::identify(2, 0)).unwrap()).unwrap();
    assert_eq!(list.iter().collect::<Vec<_>>(), [1]);
    let space = NamespaceData::read_from_bytes(&host.identify(Command::identify(0, 1)).unwrap()).unwrap();
    assert_eq!((space.nsze.get(), space.block_bytes()), (1 << 20, Some(512)));

    let queues = NumberOfQueues::pairs(2).bits();
    let result = host.admin(Command::set_features(Feature::NumberOfQueues.value(), 0, queues)).result.get();
    assert_eq!(NumberOfQueues::from_bits(result).submission_minus_one(), 63);
    assert_eq!(host.create_pair(1, 8), Status::SUCCESS);
    let mut page = host.model.allocate(8192).unwrap();
    page.copy_from(0, &[7; 1024]);
    let at = page.device_address(0);
    assert_eq!(host.run(1, prp(Command::write(1, 5, 2), at, 0)).status(), Status::SUCCESS);
    assert_eq!(host.run(1, prp(Command::read(1, 5, 2), at + 4096, 0)).status(), Status::SUCCESS);
    assert_eq!(
        (page.read::<u8>(4096), page.read::<u8>(4096 + 1023), page.read::<u8>(4096 + 1024)),
        (7, 7, 0)
    );
    assert_eq!(host.model.content(1, 6), [7; 512]);
    host.faultless();
}

const CC: usize = Property::Cc.value() as usize;

// Deleting this lets tests of slow and dead controllers run against one that is ready at once.
#[test]
fn readiness_follows_as_told() {
    let enabling = Readiness::AfterReads(3);
    let mut host =
        Host::new(ModelOptions { enabling, disabling: Readiness::AfterReads(2), ..Default::default() });
    let ready: Vec<bool> = (0..4).map(|_| host.status().ready()).collect();
    assert_eq!(ready, [false, false, true, true]);
    host.model.write_u32(CC, 0);
    assert_eq!((host.status().ready(), host.status().ready()), (true, false));
    host.model.set_readiness(Readiness::Never, Readiness::AtOnce);
    host.enable(4);
    assert!((0..100).all(|_| !host.status().ready()));
    host.faultless();
    host.submit(0, Command::keep_alive());
    assert_eq!(host.model.violations(), ["doorbell of queue 0 rung while not ready"]);

    let mut hasty = Host::new(ModelOptions { disabling: Readiness::Never, ..Default::default() });
    hasty.model.write_u32(CC, 0);
    hasty.enable(4);
    assert_eq!(hasty.model.violations(), ["enabled while CSTS.RDY was still set"]);
}

// Deleting this lets a driver that breaks the rules of enabling pass its tests.
#[test]
fn enabling_against_the_rules_is_fatal_and_noted() {
    let model = Model::new(ModelOptions::default());
    model.write_u32(CC, Configuration::ENABLE_NVM.bits());
    assert_eq!(model.read_u32(Property::Csts.value() as usize), 2);
    assert_eq!(model.violations().len(), 1);
    model.write_u32(CC, 0);
    assert_eq!(model.read_u32(Property::Csts.value() as usize), 0);

    let host = Host::new(ModelOptions::default());
    host.model.write_u32(Property::Aqa.value() as usize, 0);
    host.model.write_u32(CC, Configuration::ENABLE_NVM.with_memory_page_size(1).bits());
    assert_eq!(host.model.violations().len(), 2);
}

// Deleting this lets shutdown, reset and power loss be taken for each other.
#[test]
fn shutdown_reset_and_power() {
    let mut host = host_with_queue(ModelOptions { volatile_write_cache: true, ..Default::default() }, 8);
    let page = host.model.allocate(4096).unwrap();
    let write = prp(Command::write(1, 3, 1), page.device_address(0), 0);
    let shutdown = Configuration::ENABLE_NVM.with_shutdown(ShutdownNotification::Normal);
    host.run(1, write);
    host.model.write_u32(CC, shutdown.bits());
    assert_eq!(host.status().shutdown(), Some(ShutdownStatus::Complete));
    assert!(!host.model.step() && host.next(1).is_none(), "nothing runs after a shutdown");
    host.model.write_u32(CC, 0);
    assert_eq!(host.status().bits(), 0);
    assert_eq!(host.model.statistics().shutdowns, 1);
    assert_eq!(host.model.io_queues(), []);
    assert_ne!(
        host.model.read_u64(Property::Asq.value() as usize),
        0,
        "a controller reset keeps the admin queues"
    );
    assert!(host.model.reset().unwrap());
    assert_eq!(host.model.read_u64(Property::Asq.value() as usize), 0);
    host.enable(4);
    assert!(host.status().ready());
    host.model.write_u32(Property::Nssr.value() as usize, 0x4e56_4d65);
    assert!(host.status().subsystem_reset_occurred() && !host.status().ready());
    host.model.set_presence(Presence::Leaving);
    assert_eq!(host.model.presence(), Presence::Leaving);
    host.model.remove();
    assert_eq!((host.status().bits(), host.model.presence()), (u32::MAX, Presence::Gone));
    host.model.insert();
    host.enable(4);
    assert!(host.status().ready());
    host.faultless();
}

// Deleting this lets queues be made that the specification forbids.
#[test]
fn queues_are_made_by_the_rules() {
    let mut host = Host::new(ModelOptions { max_io_queues: 2, max_queue_entries: 16, ..Default::default() });
    assert_eq!(host.create_pair(0, 8), Status::INVALID_QUEUE_IDENTIFIER.do_not_retry());
    assert_eq!(host.create_pair(3, 8), Status::INVALID_QUEUE_IDENTIFIER.do_not_retry());
    assert_eq!(host.create_pair(1, 17), Status::INVALID_QUEUE_SIZE.do_not_retry());
    assert_eq!(host.create_pair(1, 1), Status::INVALID_QUEUE_SIZE.do_not_retry());
    assert_eq!(host.create_pair(1, 16), Status::SUCCESS);
    assert_eq!(host.create_pair(1, 16), Status::INVALID_QUEUE_IDENTIFIER.do_not_retry());
    let many = Command::set_features(Feature::NumberOfQueues.value(), 0, 0);
    assert_eq!(host.admin(many).status(), Status::COMMAND_SEQUENCE_ERROR.do_not_retry());
    let mut delete = Command { opcode: Admin::DeleteIoCompletionQueue.value(), ..Command::default() };
    delete.cdw10.set(1);
    assert_eq!(host.admin(delete).status(), Status::INVALID_QUEUE_DELETION.do_not_retry());
    delete.opcode = Admin::DeleteIoSubmissionQueue.value();
    assert_eq!(host.admin(delete).status(), Status::SUCCESS);
    delete.opcode = Admin::DeleteIoCompletionQueue.value();
    assert_eq!(host.admin(delete).status(), Status::SUCCESS);
    let mut create = Command { opcode: Admin::CreateIoSubmissionQueue.value(), ..Command::default() };
    create.cdw10.set(0x0007_0001);
    create.cdw11.set(0x0001_0001);
    assert_eq!(host.admin(create).status(), Status::COMPLETION_QUEUE_INVALID.do_not_retry());
    host.faultless();
}

// Deleting this lets a zoned namespace be taken for an ordinary one, or names get lost.
#[test]
fn namespaces_say_what_they_are() {
    let mut named = ModelNamespace::new(4, 100, 4096);
    (named.eui64, named.uuid) = ([1; 8], [2; 16]);
    let zoned = ModelNamespace::new(7, 100, 4096).zoned();
    let mut host = Host::new(ModelOptions { namespaces: vec![named.clone(), zoned], ..Default::default() });
    let list = |host: &mut Host, command: Command| -> Vec<u32> {
        NamespaceList::read_from_bytes(&host.identify(command).unwrap()).unwrap().iter().collect()
    };
    assert_eq!(list(&mut host, Command::identify(2, 0)), [4, 7]);
    assert_eq!(list(&mut host, Command::identify(2, 4)), [7]);
    assert_eq!(list(&mut host, Command::identify(7, 0)), [4]);
    assert_eq!(list(&mut host, Command::identify(7, 0).with_command_set(CommandSet::Zoned.value())), [7]);
    let names = host.identify(Command::identify(3, 4)).unwrap();
    assert_eq!(
        NamespaceIdentifiers::new(&names).collect::<Vec<_>>(),
        [
            NamespaceIdentifier::Eui64([1; 8]),
            NamespaceIdentifier::Nguid(named.nguid),
            NamespaceIdentifier::Uuid([2; 16]),
            NamespaceIdentifier::CommandSet(CommandSet::Nvm),
        ]
    );
    let names = host.identify(Command::identify(3, 7)).unwrap();
    assert_eq!(
        NamespaceIdentifiers::new(&names).last(),
        Some(NamespaceIdentifier::CommandSet(CommandSet::Zoned))
    );
    let nothing = host.identify(Command::identify(0, 5)).unwrap();
    assert_eq!(NamespaceData::read_from_bytes(&nothing).unwrap(), NamespaceData::inactive());
    let unknown = host.identify(Command::identify(3, 5));
    assert_eq!(unknown, Err(Status::INVALID_NAMESPACE_OR_FORMAT.do_not_retry()));
    assert_eq!(host.identify(Command::identify(0xff, 0)), Err(Status::INVALID_FIELD.do_not_retry()));
    assert_eq!(host.identify(Command::identify(0x1c, 0)).unwrap()[..9], [5, 0, 0, 0, 0, 0, 0, 0, 0]);
    host.faultless();
}

// Deleting this lets the model flood a host with events, or never report one that it was asked for.
#[test]
fn events_wait_for_requests_and_to_be_cleared() {
    let mut host = Host::new(ModelOptions::default());
    host.model.raise(EventResult::notice(Notice::NamespaceAttributeChanged));
    let on = AsyncEventConfiguration::default().with_namespace_attribute(true).with_critical_warnings(0xff);
    host.admin(Command::set_features(Feature::AsyncEventConfiguration.value(), 0, on.bits()));
    host.submit(0, prp(Command::async_event_request(), 0, 0));
    host.submit(0, prp(Command::async_event_request(), 0, 0));
    assert_eq!(host.next(0), None, "what was raised before it was enabled is not reported");

    host.model.set_namespace(ModelNamespace::new(9, 100, 512));
    let told = host.next(0).unwrap();
    assert_eq!(told.result.get(), EventResult::notice(Notice::NamespaceAttributeChanged).bits());
    host.consumed(0);
    assert!(host.model.remove_namespace(9) && host.next(0).is_none(), "not again until the log is read");
    host.model.raise(EventResult::health(HealthEvent::SpareBelowThreshold));
    assert_eq!(
        host.next(0).unwrap().result.get(),
        EventResult::health(HealthEvent::SpareBelowThreshold).bits()
    );
    host.consumed(0);

    let page = host.model.allocate(4096).unwrap();
    let read = Command::get_log_page(4, 0xffff_ffff, 0, 4096);
    assert_eq!(host.run(0, prp(read, page.device_address(0), 0)).status(), Status::SUCCESS);
    assert_eq!((page.read::<u32>(0), page.read::<u32>(4)), (9, 0));
    host.submit(0, prp(Command::async_event_request(), 0, 0));
    assert!(host.next(0).is_some(), "the second change is told once the first is read");
    host.consumed(0);
    let aborted = host.submit(0, prp(Command::async_event_request(), 0, 0));
    assert_eq!(host.next(0), None);
    host.submit(0, prp(Command::abort(0, aborted), 0, 0));
    assert_eq!(host.next(0).unwrap().status(), Status::ABORTED_BY_REQUEST);
    assert_eq!(host.next(0).unwrap().result.get(), 0);
    host.faultless();
}

// Deleting this lets shadow doorbells be ignored, or be believed for the admin queue, which hosts ring by register.
#[test]
fn shadow_doorbells_are_read() {
    let options = ModelOptions { shadow_doorbells: true, doorbell_stride: 1, ..Default::default() };
    let mut host = Host::new(options);
    let (mut shadow, event) = (host.model.allocate(4096).unwrap(), host.model.allocate(4096).unwrap());
    let configure = Command { opcode: Admin::DoorbellBufferConfig.value(), ..Command::default() };
    let configure = prp(configure, shadow.device_address(0), event.device_address(0));
    assert_eq!(host.run(0, configure).status(), Status::SUCCESS);
    assert_eq!(host.create_pair(1, 8), Status::SUCCESS);
    host.put(1, prp(Command::flush(1), 0, 0));
    assert!(!host.model.step());
    shadow.write::<u32>(2 * 8, 1);
    assert!(host.model.step() && host.next(1).is_some());
    assert_eq!(event.read::<u32>(2 * 8), 1, "the host learns up to where it was read");
    shadow.write::<u32>(3 * 8, 1);
    host.model.step();
    assert_eq!(event.read::<u32>(3 * 8), 1);
    assert_eq!(host.model.statistics().submission_doorbells, 0);
    host.faultless();
}
