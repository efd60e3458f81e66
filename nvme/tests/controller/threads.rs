//! The same on reactors that are threads: the model, the queues and the control path, really at once.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sledge_nvme::model::ModelOptions;
use sledge_reactor::{CoreList, PoolOptions, ReactorOptions, Reactors, Wait, peers, sleep};

use crate::rig::{Rig, load, works};

// Deleting this lets what is right in turns be wrong at once: an entry read before it is written, a doorbell lost, a
// queue touched by two threads.
#[test]
fn threads_do_as_the_simulator_does() {
    for (max_io_queues, shadow_doorbells) in [(64, false), (64, true), (1, true)] {
        let reactors = Reactors::start(ReactorOptions {
            cores: CoreList::floating(2),
            wait: Wait::default(),
            pool: PoolOptions { total_bytes: 16 << 20 },
        })
        .unwrap();
        let test = move || async move {
            let rig = Rig::new(ModelOptions { max_io_queues, shadow_doorbells, ..Default::default() }).await;
            rig.model.automatic(false);
            let stop = Arc::new(Mutex::new(false));
            // The controller works by itself, on a thread of its own.
            let (model, over) = (rig.model.clone(), stop.clone());
            let device = std::thread::spawn(move || {
                while !*over.lock().unwrap() {
                    model.step();
                    std::thread::yield_now();
                }
                model.automatic(true);
            });
            let loads: Vec<_> = peers()
                .into_iter()
                .zip(0..)
                .map(|(peer, index)| {
                    let (controller, stop) = (rig.controller.clone(), stop.clone());
                    peer.spawn(move || load(controller, index * 100, Duration::ZERO, stop))
                })
                .collect();
            for _ in 0..3 {
                sleep(Duration::from_millis(30)).await;
                rig.controller.reset().await.unwrap();
            }
            *stop.lock().unwrap() = true;
            for load in loads {
                assert!(load.await.unwrap() > 0, "I/O went on");
            }
            device.join().unwrap();
            works(&mut *rig.channel(), 1).await;
            rig.end().await;
        };
        reactors.handles()[0].spawn(test).wait_blocking().unwrap();
        reactors.stop();
    }
}
