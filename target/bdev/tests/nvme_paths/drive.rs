//! An NVMe device on a drive: the driver on a model controller, taken out and put back under load that is verified.

use std::sync::Arc;
use std::time::Duration;

use sledge_bdev::BlockDevice;
use sledge_bdev::nvme::options::{AttachOptions, ReconnectPolicy, Transport};
use sledge_bdev::nvme::{Change, Controllers};
use sledge_nvme::Status;
use sledge_nvme::async_event::{EventResult, Notice};
use sledge_nvme::function::Function;
use sledge_nvme::io::{IoCommand, Operation};
use sledge_nvme::model::{Model, ModelNamespace, ModelOptions};
use sledge_reactor::sim::{NodeId, Simulation};
use sledge_reactor::time::now;

use crate::support::*;

/// How long I/O waits for a drive.
const PATIENCE: Duration = Duration::from_secs(4);

struct Machine {
    simulation: Simulation,
    node: NodeId,
    model: Arc<Model>,
    controllers: Controllers,
    device: Arc<sledge_bdev::nvme::NvmeDevice>,
}

fn options() -> AttachOptions {
    let transport = Transport::Pcie { address: "0000:04:00.0".into(), environment: "model".into() };
    let mut options = AttachOptions::new("Nvme0", transport);
    options.reconnect = ReconnectPolicy { fast_fail: Some(PATIENCE), ..ReconnectPolicy::default() };
    options
}

impl Machine {
    fn new(seed: u64) -> Machine {
        let mut simulation = Simulation::new(seed);
        let node = simulation.add_node("machine", 2);
        let model = Model::new(ModelOptions {
            namespaces: vec![ModelNamespace::new(1, BLOCKS, BLOCK as u32)],
            ..ModelOptions::default()
        });
        let controllers = controllers(&simulation, node);
        let drive = model.clone();
        controllers.open_drives_by(move |_, _| Ok(drive.clone() as Arc<dyn Function>));
        let made = attach(&mut simulation, node, &controllers, options()).unwrap();
        assert_eq!(made.len(), 1);
        Machine { simulation, node, model, controllers, device: made[0].clone() }
    }

    fn load(&mut self) -> Progress {
        let (progress, device) = (Progress::default(), self.device.clone());
        let telling = progress.clone();
        self.simulation.spawn(self.node, move || load(device, telling));
        progress
    }

    fn bring_back(&mut self) {
        let controllers = self.controllers.clone();
        self.simulation.block_on(self.node, move || async move { controllers.bring_back().await }).unwrap();
    }

    fn state(&self) -> &'static str {
        self.controllers.list(None).unwrap()[0].ctrlrs[0].state
    }

    fn finish(mut self, progress: &Progress) -> Tally {
        progress.stop();
        for _ in 0..600 {
            if progress.is_done() {
                let detaching = self.controllers.detach("Nvme0", |_| true).unwrap();
                self.controllers.finish_detach(detaching);
                self.simulation.run_for(Duration::from_secs(2));
                // The driver masks interrupts, which the model does not have.
                let mut violations = self.model.violations();
                violations.retain(|violation| !violation.contains("register 0xc"));
                assert_eq!(violations, Vec::<String>::new());
                assert_eq!(self.model.faults().len(), 0, "nothing reaches memory that is not mapped");
                assert_eq!(self.model.mapped_bytes(), 0, "all memory is given back");
                return progress.tally();
            }
            self.simulation.run_for(Duration::from_millis(50));
        }
        panic!("not done: {:?}", progress.tally());
    }
}

// Without it: a drive would not be there as a device with its own identity, or not do what devices do.
#[test]
fn a_drive_is_a_device() {
    let mut machine = Machine::new(1);
    let device = machine.device.clone();
    assert_eq!((device.name(), device.geometry().blocks), ("Nvme0n1", BLOCKS));
    assert_eq!(device.uuid(), uuid::Uuid::from_bytes(ModelNamespace::new(1, 1, 512).nguid));
    let error = attach(&mut machine.simulation, machine.node, &machine.controllers, options()).unwrap_err();
    assert!(error.contains("exists already"), "{error}");
    let progress = machine.load();
    machine.simulation.run_for(Duration::from_secs(1));
    let tally = machine.finish(&progress);
    assert!(tally.answered > 1000 && tally.failed == 0, "{tally:?}");
}

// Without it: a drive that is taken out and put back would lose commands, or be lost until the next start.
#[test]
fn a_drive_that_returns_in_time_goes_on() {
    for seed in seeds(6) {
        let mut machine = Machine::new(seed);
        let progress = machine.load();
        for round in 0..3 {
            machine.simulation.run_for(Duration::from_millis(100 + seed * 31 + round * 17));
            machine.model.remove();
            machine.simulation.run_for(Duration::from_secs(1));
            assert!(machine.controllers.has_removed_drives());
            assert_eq!(machine.state(), "reconnecting");
            machine.bring_back();
            assert_eq!(machine.state(), "reconnecting", "it is not there");
            machine.model.insert();
            machine.bring_back();
            assert_eq!(machine.state(), "enabled");
        }
        machine.simulation.run_for(Duration::from_millis(200));
        let tally = machine.finish(&progress);
        assert!(tally.answered > 500, "seed {seed}: {tally:?}");
        // Swaps whose outcome is not known may.
        assert!(tally.failed <= 24, "seed {seed}: {tally:?}");
        assert!(tally.longest < PATIENCE, "seed {seed}: {tally:?}");
    }
}

// Without it: I/O to a drive that is away would wait for ever, or fail so that hosts give the disk up.
#[test]
fn a_drive_that_stays_away_fails_retryably_and_recovers() {
    let mut machine = Machine::new(7);
    let progress = machine.load();
    machine.simulation.run_for(Duration::from_millis(300));
    machine.model.remove();
    machine.simulation.run_for(PATIENCE * 2);
    let away = progress.tally();
    assert!(away.failed > 0, "{away:?}");
    machine.model.insert();
    machine.bring_back();
    machine.simulation.run_for(Duration::from_secs(1));
    let back = progress.tally();
    assert!(back.answered > away.answered + 500, "{away:?} {back:?}");
    let tally = machine.finish(&progress);
    assert!(tally.longest < PATIENCE * 2, "{tally:?}");
}

// Without it: a namespace that is made or grows on a drive would be seen only after a restart.
#[test]
fn a_drive_announces_its_namespaces() {
    let mut machine = Machine::new(3);
    machine.model.set_namespace(ModelNamespace::new(1, 2 * BLOCKS, BLOCK as u32));
    machine.model.set_namespace(ModelNamespace::new(2, BLOCKS, BLOCK as u32));
    machine.model.raise(EventResult::notice(Notice::NamespaceAttributeChanged));
    machine.simulation.run_for(Duration::from_secs(2));
    let mut seen = Vec::new();
    for change in machine.controllers.take_changes() {
        match change {
            Change::Appeared(device) => seen.push(format!("{} appeared", device.name())),
            Change::Grown(device, geometry) => {
                seen.push(format!("{} grew to {}", device.name(), geometry.blocks));
                device.grow(geometry).map(drop).unwrap();
            }
            Change::Vanished(device) => seen.push(format!("{} vanished", device.name())),
        }
    }
    seen.sort();
    assert_eq!(seen, [format!("Nvme0n1 grew to {}", 2 * BLOCKS), "Nvme0n2 appeared".to_owned()]);
    let device = machine.device.clone();
    let work = move || async move {
        let mut channel = device.open_channel().unwrap();
        let at = now();
        let done = run(&mut *channel, vec![IoCommand::new(0, Operation::Read, 2 * BLOCKS - 1, 1)]).await;
        assert_eq!(done[0].status, Status::SUCCESS);
        assert!(now() - at < Duration::from_secs(1));
    };
    machine.simulation.block_on(machine.node, work).unwrap();
}
