//! Methods that only tune what SPDK has and this target has not (pools of its framework, socket modules, other
//! kinds of devices), but that a configuration saved by SPDK contains. They are accepted and change nothing.

use serde_json::{Value, json};
use tracing::info;

use super::{Action, Method, Phase};
use crate::model::Draft;
use crate::rpc::error::RpcError;

/// A row of the table.
macro_rules! ignored {
    ($name:literal) => {
        Method {
            name: $name,
            phase: Phase::Any,
            action: Action::Edit(|draft, params| ignore(draft, $name, params)),
        }
    };
}

pub(super) static METHODS: &[Method] = &[
    ignored!("accel_set_options"),
    ignored!("bdev_iscsi_set_options"),
    ignored!("bdev_raid_set_options"),
    ignored!("iobuf_set_options"),
    ignored!("iscsi_set_options"),
    ignored!("scheduler_set_options"),
    ignored!("sock_impl_set_options"),
    ignored!("sock_set_default_impl"),
];

fn ignore(_: &mut Draft, name: &str, _: Value) -> Result<Value, RpcError> {
    info!(method = name, "accepted and ignored: it tunes something that this target does not have");
    Ok(json!(true))
}
