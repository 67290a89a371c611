//! The seam to the file system: everything that this crate does to files goes through [`Disk`] and [`DiskFile`].
//!
//! The real one is [`FileSystem`]; [`mem::MemDisk`] is the one for tests and the simulator, which can fail, crash, and
//! lose or tear whatever was not synced. What callers may rely on is what POSIX and ext4 give:
//!
//! - bytes written are durable once [`DiskFile::sync`] returned, and may be durable before, in any order, sector by
//!   sector;
//! - a name made, changed or removed is durable once [`Disk::sync_dir`] of its directory returned; a rename is seen
//!   whole or not at all;
//! - after a failed write or sync nothing is known about the file any more (INV-S3).

pub mod mem;

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use crate::limits::BACKGROUND_SYNC_BYTES;

/// What is written and read, and torn by a crash, as a unit. Smaller than any real sector, so that code which holds
/// for this holds for larger ones.
pub const SECTOR_BYTES: usize = 512;

/// A directory tree. Paths are used as given; names are UTF-8.
pub trait Disk: Send + Sync {
    /// Makes a directory; its parent must exist. No error when it is there already.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory, sorted.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Makes an empty file or empties the one that is there; for reading and writing.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file for reading and writing; [`io::ErrorKind::NotFound`] when there is none.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file or directory another name and replaces a file that has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name; who has it open reads on.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory and everything in it; no error when there is none.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Locks a file against every other process until the guard is dropped, and makes it if it is not there.
    /// [`io::ErrorKind::WouldBlock`] when somebody else holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>>;
}

/// An open file. All methods take `&self`: positions are given, never kept.
pub trait DiskFile: Send + Sync {
    /// Reads at `offset` until `buffer` is full or the file ends; how much it was.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset` in one call; the file grows as needed.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes everything written so far durable, and the length with it.
    fn sync(&self) -> io::Result<()>;

    /// Bytes in the file.
    fn len(&self) -> io::Result<u64>;

    /// Whether there are none.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts the file, or grows it by zeros.
    fn set_len(&self, length: u64) -> io::Result<()>;
}

/// Held as long as the lock shall be.
pub trait DiskLock: Send + Sync {}

/// Whether a file that is written in the background has grown past the next mark at which it is synced.
pub(crate) fn background_sync_due(before: u64, after: u64) -> bool {
    before / BACKGROUND_SYNC_BYTES != after / BACKGROUND_SYNC_BYTES
}

/// The operating system's own files.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileSystem;

/// Data directories hold secrets: nobody but the owner reads them.
const FILE_MODE: u32 = 0o600;

impl Disk for FileSystem {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            outcome => outcome,
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(FILE_MODE);
        Ok(Arc::new(options.open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(fs::OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let mut options = fs::OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(path)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(file))
    }
}

/// The kernel drops an flock when the last descriptor of the open file is closed.
impl DiskLock for fs::File {}

impl DiskFile for fs::File {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            match FileExt::read_at(self, &mut buffer[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        fs::File::set_len(self, length)
    }
}
