//! What a namespace is and what its controller can do with it, as the data path needs it.
//!
//! Owns [`NamespaceShape`]. Invariant: a shape is only made for namespaces that the data path serves right; for others
//! there is a reason in words. Made by the control path of Identify data; each channel has one.

use crate::Status;
use crate::identify::capability::{dlfeat, fuses, nsfeat, oncs, vwc};
use crate::identify::{ControllerData, NamespaceData, NvmControllerData};
use crate::io::{Geometry, Operation};

use super::data_pointer::{MAX_DATA_BYTES, PAGE_BYTES};

/// Most blocks that the field NLB holds (NVM 3.2).
const MAX_BLOCKS: u32 = 0x1_0000;
/// Bytes of metadata that the controller makes and checks by itself when PRACT is set (NVM 5.2.2.1).
const PROTECTION_BYTES: u16 = 8;

/// Which command a Compare and Write may be, at most and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FusedLimit {
    /// Most blocks (ACWU or NACWU).
    pub blocks: u32,
    /// Blocks between boundaries that it may not cross (NABSN), 0 for none, and the first boundary (NABO).
    pub boundary: (u32, u32),
}

/// End-to-end protection, which the controller adds on writes, and checks and strips on reads (PRACT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// The namespace has none.
    None,
    /// Types 1 and 2: guard and reference tag.
    GuardAndReference,
    /// Type 3: guard.
    Guard,
}

/// A namespace, as the data path sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceShape {
    /// Namespace Identifier.
    pub nsid: u32,
    /// Size and preferences.
    pub geometry: Geometry,
    /// Most blocks in one command that transfers data (MDTS, and what a slot's list describes).
    pub max_transfer_blocks: u32,
    /// Blocks between boundaries that one command should not cross (NOIOB); 0 for none.
    pub boundary_blocks: u32,
    /// Most blocks in one Write Zeroes; 0: the controller has no such command, and zeroes are written.
    pub max_zeroes_blocks: u32,
    /// Whether Write Zeroes takes Deallocate.
    pub zeroes_deallocate: bool,
    /// Most blocks in one Verify; 0: the controller has no such command, and the range is read.
    pub max_verify_blocks: u32,
    /// Most blocks in one deallocation; 0: the controller has no Dataset Management.
    pub max_deallocate_blocks: u32,
    /// Whether the controller has Compare.
    pub compare: bool,
    /// The fused Compare and Write, if the controller has that.
    pub fused: Option<FusedLimit>,
    /// Whether writes may be lost until a Flush (VWC).
    pub volatile_cache: bool,
    /// End-to-end protection.
    pub protection: Protection,
}

impl NamespaceShape {
    /// The shape of a namespace, from its controller's and its own Identify data.
    ///
    /// # Errors
    /// In words, why the namespace is not served.
    pub fn new(
        nsid: u32,
        controller: &ControllerData,
        nvm_controller: Option<&NvmControllerData>,
        namespace: &NamespaceData,
    ) -> Result<Self, String> {
        let block_bytes = match namespace.block_bytes() {
            Some(bytes @ (512 | 4096)) => bytes,
            Some(bytes) => return Err(format!("blocks of {bytes} bytes; only 512 and 4096 are supported")),
            None => return Err("its Identify data names no block size".to_owned()),
        };
        let protection = protection(namespace)?;
        let plain = protection == Protection::None;
        let mut geometry = Geometry::new(namespace.nsze.get(), block_bytes);
        geometry.optimal_io_blocks = u32::from(namespace.noiob.get());

        let oncs = controller.oncs.get();
        let has = |bit: u16| oncs & bit != 0;
        let pages = |exponent: u8| match exponent {
            0 => MAX_BLOCKS,
            // Up to 2^16 blocks; a larger exponent says more than that.
            exponent => ((PAGE_BYTES as u64) << exponent.min(20)).div_ceil(u64::from(block_bytes)) as u32,
        };
        let max_transfer_blocks = pages(controller.mdts).min(MAX_DATA_BYTES as u32 / block_bytes);
        // Without the structure that names a limit of its own, these are held to that of transfers.
        let limit = |supported: bool, exponent: Option<u8>| match (supported, exponent) {
            (false, _) => 0,
            (true, Some(exponent)) => pages(exponent).min(MAX_BLOCKS),
            (true, None) => max_transfer_blocks,
        };
        let ranges = nvm_controller.map_or((0, 0), |limits| (limits.dmrsl.get(), limits.dmsl.get()));
        let max_deallocate_blocks = match has(oncs::DATASET_MANAGEMENT) {
            false => 0,
            true => [u64::from(ranges.0), ranges.1]
                .into_iter()
                .filter(|limit| *limit > 0)
                .fold(u32::MAX, |least, limit| least.min(u32::try_from(limit).unwrap_or(u32::MAX))),
        };
        Ok(Self {
            nsid,
            geometry,
            max_transfer_blocks,
            boundary_blocks: u32::from(namespace.noiob.get()),
            max_zeroes_blocks: limit(has(oncs::WRITE_ZEROES), nvm_controller.map(|limits| limits.wzsl)),
            zeroes_deallocate: namespace.dlfeat & dlfeat::WRITE_ZEROES_DEALLOCATE != 0,
            max_verify_blocks: limit(has(oncs::VERIFY), nvm_controller.map(|limits| limits.vsl)),
            max_deallocate_blocks,
            compare: has(oncs::COMPARE) && plain,
            fused: (has(oncs::COMPARE) && controller.fuses.get() & fuses::COMPARE_AND_WRITE != 0 && plain)
                .then(|| fused_limit(controller, namespace, max_transfer_blocks)),
            volatile_cache: controller.vwc & vwc::PRESENT != 0,
            protection,
        })
    }

    /// Whether the namespace can do an operation at all.
    #[must_use]
    pub fn supports(&self, operation: Operation) -> bool {
        match operation {
            Operation::Read
            | Operation::Write
            | Operation::Flush
            | Operation::WriteZeroes { .. }
            | Operation::Verify => true,
            Operation::Compare => self.compare,
            Operation::CompareAndWrite => self.fused.is_some(),
            Operation::Deallocate => self.max_deallocate_blocks > 0,
        }
    }

    /// Checks a Compare and Write.
    ///
    /// # Errors
    /// What the controller would not do atomically.
    pub fn check_fused(&self, slba: u64, blocks: u32) -> Result<(), Status> {
        let Some(limit) = self.fused else { return Err(Status::INVALID_OPCODE.do_not_retry()) };
        let exceeded = Status::ATOMIC_WRITE_UNIT_EXCEEDED.do_not_retry();
        if blocks > limit.blocks {
            return Err(exceeded);
        }
        let (boundary, first) = (u64::from(limit.boundary.0), u64::from(limit.boundary.1));
        if boundary > 0 {
            let from_first = slba.wrapping_sub(first) % boundary;
            if slba < first && slba + u64::from(blocks) > first
                || slba >= first && from_first + u64::from(blocks) > boundary
            {
                return Err(exceeded);
            }
        }
        Ok(())
    }
}

fn protection(namespace: &NamespaceData) -> Result<Protection, String> {
    match (namespace.metadata_bytes(), namespace.dps & 0x7) {
        (0, _) => Ok(Protection::None),
        (PROTECTION_BYTES, 1 | 2) => Ok(Protection::GuardAndReference),
        (PROTECTION_BYTES, 3) => Ok(Protection::Guard),
        (bytes, 0) => {
            Err(format!("its blocks carry {bytes} bytes of metadata without protection information"))
        }
        (bytes, _) => Err(format!(
            "its blocks carry {bytes} bytes of metadata; only protection information of {PROTECTION_BYTES} is supported"
        )),
    }
}

fn fused_limit(controller: &ControllerData, namespace: &NamespaceData, most: u32) -> FusedLimit {
    let own = namespace.nsfeat & nsfeat::ATOMIC_WRITE_UNITS != 0;
    let unit = if own { namespace.nacwu.get() } else { controller.acwu.get() };
    let boundary = match namespace.nabsn.get() {
        0 => (0, 0),
        boundary => (u32::from(boundary) + 1, u32::from(namespace.nabo.get())),
    };
    FusedLimit { blocks: (u32::from(unit) + 1).min(most), boundary }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use zerocopy::FromZeros;
    use zerocopy::little_endian::{U16, U32};

    use super::*;
    use crate::identify::LbaFormat;

    // Deleting this lets commands exceed what the controller takes, and fail or be cut.
    #[test]
    fn limits_come_from_identify() {
        let mut controller = ControllerData::new_zeroed();
        let mut namespace = NamespaceData::new(1000, 9);
        let shape = NamespaceShape::new(1, &controller, None, &namespace).unwrap();
        assert_eq!(shape.max_transfer_blocks, 4096, "2 MiB is what a list describes");
        assert!(!shape.supports(Operation::Deallocate) && !shape.supports(Operation::Compare));
        controller.mdts = 1;
        controller.oncs =
            U16::new(oncs::WRITE_ZEROES | oncs::VERIFY | oncs::DATASET_MANAGEMENT | oncs::COMPARE);
        controller.fuses = U16::new(fuses::COMPARE_AND_WRITE);
        controller.acwu = U16::new(7);
        namespace.noiob = U16::new(100);
        let shape = NamespaceShape::new(1, &controller, None, &namespace).unwrap();
        assert_eq!(
            (shape.max_transfer_blocks, shape.max_zeroes_blocks, shape.max_verify_blocks),
            (16, 16, 16)
        );
        assert_eq!((shape.max_deallocate_blocks, shape.boundary_blocks), (u32::MAX, 100));
        assert_eq!(shape.fused, Some(FusedLimit { blocks: 8, boundary: (0, 0) }));
        let mut limits = NvmControllerData::new();
        (limits.wzsl, limits.vsl, limits.dmrsl) = (0, 2, U32::new(50));
        let shape = NamespaceShape::new(1, &controller, Some(&limits), &namespace).unwrap();
        assert_eq!((shape.max_zeroes_blocks, shape.max_verify_blocks), (65_536, 32));
        assert_eq!(shape.max_deallocate_blocks, 50);
    }

    // Deleting this lets a namespace be served whose blocks we would not read or write right.
    #[test]
    fn namespaces_that_are_not_served_say_why() {
        let controller = ControllerData::new_zeroed();
        let mut namespace = NamespaceData::new(1000, 9);
        let new = |namespace: &NamespaceData| NamespaceShape::new(1, &controller, None, namespace);
        namespace.lbaf[0] = LbaFormat { metadata_bytes: U16::new(8), data_shift: 9, relative_performance: 0 };
        assert!(new(&namespace).unwrap_err().contains("metadata"));
        namespace.dps = 1;
        assert_eq!(new(&namespace).unwrap().protection, Protection::GuardAndReference);
        namespace.lbaf[0].metadata_bytes = U16::new(16);
        assert!(new(&namespace).unwrap_err().contains("16 bytes of metadata"));
        assert!(new(&NamespaceData::new(1000, 13)).unwrap_err().contains("8192"));
        assert!(new(&NamespaceData::inactive()).is_err());
    }

    // Deleting this lets a Compare and Write be torn in two by another host.
    #[test]
    fn fused_commands_stay_within_what_is_atomic() {
        let controller = ControllerData::new_zeroed();
        let mut shape = NamespaceShape::new(1, &controller, None, &NamespaceData::new(1000, 9)).unwrap();
        assert!(shape.check_fused(0, 1).is_err());
        shape.fused = Some(FusedLimit { blocks: 4, boundary: (8, 3) });
        assert!(shape.check_fused(4, 4).is_ok() && shape.check_fused(7, 4).is_ok());
        assert!(shape.check_fused(8, 4).unwrap_err().is(Status::ATOMIC_WRITE_UNIT_EXCEEDED));
        assert!(shape.check_fused(2, 2).is_err() && shape.check_fused(0, 3).is_ok());
        assert!(shape.check_fused(3, 5).is_err());
    }
}
