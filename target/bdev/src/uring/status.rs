//! From an operating system's error to an NVMe status.

use std::io::{self, ErrorKind};

use sledge_nvme::Status;

/// Whether the disk can't do the operation at all (rather than failing at it).
pub(super) fn is_unsupported(error: &io::Error) -> bool {
    error.kind() == ErrorKind::Unsupported
        || matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS))
}

/// The status for an error of a read (`write` false) or of anything that changes the disk.
///
/// A full file system, quota or file size limit is `CAPACITY_EXCEEDED` (NVM 3.3.6 names it for writes); what the
/// medium refuses is `WRITE_FAULT` or `UNRECOVERED_READ_ERROR` (NVM 3.1.4, media errors); the rest is internal.
pub(super) fn of(error: &io::Error, write: bool) -> Status {
    let medium = if write { Status::WRITE_FAULT } else { Status::UNRECOVERED_READ_ERROR };
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) if write => Status::CAPACITY_EXCEEDED.do_not_retry(),
        Some(libc::EIO | libc::ENODATA | libc::EREMOTEIO | libc::EILSEQ | libc::EUCLEAN | libc::EBADMSG) => {
            medium
        }
        // The device has gone. It does not come back under this descriptor, so trying again is in vain.
        Some(libc::ENODEV | libc::ENXIO) => medium.do_not_retry(),
        Some(libc::EROFS | libc::EPERM) if write => Status::NAMESPACE_IS_WRITE_PROTECTED.do_not_retry(),
        Some(libc::EAGAIN | libc::EINTR | libc::ENOMEM | libc::ENOBUFS) => crate::command::BUSY,
        Some(_) => Status::INTERNAL_ERROR,
        None => match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge if write => {
                Status::CAPACITY_EXCEEDED.do_not_retry()
            }
            // The file was cut short under us.
            ErrorKind::UnexpectedEof | ErrorKind::WriteZero => medium,
            _ => Status::INTERNAL_ERROR,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Deleting this lets a full disk look like a broken one to hosts, or the other way round.
    #[test]
    fn errors_get_the_status_that_says_what_happened() {
        let of_number = |number, write| of(&io::Error::from_raw_os_error(number), write).without_flags();
        assert_eq!(of_number(libc::ENOSPC, true), Status::CAPACITY_EXCEEDED);
        assert_eq!(of_number(libc::EFBIG, true), Status::CAPACITY_EXCEEDED);
        assert_eq!(of_number(libc::EIO, true), Status::WRITE_FAULT);
        assert_eq!(of_number(libc::EIO, false), Status::UNRECOVERED_READ_ERROR);
        assert_eq!(of_number(libc::ENXIO, true), Status::WRITE_FAULT);
        assert_eq!(of_number(libc::EBADF, false), Status::INTERNAL_ERROR);
        assert_eq!(of(&ErrorKind::UnexpectedEof.into(), false), Status::UNRECOVERED_READ_ERROR);
        assert!(is_unsupported(&io::Error::from_raw_os_error(libc::EOPNOTSUPP)));
    }
}
