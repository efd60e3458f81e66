//! NVMe Qualified Names: what hosts and subsystems are called.
//!
//! Owns [`Nqn`] and its rules (Base 4.5). Invariant: an [`Nqn`] is non-empty UTF-8 of at most 223 bytes without NUL,
//! in one of the specification's two forms. Management and Connect make them; tables are keyed by them.

use core::fmt;
use core::str::FromStr;

/// Most bytes of a name, without its terminating NUL (Base 4.5).
pub const NQN_MAX_BYTES: usize = 223;

/// Bytes of a field that carries a name in Connect data, Identify and discovery.
pub const NQN_FIELD_BYTES: usize = 256;

/// The well-known name of every discovery service (Base 3.1.2.3).
pub const DISCOVERY_NQN: &str = "nqn.2014-08.org.nvmexpress.discovery";

const UUID_PREFIX: &str = "nqn.2014-08.org.nvmexpress:uuid:";

/// Why something is not an NVMe Qualified Name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NqnError {
    /// No bytes.
    #[error("the name is empty")]
    Empty,
    /// More than 223 bytes.
    #[error("the name is longer than 223 bytes")]
    TooLong,
    /// A field of 256 bytes without a NUL.
    #[error("the name is not terminated by a NUL")]
    NotTerminated,
    /// Bytes that are not UTF-8.
    #[error("the name is not UTF-8")]
    NotUtf8,
    /// A NUL or another control character.
    #[error("the name has a control character in it")]
    ControlCharacter,
    /// Does not start with `nqn.`.
    #[error("the name does not start with \"nqn.\"")]
    Prefix,
    /// No `yyyy-mm.` after the prefix.
    #[error("the name has no date \"yyyy-mm.\" after \"nqn.\"")]
    Date,
    /// No reverse domain name after the date.
    #[error("the name has no valid reverse domain name after the date")]
    Domain,
    /// No `:` with a string after the domain.
    #[error("the name has no \":\" and string after the domain")]
    Suffix,
    /// `nqn.2014-08.org.nvmexpress:uuid:` without a UUID.
    #[error("the name has no valid UUID after \"uuid:\"")]
    Uuid,
}

/// An NVMe Qualified Name (Base 4.5).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nqn(Box<str>);

impl Nqn {
    /// Checks a name and keeps it.
    ///
    /// # Errors
    /// The first rule that the name breaks.
    pub fn new(name: &str) -> Result<Self, NqnError> {
        check(name)?;
        Ok(Self(name.into()))
    }

    /// The well-known discovery name.
    #[must_use]
    pub fn discovery() -> Self {
        Self(DISCOVERY_NQN.into())
    }

    /// Whether this is the well-known discovery name.
    #[must_use]
    pub fn is_discovery(&self) -> bool {
        &*self.0 == DISCOVERY_NQN
    }

    /// Takes a name out of a 256-byte field and checks it.
    ///
    /// # Errors
    /// The first rule that the field or the name breaks.
    pub fn from_field(field: &[u8; NQN_FIELD_BYTES]) -> Result<Self, NqnError> {
        Self::new(nqn_field_text(field)?)
    }

    /// The name in a 256-byte field, padded with NULs.
    #[must_use]
    pub fn to_field(&self) -> [u8; NQN_FIELD_BYTES] {
        let mut field = [0; NQN_FIELD_BYTES];
        let bytes = self.0.as_bytes();
        field[..bytes.len()].copy_from_slice(bytes);
        field
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text of a 256-byte name field, checked for termination, length, encoding and control characters, but not for
/// the forms of a qualified name: a lenient controller compares this with the names that it knows.
///
/// # Errors
/// The first of those rules that the field breaks.
pub fn nqn_field_text(field: &[u8; NQN_FIELD_BYTES]) -> Result<&str, NqnError> {
    let end = field.iter().position(|&byte| byte == 0).ok_or(NqnError::NotTerminated)?;
    let text = core::str::from_utf8(&field[..end]).map_err(|_| NqnError::NotUtf8)?;
    check_text(text)?;
    Ok(text)
}

fn check_text(name: &str) -> Result<(), NqnError> {
    match name {
        "" => Err(NqnError::Empty),
        name if name.len() > NQN_MAX_BYTES => Err(NqnError::TooLong),
        name if name.chars().any(char::is_control) => Err(NqnError::ControlCharacter),
        _ => Ok(()),
    }
}

fn check(name: &str) -> Result<(), NqnError> {
    check_text(name)?;
    if name == DISCOVERY_NQN {
        return Ok(());
    }
    if let Some(uuid) = name.strip_prefix(UUID_PREFIX) {
        return if is_uuid(uuid) { Ok(()) } else { Err(NqnError::Uuid) };
    }
    let rest = name.strip_prefix("nqn.").ok_or(NqnError::Prefix)?;
    let (date, rest) = rest.split_once('.').ok_or(NqnError::Date)?;
    if !is_date(date) {
        return Err(NqnError::Date);
    }
    let (domain, suffix) = rest.split_once(':').ok_or(NqnError::Suffix)?;
    if !domain.split('.').all(is_label) {
        return Err(NqnError::Domain);
    }
    if suffix.is_empty() { Err(NqnError::Suffix) } else { Ok(()) }
}

fn is_date(date: &str) -> bool {
    let &[y1, y2, y3, y4, b'-', m1, m2] = date.as_bytes() else { return false };
    [y1, y2, y3, y4, m1, m2].iter().all(u8::is_ascii_digit)
        && (1..=12).contains(&((m1 - b'0') * 10 + (m2 - b'0')))
}

/// A label of a domain name: letters, digits and inner hyphens, at most 63 (RFC 1034 as relaxed by RFC 1123).
fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

impl FromStr for Nqn {
    type Err = NqnError;

    fn from_str(name: &str) -> Result<Self, NqnError> {
        Self::new(name)
    }
}

impl AsRef<str> for Nqn {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl core::borrow::Borrow<str> for Nqn {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Nqn {
    fn eq(&self, other: &str) -> bool {
        &*self.0 == other
    }
}

impl fmt::Display for Nqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Nqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    // Deleting this lets ordinary names be refused.
    #[test]
    fn accepts_the_two_forms_and_discovery() {
        for name in [
            "nqn.2014-08.org.nvmexpress.discovery",
            "nqn.2014-08.org.nvmexpress:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
            "nqn.2014-08.com.example:nvme:nvm-subsystem-sn-d78432",
            "nqn.2016-06.io.spdk:cnode1",
            "nqn.2026-01.io.sledge:d\u{e9}p\u{f4}t",
        ] {
            let nqn = Nqn::new(name).unwrap();
            assert_eq!(nqn.as_str(), name);
            assert_eq!(Nqn::from_field(&nqn.to_field()).unwrap(), nqn);
        }
        let longest = format!("nqn.2016-06.io.spdk:{}", "a".repeat(203));
        assert_eq!(longest.len(), NQN_MAX_BYTES);
        assert!(Nqn::new(&longest).is_ok());
        assert!(Nqn::discovery().is_discovery());
    }

    // Deleting this lets malformed names from a host or from management into the tables.
    #[test]
    fn refuses_what_breaks_a_rule() {
        let long = format!("nqn.2016-06.io.spdk:{}", "a".repeat(204));
        for (name, error) in [
            ("", NqnError::Empty),
            (long.as_str(), NqnError::TooLong),
            ("nqm.2016-06.io.spdk:cnode1", NqnError::Prefix),
            ("nqn.201-06.io.spdk:cnode1", NqnError::Date),
            ("nqn.2016-13.io.spdk:cnode1", NqnError::Date),
            ("nqn.2016-00.io.spdk:cnode1", NqnError::Date),
            ("nqn.2016-06", NqnError::Date),
            ("nqn.2016-06.io.spdk", NqnError::Suffix),
            ("nqn.2016-06.io.spdk:", NqnError::Suffix),
            ("nqn.2016-06.:x", NqnError::Domain),
            ("nqn.2016-06.io..spdk:x", NqnError::Domain),
            ("nqn.2016-06.-io.spdk:x", NqnError::Domain),
            ("nqn.2016-06.io.sp_dk:x", NqnError::Domain),
            ("nqn.2016-06.io.spdk:a\nb", NqnError::ControlCharacter),
            ("nqn.2014-08.org.nvmexpress:uuid:f81d4fae", NqnError::Uuid),
            ("nqn.2014-08.org.nvmexpress:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bfg", NqnError::Uuid),
        ] {
            assert_eq!(Nqn::new(name), Err(error), "{name}");
        }
    }

    // Deleting this lets a field without an end, or with bytes that are no text, be read as a name.
    #[test]
    fn refuses_bad_fields() {
        assert_eq!(Nqn::from_field(&[b'a'; NQN_FIELD_BYTES]), Err(NqnError::NotTerminated));
        assert_eq!(Nqn::from_field(&[0; NQN_FIELD_BYTES]), Err(NqnError::Empty));
        let mut field = Nqn::discovery().to_field();
        field[3] = 0xff;
        assert_eq!(Nqn::from_field(&field), Err(NqnError::NotUtf8));
        let mut field = [0; NQN_FIELD_BYTES];
        field[..9].copy_from_slice(b"some-host");
        assert_eq!(nqn_field_text(&field), Ok("some-host"));
    }
}
