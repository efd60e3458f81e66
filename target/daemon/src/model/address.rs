//! Transport addresses as requests write them (`trtype`, `traddr`, `trsvcid`, `adrfam`) and as sockets have them.

use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::rpc::error::RpcError;

/// A transport address in a request. `field` names in errors are given by the caller.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransportAddress {
    #[serde(default = "tcp")]
    trtype: String,
    traddr: String,
    trsvcid: Option<Service>,
    adrfam: Option<String>,
}

/// A port as text, which is what SPDK takes, or as a number.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Service {
    Text(String),
    Number(u16),
}

fn tcp() -> String {
    "TCP".into()
}

impl TransportAddress {
    /// The socket address. `field` is the parameter that holds this, for errors.
    ///
    /// # Errors
    /// -32602 naming what does not make a TCP address.
    pub fn socket_address(&self, field: &str) -> Result<SocketAddr, RpcError> {
        let wrong = |name: &str, reason: String| RpcError::invalid_param(&format!("{field}.{name}"), reason);
        check_trtype(&self.trtype).map_err(|reason| wrong("trtype", reason))?;
        let address: IpAddr = self.traddr.parse().map_err(|_| {
            wrong("traddr", format!("{:?} is not an IPv4 or IPv6 address, as 192.0.2.1 or ::1", self.traddr))
        })?;
        let port = match &self.trsvcid {
            None => None,
            Some(Service::Number(port)) => Some(*port),
            Some(Service::Text(text)) => text.parse().ok(),
        };
        let port = port.filter(|port| *port != 0).ok_or_else(|| {
            wrong("trsvcid", "needs a port number from 1 to 65535 (4420 for NVMe/TCP)".into())
        })?;
        if let Some(family) = &self.adrfam {
            let expected = family_of(address);
            if !family.eq_ignore_ascii_case(expected) {
                return Err(wrong("adrfam", format!("{address} is {expected}, not {family}")));
            }
        }
        Ok(SocketAddr::new(address, port))
    }
}

/// Whether a transport type is TCP, in either case.
///
/// # Errors
/// Why it is none.
pub fn check_trtype(trtype: &str) -> Result<(), String> {
    if trtype.eq_ignore_ascii_case("tcp") {
        Ok(())
    } else {
        Err(format!("{trtype:?} is not supported; the transport is TCP"))
    }
}

fn family_of(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// A socket address as responses and saved configurations have it.
pub fn to_json(address: SocketAddr) -> Value {
    json!({
        "trtype": "TCP",
        "adrfam": family_of(address.ip()),
        "traddr": address.ip().to_string(),
        "trsvcid": address.port().to_string(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(value: Value) -> Result<SocketAddr, RpcError> {
        serde_json::from_value::<TransportAddress>(value).unwrap().socket_address("listen_address")
    }

    // Without it: addresses in a saved configuration might not be read back, or bad ones reach the sockets.
    #[test]
    fn addresses_are_read_and_written() {
        for text in ["127.0.0.1:4420", "[::1]:4421"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(read(to_json(address)).unwrap(), address);
        }
        let lower = json!({"trtype": "tcp", "traddr": "10.0.0.1", "trsvcid": 4420, "adrfam": "ipv4"});
        assert_eq!(read(lower).unwrap(), "10.0.0.1:4420".parse().unwrap());
        for (value, name) in [
            (json!({"trtype": "RDMA", "traddr": "10.0.0.1", "trsvcid": "4420"}), "trtype"),
            (json!({"traddr": "example.org", "trsvcid": "4420"}), "traddr"),
            (json!({"traddr": "10.0.0.1"}), "trsvcid"),
            (json!({"traddr": "10.0.0.1", "trsvcid": "0"}), "trsvcid"),
            (json!({"traddr": "10.0.0.1", "trsvcid": "70000"}), "trsvcid"),
            (json!({"traddr": "10.0.0.1", "trsvcid": "4420", "adrfam": "IPv6"}), "adrfam"),
        ] {
            let error = read(value).unwrap_err();
            assert_eq!(error.code, -32602);
            assert!(error.message.contains(&format!("listen_address.{name}:")), "{error}");
        }
    }
}
