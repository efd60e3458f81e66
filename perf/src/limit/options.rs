//! The command line of `limit`.

use clap::Args;

use crate::arguments::{parse_seconds, parse_size};
use crate::job::Mode;

/// Where a thread runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Core {
    /// Pinned to this one.
    Number(usize),
    /// Wherever the system puts it.
    Any,
}

/// Options of `limit`.
#[derive(Clone, Debug, Args)]
pub struct LimitOptions {
    /// Which I/O; whether it is random makes no difference here.
    #[arg(long, value_enum, default_value = "randread")]
    pub rw: Mode,
    /// Percentage of reads in rw and randrw.
    #[arg(long, default_value_t = 70, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub rwmix: u8,
    /// Bytes of one I/O; k and m are 1024 and 1024 * 1024.
    #[arg(long, default_value = "4k", value_parser = parse_size)]
    pub bs: u64,
    /// I/Os outstanding on each connection.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub iodepth: u16,
    /// Connections.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub connections: u16,
    /// Core of the answering thread, or any.
    #[arg(long, default_value = "0", value_parser = parse_core)]
    pub server_core: Core,
    /// Core of the asking thread, or any.
    #[arg(long, default_value = "1", value_parser = parse_core)]
    pub client_core: Core,
    /// Seconds to measure.
    #[arg(long, default_value_t = 10.0, value_parser = parse_seconds)]
    pub time: f64,
    /// Seconds of load before measuring.
    #[arg(long, default_value_t = 0.2, value_parser = parse_seconds)]
    pub ramp: f64,
    /// Data of writes up to this size travels in the capsule.
    #[arg(long, default_value = "8k", value_parser = parse_size)]
    pub in_capsule: u64,
    /// Most data of one H2CData PDU (MAXH2CDATA).
    #[arg(long, default_value = "128k", value_parser = parse_size)]
    pub max_h2c_data: u64,
    /// Headers carry a digest (its bytes; none is computed).
    #[arg(long)]
    pub header_digest: bool,
    /// Data carries a digest (its bytes; none is computed).
    #[arg(long)]
    pub data_digest: bool,
    /// Bytes that one receive takes at most.
    #[arg(long, default_value = "256k", value_parser = parse_size)]
    pub receive_buffer: u64,
    /// Bytes that are sent at most before receiving again. More would leave the processor's cache before the other
    /// end reads it.
    #[arg(long, default_value = "768k", value_parser = parse_size)]
    pub send_most: u64,
    /// Each I/O outstanding sends data from memory of its own, as real hosts and devices do, and not all from the same.
    #[arg(long)]
    pub own_buffers: bool,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Reads a core: its number, or any.
pub fn parse_core(text: &str) -> Result<Core, String> {
    match text {
        "any" => Ok(Core::Any),
        number => number.parse().map(Core::Number).map_err(|_| "neither a core's number nor any".into()),
    }
}
