//! A host whose target is not what it was, or busy, when a connection is lost or looked after.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use sledge_nvme::Command;
use sledge_nvmf::host::{AdminData, Controller, QueuePairState};
use sledge_reactor::sim::{SimulationConfig, for_seeds};
use sledge_reactor::{sleep, spawn_local};

use crate::losses::eager;
use crate::support::queue::Queue;
use crate::support::{World, malloc};

// Without this a target that grants fewer queues than before would be connected and given up for ever, with no I/O on
// the queues that it does grant.
#[test]
fn a_queue_that_is_refused_takes_no_others_down() {
    for_seeds(20, |seed| {
        let mut world = World::new(seed, SimulationConfig::default(), 1 + seed as usize % 2, 1);
        world.serve(vec![malloc("disk", 64, 512)]);
        let options = eager(world.options());
        let (lose, done) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
        let (ready, finished) = (lose.clone(), done.clone());
        world.simulation.spawn(world.host_node, || async move {
            let controller = Controller::connect(options).await.unwrap();
            let geometry = controller.geometry(1).await.unwrap();
            let connector = controller.connector();
            let first = Queue::new(connector.open(1, geometry).await.unwrap());
            let second = Queue::new(connector.open(1, geometry).await.unwrap());
            ready.set(true);
            while first.state() == QueuePairState::Live {
                sleep(Duration::from_millis(10)).await;
            }
            while first.state() != QueuePairState::Live {
                sleep(Duration::from_millis(10)).await;
            }
            let incarnation = controller.incarnation();
            for _ in 0..50 {
                first.read(0, 1).await;
                sleep(Duration::from_millis(100)).await;
            }
            assert_eq!(controller.incarnation(), incarnation, "connected anew");
            assert_eq!(second.state(), QueuePairState::Reconnecting);
            drop((first, second));
            controller.shutdown().await.unwrap();
            finished.set(true);
        });
        world.simulation.run_until(|| lose.get()).unwrap();
        let mut fewer = (*world.target.definition()).clone();
        fewer.transport.max_io_queues_per_controller = 1;
        world.apply(fewer);
        world.simulation.reset_connections(world.target_node, world.host_node);
        world.simulation.run_until(|| done.get()).unwrap();
        world.expect_target_is_empty(1);
    });
}

// Without this admin commands that take long would keep Keep Alive from being sent, and the controller be lost.
#[test]
fn slow_admin_commands_leave_room_for_keep_alive() {
    let mut world = World::new(1, SimulationConfig::default(), 1, 1);
    let mut definition = world.definition(vec![malloc("disk", 64, 512)]);
    // Event requests are answered when there are events, and here are none.
    definition.transport.max_async_events = 40;
    world.apply(definition);
    let options = eager(world.options());
    let host = async move || {
        let controller = Rc::new(Controller::connect(options).await.unwrap());
        let refused = Rc::new(Cell::new(0));
        let tasks: Vec<_> = (0..40)
            .map(|_| {
                let (controller, refused) = (controller.clone(), refused.clone());
                spawn_local(async move {
                    let request = Command::async_event_request();
                    let limit = Duration::from_secs(1000);
                    let _ = controller.admin_within(limit, "waiting", request, AdminData::None).await;
                    refused.set(refused.get() + 1);
                })
            })
            .collect();
        sleep(Duration::from_secs(60)).await;
        assert!(refused.get() > 0, "the admin queue is not full");
        assert_eq!(controller.incarnation(), Some(0), "the connection was lost");
        drop(tasks);
    };
    world.simulation.block_on(world.host_node, host).unwrap();
}
