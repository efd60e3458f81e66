//! The Unix socket that management clients connect to.
//!
//! Invariant: it is readable and writable by its owner only from the moment it exists, and never replaces a
//! socket that a living process answers on. A lock file beside it settles who of two that start at once gets
//! it; both go away when [`SocketFile`] is dropped.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;

/// Why there is no socket to listen on.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Somebody else listens there.
    #[error("another target is listening on {0}; stop it, or name another socket with --rpc-socket")]
    InUse(PathBuf),
    /// Something else is there.
    #[error("{0} exists and is not a socket; remove it, or name another socket with --rpc-socket")]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("can't listen on {path}: {error}; name another socket with --rpc-socket")]
    System {
        /// The socket's path.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// The socket in the file system; removed when dropped.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    lock_path: PathBuf,
    inode: u64,
    _lock: File,
}

impl SocketFile {
    /// Where the socket is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Only what is still ours: somebody may have put another socket there by hand.
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
        let _ = fs::remove_file(&self.lock_path);
    }
}

/// Makes the socket and listens on it, without blocking mode, for tokio. A socket that nobody answers on is
/// replaced. The folder is made, for its owner only, if it is missing.
///
/// # Errors
/// [`SocketError`], each with what to do.
pub fn listen(path: &Path) -> Result<(UnixListener, SocketFile), SocketError> {
    let system = |error: io::Error| SocketError::System { path: path.to_owned(), error };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        create_private_folder(folder).map_err(system)?;
    }
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock_path = PathBuf::from(lock_path);
    let lock = take_lock(path, &lock_path)?;

    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(system)?;
            }
            Ok(_) => return Err(SocketError::InUse(path.to_owned())),
            Err(error) => return Err(system(error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(system(error)),
    }
    let listener = bind_private(path).map_err(system)?;
    let inode = fs::symlink_metadata(path).map_err(system)?.ino();
    Ok((listener, SocketFile { path: path.to_owned(), lock_path, inode, _lock: lock }))
}

/// Makes a folder, and those above it, that only its owner can enter. An existing one is left as it is.
///
/// # Errors
/// What the system says.
pub fn create_private_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if folder.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn take_lock(path: &Path, lock_path: &Path) -> Result<File, SocketError> {
    let system = |error: io::Error| SocketError::System { path: path.to_owned(), error };
    // A holder that ends removes the file: what was opened may be gone when its lock is ours.
    for _ in 0..16 {
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(lock_path)
            .map_err(system)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SocketError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(system(error)),
        }
        let ours = lock.metadata().map_err(system)?.ino();
        if fs::metadata(lock_path).is_ok_and(|found| found.ino() == ours) {
            return Ok(lock);
        }
    }
    Err(SocketError::InUse(path.to_owned()))
}

/// Binds with mode 0600. On Linux a bound socket's file takes the mode of the unbound descriptor, so there is
/// no moment at which others could connect, and the process-wide file mask need not be touched.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let descriptor: OwnedFd = Socket::new(Domain::UNIX, Type::STREAM, None)?.into();
    let file = File::from(descriptor);
    file.set_permissions(Permissions::from_mode(0o600))?;
    let socket = Socket::from(OwnedFd::from(file));
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(128)?;
    socket.set_nonblocking(true)?;
    Ok(UnixListener::from(OwnedFd::from(socket)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    // Without it: other users of the machine could manage the target.
    #[test]
    fn the_socket_is_its_owners_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b.sock");
        let (_listener, file) = listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(folder.path().join("a")).unwrap().permissions().mode() & 0o777, 0o700);
        drop(file);
        assert!(!path.exists());
        assert_eq!(fs::read_dir(folder.path().join("a")).unwrap().count(), 0);
    }

    // Without it: a second target would steal a running one's socket, or a crashed one's would block the next.
    #[test]
    fn only_a_dead_socket_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rpc.sock");
        let (listener, file) = listen(&path).unwrap();
        assert!(matches!(listen(&path), Err(SocketError::InUse(_))));
        drop(listener);
        std::mem::forget(file); // as a killed process leaves it, but the lock stays held
        assert!(matches!(listen(&path), Err(SocketError::InUse(_))));

        let path = folder.path().join("foreign.sock");
        let foreign = UnixListener::bind(&path).unwrap();
        assert!(matches!(listen(&path), Err(SocketError::InUse(_))));
        drop(foreign);
        let (_listener, _file) = listen(&path).unwrap();

        let path = folder.path().join("file");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(listen(&path), Err(SocketError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
