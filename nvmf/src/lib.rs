//! NVMe over Fabrics on TCP: the codec, the target side and the host side.

pub mod decoder;
pub mod digest;
pub mod host;
pub mod pdu;
pub mod target;
