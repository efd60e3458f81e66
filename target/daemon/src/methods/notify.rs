//! `notify_get_types`, `notify_get_notifications`: what has come and gone, for clients that keep a picture of it.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::bdev::Nothing;
use crate::daemon::Daemon;
use crate::model::events::Kind;
use crate::rpc::error::RpcError;

pub(super) async fn get_types(_: Arc<Daemon>, _: Nothing) -> Result<Value, RpcError> {
    Ok(Kind::ALL.iter().map(|kind| kind.name()).collect())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Get {
    /// The first that is wanted.
    id: Option<u64>,
    max: Option<u64>,
}

pub(super) async fn get_notifications(daemon: Arc<Daemon>, params: Get) -> Result<Value, RpcError> {
    let most = usize::try_from(params.max.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let found = daemon.events().since(params.id.unwrap_or(0), most);
    let report = |(id, event): (u64, crate::model::events::Event)| json!({"type": event.kind.name(), "ctx": event.subject, "id": id});
    Ok(found.into_iter().map(report).collect())
}
