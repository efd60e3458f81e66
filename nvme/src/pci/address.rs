//! Where a PCI function sits: domain, bus, device and function.

use std::fmt;
use std::str::FromStr;

/// A PCI address, as `0000:00:04.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    /// Domain (segment); more than 16 bits behind some bridges, such as Intel's VMD.
    pub domain: u32,
    /// Bus.
    pub bus: u8,
    /// Device, below 32.
    pub device: u8,
    /// Function, below 8.
    pub function: u8,
}

/// A text is no PCI address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no PCI address, as 0000:00:04.0 or 00:04.0; `sledge setup status` lists the NVMe controllers"
)]
pub struct NoPciAddress(String);

impl FromStr for PciAddress {
    type Err = NoPciAddress;

    /// Reads an address; the domain may be left out and is 0 then.
    fn from_str(text: &str) -> Result<Self, NoPciAddress> {
        parse(text).ok_or_else(|| NoPciAddress(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<PciAddress> {
    let (place, function) = text.split_once('.')?;
    let mut parts = place.rsplit(':');
    let (device, bus, domain) = (parts.next()?, parts.next()?, parts.next().unwrap_or("0"));
    if parts.next().is_some() {
        return None;
    }
    Some(PciAddress {
        domain: hex(domain, 8)?,
        bus: hex(bus, 2)?.try_into().ok()?,
        device: hex(device, 2)?.try_into().ok().filter(|device| *device < 32)?,
        function: hex(function, 1)?.try_into().ok().filter(|function| *function < 8)?,
    })
}

/// A number of at most `digits` hexadecimal digits, and nothing else.
fn hex(text: &str, digits: usize) -> Option<u32> {
    let fits = (1..=digits).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    u32::from_str_radix(text, 16).ok().filter(|_| fits)
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.device, self.function)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    // Deleting this lets an address be read as another device's, which would be taken from the kernel.
    #[test]
    fn addresses_are_read_as_the_kernel_writes_them() {
        for (text, shown) in [
            ("0000:00:04.0", "0000:00:04.0"),
            ("00:04.0", "0000:00:04.0"),
            ("0:1f.7", "0000:00:1f.7"),
            ("10000:E1:00.0", "10000:e1:00.0"),
        ] {
            assert_eq!(text.parse::<PciAddress>().unwrap().to_string(), shown);
        }
        for text in [
            "",
            "04.0",
            "00:04",
            "00:20.0",
            "00:04.8",
            "0:0:0:0.0",
            "00:+4.0",
            "00:04.0 ",
            "../x.0",
            "100:04.0",
        ] {
            assert!(text.parse::<PciAddress>().is_err(), "{text}");
        }
    }
}
