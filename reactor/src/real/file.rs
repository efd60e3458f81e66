//! Opening files and kernel block devices.
//!
//! Owns the descriptor, shared by all queues on the disk. Blocking; never called on the data path.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::disk::{Disk, DiskOptions, DiskParts};

/// Alignment for direct I/O where the kernel does not tell: every device takes it.
const CAREFUL_BLOCK_BYTES: u32 = 4096;
/// The smallest block that NVMe hosts expect.
const SMALLEST_BLOCK_BYTES: u32 = 512;

/// How often a block device that is in use is tried, and how long is waited in between: whoever closes it, ourselves
/// included, does so a little later than it says. Counted, not timed: a machine that stands still does not close either.
const ATTEMPTS: u32 = 40;
const PAUSE: Duration = Duration::from_millis(25);

/// An open file or block device.
#[derive(Debug)]
pub(super) struct RealFile {
    file: File,
    threads: KernelThreads,
    is_block_device: bool,
    direct: bool,
}

/// Which transfers threads of the kernel have a part in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KernelThreads {
    /// None: the disk's interrupt ends them.
    Never,
    /// Writes: a file system ends them on a thread of the core that the disk interrupts.
    Writes,
    /// All: they go through the page cache, where they may block.
    Always,
}

impl RealFile {
    /// The descriptor, open as long as this lives.
    pub(super) fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Which transfers threads of the kernel have a part in.
    pub(super) fn threads(&self) -> KernelThreads {
        self.threads
    }

    /// Whether it is a block device rather than a file.
    pub(super) fn is_block_device(&self) -> bool {
        self.is_block_device
    }

    /// Length, and the smallest unit of direct I/O, in bytes.
    pub(super) fn measure(&self) -> io::Result<(u64, u32)> {
        let (len_bytes, block_bytes) = if self.is_block_device {
            (device_len(&self.file)?, device_block(&self.file)?)
        } else if self.direct {
            (self.file.metadata()?.len(), direct_alignment(&self.file).unwrap_or(CAREFUL_BLOCK_BYTES))
        } else {
            (self.file.metadata()?.len(), SMALLEST_BLOCK_BYTES)
        };
        Ok((len_bytes, block_bytes.max(SMALLEST_BLOCK_BYTES)))
    }
}

/// Opens a file or block device.
pub(crate) fn open_disk(path: &Path, options: &DiskOptions) -> io::Result<Disk> {
    if let Some(bytes) = options.create_bytes
        && !options.read_only
    {
        create_sparse(path, bytes)?;
    }
    let (file, direct) = open(path, options)?;
    let kind = file.metadata()?.file_type();
    let is_block_device = kind.is_block_device();
    if !is_block_device && !kind.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a file nor a block device"));
    }
    let threads = match (direct && !is_in_memory(&file), is_block_device) {
        (false, _) => KernelThreads::Always,
        (true, false) => KernelThreads::Writes,
        (true, true) => KernelThreads::Never,
    };
    // A block device's own zeroes come and go with what is behind it; only a file system promises them.
    let discarded_reads_zeroes = !is_block_device && (options.read_only || punches_holes(&file)?);
    let file = RealFile { file, threads, is_block_device, direct };
    let (len_bytes, block_bytes) = file.measure()?;
    Ok(Disk::from_parts(DiskParts {
        len_bytes,
        block_bytes,
        is_block_device,
        discarded_reads_zeroes,
        read_only: options.read_only,
        medium: Box::new(Arc::new(file)),
    }))
}

/// The same open disk with the size that it has now; `None` for one that is not the kernel's.
pub(crate) fn measured_again(disk: &Disk) -> Option<io::Result<Disk>> {
    let file = disk.medium::<Arc<RealFile>>()?;
    Some(file.measure().map(|(len_bytes, block_bytes)| {
        Disk::from_parts(DiskParts {
            len_bytes,
            block_bytes,
            is_block_device: disk.is_block_device(),
            discarded_reads_zeroes: disk.discarded_reads_zeroes(),
            read_only: disk.is_read_only(),
            medium: Box::new(file.clone()),
        })
    }))
}

/// Creates a sparse file, unless something is there. Without `O_DIRECT`: on a file system that has none, the
/// attempt would leave an empty file behind.
fn create_sparse(path: &Path, bytes: u64) -> io::Result<()> {
    let file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(error),
    };
    file.set_len(bytes).and_then(|()| file.sync_all()).inspect_err(|_| {
        // Half-made; leaving it would pass for an empty disk next time. The first error is the one to tell.
        let _ = std::fs::remove_file(path);
    })
}

/// Opens, directly if asked for and possible; tells whether it is.
///
/// A block device that is to be written is opened for us alone (`O_EXCL`): one that is mounted, swapped to, part of
/// another device or served already would be destroyed. For files the flag means nothing.
fn open(path: &Path, options: &DiskOptions) -> io::Result<(File, bool)> {
    let mut attempt = 1;
    loop {
        match try_to_open(path, options) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                if attempt == ATTEMPTS {
                    let text =
                        "it is in use: mounted, swap, part of another device (see lsblk), or served already";
                    return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
                }
                attempt += 1;
                std::thread::sleep(PAUSE);
            }
            opened => return opened,
        }
    }
}

fn try_to_open(path: &Path, options: &DiskOptions) -> io::Result<(File, bool)> {
    let mut open_options = OpenOptions::new();
    open_options.read(true).write(!options.read_only);
    let is_block_device = std::fs::metadata(path)?.file_type().is_block_device();
    let alone = if is_block_device && !options.read_only { libc::O_EXCL } else { 0 };
    if options.direct {
        match open_options.custom_flags(libc::O_DIRECT | alone).open(path) {
            Ok(file) => return Ok((file, true)),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                tracing::warn!(
                    path = %path.display(),
                    "the file system has no direct I/O; going on through the page cache"
                );
            }
            Err(error) => return Err(error),
        }
    }
    Ok((open_options.custom_flags(alone).open(path)?, false))
}

/// Whether the file system frees parts of a file, which then read as zeroes. Asked for a range behind the file's
/// end, where there is nothing to free.
fn punches_holes(file: &File) -> io::Result<bool> {
    let unit = u64::from(CAREFUL_BLOCK_BYTES);
    let end = file.metadata()?.len().next_multiple_of(unit);
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: a plain system call on an open descriptor, which changes no byte of the file.
    let result = unsafe { libc::fallocate(file.as_raw_fd(), mode, end as libc::off_t, unit as libc::off_t) };
    Ok(result == 0)
}

/// Whether a file lies on tmpfs, where direct I/O is nothing else than access to the page cache.
fn is_in_memory(file: &File) -> bool {
    // SAFETY: the structure is plain numbers, for which zeros are values, and the kernel writes no more than it.
    let (result, answer) = unsafe {
        let mut answer: libc::statfs = std::mem::zeroed();
        (libc::fstatfs(file.as_raw_fd(), &mut answer), answer)
    };
    result == 0 && answer.f_type == libc::TMPFS_MAGIC
}

fn device_len(file: &File) -> io::Result<u64> {
    // _IOR(0x12, 114, size_t), which libc does not name.
    const BLKGETSIZE64: libc::Ioctl = 0x8008_1272;
    let mut bytes = 0u64;
    // SAFETY: the descriptor is a block device's, and this request writes a u64.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), BLKGETSIZE64, &mut bytes) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(bytes) }
}

fn device_block(file: &File) -> io::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is a block device's, and this request writes an int.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::BLKSSZGET, &mut bytes) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(bytes.max(0) as u32) }
}

/// What direct I/O on a file must be aligned to, if the kernel (6.1 or newer) tells.
fn direct_alignment(file: &File) -> Option<u32> {
    // struct statx of the kernel's ABI: 256 bytes, stx_mask at 0, stx_dio_mem_align at 152,
    // stx_dio_offset_align at 156. libc's structure for glibc does not name the latter two.
    const STATX_DIOALIGN: u32 = 0x2000;
    let mut answer = [0u32; 64];
    // SAFETY: the path is an empty C string, which AT_EMPTY_PATH makes mean the descriptor itself, and the
    // answer has the 256 bytes that the kernel writes.
    let result = unsafe {
        libc::syscall(
            libc::SYS_statx,
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            STATX_DIOALIGN,
            answer.as_mut_ptr(),
        )
    };
    let offset_align = answer[39];
    (result == 0 && answer[0] & STATX_DIOALIGN != 0 && offset_align != 0).then_some(offset_align)
}
