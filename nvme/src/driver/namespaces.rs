//! The namespaces of a controller: what each is, and whether this driver can use it.
//!
//! Owns [`NamespaceInfo`] and the rules by which a namespace is refused, with a reason. Invariant: a namespace without
//! a reason has 512 or 4096-byte blocks of the NVM command set, and no metadata but protection information that the
//! controller makes and checks by itself. Read by the channels and by whoever makes block devices of namespaces.

use crate::identify::capability::{dlfeat, fuses, nsattr, nsfeat, oncs};
use crate::identify::{CommandSet, ControllerData, NamespaceData, NamespaceIdentifier, NamespaceIdentifiers};
use crate::io::{Geometry, Operation};

/// End-to-end data protection of a namespace (NVM 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Type 1: the reference tag is the low half of the block's address.
    Type1,
    /// Type 2: the reference tag is the command's.
    Type2,
    /// Type 3: the reference tag is not checked.
    Type3,
}

/// Metadata of each logical block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Bytes a block.
    pub bytes: u16,
    /// It follows each block's data in the same buffer, rather than lying in a buffer of its own (MPTR).
    pub interleaved: bool,
    /// Protection information, where some of the metadata is that.
    pub protection: Option<Protection>,
    /// Protection information is the first eight bytes rather than the last.
    pub protection_first: bool,
}

/// What the commands of a namespace can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct NamespaceFeatures {
    /// Compare.
    pub compare: bool,
    /// Most blocks of a fused Compare and Write that are atomic; 0: the controller has none.
    pub compare_and_write_blocks: u32,
    /// Write Zeroes.
    pub write_zeroes: bool,
    /// Write Zeroes frees the space when asked (DEAC).
    pub write_zeroes_deallocates: bool,
    /// Dataset Management, for Deallocate.
    pub deallocate: bool,
    /// Verify.
    pub verify: bool,
    /// Deallocated blocks read as zeroes.
    pub deallocated_reads_zeroes: bool,
    /// There is a volatile write cache, so that Flush and FUA mean something.
    pub write_cache: bool,
}

/// An active namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceInfo {
    /// Namespace identifier.
    pub nsid: u32,
    /// Size and preferences. Zero blocks of 512 bytes when the format is none that could be told.
    pub geometry: Geometry,
    /// Command set; `None` for one that is not known here.
    pub command_set: Option<CommandSet>,
    /// Namespace Globally Unique Identifier, where it has one.
    pub nguid: Option<[u8; 16]>,
    /// IEEE Extended Unique Identifier, where it has one.
    pub eui64: Option<[u8; 8]>,
    /// UUID in the byte order of RFC 4122, where it has one.
    pub uuid: Option<[u8; 16]>,
    /// Metadata of each block, where there is some.
    pub metadata: Option<Metadata>,
    /// What its commands can do.
    pub features: NamespaceFeatures,
    /// Logical blocks that no command should cross (NOIOB); 0 for none.
    pub optimal_boundary_blocks: u32,
    /// Write protected now.
    pub write_protected: bool,
    /// Other controllers may have it, too.
    pub shared: bool,
    /// Why it can't be used, and what would help; `None`: it can.
    pub refused: Option<String>,
}

impl NamespaceInfo {
    /// Whether a channel takes an operation.
    #[must_use]
    pub const fn supports(&self, operation: Operation) -> bool {
        if self.refused.is_some() || (operation.modifies() && self.write_protected) {
            return false;
        }
        match operation {
            Operation::Read | Operation::Write | Operation::Flush | Operation::Verify => true,
            Operation::Compare => self.features.compare,
            Operation::CompareAndWrite => self.features.compare_and_write_blocks > 0,
            Operation::WriteZeroes { .. } => self.features.write_zeroes,
            Operation::Deallocate => self.features.deallocate,
        }
    }

    /// Reads a namespace from Identify Namespace and its descriptors (CNS 03h; empty where there are none).
    #[must_use]
    pub fn new(nsid: u32, controller: &ControllerData, data: &NamespaceData, descriptors: &[u8]) -> Self {
        let mut info = Self {
            nsid,
            geometry: Geometry::new(0, 512),
            command_set: Some(CommandSet::Nvm),
            nguid: some_unless_zero(data.nguid),
            eui64: some_unless_zero(data.eui64),
            uuid: None,
            metadata: None,
            features: features(controller, data),
            optimal_boundary_blocks: data.noiob.get().into(),
            write_protected: data.nsattr & nsattr::WRITE_PROTECTED != 0,
            shared: data.nmic & crate::identify::capability::nmic::SHARED != 0,
            refused: None,
        };
        for identifier in NamespaceIdentifiers::new(descriptors) {
            match identifier {
                NamespaceIdentifier::Eui64(id) => info.eui64 = some_unless_zero(id),
                NamespaceIdentifier::Nguid(id) => info.nguid = some_unless_zero(id),
                NamespaceIdentifier::Uuid(id) => info.uuid = some_unless_zero(id),
                NamespaceIdentifier::CommandSet(set) => info.command_set = Some(set),
            }
        }
        info.refused = info.shape(data).err();
        info
    }

    /// A namespace of another command set than NVM, which Identify Namespace says nothing about.
    #[must_use]
    pub fn foreign(nsid: u32, command_set: Option<CommandSet>) -> Self {
        let inactive = NamespaceData::inactive();
        let mut info = Self::new(nsid, &ControllerData::new(), &inactive, &[]);
        info.command_set = command_set;
        info.refused = info.shape(&inactive).err();
        info
    }

    /// Fills in geometry and metadata.
    fn shape(&mut self, data: &NamespaceData) -> Result<(), String> {
        match self.command_set {
            Some(CommandSet::Nvm) => {}
            Some(CommandSet::Zoned) => {
                return Err("it is zoned, and zones are not supported yet: blocks of a zone are written in order only"
                    .into());
            }
            Some(other) => return Err(format!("it is of the {}, which is not supported", other.name())),
            None => return Err("it is of a command set that is not known".into()),
        }
        let Some(block_bytes) = data.block_bytes() else {
            return Err("its format has no possible block size".into());
        };
        self.geometry = Geometry::new(data.nsze.get(), block_bytes);
        if data.nsfeat & nsfeat::OPTIMAL_PERFORMANCE != 0 {
            self.geometry.optimal_io_blocks = u32::from(data.nows.get()) + 1;
        }
        let bytes = data.metadata_bytes();
        if bytes != 0 {
            self.metadata = Some(Metadata {
                bytes,
                interleaved: data.flbas & 0x10 != 0,
                protection: match data.dps & 0x7 {
                    1 => Some(Protection::Type1),
                    2 => Some(Protection::Type2),
                    3 => Some(Protection::Type3),
                    _ => None,
                },
                protection_first: data.dps & 0x8 != 0,
            });
        }
        if data.nsze.get() == 0 {
            return Err("it has no blocks".into());
        }
        if block_bytes != 512 && block_bytes != 4096 {
            return Err(format!(
                "its blocks have {block_bytes} bytes; format it with 512 or 4096 (`nvme format --lbaf`)"
            ));
        }
        match self.metadata {
            None => Ok(()),
            // Then the controller makes it on a write, and checks and takes it away on a read (PRACT, NVM 5.2.2.1).
            Some(Metadata { bytes: 8, protection: Some(_), .. }) => Ok(()),
            Some(Metadata { bytes, protection: Some(_), .. }) => Err(format!(
                "its blocks have {bytes} bytes of metadata with protection information, and a controller only makes \
                 and takes away all of it when it has 8; format it with 8 or none"
            )),
            Some(Metadata { bytes, protection: None, .. }) => Err(format!(
                "its blocks have {bytes} bytes of metadata without protection information, which nothing here would \
                 fill; format it without metadata"
            )),
        }
    }
}

fn features(controller: &ControllerData, data: &NamespaceData) -> NamespaceFeatures {
    let offered = controller.oncs.get();
    let fused = controller.fuses.get() & fuses::COMPARE_AND_WRITE != 0 && offered & oncs::COMPARE != 0;
    let own_units = data.nsfeat & nsfeat::ATOMIC_WRITE_UNITS != 0 && data.nacwu.get() != 0;
    let unit = if own_units { data.nacwu.get() } else { controller.acwu.get() };
    NamespaceFeatures {
        compare: offered & oncs::COMPARE != 0,
        compare_and_write_blocks: if fused { u32::from(unit) + 1 } else { 0 },
        write_zeroes: offered & oncs::WRITE_ZEROES != 0,
        write_zeroes_deallocates: data.dlfeat & dlfeat::WRITE_ZEROES_DEALLOCATE != 0,
        deallocate: offered & oncs::DATASET_MANAGEMENT != 0,
        verify: offered & oncs::VERIFY != 0,
        deallocated_reads_zeroes: data.dlfeat & 0x7 == dlfeat::READS_ZEROES,
        write_cache: controller.vwc & crate::identify::capability::vwc::PRESENT != 0,
    }
}

fn some_unless_zero<const N: usize>(id: [u8; N]) -> Option<[u8; N]> {
    (id != [0; N]).then_some(id)
}
