//! A function's PCI configuration space: the few bits of it that a driver needs.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Register offsets and bits: PCI Local Bus Specification 3.0, 6.2.
const COMMAND: u64 = 4;
const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_BUS_MASTER: u16 = 1 << 2;
const COMMAND_NO_INTERRUPTS: u16 = 1 << 10;
/// Sub-class and class. VFIO answers for vendor and device by itself, also when the function is gone.
const CLASS: u64 = 10;

/// Configuration space as bytes of a file.
pub(super) struct ConfigSpace {
    file: File,
    start: u64,
}

impl ConfigSpace {
    /// The space that begins at `start` of a file.
    pub(super) fn new(file: File, start: u64) -> ConfigSpace {
        ConfigSpace { file, start }
    }

    /// Has the function answer at its registers, and raise no interrupts, as nobody would hear them.
    pub(super) fn enable_registers(&self) -> io::Result<()> {
        self.change_command(COMMAND_MEMORY | COMMAND_NO_INTERRUPTS, 0)
    }

    /// Lets the function do DMA, or not.
    pub(super) fn set_bus_master(&self, on: bool) -> io::Result<()> {
        if on {
            self.change_command(COMMAND_BUS_MASTER, 0)
        } else {
            self.change_command(0, COMMAND_BUS_MASTER)
        }
    }

    /// Whether the function answers at all.
    pub(super) fn answers(&self) -> bool {
        self.read(CLASS).is_ok_and(|class| class != u16::MAX)
    }

    fn change_command(&self, set: u16, clear: u16) -> io::Result<()> {
        let command = self.read(COMMAND)?;
        if command == u16::MAX {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        let wanted = (command | set) & !clear;
        if wanted == command {
            return Ok(());
        }
        self.file.write_all_at(&wanted.to_le_bytes(), self.start + COMMAND)
    }

    fn read(&self, offset: u64) -> io::Result<u16> {
        let mut bytes = [0; 2];
        self.file.read_exact_at(&mut bytes, self.start + offset)?;
        Ok(u16::from_le_bytes(bytes))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    // Deleting this lets a device go on with DMA after it was let go of, into memory that is someone else's by then.
    #[test]
    fn the_command_register_changes_by_bits() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[0; 256], 0).unwrap();
        file.write_all_at(&[0x36, 0x1b, 0x10, 0x00, 0x00, 0x01, 0, 0, 2, 2, 8, 1], 64).unwrap();
        let space = ConfigSpace::new(file.try_clone().unwrap(), 64);
        let command = || space.read(COMMAND).unwrap();
        space.enable_registers().unwrap();
        assert_eq!(command(), 0x0502);
        space.set_bus_master(true).unwrap();
        assert_eq!(command(), 0x0506);
        space.set_bus_master(false).unwrap();
        assert_eq!((command(), space.answers()), (0x0502, true));
        // A device that is gone reads as all ones, which must not be written back.
        file.write_all_at(&[0xff; 64], 64).unwrap();
        assert!(!space.answers() && space.set_bus_master(true).is_err());
    }
}
