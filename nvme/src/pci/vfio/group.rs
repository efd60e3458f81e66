//! VFIO's groups and containers: the way to an IOMMU that every kernel with VFIO has.
//!
//! Owns the process's one container, in which the groups of all opened functions share an address space. Invariants: a
//! group is open once, as the kernel allows it once, and as long as one of its functions is; a container that lost its
//! last group is not used again, as the kernel has unmapped everything in it by then.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use vfio_bindings::bindings::vfio as abi;

use super::call;
use crate::pci::address_space::{AddressSpace, Translate};
use crate::pci::open_error::{OpenError, Step};
use crate::pci::system::System;

/// An opened group. Dropping the last handle closes it.
pub(super) struct Group {
    pub(super) file: File,
    /// Its container, which is there as long as a group is in it.
    container: Arc<Container>,
}

struct Container {
    file: Arc<File>,
    /// `None` without an IOMMU.
    space: Option<Arc<AddressSpace>>,
}

/// The process's open groups, by the path of their device.
static OPEN: Mutex<BTreeMap<String, Weak<Group>>> = Mutex::new(BTreeMap::new());

/// Maps into a container.
struct Type1(Arc<File>);

impl Translate for Type1 {
    fn map(&self, start: usize, bytes: usize, iova: u64) -> io::Result<()> {
        call::map(&self.0, start, bytes, iova)
    }

    fn unmap(&self, iova: u64, bytes: usize) -> io::Result<()> {
        call::unmap(&self.0, iova, bytes)
    }
}

impl Group {
    /// Opens a group, or gives it once more.
    pub(super) fn open(system: &System, device: &str, guarded: bool) -> Result<Arc<Group>, OpenError> {
        // Nothing that holds it panics, and a half-made group is not in it.
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, group| group.strong_count() > 0);
        if let Some(group) = open.get(device).and_then(Weak::upgrade) {
            return Ok(group);
        }
        let path = system.path(device);
        let file = open_file(&path)?;
        if !call::is_viable(&file).step("ask for the group's state")? {
            return Err(OpenError::NotViable { group: device.to_owned() });
        }
        // The groups that are held here keep their container from ending meanwhile.
        let others: Vec<Arc<Group>> = open.values().filter_map(Weak::upgrade).collect();
        let shared = others.iter().find(|group| group.container.space.is_some() == guarded);
        let container = match shared {
            Some(group) => group.container.clone().join(&file)?,
            None => Container::new(system, &file, guarded)?,
        };
        let group = Arc::new(Group { file, container });
        open.insert(device.to_owned(), Arc::downgrade(&group));
        Ok(group)
    }

    /// The address space of its functions; `None` without an IOMMU.
    pub(super) fn space(&self) -> Option<&Arc<AddressSpace>> {
        self.container.space.as_ref()
    }
}

impl Container {
    /// A container for a first group.
    fn new(system: &System, group: &File, guarded: bool) -> Result<Arc<Container>, OpenError> {
        let file = open_file(&system.path("/dev/vfio/vfio"))?;
        if !call::is_known(&file).step("ask for VFIO's version")? {
            return Err(OpenError::Kernel("its VFIO is of another version than 0"));
        }
        let kind = if guarded { abi::VFIO_TYPE1v2_IOMMU } else { abi::VFIO_NOIOMMU_IOMMU };
        if !call::has_extension(&file, kind).step("ask what VFIO can do")? {
            return Err(OpenError::Kernel(if guarded {
                "VFIO has no type 1 IOMMU: `modprobe vfio_iommu_type1`"
            } else {
                "VFIO has no no-IOMMU mode: it must be built with CONFIG_VFIO_NOIOMMU"
            }));
        }
        call::set_container(group, &file).step("put the group into a container")?;
        call::set_iommu(&file, kind).map_err(unsafe_interrupts)?;
        let file = Arc::new(file);
        let space = if guarded {
            let allowed = allowed(&file).step("ask for the IOMMU's addresses")?;
            Some(Arc::new(AddressSpace::new(Box::new(Type1(file.clone())), &allowed)))
        } else {
            None
        };
        Ok(Arc::new(Container { file, space }))
    }

    /// Adds a group.
    fn join(self: Arc<Self>, group: &File) -> Result<Arc<Container>, OpenError> {
        call::set_container(group, &self.file).map_err(unsafe_interrupts)?;
        if let Some(space) = &self.space {
            // Its IOMMU may allow less.
            space.restrict(&allowed(&self.file).step("ask for the IOMMU's addresses")?);
        }
        Ok(self)
    }
}

/// What a kernel before 5.4 does not tell: 39 bits, the least of Intel's IOMMUs, without x86's interrupt window.
fn allowed(container: &File) -> io::Result<Vec<RangeInclusive<u64>>> {
    let told = call::allowed_addresses(container)?;
    tracing::debug!(?told, "addresses that the IOMMU allows");
    Ok(told.unwrap_or_else(|| vec![0..=0xfedf_ffff, 0xfef0_0000..=(1 << 39) - 1]))
}

/// What it means that an IOMMU can't be had for a group: the kernel's way to say that interrupts are not remapped is that
/// this is not permitted.
fn unsafe_interrupts(source: io::Error) -> OpenError {
    if source.kind() == io::ErrorKind::PermissionDenied {
        return OpenError::Kernel(
            "its IOMMU does not remap interrupts, by which a device could do harm: switch that on in the firmware, or do \
             without by `modprobe vfio_iommu_type1 allow_unsafe_interrupts=1`",
        );
    }
    OpenError::Refused { step: "have the IOMMU translate for the group", source }
}

/// Opens a device file of VFIO.
pub(super) fn open_file(path: &Path) -> Result<File, OpenError> {
    File::options().read(true).write(true).open(path).map_err(|error| OpenError::of_file(path, error))
}
