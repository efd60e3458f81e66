//! What a person sees of the hosts that are connected.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;

use serde_json::json;
use sledge_nvme::fabrics::Nqn;
use sledge_nvmf::host::{ConnectOptions, Controller, HostIdentity, QueuePair};
use sledge_reactor::Reactors;
use sledge_reactor::options::{CoreList, ReactorOptions};

use crate::support::{Target, cells, free_port};

const NQN: &str = "nqn.2026-01.io.sledge:hosts";

/// A host with one I/O queue, as long as this lives.
struct Host {
    _reactors: Reactors,
    nqn: String,
}

impl Host {
    fn connect(address: SocketAddr) -> Host {
        let options = ReactorOptions { cores: CoreList::floating(1), ..ReactorOptions::default() };
        let reactors = Reactors::start(options).unwrap();
        let (connected, told) = mpsc::channel();
        drop(reactors.handles()[0].spawn(move || async move {
            let identity = HostIdentity::random().unwrap();
            let nqn = identity.nqn.to_string();
            let mut options = ConnectOptions::new(address, Nqn::new(NQN).unwrap(), identity);
            options.header_digest = true;
            let controller = Controller::connect(options).await.unwrap();
            let queue = QueuePair::open(&controller, 1).await.unwrap();
            connected.send(nqn).unwrap();
            // Both go with the reactor.
            std::future::pending::<()>().await;
            drop((controller, queue));
        }));
        let nqn = told.recv().expect("the host connects");
        Host { _reactors: reactors, nqn }
    }
}

// Without it: a person could not tell who uses a disk, or whether it is safe to take away.
#[test]
fn connected_hosts_are_listed() {
    let target = Target::start();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let shown = address.to_string();
    target.says(&["device", "create", "null", "N", "--size", "1M"]);
    target.says(&["subsystem", "create", NQN, "--allow-any"]);
    target.says(&["namespace", "add", NQN, "N"]);
    target.says(&["listener", "add", NQN, &shown]);
    for noun in ["connection", "controller"] {
        assert_eq!(target.says(&[noun, "list"]), "no host is connected\n");
        assert_eq!(target.json(&[noun, "list", NQN]), json!([]));
    }
    let host = Host::connect(address);

    let table = cells(&target.says(&["connections", "list"]));
    assert_eq!(
        table[0],
        ["SUBSYSTEM", "CNTLID", "QID", "HOST", "FROM", "TO", "DEPTH", "DIGESTS", "STATE"],
        "{table:?}"
    );
    for (row, queue) in table[1..].iter().zip(["0", "1"]) {
        assert_eq!((&row[0][..], &row[2][..], &row[3]), (NQN, queue, &host.nqn), "{row:?}");
        assert_eq!((&row[5], &row[7][..], &row[8][..]), (&shown, "header", "enabled"), "{row:?}");
    }
    assert_eq!(table.len(), 3, "{table:?}");
    let controllers = cells(&target.says(&["controller", "list", NQN]));
    assert_eq!(controllers[0], ["SUBSYSTEM", "CNTLID", "HOST", "I/O QUEUES", "KEEP ALIVE"]);
    assert_eq!(controllers[1][2..4], [&host.nqn[..], "1"]);
    assert_eq!(target.json(&["controllers", "list"])[0]["nqn"], NQN);
    let status = target.json(&["status"]);
    assert_eq!((&status["controllers"], &status["io_queue_pairs"]), (&json!(1), &json!(1)));

    // To take the subsystem away is to send its hosts away.
    target.says(&["subsystem", "delete", NQN]);
    assert_eq!(target.json(&["status"])["subsystems"], 0);
    let stats = &target.json(&["rpc", "nvmf_get_stats"])["poll_groups"][0];
    assert_eq!(
        (&stats["admin_qpairs"], &stats["io_qpairs"]),
        (&json!(1), &json!(1)),
        "what was stays counted"
    );
}
