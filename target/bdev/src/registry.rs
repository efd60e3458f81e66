//! The devices of a process by name, and who uses them.
//!
//! Invariant: a device that is claimed (by a namespace, or a device on top of it) is not removed, and has one
//! claimant. Belongs to the management side: its lock is never taken on a reactor.

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use uuid::Uuid;

use crate::device::{BlockDevice, DeviceError};

struct Entry {
    device: Arc<dyn BlockDevice>,
    claimed_by: Option<String>,
    /// The claim on the device below, for one that stands on another.
    _lower: Option<Claim>,
}

/// All devices, in the order in which they were added (so that each comes after the one it stands on).
/// A cheap handle: clones are the same registry.
#[derive(Clone, Default)]
pub struct Registry {
    entries: Arc<Mutex<Vec<Entry>>>,
}

/// A claim on a device; dropping it ends it.
#[must_use = "dropping a claim ends it"]
pub struct Claim {
    // Weak, because the registry owns the claims of devices that stand on others.
    entries: Weak<Mutex<Vec<Entry>>>,
    device: Arc<dyn BlockDevice>,
}

impl Claim {
    /// The claimed device.
    #[must_use]
    pub fn device(&self) -> &Arc<dyn BlockDevice> {
        &self.device
    }

    /// From now on the claim is for `by`.
    pub fn pass_to(&self, by: impl Into<String>) {
        let Some(entries) = self.entries.upgrade() else { return };
        let mut entries = lock(&entries);
        if let Some(entry) = entries.iter_mut().find(|entry| Arc::ptr_eq(&entry.device, &self.device)) {
            entry.claimed_by = Some(by.into());
        }
    }
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Claim").field(&self.device.name()).finish()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let Some(entries) = self.entries.upgrade() else { return };
        let mut entries = lock(&entries);
        if let Some(entry) = entries.iter_mut().find(|entry| Arc::ptr_eq(&entry.device, &self.device)) {
            entry.claimed_by = None;
        }
    }
}

impl Registry {
    /// A registry without devices.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        lock(&self.entries)
    }

    /// Adds a device, and claims the one it stands on, if any, for it.
    ///
    /// # Errors
    /// The name or UUID is in use; the device below is not in this registry or is in use.
    pub fn add(&self, device: Arc<dyn BlockDevice>) -> Result<(), DeviceError> {
        let lower = match device.lower() {
            Some(lower) => Some(self.claim(lower.name(), format!("device {}", device.name()))?),
            None => None,
        };
        // Declared after `lower`: on failure the lock is let go before the claim ends, which takes it again.
        let mut entries = self.lock();
        if find(&entries, device.name()).is_some() {
            return Err(DeviceError::Exists { name: device.name().to_owned() });
        }
        if let Some(other) = entries.iter().find(|entry| entry.device.uuid() == device.uuid()) {
            return Err(DeviceError::UuidExists {
                name: device.name().to_owned(),
                uuid: device.uuid(),
                other: other.device.name().to_owned(),
            });
        }
        entries.push(Entry { device, claimed_by: None, _lower: lower });
        Ok(())
    }

    /// The device of that name or, for its text form, UUID.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, name: &str) -> Result<Arc<dyn BlockDevice>, DeviceError> {
        let entries = self.lock();
        let index = find(&entries, name).ok_or_else(|| DeviceError::NotFound { name: name.to_owned() })?;
        Ok(entries[index].device.clone())
    }

    /// The device of that name, which must be of kind `T`.
    ///
    /// # Errors
    /// There is none, or it is of another kind.
    pub fn get_as<T: BlockDevice>(&self, name: &str) -> Result<Arc<T>, DeviceError> {
        let device = self.get(name)?;
        let (name, product) = (device.name().to_owned(), device.product());
        let device: Arc<dyn Any + Send + Sync> = device;
        device.downcast().map_err(|_| DeviceError::WrongKind { name, product })
    }

    /// All devices, in the order in which they were added.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<dyn BlockDevice>> {
        self.lock().iter().map(|entry| entry.device.clone()).collect()
    }

    /// Who uses a device; `None` when nobody does or there is no such device.
    #[must_use]
    pub fn claimed_by(&self, name: &str) -> Option<String> {
        let entries = self.lock();
        entries[find(&entries, name)?].claimed_by.clone()
    }

    /// Claims a device for `by` (as in "namespace 1 of nqn…"), until the claim is dropped.
    ///
    /// # Errors
    /// There is no such device, or it is in use.
    pub fn claim(&self, name: &str, by: impl Into<String>) -> Result<Claim, DeviceError> {
        let mut entries = self.lock();
        let index = find(&entries, name).ok_or_else(|| DeviceError::NotFound { name: name.to_owned() })?;
        let entry = &mut entries[index];
        in_use(entry)?;
        entry.claimed_by = Some(by.into());
        Ok(Claim { entries: Arc::downgrade(&self.entries), device: entry.device.clone() })
    }

    /// Removes a device. Its memory or file is let go when its last channel is closed.
    ///
    /// # Errors
    /// There is no such device, or it is in use.
    pub fn remove(&self, name: &str) -> Result<Arc<dyn BlockDevice>, DeviceError> {
        let removed = {
            let mut entries = self.lock();
            let index =
                find(&entries, name).ok_or_else(|| DeviceError::NotFound { name: name.to_owned() })?;
            in_use(&entries[index])?;
            entries.remove(index)
        };
        // The claim on a device below ends here, outside the lock.
        Ok(removed.device)
    }

    /// The first of `prefix0`, `prefix1`, … that is not in use, for devices made without a name.
    #[must_use]
    pub fn free_name(&self, prefix: &str) -> String {
        let entries = self.lock();
        // There are fewer devices than numbers.
        let mut number = 0u64;
        loop {
            let name = format!("{prefix}{number}");
            if find(&entries, &name).is_none() {
                return name;
            }
            number += 1;
        }
    }
}

fn lock(entries: &Mutex<Vec<Entry>>) -> MutexGuard<'_, Vec<Entry>> {
    // A panic elsewhere can't leave the list half changed: every change is one push, remove or assignment.
    entries.lock().unwrap_or_else(PoisonError::into_inner)
}

fn find(entries: &[Entry], name: &str) -> Option<usize> {
    entries.iter().position(|entry| entry.device.name() == name).or_else(|| {
        let uuid = Uuid::try_parse(name).ok()?;
        entries.iter().position(|entry| entry.device.uuid() == uuid)
    })
}

fn in_use(entry: &Entry) -> Result<(), DeviceError> {
    match &entry.claimed_by {
        Some(by) => Err(DeviceError::InUse { name: entry.device.name().to_owned(), by: by.clone() }),
        None => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::delay::{DelayDevice, DelayOptions, Latencies};
    use crate::null::{NullDevice, NullOptions};

    fn null(name: &str) -> Arc<NullDevice> {
        let options = NullOptions { name: name.to_owned(), uuid: None, num_blocks: 8, block_size: 512 };
        Arc::new(NullDevice::new(options).unwrap())
    }

    // Deleting this lets a device be deleted under a namespace or another device.
    #[test]
    fn a_device_in_use_stays() {
        let registry = Registry::new();
        registry.add(null("Null0")).unwrap();
        assert_eq!(registry.add(null("Null0")).unwrap_err().errno(), libc::EEXIST);
        assert_eq!(registry.free_name("Null"), "Null1");

        let claim = registry.claim("Null0", "namespace 1 of nqn.x").unwrap();
        let error = registry.remove("Null0").unwrap_err();
        assert_eq!(error.to_string(), "device Null0 is in use by namespace 1 of nqn.x: remove that first");
        let options = DelayOptions { name: "Delay0".to_owned(), uuid: None, latencies: Latencies::default() };
        let delay = Arc::new(DelayDevice::new(registry.get("Null0").unwrap(), options).unwrap());
        assert_eq!(registry.add(delay.clone()).unwrap_err().errno(), libc::EBUSY);
        drop(claim);

        registry.add(delay.clone()).unwrap();
        assert_eq!(registry.claimed_by("Null0").as_deref(), Some("device Delay0"));
        assert!(registry.remove("Null0").is_err());
        assert!(registry.get_as::<DelayDevice>("Delay0").is_ok());
        assert!(matches!(registry.get_as::<DelayDevice>("Null0"), Err(DeviceError::WrongKind { .. })));
        assert_eq!(registry.get(&delay.uuid().to_string()).unwrap().name(), "Delay0");
        registry.remove("Delay0").unwrap();
        registry.remove("Null0").unwrap();
        assert!(registry.list().is_empty());
        assert_eq!(registry.get("Null0").unwrap_err().errno(), libc::ENODEV);
    }
}
