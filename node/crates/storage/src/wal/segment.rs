//! The files of the WAL: their names, and the spare ones that wait for their use.
//!
//! ```text
//!   wal/0000000000000007.wal     a segment: has a durable header from before it got this name
//!   wal/spare-3                  zero-filled or recycled; becomes a segment by a header, a sync and a rename
//!   wal/filling-4                on its way to a spare; removed by recovery
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::WalError;
use crate::disk::{Disk, DiskFile, background_sync_due};
use crate::limits::{FILL_STEP_BYTES, FILL_WRITE_BYTES, SPARES_MAX};

/// Where a segment is.
pub(crate) fn segment_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:016x}.wal"))
}

/// The reverse of [`segment_path`] for a name.
pub(crate) fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

fn spare_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("spare-{number}"))
}

fn filling_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("filling-{number}"))
}

/// The spare files, shared by the writer, which uses and makes them, and the filler, which makes them.
#[derive(Clone)]
pub(crate) struct Spares(Arc<Mutex<Shelf>>);

#[derive(Default)]
struct Shelf {
    ready: Vec<u64>,
    next: u64,
}

impl Spares {
    /// Takes up what is in the directory and removes what a crash left half filled.
    pub(crate) fn recover(
        disk: &dyn Disk,
        directory: &Path,
        names: &[String],
    ) -> Result<Self, WalError> {
        let mut shelf = Shelf::default();
        for name in names {
            let number =
                |prefix| name.strip_prefix(prefix).and_then(|digits| digits.parse::<u64>().ok());
            let path = directory.join(name);
            if let Some(number) = number("spare-") {
                shelf.next = shelf.next.max(number + 1);
                if shelf.ready.len() < SPARES_MAX {
                    shelf.ready.push(number);
                } else {
                    disk.remove_file(&path).map_err(WalError::disk("remove", &path))?;
                }
            } else if name.starts_with("filling-") {
                disk.remove_file(&path).map_err(WalError::disk("remove", &path))?;
            }
        }
        Ok(Self(Arc::new(Mutex::new(shelf))))
    }

    /// A spare, or else a new file, which then grows as it is written.
    pub(crate) fn take(
        &self,
        disk: &dyn Disk,
        directory: &Path,
    ) -> Result<(PathBuf, Arc<dyn DiskFile>), WalError> {
        let (ready, number) = {
            let mut shelf = self.0.lock();
            match shelf.ready.pop() {
                Some(number) => (true, number),
                None => (false, shelf.reserve()),
            }
        };
        let path = spare_path(directory, number);
        let file = if ready { disk.open(&path) } else { disk.create(&path) };
        Ok((path.clone(), file.map_err(WalError::disk("open", &path))?))
    }

    /// Renames a purged segment to a spare, or removes it when there are enough, `recycled` ones that were not added yet
    /// among them. The number is to be given to [`Spares::add`] once the directory is synced.
    pub(crate) fn recycle(
        &self,
        disk: &dyn Disk,
        directory: &Path,
        segment: &Path,
        recyclable: bool,
        recycled: usize,
    ) -> Result<Option<u64>, WalError> {
        let number = {
            let mut shelf = self.0.lock();
            (recyclable && shelf.ready.len() + recycled < SPARES_MAX).then(|| shelf.reserve())
        };
        match number {
            Some(number) => disk.rename(segment, &spare_path(directory, number)),
            None => disk.remove_file(segment),
        }
        .map_err(WalError::disk("recycle", segment))?;
        Ok(number)
    }

    /// Offers spares whose names are durable: before that, a crash could give a file its old name back, with a new
    /// header in it.
    pub(crate) fn add(&self, numbers: impl IntoIterator<Item = u64>) {
        self.0.lock().ready.extend(numbers);
    }

    fn wanted(&self) -> bool {
        self.0.lock().ready.is_empty()
    }
}

impl Shelf {
    fn reserve(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }
}

/// Writes zeros into spare segments ahead of their use, in small steps on a thread of their own: a commit into a file
/// that has its blocks costs a quarter of one into a growing file (measured, `reference/crates.md` §2).
pub struct SpareFiller {
    disk: Arc<dyn Disk>,
    directory: Arc<PathBuf>,
    spares: Spares,
    segment_bytes: u64,
    filling: Option<Filling>,
}

struct Filling {
    number: u64,
    file: Arc<dyn DiskFile>,
    filled: u64,
}

impl SpareFiller {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        directory: Arc<PathBuf>,
        spares: Spares,
        segment_bytes: u64,
    ) -> Self {
        Self { disk, directory, spares, segment_bytes, filling: None }
    }

    /// Does about a millisecond of work; `false` when there is nothing to do until the next rotation.
    ///
    /// # Errors
    /// When the disk fails or is full. Nothing of the log is in a spare, so this is no reason to stop: the file is
    /// given up, and the next step begins another.
    pub fn step(&mut self) -> Result<bool, WalError> {
        let Some(filling) = self.filling.take() else {
            if !self.spares.wanted() {
                return Ok(false);
            }
            let number = self.spares.0.lock().reserve();
            let path = filling_path(&self.directory, number);
            let file = self.disk.create(&path).map_err(WalError::disk("create", &path))?;
            self.filling = Some(Filling { number, file, filled: 0 });
            return Ok(true);
        };
        let number = filling.number;
        self.fill(filling).inspect_err(|_| {
            // Space is what may be short: give it back. Recovery removes the file if this fails as well.
            let _ = self.disk.remove_file(&filling_path(&self.directory, number));
        })?;
        Ok(true)
    }

    fn fill(&mut self, mut filling: Filling) -> Result<(), WalError> {
        const ZEROS: &[u8] = &[0; FILL_WRITE_BYTES];
        let path = filling_path(&self.directory, filling.number);
        if filling.filled < self.segment_bytes {
            let before = filling.filled;
            let until = self.segment_bytes.min(before + FILL_STEP_BYTES as u64);
            while filling.filled < until {
                let left = usize::try_from(until - filling.filled).unwrap_or(usize::MAX);
                let zeros = &ZEROS[..left.min(FILL_WRITE_BYTES)];
                let at = filling.filled;
                filling.file.write_at(at, zeros).map_err(WalError::disk("fill", &path))?;
                filling.filled += zeros.len() as u64;
            }
            if background_sync_due(before, filling.filled) {
                filling.file.sync().map_err(WalError::disk("sync", &path))?;
            }
            self.filling = Some(filling);
            return Ok(());
        }
        filling.file.sync().map_err(WalError::disk("sync", &path))?;
        let spare = spare_path(&self.directory, filling.number);
        self.disk.rename(&path, &spare).map_err(WalError::disk("rename", &path))?;
        self.spares.add([filling.number]);
        Ok(())
    }
}
