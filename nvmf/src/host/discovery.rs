//! Asking a discovery controller what there is (Base, "Discovery").

use super::controller::Controller;
use super::error::HostError;
use super::options::{ConnectOptions, HostIdentity};
use sledge_nvme::fabrics::{DiscoveryEntry, DiscoveryHeader, Nqn};
use sledge_nvme::log_page::LogPage;
use std::net::SocketAddr;
use std::time::Duration;
use zerocopy::FromBytes;

/// How often the log is read again when it changes meanwhile.
const ATTEMPTS: usize = 8;
/// Most entries that are believed.
const MAX_ENTRIES: u64 = 4096;

/// Reads the discovery log of the discovery subsystem at `address`.
///
/// # Errors
/// What kept it from being read.
pub async fn discover(address: SocketAddr, host: HostIdentity) -> Result<Vec<DiscoveryEntry>, HostError> {
    let mut options = ConnectOptions::new(address, Nqn::discovery(), host);
    options.keep_alive = Duration::ZERO;
    options.io_queues = 0;
    options.loss_timeout = Some(Duration::ZERO);
    let controller = Controller::connect(options).await?;
    let entries = read_log(&controller).await?;
    // The answer is here; how the connection ends does not matter.
    let _ = controller.shutdown().await;
    Ok(entries)
}

async fn read_log(controller: &Controller) -> Result<Vec<DiscoveryEntry>, HostError> {
    let lid = LogPage::Discovery.value();
    let (header_bytes, entry_bytes) = (size_of::<DiscoveryHeader>(), size_of::<DiscoveryEntry>());
    let malformed = |problem| HostError::Malformed { what: "the discovery log", problem };
    for _ in 0..ATTEMPTS {
        let header = header(&controller.get_log_page(lid, 0, 0, header_bytes).await?)?;
        let records = header.records.get();
        if records > MAX_ENTRIES {
            return Err(malformed("too many entries"));
        }
        if header.record_format.get() != 0 {
            return Err(malformed("an unknown record format"));
        }
        let bytes =
            controller.get_log_page(lid, 0, header_bytes as u64, records as usize * entry_bytes).await;
        let again = self::header(&controller.get_log_page(lid, 0, 0, header_bytes).await?)?;
        if again.generation != header.generation {
            // A log that has become shorter meanwhile may have been refused.
            continue;
        }
        return bytes?
            .chunks_exact(entry_bytes)
            .map(|entry| DiscoveryEntry::read_from_bytes(entry).map_err(|_| malformed("a short entry")))
            .collect();
    }
    Err(malformed("changes all the time"))
}

fn header(bytes: &[u8]) -> Result<DiscoveryHeader, HostError> {
    DiscoveryHeader::read_from_bytes(bytes)
        .map_err(|_| HostError::Malformed { what: "the discovery log", problem: "too short" })
}
