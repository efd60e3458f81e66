//! `nvmf_discovery_*_referral*`: discovery services elsewhere that ours refers hosts to.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use sledge_nvmf::target::definition::{DISCOVERY_NQN, Referral};

use super::nvmf_subsystem::check_nqn;
use super::params::neutral;
use crate::daemon::Daemon;
use crate::model::Draft;
use crate::model::address::{self, TransportAddress};
use crate::rpc::error::RpcError;

/// The most referrals, so that the discovery log page stays small.
const MAX_REFERRALS: usize = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    address: TransportAddress,
    subnqn: Option<String>,
    secure_channel: Option<bool>,
    #[serde(rename = "tgt_name")]
    _tgt_name: Option<String>,
}

impl Change {
    fn referral(self) -> Result<Referral, RpcError> {
        neutral("secure_channel", self.secure_channel, false)?;
        let nqn = self.subnqn.unwrap_or_else(|| DISCOVERY_NQN.to_owned());
        check_nqn("subnqn", &nqn)?;
        Ok(Referral { address: self.address.socket_address("address")?, nqn })
    }
}

pub(super) fn add_referral(draft: &mut Draft, params: Change) -> Result<Value, RpcError> {
    let referral = params.referral()?;
    let referrals = &draft.model.definition.referrals;
    if referrals.contains(&referral) {
        return Err(RpcError::errno(
            17,
            "File exists",
            format!("there is a referral to {}", referral.address),
        ));
    }
    if referrals.len() >= MAX_REFERRALS {
        let reason = format!("{MAX_REFERRALS} referrals is the most");
        return Err(RpcError::errno(28, "No space left on device", reason));
    }
    draft.definition().referrals.push(referral);
    Ok(json!(true))
}

pub(super) fn remove_referral(draft: &mut Draft, params: Change) -> Result<Value, RpcError> {
    let referral = params.referral()?;
    if !draft.model.definition.referrals.contains(&referral) {
        let reason = format!("there is no referral to {} at {}", referral.nqn, referral.address);
        return Err(RpcError::invalid_param("address", reason));
    }
    draft.definition().referrals.retain(|other| *other != referral);
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Get {
    #[serde(rename = "tgt_name")]
    _tgt_name: Option<String>,
}

pub(super) async fn get_referrals(daemon: Arc<Daemon>, _: Get) -> Result<Value, RpcError> {
    let model = daemon.model();
    let report = |referral: &Referral| {
        json!({
            "address": address::to_json(referral.address),
            "subnqn": referral.nqn,
            "subtype": "discovery",
            "secure_channel": false,
        })
    };
    Ok(model.definition.referrals.iter().map(report).collect())
}
