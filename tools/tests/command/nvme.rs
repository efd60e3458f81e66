//! NVMe controllers that a person attaches and detaches.

use crate::support::{Target, cells, free_port};

const NQN: &str = "nqn.2026-01.io.sledge:back";

// Without it: a person could not use another target's disk, or would not be told how a device of a controller goes.
#[test]
fn controllers_come_and_go() {
    let back = Target::start();
    let port = free_port().to_string();
    let address = format!("127.0.0.1:{port}");
    back.says(&["device", "create", "malloc", "M", "--size", "1M", "--block-size", "512"]);
    back.says(&["subsystem", "create", NQN, "--serial", "BACK", "--model", "Disk", "--allow-any"]);
    back.says(&["namespace", "add", NQN, "M"]);
    back.says(&["listener", "add", NQN, &address]);

    let front = Target::start();
    assert!(front.says(&["nvme", "list"]).contains("no NVMe controllers are attached"));
    assert_eq!(front.says(&["nvme", "attach", "Nvme0", &address, NQN]), "attached Nvme0: Nvme0n1\n");
    let listed = front.says(&["nvme", "list"]);
    let row = ["Nvme0", "enabled", &address, NQN, "Disk", "BACK"];
    assert_eq!(cells(&listed)[1], row, "{listed}");
    assert_eq!(cells(&front.says(&["device", "list"]))[1][..2], ["Nvme0n1", "NVMe disk"]);
    assert!(front.says(&["nvme", "health", "Nvme0"]).contains("power on hours"));
    assert_eq!(front.says(&["nvme", "reset", "Nvme0"]), "reset Nvme0\n");
    let refused = front.refuses(&["device", "delete", "Nvme0n1"]);
    assert!(refused.contains("sledge nvme detach"), "{refused}");
    assert!(front.refuses(&["nvme", "detach", "Nvme0", "127.0.0.9"]).contains("no such path"));
    assert_eq!(front.says(&["nvme", "detach", "Nvme0"]), "detached Nvme0\n");
    assert!(front.refuses(&["nvme", "detach", "Nvme0"]).contains("there is no NVMe controller named Nvme0"));
    let missing = front.refuses(&["nvme", "attach-drive", "Nvme1", "0000:ff:1f.7"]);
    assert!(missing.contains("0000:ff:1f.7"), "{missing}");
}
