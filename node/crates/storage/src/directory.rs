//! An open data directory: the lock on it, its manifest, and the switch from one generation to the next.
//!
//! ```text
//!   data/
//!     LOCK            held by the process that uses the directory
//!     MANIFEST        names cluster, member, generation and checkpoint
//!     FORMING         only while a formation is unfinished (prepare.rs)
//!     CORRUPT         only while damage that was met is not known to be mended (corrupt_mark.rs)
//!     gen-2/          rows, index and checkpoint of the generation that counts
//!     gen-3/          a generation being built beside it, or one that a crash left: removed at the next start
//!     wal/            the log; outside generations
//! ```
//!
//! A snapshot is installed in steps, each of which a crash may follow:
//!
//! ```text
//!   begin_generation ─► content written and synced ─► switch_generation ─► record with the snapshot in the WAL ─► acknowledged
//!   gen-3/ made          by its writer                 MANIFEST renamed       (Input::Installed makes consensus ask)
//!   └── old generation counts ──────────────────────────┴── new one counts; the log restarts at its checkpoint
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_consensus::SnapshotMeta;

use crate::disk::{Disk, DiskLock};
use crate::manifest::{Manifest, generation_name};

/// The lock file's name.
pub(crate) const LOCK_NAME: &str = "LOCK";

/// The WAL's directory in the data directory.
pub(crate) const WAL_NAME: &str = "wal";

/// A data directory in use by this process.
pub struct DataDirectory {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) path: PathBuf,
    pub(crate) manifest: Manifest,
    /// Generations that were replaced while this process ran and are still there.
    pub(crate) replaced: Vec<u64>,
    pub(crate) failed: bool,
    /// Dropped last: nobody else comes in before everything is closed.
    pub(crate) _lock: Box<dyn DiskLock>,
}

/// Why the manifest could not be changed. It is then unknown which one is in force, so the process must stop (INV-S3).
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// A call to the disk failed.
    #[error(
        "cannot {action} {path}: this member stops; free space or repair the disk, then start it again"
    )]
    Disk {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An earlier change failed.
    #[error(
        "an earlier change of the manifest failed; this process must stop and recover from disk"
    )]
    Failed,
}

/// A generation that is being built beside the one that counts.
#[derive(Debug, PartialEq, Eq)]
pub struct NewGeneration {
    number: u64,
    path: PathBuf,
}

impl NewGeneration {
    /// Where its content goes. The writer syncs each file; the directory itself is synced by
    /// [`DataDirectory::switch_generation`].
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl DataDirectory {
    /// What is in force.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The directory of the generation that counts.
    #[must_use]
    pub fn generation_path(&self) -> PathBuf {
        self.path.join(self.manifest.generation_name())
    }

    /// The log's directory.
    #[must_use]
    pub fn wal_path(&self) -> PathBuf {
        self.path.join(WAL_NAME)
    }

    /// Notes that a checkpoint in the generation that counts has been published (INV-S1: it holds rows and applied
    /// index together). A crash before this note loses nothing; with it, a checkpoint file that an older one has
    /// replaced is noticed.
    ///
    /// # Errors
    /// Any is final.
    ///
    /// # Panics
    /// When the checkpoint lies before the one in force.
    pub fn record_checkpoint(&mut self, checkpoint: SnapshotMeta) -> Result<(), DirectoryError> {
        let old = self.manifest.checkpoint.index;
        assert!(
            checkpoint.index >= old,
            "INV-R1: a checkpoint never falls: {} after {old}",
            checkpoint.index
        );
        // Until the machine applies an entry of its own log after an installed snapshot, the log may not know of it.
        let installed = self.manifest.installed && checkpoint.index == old;
        self.replace(Manifest { checkpoint, installed, ..self.manifest.clone() })
    }

    /// Makes an empty directory for a generation beside the one that counts. One at a time: beginning another one
    /// removes what is there of an earlier, abandoned one.
    ///
    /// # Errors
    /// When the disk fails. Nothing that counts is touched; the caller may give up and go on.
    pub fn begin_generation(&self) -> Result<NewGeneration, DirectoryError> {
        let number = self.manifest.generation + 1;
        let path = self.path.join(generation_name(number));
        self.disk.remove_dir_all(&path).map_err(disk_error("remove", &path))?;
        self.disk.create_dir(&path).map_err(disk_error("create", &path))?;
        Ok(NewGeneration { number, path })
    }

    /// Puts a new generation in force: its content, every file of it synced by its writer, stands at `checkpoint`.
    /// `installed` says that it came from another member, so that the log restarts there; a generation rebuilt from
    /// this member's own data (defragmentation) stands at or behind the checkpoint in force and leaves the log alone.
    ///
    /// # Errors
    /// Any is final.
    ///
    /// # Panics
    /// When the checkpoint lies before the one in force, or another generation was switched to meanwhile.
    pub fn switch_generation(
        &mut self,
        new: &NewGeneration,
        checkpoint: SnapshotMeta,
        installed: bool,
    ) -> Result<(), DirectoryError> {
        let old = &self.manifest;
        assert!(
            checkpoint.index >= old.checkpoint.index,
            "INV-R1: a checkpoint never falls: {}",
            checkpoint.index
        );
        assert!(
            new.number == old.generation + 1,
            "INV-S1: generation {} was begun beside another",
            new.number
        );
        if self.failed {
            return Err(DirectoryError::Failed);
        }
        self.failed = true;
        self.disk.sync_dir(&new.path).map_err(disk_error("sync", &new.path))?;
        self.disk.sync_dir(&self.path).map_err(disk_error("sync", &self.path))?;
        self.failed = false;
        let replaced = self.manifest.generation;
        let installed = installed || (old.installed && checkpoint.index == old.checkpoint.index);
        let manifest =
            Manifest { generation: new.number, checkpoint, installed, ..self.manifest.clone() };
        self.replace(manifest)?;
        self.replaced.push(replaced);
        Ok(())
    }

    /// Removes generations that were replaced, once no reader uses them any more. A crash in between leaves the rest
    /// to the next start.
    ///
    /// # Errors
    /// When the disk fails. Nothing that counts is touched.
    pub fn remove_replaced(&mut self) -> Result<(), DirectoryError> {
        while let Some(number) = self.replaced.last() {
            let path = self.path.join(generation_name(*number));
            self.disk.remove_dir_all(&path).map_err(disk_error("remove", &path))?;
            self.replaced.pop();
        }
        Ok(())
    }

    pub(crate) fn replace(&mut self, manifest: Manifest) -> Result<(), DirectoryError> {
        if self.failed {
            return Err(DirectoryError::Failed);
        }
        self.failed = true;
        manifest
            .write(&*self.disk, &self.path)
            .map_err(disk_error("write the manifest of", &self.path))?;
        self.manifest = manifest;
        self.failed = false;
        Ok(())
    }
}

pub(crate) fn disk_error(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> DirectoryError {
    let path = path.to_path_buf();
    move |source| DirectoryError::Disk { action, path, source }
}
