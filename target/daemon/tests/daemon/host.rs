//! A host of a real target: NVMe/TCP from a reactor of this test's own.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};
use sledge_nvme::Status;
use sledge_nvme::fabrics::Nqn;
use sledge_nvme::io::{Channel, IoCommand, Submitted};
use sledge_nvmf::host::{ConnectOptions, Controller, HostIdentity, QueuePair};
use sledge_reactor::message::Remote;
use sledge_reactor::options::{CoreList, ReactorOptions};
use sledge_reactor::{Reactors, sleep};

use crate::support::{Target, free_port};

/// The subsystem of [`serving`].
pub const NQN: &str = "nqn.2026-01.io.sledge:test";

/// A target that serves `device`, made by the given calls, as namespace 1 to any host.
pub fn serving(
    calls: impl FnOnce(&Target) -> Vec<(&'static str, Value)>,
    device: &str,
) -> (Target, SocketAddr) {
    let mut target = Target::start(&["--empty"]);
    let port = free_port();
    let address = json!({"trtype": "TCP", "traddr": "127.0.0.1", "trsvcid": port.to_string()});
    let mut all = calls(&target);
    all.extend([
        ("nvmf_create_transport", json!({"trtype": "TCP"})),
        ("nvmf_create_subsystem", json!({"nqn": NQN, "allow_any_host": true})),
        ("nvmf_subsystem_add_ns", json!({"nqn": NQN, "namespace": {"bdev_name": device}})),
        ("nvmf_subsystem_add_listener", json!({"nqn": NQN, "listen_address": address})),
    ]);
    for (method, params) in all {
        target.call(method, params).unwrap_or_else(|error| panic!("{method}: {error:?}"));
    }
    (target, SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// Runs `host` on a reactor beside `work`; gives what both gave.
pub fn beside<T, W, Fut>(host: impl FnOnce() -> Fut + Send + 'static, work: impl FnOnce() -> W) -> (T, W)
where
    T: Send + 'static,
    Fut: Future<Output = T> + 'static,
{
    let options = ReactorOptions { cores: CoreList::floating(1), ..ReactorOptions::default() };
    let reactors = Reactors::start(options).unwrap();
    let running: Remote<T> = reactors.handles()[0].spawn(host);
    let worked = work();
    let result = running.wait_blocking().unwrap();
    reactors.stop();
    (result, worked)
}

/// Connects to the subsystem of [`serving`].
pub async fn connect(address: SocketAddr) -> Controller {
    let host = HostIdentity::random().unwrap();
    Controller::connect(ConnectOptions::new(address, Nqn::new(NQN).unwrap(), host)).await.unwrap()
}

/// Runs one command to its end.
pub async fn run(queue: &mut QueuePair, io: IoCommand) -> Status {
    let submitted = queue.submit(io);
    queue.flush();
    if let Submitted::Done(done) = submitted {
        return done.status;
    }
    let mut done = Vec::new();
    while done.is_empty() {
        queue.poll(&mut done);
        sleep(Duration::from_millis(1)).await;
    }
    done[0].status
}
