//! A PCI function through VFIO: registers, reset and orderly removal, with the IOMMU between device and memory.
//!
//! Invariant: the device can reach what is mapped for it and nothing else (but in the no-IOMMU mode, which guards
//! nothing and is taken only when it is asked for by name).

#![allow(unsafe_code)]

mod call;
mod group;
mod iommufd;

use std::any::Any;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use vfio_bindings::bindings::vfio as abi;

use super::PciAddress;
use super::address_space::AddressSpace;
use super::arena::Arena;
use super::config_space::ConfigSpace;
use super::device;
use super::open_error::{OpenError, Step};
use super::pci_function::{Control, Memory, PciFunction, Place};
use super::reach::Reach;
use super::system::System;
use super::window::Window;
use group::{Group, open_file};

/// Opens a function behind an IOMMU.
pub(super) fn open(system: &System, address: PciAddress) -> Result<PciFunction, OpenError> {
    raise_lock_limit();
    let folder = system.function(&address);
    let group = device::iommu_group(&folder).ok_or(OpenError::NoIommu(address))?;
    let path = format!("/dev/vfio/{group}");
    // A kernel may have the newer way only; where both are, the older one is the better known.
    let character = device::vfio_name(&folder).filter(|_| system.path("/dev/iommu").exists());
    if let Some(name) = character.filter(|_| !system.path(&path).exists()) {
        let file = open_file(&system.path(&format!("/dev/vfio/devices/{name}")))?;
        let space = join_iommufd(system, &file)?;
        return function(system, address, "vfio", file, translated(space), Box::new(()));
    }
    let group = Group::open(system, &path, true)?;
    let file = call::open_device(&group.file, &address.to_string()).step("open the function")?;
    let space = group.space().cloned().ok_or(OpenError::NoIommu(address))?;
    function(system, address, "vfio", file, translated(space), Box::new(group))
}

/// Opens a function that no IOMMU guards.
pub(super) fn open_unguarded(system: &System, address: PciAddress) -> Result<PciFunction, OpenError> {
    let group = device::iommu_group(&system.function(&address));
    let group = group.ok_or(OpenError::Kernel(
        "VFIO has no no-IOMMU mode here: it must be built with CONFIG_VFIO_NOIOMMU and turned on by \
         `echo Y > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode`",
    ))?;
    let group = Group::open(system, &format!("/dev/vfio/noiommu-{group}"), false)?;
    let file = call::open_device(&group.file, &address.to_string()).step("open the function")?;
    let memory = Box::new(Arena::new(Reach::Physical));
    function(system, address, "vfio-noiommu", file, memory, Box::new(group))
}

/// Memory behind an IOMMU.
fn translated(space: Arc<AddressSpace>) -> Box<dyn Memory> {
    Box::new(Arena::new(Reach::Translated(space)))
}

/// What keeps another way of opening a function from its group, as far as the kernel tells.
#[cfg(feature = "dpdk")]
pub(super) fn obstacle(system: &System, address: PciAddress) -> Option<OpenError> {
    let Some(group) = device::iommu_group(&system.function(&address)) else {
        return Some(OpenError::NoIommu(address));
    };
    let group = format!("/dev/vfio/{group}");
    match open_file(&system.path(&group)) {
        Err(error) => Some(error),
        Ok(file) => {
            call::is_viable(&file).is_ok_and(|viable| !viable).then_some(OpenError::NotViable { group })
        }
    }
}

/// A function whose file is open. `keep` is dropped once everything of it is closed.
pub(super) fn function(
    system: &System,
    address: PciAddress,
    environment: &'static str,
    file: File,
    memory: Box<dyn Memory>,
    keep: Box<dyn Any + Send + Sync>,
) -> Result<PciFunction, OpenError> {
    let config =
        call::region(&file, abi::VFIO_PCI_CONFIG_REGION_INDEX).step("find the configuration space")?;
    let copy = file.try_clone().step("share the function's file")?;
    let config = ConfigSpace::new(copy, config.offset);
    config.set_bus_master(false).step("switch DMA off")?;
    config.enable_registers().step("switch the registers on")?;

    let bar = call::region(&file, abi::VFIO_PCI_BAR0_REGION_INDEX).step("find the registers")?;
    if !bar.mappable {
        return Err(OpenError::Kernel("VFIO can't map this function's registers"));
    }
    let bytes = usize::try_from(bar.bytes).unwrap_or(0);
    // SAFETY: the region is BAR 0, registers of the device.
    let registers = unsafe { Window::map(file.as_fd(), bar.offset, bytes) }.step("map the registers")?;

    let can_reset = call::can_reset(&file).step("ask what the function can do")?;
    let request = listen(&file);
    let control = Device { request, leaving: AtomicBool::new(false), can_reset, file, _keep: keep };
    Ok(PciFunction {
        address: address.to_string(),
        environment,
        place: Place::of(system.function(&address)).step("find the function's folder")?,
        registers,
        config,
        memory,
        control: Box::new(control),
    })
}

/// An opened function.
struct Device {
    /// Becomes readable when the system wants the function back.
    request: Option<File>,
    leaving: AtomicBool,
    can_reset: bool,
    // In this order: the function closes before its group.
    file: File,
    _keep: Box<dyn Any + Send + Sync>,
}

impl Control for Device {
    fn reset(&self) -> io::Result<bool> {
        if self.can_reset {
            call::reset(&self.file)?;
        }
        Ok(self.can_reset)
    }

    fn leaving(&self) -> bool {
        if let Some(mut request) = self.request.as_ref()
            && io::Read::read(&mut request, &mut [0; 8]).is_ok()
        {
            self.leaving.store(true, Ordering::Relaxed);
        }
        self.leaving.load(Ordering::Relaxed)
    }
}

/// Has the kernel tell when it wants the function back. Not every kernel can, and then removal waits for our end.
fn listen(file: &File) -> Option<File> {
    let index = abi::VFIO_PCI_REQ_IRQ_INDEX;
    let listening = (|| {
        if !call::has_interrupt(file, index)? {
            return Err(io::Error::from(io::ErrorKind::Unsupported));
        }
        let event = event()?;
        call::set_interrupt(file, index, event.as_fd())?;
        Ok(event)
    })();
    listening.inspect_err(|error| tracing::debug!(%error, "VFIO does not announce removals")).ok()
}

/// A counter that can be waited for; reading it never blocks.
fn event() -> io::Result<File> {
    // SAFETY: makes a new descriptor; no memory is involved.
    let event = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
    if event < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(event) }))
}

/// The process's address space behind an iommufd.
static IOMMUFD: Mutex<Option<(iommufd::Space, Weak<AddressSpace>)>> = Mutex::new(None);

/// Puts a function into it.
fn join_iommufd(system: &System, device: &File) -> Result<Arc<AddressSpace>, OpenError> {
    // Set as a whole or not at all.
    let mut shared = IOMMUFD.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((space, used)) = &*shared
        && let Some(used) = used.upgrade()
    {
        space.attach(device).step("put the function into the iommufd of the others")?;
        used.restrict(&space.allowed_addresses().step("ask for the IOMMU's addresses")?);
        return Ok(used);
    }
    let space = iommufd::Space::new(open_file(&system.path("/dev/iommu"))?).step("make an address space")?;
    space.attach(device).step("put the function into an iommufd")?;
    let allowed = space.allowed_addresses().step("ask for the IOMMU's addresses")?;
    let used = Arc::new(AddressSpace::new(Box::new(space.clone()), &allowed));
    *shared = Some((space, Arc::downgrade(&used)));
    Ok(used)
}

/// Mapped memory counts as locked: uses all that this process may lock, without asking for more.
pub(super) fn raise_lock_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is ours, and the kernel fills it or reads it.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) == 0 && limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit);
        }
    }
}
