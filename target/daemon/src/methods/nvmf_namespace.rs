//! `nvmf_subsystem_add_ns` and `nvmf_subsystem_remove_ns`.

use std::sync::{Arc, Weak};

use serde::Deserialize;
use serde_json::{Value, json};
use sledge_bdev::{BlockDevice, Claim};
use sledge_nvme::io::Operation;
use sledge_nvmf::target::definition::{NamespaceDefinition, SubsystemDefinition};
use uuid::Uuid;

use super::bdev::device_error;
use super::params::neutral;
use crate::model::Draft;
use crate::rpc::error::{RpcError, Step};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Add {
    nqn: String,
    namespace: Namespace,
    #[serde(rename = "tgt_name")]
    _tgt_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Namespace {
    bdev_name: String,
    nsid: Option<u32>,
    nguid: Option<String>,
    eui64: Option<String>,
    uuid: Option<Uuid>,
    anagrpid: Option<u32>,
    no_auto_visible: Option<bool>,
    ptpl_file: Option<String>,
    hide_metadata: Option<bool>,
}

pub(super) fn add(draft: &mut Draft, params: Add) -> Result<Value, RpcError> {
    let wanted = params.namespace;
    neutral("namespace.no_auto_visible", wanted.no_auto_visible, false)?;
    neutral("namespace.ptpl_file", wanted.ptpl_file.as_deref(), "")?;
    neutral("namespace.hide_metadata", wanted.hide_metadata, false)?;
    let wrong = |name: &str, reason: String| RpcError::invalid_param(&format!("namespace.{name}"), reason);

    let subsystem = draft.model.subsystem(&params.nqn)?;
    let nsid = free_nsid(subsystem, wanted.nsid.filter(|nsid| *nsid != 0))
        .map_err(|reason| wrong("nsid", reason))?;
    let ana_group = wanted.anagrpid.unwrap_or(nsid);
    if ana_group == 0 || ana_group > subsystem.max_namespaces {
        let reason = format!("{ana_group} is not within 1 to {} (max_namespaces)", subsystem.max_namespaces);
        return Err(wrong("anagrpid", reason));
    }
    let claim = draft
        .model
        .devices
        .claim(&wanted.bdev_name, format!("namespace {nsid} of {}", params.nqn))
        .map_err(|error| RpcError { path: bdev_name_path(), ..device_error(error) })?;
    let device = Arc::clone(claim.device());
    let uuid = wanted.uuid.unwrap_or_else(|| device.uuid()).into_bytes();
    // A namespace of another controller keeps the names that it has there, unless it gets others.
    let own = device.namespace_identity().filter(|own| own.uuid == uuid || wanted.uuid.is_none());
    let nguid = match &wanted.nguid {
        // As SPDK does: hosts that know only the older identifier see the same one.
        None => own.map(|own| own.nguid).filter(|nguid| *nguid != [0; 16]).unwrap_or(uuid),
        Some(text) => bytes_of(text).map_err(|reason| wrong("nguid", reason))?,
    };
    let eui64 = match &wanted.eui64 {
        None => own.map_or([0; 8], |own| own.eui64),
        Some(text) => bytes_of(text).map_err(|reason| wrong("eui64", reason))?,
    };
    // Hosts leave out a namespace whose identifier another one has, too.
    let others = || subsystem.namespaces.values();
    for (name, taken) in [
        ("uuid", others().find(|other| other.uuid == uuid)),
        ("nguid", others().find(|other| other.nguid == nguid)),
        ("eui64", others().find(|other| other.eui64 == eui64 && eui64 != [0; 8])),
    ] {
        if let Some(other) = taken {
            return Err(wrong(name, format!("namespace {} has it already", other.nsid)));
        }
    }
    let namespace = NamespaceDefinition {
        nsid,
        instance: draft.model.environment.next_instance(),
        opening: 0,
        device_name: device.name().to_owned(),
        geometry: device.geometry(),
        uuid,
        nguid,
        eui64,
        ana_group,
        volatile_write_cache: device.volatile_write_cache(),
        deallocates: device.supports(Operation::Deallocate),
        deallocated_reads_zeroes: device.deallocated_reads_zeroes(),
        open_channel: opener(&claim),
    };
    draft.claims.insert((params.nqn.clone(), nsid), Arc::new(claim));
    draft.subsystem(&params.nqn)?.namespaces.insert(nsid, namespace);
    Ok(json!(nsid))
}

fn bdev_name_path() -> Vec<Step> {
    vec![Step::Key("namespace".into()), Step::Key("bdev_name".into())]
}

/// The way from a namespace to its device: the one place where the two meet.
fn opener(claim: &Claim) -> sledge_nvmf::target::definition::OpenChannel {
    // The claim keeps the device for as long as there is the namespace. Whoever still has the definition of one that is
    // gone, as a connection that is being closed, must not: the device's file is held as long as the device is there.
    let device: Weak<dyn BlockDevice> = Arc::downgrade(claim.device());
    Arc::new(move || {
        let device = device.upgrade().ok_or("the device is no more")?;
        device.open_channel().map_err(|error| error.to_string())
    })
}

/// The identifier that was asked for, if it is free, or the lowest that is.
fn free_nsid(subsystem: &SubsystemDefinition, wanted: Option<u32>) -> Result<u32, String> {
    let most = subsystem.max_namespaces;
    match wanted {
        Some(nsid) if nsid > most => Err(format!("{nsid} is more than {most} (max_namespaces)")),
        Some(nsid) if subsystem.namespaces.contains_key(&nsid) => {
            Err(format!("there is a namespace {nsid} already"))
        }
        Some(nsid) => Ok(nsid),
        None => (1..=most)
            .find(|nsid| !subsystem.namespaces.contains_key(nsid))
            .ok_or_else(|| format!("all {most} namespaces (max_namespaces) are in use")),
    }
}

/// Bytes from their hexadecimal digits; hyphens and colons between them are ignored.
fn bytes_of<const N: usize>(text: &str) -> Result<[u8; N], String> {
    let wrong = || format!("{text:?} is not {} hexadecimal digits", 2 * N);
    let digits: Option<Vec<u8>> = text
        .chars()
        .filter(|character| !matches!(character, '-' | ':'))
        .map(|character| character.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let digits = digits.filter(|digits| digits.len() == 2 * N).ok_or_else(wrong)?;
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    Ok(bytes)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Remove {
    nqn: String,
    nsid: u32,
    #[serde(rename = "tgt_name")]
    _tgt_name: Option<String>,
}

pub(super) fn remove(draft: &mut Draft, params: Remove) -> Result<Value, RpcError> {
    let subsystem = draft.model.subsystem(&params.nqn)?;
    if !subsystem.namespaces.contains_key(&params.nsid) {
        let reason = format!("{} has no namespace {}", params.nqn, params.nsid);
        return Err(RpcError::invalid_param("nsid", reason));
    }
    draft.subsystem(&params.nqn)?.namespaces.remove(&params.nsid);
    draft.claims.remove(&(params.nqn, params.nsid));
    Ok(json!(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without it: an identifier in a saved configuration might be read back as another.
    #[test]
    fn identifiers_are_hexadecimal() {
        assert_eq!(bytes_of::<2>("aB0f"), Ok([0xab, 0x0f]));
        assert_eq!(bytes_of::<2>("ab-0f"), Ok([0xab, 0x0f]));
        assert!(bytes_of::<2>("ab0").is_err() && bytes_of::<2>("ab0x").is_err());
        assert!(bytes_of::<2>("ab0f0").is_err());
    }
}
