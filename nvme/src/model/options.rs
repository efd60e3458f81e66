//! What a model controller is like: its limits, what it supports, and its namespaces.
//!
//! Owns [`ModelOptions`] and [`ModelNamespace`]. Invariant: the defaults are a plain controller of NVMe 2.0 with one
//! namespace of 512-byte blocks. Tests fill them before [`super::Model::new`].

use std::time::Duration;

use crate::identify::CommandSet;
use crate::property::Version;

/// What a model controller is like.
#[derive(Clone, Debug)]
pub struct ModelOptions {
    /// What [`crate::function::Function::address`] says.
    pub address: String,
    /// Serial number.
    pub serial: String,
    /// Model number.
    pub model_number: String,
    /// Firmware revision.
    pub firmware: String,
    /// VS.
    pub version: Version,
    /// Most entries of a queue (CAP.MQES + 1), 2 to 65,536.
    pub max_queue_entries: u32,
    /// I/O submission queues, and as many completion queues.
    pub max_io_queues: u16,
    /// Identify Controller's MDTS: 2^this times 4 KiB; 0 no limit.
    pub mdts: u8,
    /// CAP.DSTRD: doorbells lie 4 << this bytes apart.
    pub doorbell_stride: u8,
    /// Bytes of registers that can be reached; none: as many as all doorbells take.
    pub register_bytes: Option<usize>,
    /// CAP.TO in units of 500 ms.
    pub timeout_500ms: u8,
    /// CRTO.CRWMT in units of 500 ms, with CAP.CRMS; `None`: not supported.
    pub ready_timeout_500ms: Option<u16>,
    /// How a controller that is enabled becomes ready.
    pub enabling: Readiness,
    /// How a controller that is disabled becomes not ready.
    pub disabling: Readiness,
    /// Whether I/O commands may use SGLs.
    pub sgl: bool,
    /// Whether it has Doorbell Buffer Config (shadow doorbells).
    pub shadow_doorbells: bool,
    /// Whether writes stay volatile until they are flushed, or forced by FUA.
    pub volatile_write_cache: bool,
    /// Whether it has Compare.
    pub compare: bool,
    /// Whether it has the fused Compare and Write.
    pub compare_and_write: bool,
    /// Whether it has Write Zeroes.
    pub write_zeroes: bool,
    /// Whether it has Dataset Management.
    pub dataset_management: bool,
    /// Whether it has Verify.
    pub verify: bool,
    /// Most Abort commands at a time, less one (ACL).
    pub abort_limit_minus_one: u8,
    /// Most Asynchronous Event Requests at a time, less one (AERL).
    pub event_limit_minus_one: u8,
    /// Whether [`crate::function::Function::reset`] resets.
    pub function_reset: bool,
    /// Whether registered memory is contiguous for the device only within pages of 4 KiB.
    pub scattered: bool,
    /// The highest valid NSID (NN); at least that of the last namespace.
    pub namespace_limit: u32,
    /// The namespaces.
    pub namespaces: Vec<ModelNamespace>,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self {
            address: "model".into(),
            serial: "SLEDGE0001".into(),
            model_number: "Sledge Model Controller".into(),
            firmware: "1.0".into(),
            version: Version::V2_0,
            max_queue_entries: 1024,
            max_io_queues: 64,
            mdts: 5,
            doorbell_stride: 0,
            register_bytes: None,
            timeout_500ms: 20,
            ready_timeout_500ms: None,
            enabling: Readiness::AtOnce,
            disabling: Readiness::AtOnce,
            sgl: false,
            shadow_doorbells: false,
            volatile_write_cache: false,
            compare: true,
            compare_and_write: true,
            write_zeroes: true,
            dataset_management: true,
            verify: true,
            abort_limit_minus_one: 3,
            event_limit_minus_one: 3,
            function_reset: true,
            scattered: false,
            namespace_limit: 16,
            namespaces: vec![ModelNamespace::new(1, 1 << 20, 512)],
        }
    }
}

/// When CSTS.RDY follows CC.EN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// In the write of CC.
    AtOnce,
    /// At this many reads of CSTS.
    AfterReads(u32),
    /// So long after the write of CC. Only for registers that are used on a reactor, whose clock it takes.
    After(Duration),
    /// Never.
    Never,
}

/// A namespace of a model controller.
#[derive(Clone, Debug)]
pub struct ModelNamespace {
    /// Namespace identifier.
    pub nsid: u32,
    /// Logical blocks.
    pub blocks: u64,
    /// Bytes of a block, 512 or 4096.
    pub block_bytes: u32,
    /// Bytes of metadata of a block, 0 or 8.
    pub metadata_bytes: u16,
    /// Whether the metadata lies at the end of each block's data rather than in a buffer of its own.
    pub extended: bool,
    /// Protection information type, 0 to 3; the metadata is all of it.
    pub protection: u8,
    /// Its command set. Other than NVM: it is there to be recognised, its own commands are not.
    pub command_set: CommandSet,
    /// Namespace Optimal I/O Boundary in blocks (NOIOB); 0 none.
    pub optimal_boundary: u16,
    /// NGUID, or zero.
    pub nguid: [u8; 16],
    /// EUI64, or zero.
    pub eui64: [u8; 8],
    /// UUID, or zero.
    pub uuid: [u8; 16],
}

impl ModelNamespace {
    /// An NVM namespace of `blocks` blocks of `block_bytes` (512 or 4096) bytes, without metadata, with an NGUID made of
    /// its number.
    #[must_use]
    pub fn new(nsid: u32, blocks: u64, block_bytes: u32) -> Self {
        let mut nguid = [0x5e; 16];
        nguid[12..].copy_from_slice(&nsid.to_be_bytes());
        Self {
            nsid,
            blocks,
            block_bytes,
            metadata_bytes: 0,
            extended: false,
            protection: 0,
            command_set: CommandSet::Nvm,
            optimal_boundary: 0,
            nguid,
            eui64: [0; 8],
            uuid: [0; 16],
        }
    }

    /// The same namespace with 8 bytes of metadata a block, as protection information of a type (0: plain metadata).
    #[must_use]
    pub fn with_metadata(mut self, protection: u8) -> Self {
        (self.metadata_bytes, self.protection) = (8, protection);
        self
    }

    /// The same namespace as a zoned one.
    #[must_use]
    pub fn zoned(mut self) -> Self {
        self.command_set = CommandSet::Zoned;
        self
    }
}
