//! Files of the log: direct where the file system allows it; directories locked against a second process.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use crate::buffer::{ALIGNMENT, AlignedBuffer};

/// How writes reach the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Directness {
    /// O_DIRECT: past the page cache.
    Direct,
    /// Through the page cache: the file system refuses O_DIRECT.
    Buffered,
}

/// A file that is written through a ring, with data durable when the write completes.
#[derive(Debug)]
pub struct LogFile {
    file: File,
    directness: Directness,
}

impl LogFile {
    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// Those of open(2), except a refusal of O_DIRECT: then it is opened without.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::open_with(path, false)
    }

    /// Opens a file, making it if it does not exist.
    ///
    /// # Errors
    /// As [`LogFile::open`].
    pub fn open_or_create(path: &Path) -> io::Result<Self> {
        Self::open_with(path, true)
    }

    fn open_with(path: &Path, create: bool) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(create);
        match options.clone().custom_flags(libc::O_DIRECT | libc::O_CLOEXEC).open(path) {
            Ok(file) => Ok(Self { file, directness: Directness::Direct }),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                let file = options.custom_flags(libc::O_CLOEXEC).open(path)?;
                Ok(Self { file, directness: Directness::Buffered })
            }
            Err(error) => Err(error),
        }
    }

    /// How its writes reach the disk.
    #[must_use]
    pub fn directness(&self) -> Directness {
        self.directness
    }

    /// Its size in bytes.
    ///
    /// # Errors
    /// Those of fstat(2).
    pub fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Writes a page-aligned buffer and waits until it is durable. For start-up, off the critical path.
    ///
    /// # Errors
    /// Those of pwrite(2) and fdatasync(2).
    pub fn write_durably(&self, bytes: &AlignedBuffer, offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)?;
        self.file.sync_data()
    }

    /// Reads into a page-aligned buffer; what lies beyond the end of the file is left as it is. For start-up.
    /// Returns the number of bytes read.
    ///
    /// # Errors
    /// Those of pread(2).
    pub fn read(&self, bytes: &mut AlignedBuffer, offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.file.read_at(&mut bytes[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(size) => filled += size,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if filled % ALIGNMENT != 0 {
                break;
            }
        }
        Ok(filled)
    }
}

impl AsFd for LogFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Makes a directory's entries durable: after creating, renaming or removing files in it.
///
/// # Errors
/// Those of open(2) and fsync(2).
pub fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// A lock on a directory, held by the process and released by the kernel when it ends, however it ends.
#[derive(Debug)]
pub struct DirectoryLock(#[expect(dead_code, reason = "held, not used: dropping it unlocks")] Flock<File>);

/// Why a directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("another process uses this directory")]
    Held,
    /// The lock file could not be opened or locked.
    #[error("the lock file cannot be used: {0}")]
    Io(#[from] io::Error),
}

impl DirectoryLock {
    /// Locks `path` by its file `lock` (flock(2): the file stays, the lock does not outlive the process).
    ///
    /// # Errors
    /// See [`LockError`].
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path.join("lock"))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self(lock)),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(LockError::Held),
            Err((_, errno)) => Err(LockError::Io(errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_locked_once_and_again_after_release() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let lock = DirectoryLock::acquire(directory.path()).expect("nobody else is there");
        assert!(matches!(DirectoryLock::acquire(directory.path()), Err(LockError::Held)));
        drop(lock);
        DirectoryLock::acquire(directory.path()).expect("the lock file stays, the lock does not");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = LogFile::open_or_create(&directory.path().join("f")).expect("a new file");
        let mut page = AlignedBuffer::new(ALIGNMENT);
        page.fill(7);
        file.write_durably(&page, 4096).expect("written");
        let mut both = AlignedBuffer::new(3 * ALIGNMENT);
        assert_eq!(file.read(&mut both, 0).expect("read"), 8192);
        assert_eq!(both[4095..4097], [0, 7]);
    }
}
