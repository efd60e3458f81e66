//! A target as one word: `nvme-tcp://ADDRESS[:PORT]/NQN[?nsid=N&hdgst&ddgst&hostnqn=NQN&reconnect]`,
//! `pcie://ADDRESS[?nsid=N&environment=NAME]`, or the path of a file. SPDK's words are read, too
//! (`trtype:TCP adrfam:IPv4 traddr:ADDRESS trsvcid:PORT subnqn:NQN ns:N`).
//!
//! Command line, job files and reports write targets this way and no other; what is written by [`Target`]'s `Display`
//! is read back as the same target.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use sledge_nvme::fabrics::Nqn;
use sledge_nvme::pci::{EnvironmentKind, PciAddress};

use crate::job::{NvmeTcp, Pcie, Target};

/// What an address of a namespace starts with.
const SCHEME: &str = "nvme-tcp://";

/// What an address of a namespace of a controller in this machine starts with.
const PCIE_SCHEME: &str = "pcie://";

/// NVMe/TCP's port for I/O when none is given.
const PORT: u16 = 4420;

/// What an address in SPDK's words starts with, one of both.
const TRANSPORT_ID: [&str; 2] = ["trtype:", "trtype="];

/// Whether a name is an address rather than a path.
pub fn is_address(name: &str) -> bool {
    [SCHEME, PCIE_SCHEME].iter().chain(&TRANSPORT_ID).any(|start| name.starts_with(start))
}

/// Why a word names no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetNameError {
    /// Neither an address nor a path.
    #[error("an empty name names no target")]
    Empty,
    /// Neither an address as they are written here nor a path.
    #[error("{0:?}: a namespace is nvme-tcp://ADDRESS:PORT/NQN?nsid=N, a drive pcie://ADDRESS?nsid=N")]
    Scheme(String),
    /// The address part is neither IPv4 nor IPv6 in brackets.
    #[error(
        "{0:?} is not ADDRESS or ADDRESS:PORT; an IPv6 address stands in brackets, and names are not looked up"
    )]
    Address(String),
    /// There is no subsystem, or its name is not an NQN.
    #[error("{0:?} is not the NQN of a subsystem: {1}")]
    Nqn(String, String),
    /// Not an address in SPDK's words.
    #[error("{0:?}: {1}")]
    TransportId(String, String),
    /// Not the PCI address of a function.
    #[error("{0:?} is no PCI address, as 0000:00:04.0")]
    PciAddress(String),
    /// Not an environment.
    #[error("{0}")]
    Environment(String),
    /// A parameter that is not known, or that has a value where none belongs.
    #[error(
        "unknown parameter {0:?}; there are nsid=N, hdgst, ddgst, hostnqn=NQN and reconnect, and nsid=N and environment=NAME of a PCI address"
    )]
    Parameter(String),
    /// Not a namespace.
    #[error("{0:?} is not a namespace identifier")]
    Nsid(String),
}

impl FromStr for Target {
    type Err = TargetNameError;

    /// Reads a target; a path stands for a file that is opened past the page cache.
    fn from_str(name: &str) -> Result<Self, TargetNameError> {
        if let Some(rest) = name.strip_prefix(PCIE_SCHEME) {
            return parse_pcie(rest).map(Self::Pcie);
        }
        if TRANSPORT_ID.iter().any(|start| name.starts_with(start)) {
            return parse_transport_id(name);
        }
        match name.strip_prefix(SCHEME) {
            Some(rest) => parse(rest).map(Self::NvmeTcp),
            None if name.is_empty() => Err(TargetNameError::Empty),
            None if name.contains("://") => Err(TargetNameError::Scheme(name.into())),
            // Nobody calls a file so.
            None if name.parse::<SocketAddr>().is_ok() || name.parse::<IpAddr>().is_ok() => {
                Err(TargetNameError::Scheme(name.into()))
            }
            None => Ok(Self::File { path: name.into(), direct: true }),
        }
    }
}

fn parse(rest: &str) -> Result<NvmeTcp, TargetNameError> {
    let (rest, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let (address, nqn) = rest.split_once('/').unwrap_or((rest, ""));
    let (traddr, trsvcid) = parse_address(address)?;
    let mut target = NvmeTcp {
        traddr,
        trsvcid,
        nqn: parse_nqn(nqn)?,
        hostnqn: None,
        nsid: 1,
        header_digest: false,
        data_digest: false,
        reconnect: false,
    };
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=') {
            None if parameter == "hdgst" => target.header_digest = true,
            None if parameter == "ddgst" => target.data_digest = true,
            None if parameter == "reconnect" => target.reconnect = true,
            Some(("nsid", number)) => target.nsid = parse_nsid(number)?,
            Some(("hostnqn", nqn)) => target.hostnqn = Some(parse_nqn(nqn)?),
            _ => return Err(TargetNameError::Parameter(parameter.into())),
        }
    }
    Ok(target)
}

fn parse_pcie(rest: &str) -> Result<Pcie, TargetNameError> {
    let (address, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let address: PciAddress = address.parse().map_err(|_| TargetNameError::PciAddress(address.into()))?;
    let (mut nsid, mut environment) = (1, EnvironmentKind::default());
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=') {
            Some(("nsid", number)) => nsid = parse_nsid(number)?,
            Some(("environment", name)) => {
                environment =
                    name.parse().map_err(|error| TargetNameError::Environment(format!("{error}")))?;
            }
            _ => return Err(TargetNameError::Parameter(parameter.into())),
        }
    }
    Ok(Pcie { address: address.to_string(), nsid, environment: environment.to_string() })
}

/// An address in SPDK's words, as its tools and its engine for fio take it.
fn parse_transport_id(text: &str) -> Result<Target, TargetNameError> {
    let wrong = |reason: &str| TargetNameError::TransportId(text.into(), reason.into());
    let (mut kind, mut address, mut port, mut nqn, mut hostnqn, mut nsid) = ("", "", "", "", None, "1");
    for word in text.split_whitespace() {
        let Some((key, value)) = word.split_once(['=', ':']) else { return Err(wrong("not KEY:VALUE")) };
        match key.to_ascii_lowercase().as_str() {
            "trtype" => kind = value,
            "traddr" => address = value,
            "trsvcid" => port = value,
            "subnqn" => nqn = value,
            "hostnqn" => hostnqn = Some(value),
            "ns" | "nsid" => nsid = value,
            // The address says it.
            "adrfam" | "priority" => {}
            other => return Err(wrong(&format!("{other:?} is unknown"))),
        }
    }
    match kind.to_ascii_lowercase().as_str() {
        // In a list of files a colon has another meaning, so dots stand for it there.
        "pcie" if !address.contains(':') => {
            parse_pcie(&format!("{}?nsid={nsid}", address.replacen('.', ":", 2))).map(Target::Pcie)
        }
        "pcie" => parse_pcie(&format!("{address}?nsid={nsid}")).map(Target::Pcie),
        "tcp" if nqn.is_empty() => Err(wrong("there is no subnqn")),
        "tcp" => {
            let address = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
            let port = if port.is_empty() { String::new() } else { format!(":{port}") };
            let host = hostnqn.map_or(String::new(), |nqn| format!("&hostnqn={nqn}"));
            parse(&format!("{address}{port}/{nqn}?nsid={nsid}{host}")).map(Target::NvmeTcp)
        }
        _ => Err(wrong("there are trtype:TCP and trtype:PCIe")),
    }
}

fn parse_nsid(number: &str) -> Result<u32, TargetNameError> {
    let nsid = number.parse().ok().filter(|nsid| (1..u32::MAX).contains(nsid));
    nsid.ok_or_else(|| TargetNameError::Nsid(number.into()))
}

fn parse_nqn(text: &str) -> Result<String, TargetNameError> {
    match Nqn::new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(TargetNameError::Nqn(text.into(), error.to_string())),
    }
}

fn parse_address(text: &str) -> Result<(IpAddr, u16), TargetNameError> {
    // The one name that is known without asking anybody.
    let text = &match text.strip_prefix("localhost") {
        Some(rest) if rest.is_empty() || rest.starts_with(':') => format!("127.0.0.1{rest}"),
        _ => text.to_owned(),
    };
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok((address.ip(), address.port()));
    }
    let bracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = match bracketed {
        Some(inside) => inside.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse::<IpAddr>().ok().filter(IpAddr::is_ipv4),
    };
    address.map(|address| (address, PORT)).ok_or_else(|| TargetNameError::Address(text.into()))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, .. } => write!(f, "{}", path.display()),
            Self::Pcie(target) => {
                let Pcie { address, nsid, environment } = target;
                write!(f, "{PCIE_SCHEME}{address}?nsid={nsid}")?;
                if *environment == EnvironmentKind::default().to_string() {
                    return Ok(());
                }
                write!(f, "&environment={environment}")
            }
            Self::NvmeTcp(target) => {
                let address = SocketAddr::new(target.traddr, target.trsvcid);
                write!(f, "{SCHEME}{address}/{}?nsid={}", target.nqn, target.nsid)?;
                for (set, word) in [
                    (target.header_digest, "&hdgst"),
                    (target.data_digest, "&ddgst"),
                    (target.reconnect, "&reconnect"),
                ] {
                    if set {
                        f.write_str(word)?;
                    }
                }
                target.hostnqn.iter().try_for_each(|nqn| write!(f, "&hostnqn={nqn}"))
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    // Without it a report could name a target by a word that leads nowhere, or a digest get lost on the way.
    #[test]
    fn what_is_written_is_read_back() {
        for (name, full) in [
            (
                "nvme-tcp://10.0.0.1/nqn.2016-06.io.spdk:c",
                "nvme-tcp://10.0.0.1:4420/nqn.2016-06.io.spdk:c?nsid=1",
            ),
            (
                "nvme-tcp://[::1]:4421/nqn.2016-06.io.spdk:c?ddgst&nsid=7&hdgst",
                "nvme-tcp://[::1]:4421/nqn.2016-06.io.spdk:c?nsid=7&hdgst&ddgst",
            ),
            (
                "nvme-tcp://[fe80::1]/nqn.2016-06.io.spdk:c?reconnect&hostnqn=nqn.2014-08.org.nvmexpress:h",
                "nvme-tcp://[fe80::1]:4420/nqn.2016-06.io.spdk:c?nsid=1&reconnect&hostnqn=nqn.2014-08.org.nvmexpress:h",
            ),
            (
                "nvme-tcp://localhost/nqn.2016-06.io.spdk:c",
                "nvme-tcp://127.0.0.1:4420/nqn.2016-06.io.spdk:c?nsid=1",
            ),
            ("pcie://0000:00:04.0", "pcie://0000:00:04.0?nsid=1"),
            (
                "pcie://0000:0a:00.1?environment=uio_pci_generic&nsid=2",
                "pcie://0000:0a:00.1?nsid=2&environment=uio_pci_generic",
            ),
            ("pcie://0000:00:04.0?environment=vfio", "pcie://0000:00:04.0?nsid=1"),
            (
                "trtype:TCP adrfam:IPv4 traddr:10.0.0.1 trsvcid:4421 subnqn:nqn.2016-06.io.spdk:c",
                "nvme-tcp://10.0.0.1:4421/nqn.2016-06.io.spdk:c?nsid=1",
            ),
            (
                "trtype=TCP adrfam=IPv6 traddr=::1 subnqn=nqn.2016-06.io.spdk:c ns=3",
                "nvme-tcp://[::1]:4420/nqn.2016-06.io.spdk:c?nsid=3",
            ),
            ("trtype=PCIe traddr=0000.04.00.0 ns=2", "pcie://0000:04:00.0?nsid=2"),
            ("trtype:PCIe traddr:0000:04:00.0", "pcie://0000:04:00.0?nsid=1"),
            ("/dev/nvme0n1", "/dev/nvme0n1"),
            ("data", "data"),
        ] {
            let target: Target = name.parse().unwrap();
            assert_eq!(target.to_string(), full);
            assert_eq!(full.parse::<Target>(), Ok(target));
        }
    }

    // Without it a mistyped address could become a file of that name, or a parameter be passed over.
    #[test]
    fn mistakes_are_named() {
        for (name, word) in [
            ("", "empty"),
            ("pcie://", "PCI address"),
            ("pcie://nvme0", "PCI address"),
            ("pcie://0000:00:04.0?nsid=0", "namespace"),
            ("pcie://0000:00:04.0?environment=spdk", "environment"),
            ("pcie://0000:00:04.0?hdgst", "hdgst"),
            ("trtype:RDMA traddr:10.0.0.1", "there are trtype:TCP and trtype:PCIe"),
            ("trtype:TCP traddr:10.0.0.1", "no subnqn"),
            ("trtype:TCP traddr:x subnqn:nqn.2016-06.io.spdk:c", "ADDRESS"),
            ("trtype:TCP traddr:10.0.0.1 queue:1", "unknown"),
            ("nvme-tcp://", "ADDRESS"),
            ("tcp://10.0.0.1:4420/nqn.2016-06.io.spdk:c", "a namespace is nvme-tcp://"),
            ("10.0.0.1:4420", "a namespace is nvme-tcp://"),
            ("nvme-tcp://::1/nqn.2016-06.io.spdk:c", "brackets"),
            ("nvme-tcp://host/nqn.2016-06.io.spdk:c", "host"),
            ("nvme-tcp://10.0.0.1:99999/nqn.2016-06.io.spdk:c", "99999"),
            ("nvme-tcp://10.0.0.1", "NQN"),
            ("nvme-tcp://10.0.0.1/c", "NQN"),
            ("nvme-tcp://10.0.0.1/nqn.2016-06.io.spdk:c?nsid=0", "namespace"),
            ("nvme-tcp://10.0.0.1/nqn.2016-06.io.spdk:c?nsid=4294967295", "namespace"),
            ("nvme-tcp://10.0.0.1/nqn.2016-06.io.spdk:c?hdgst=1", "hdgst=1"),
            ("nvme-tcp://10.0.0.1/nqn.2016-06.io.spdk:c?digest", "digest"),
        ] {
            let error = name.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains(word), "{name}: {error}");
        }
    }
}
