//! Opens a data directory: from whatever the last process left to what consensus and the machine start from, or to a
//! verdict that says what is wrong and what to do.
//!
//! ```text
//!   open ──► directory ──► rows and machine at their checkpoint ──► recover ──► log, Recovered
//!   here                   the caller, from rows/ and the machine   here
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_consensus::{
    HardState, LogIndex, MemberId, Record, Recovered, SnapshotMeta, Term, Token,
};

use crate::corrupt_mark::CORRUPT_NAME;
use crate::damage::Damage;
use crate::directory::{DataDirectory, DirectoryError, LOCK_NAME, WAL_NAME};
use crate::disk::Disk;
use crate::identity::ClusterId;
use crate::manifest::{
    MANIFEST_FORMAT, MANIFEST_NAME, MANIFEST_NEW_NAME, Manifest, ManifestError, generation_number,
};
use crate::prepare::FORMING_NAME;
use crate::rows::StoreError;
use crate::wal::{
    Anchor, Owner, ScanError, Scanned, Spares, TornTail, WAL_FORMAT, Wal, WalError, WalSettings,
    scan,
};

/// What the caller knows of the directory that it opens; `None` for what it does not know.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expectations {
    /// The cluster that the directory must belong to.
    pub cluster: Option<ClusterId>,
    /// The member that the directory must belong to.
    pub member: Option<MemberId>,
}

/// A data directory and its log, ready to go on.
pub struct Recovery {
    /// The directory, its lock and its manifest.
    pub directory: DataDirectory,
    /// The log, ready for the next record.
    pub wal: Wal,
    /// What consensus starts from. Entries behind the checkpoint that are too old for memory come from the log's
    /// reader.
    pub recovered: Recovered,
    /// What had to be cut off the log's end. Nobody was told of it; worth a line in the log.
    pub torn_tail: Option<TornTail>,
    /// Whether the log was restarted after a snapshot that had been installed just before the process stopped.
    pub restarted: bool,
}

/// The classes in which a member that cannot start tells the operator why (`docs/contract.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is no data.
    Empty,
    /// The data cannot be trusted.
    Corrupt,
    /// The data is another cluster's or another member's.
    ForeignCluster,
    /// A later version wrote the data.
    FormatTooNew,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is nothing in it, or a formation that was never finished.
    #[error(
        "data directory {0} holds no data: a new member starts here only by forming a cluster or by joining one; a \
         member that had data has lost it, so check the volume, or remove the member and add it again"
    )]
    Empty(PathBuf),
    /// Damage, or missing parts.
    #[error(transparent)]
    Corrupt(#[from] Damage),
    /// Another cluster's data.
    #[error(
        "data directory {path} belongs to cluster {found}, this server was started for cluster {expected}: check the \
         volume and the cluster token, or empty the directory if its data is not needed"
    )]
    ForeignCluster {
        /// The directory.
        path: PathBuf,
        /// The manifest's cluster.
        found: ClusterId,
        /// The caller's.
        expected: ClusterId,
    },
    /// Another member's data.
    #[error(
        "data directory {path} belongs to member {found}, this server was started as member {expected}: check the \
         volume and the peer URLs"
    )]
    ForeignMember {
        /// The directory.
        path: PathBuf,
        /// The manifest's member.
        found: MemberId,
        /// The caller's.
        expected: MemberId,
    },
    /// A later version's data.
    #[error(
        "{path} has format {found}, this version reads up to {known}: start the version that wrote it, or a later one; \
         data is never converted downwards"
    )]
    FormatTooNew {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The latest one known.
        known: u32,
    },
    /// Somebody else uses it.
    #[error(
        "data directory {0} is in use by another process: stop that one, or give this one its own directory"
    )]
    Locked(PathBuf),
    /// A call to the disk failed.
    #[error(
        "cannot {action} {path}: check that the disk is there, not full, and that this user may use it"
    )]
    Disk {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Rows or checkpoint cannot be opened: for the caller's step between [`open`] and [`recover`].
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log could not be made ready.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The manifest could not be replaced.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

impl OpenError {
    /// The class of the error, where it is one that no restart cures.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        match self {
            Self::Empty(_) => Some(Verdict::Empty),
            Self::Corrupt(_) => Some(Verdict::Corrupt),
            Self::ForeignCluster { .. } | Self::ForeignMember { .. } => {
                Some(Verdict::ForeignCluster)
            }
            Self::FormatTooNew { .. } => Some(Verdict::FormatTooNew),
            Self::Store(StoreError::Corrupt(_)) => Some(Verdict::Corrupt),
            Self::Store(StoreError::FormatTooNew { .. }) => Some(Verdict::FormatTooNew),
            Self::Store(StoreError::Disk { .. } | StoreError::Failed) => None,
            Self::Locked(_) | Self::Disk { .. } | Self::Wal(_) | Self::Directory(_) => None,
        }
    }

    pub(crate) fn disk(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Disk { action, path, source }
    }
}

/// Opens the data directory at `data`: locks it, reads its manifest, removes what a crash left unfinished.
///
/// The next steps are the caller's: open the rows in [`DataDirectory::generation_path`], restore the machine from
/// them, and give [`recover`] the index, term and configuration at which it stands.
///
/// # Errors
/// See [`OpenError`]; none of them changes anything that counts.
pub fn open(
    disk: Arc<dyn Disk>,
    data: &Path,
    expected: &Expectations,
) -> Result<DataDirectory, OpenError> {
    if look(&*disk, data)? == Contents::Nothing {
        return Err(OpenError::Empty(data.to_path_buf()));
    }
    let lock = disk.lock(&data.join(LOCK_NAME)).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked(data.to_path_buf()),
        _ => OpenError::disk("lock", data)(error),
    })?;
    let manifest = read_manifest(&*disk, data)?;
    check_identity(data, &manifest, expected)?;
    // What the last process renamed and came not to sync is seen, and lost by the next power failure. Whatever is
    // built on it from here on must not outlive it: manifest first, then the checkpoint in its generation.
    disk.sync_dir(data).map_err(OpenError::disk("sync", data))?;
    remove_leftovers(&*disk, data, &manifest)?;
    let generation = data.join(manifest.generation_name());
    disk.sync_dir(&generation).map_err(OpenError::disk("sync", &generation))?;
    let (path, replaced) = (data.to_path_buf(), Vec::new());
    Ok(DataDirectory { disk, path, manifest, replaced, failed: false, _lock: lock })
}

/// Reads the log of an open directory whose machine stands at `checkpoint`, makes its end durable, and counts the
/// start.
///
/// # Errors
/// See [`OpenError`].
pub fn recover(
    mut directory: DataDirectory,
    checkpoint: &SnapshotMeta,
    settings: &WalSettings,
) -> Result<Recovery, OpenError> {
    let manifest = directory.manifest.clone();
    let installed = check_checkpoint(&directory, checkpoint)?;
    let owner = Owner {
        cluster: manifest.cluster,
        member: manifest.member,
        incarnation: manifest.incarnation,
    };
    let (disk, wal_path) = (directory.disk.clone(), directory.wal_path());
    let names = disk.list(&wal_path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => OpenError::Corrupt(Damage::new(
            wal_path.clone(),
            0,
            "the directory of the log is missing",
        )),
        _ => OpenError::disk("list", &wal_path)(error),
    })?;
    let anchor = Anchor { owner, checkpoint, entries_bytes_max: settings.recovered_bytes_max };
    let mut scanned = scan(&*disk, &wal_path, &names, &anchor)?;
    let fit = fit(&scanned, checkpoint, installed, &wal_path)?;
    let torn_tail = scanned.cut.clone();
    let entries = std::mem::take(&mut scanned.entries);
    let log_end = scanned.tip.last_index;
    // Applied entries are committed, whether or not a record said so before the process stopped (INV-R1). A log that
    // is to be restarted keeps its own hard state until the record that restarts it.
    let hard_state = raised(scanned.tip.hard_state, checkpoint);
    if fit == Fit::Continues {
        scanned.tip.hard_state = hard_state;
    }
    let spares = Spares::recover(&*disk, &wal_path, &names)?;
    let mut wal = Wal::resume(disk, &wal_path, owner, settings.clone(), spares, scanned)?;
    let (entries, last_index) = match fit {
        Fit::Continues => (entries, log_end),
        Fit::Restarts => {
            restart(&mut wal, hard_state, checkpoint)?;
            (Vec::new(), checkpoint.index)
        }
    };
    let starts = manifest.starts + 1;
    directory.replace(Manifest {
        starts,
        checkpoint: checkpoint.clone(),
        installed,
        ..manifest
    })?;
    let recovered = Recovered { hard_state, snapshot: checkpoint.clone(), entries, last_index };
    Ok(Recovery { directory, wal, recovered, torn_tail, restarted: fit == Fit::Restarts })
}

/// Whether the machine stands at a snapshot that was just installed. It may stand behind the manifest's checkpoint,
/// which is written after the machine's own; it may not stand before it.
fn check_checkpoint(
    directory: &DataDirectory,
    checkpoint: &SnapshotMeta,
) -> Result<bool, OpenError> {
    let manifest = &directory.manifest;
    let (stands, named) = (checkpoint.index, manifest.checkpoint.index);
    if stands < named || (stands == named && checkpoint.term != manifest.checkpoint.term) {
        let what = format!(
            "the machine's checkpoint stands at index {stands} of term {}, the manifest knows of a later one at index \
             {named} of term {}: the checkpoint was replaced by an older one",
            checkpoint.term, manifest.checkpoint.term
        );
        return Err(Damage::new(directory.generation_path(), 0, what).into());
    }
    Ok(manifest.installed && stands == named)
}

/// What is in a directory, seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    /// Nothing that counts: no directory, an empty one, or a formation that was never finished.
    Nothing,
    /// A manifest.
    Manifest,
}

/// Tells a directory that may be formed in from one that has data. `lost+found` is made by file systems and means
/// nothing.
///
/// # Errors
/// When there are parts of a store without a manifest, or somebody else's files: neither is empty, and neither may be
/// written over.
pub(crate) fn look(disk: &dyn Disk, data: &Path) -> Result<Contents, OpenError> {
    let names = match disk.list(data) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Contents::Nothing),
        Err(error) => return Err(OpenError::disk("list", data)(error)),
    };
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    if has(MANIFEST_NAME) {
        return Ok(Contents::Manifest);
    }
    let ours =
        |name: &str| name == WAL_NAME || name == CORRUPT_NAME || generation_number(name).is_some();
    let harmless = ["lost+found", LOCK_NAME, FORMING_NAME, MANIFEST_NEW_NAME];
    let stranger = names.iter().find(|name| !ours(name) && !harmless.contains(&name.as_str()));
    let damage = |what: String| OpenError::Corrupt(Damage::new(data.to_path_buf(), 0, what));
    if let Some(name) = stranger {
        return Err(damage(format!(
            "it holds {name:?}, which no store of this kind makes, and no {MANIFEST_NAME}"
        )));
    }
    match names.iter().find(|name| ours(name)) {
        Some(name) if !has(FORMING_NAME) => {
            Err(damage(format!("{MANIFEST_NAME} is missing, though {name:?} is there")))
        }
        _ => Ok(Contents::Nothing),
    }
}

pub(crate) fn read_manifest(disk: &dyn Disk, data: &Path) -> Result<Manifest, OpenError> {
    let path = data.join(MANIFEST_NAME);
    Manifest::read(disk, data).map_err(|error| match error {
        ManifestError::Absent => OpenError::Empty(data.to_path_buf()),
        ManifestError::Damaged(what) => OpenError::Corrupt(Damage::new(path, 0, what)),
        ManifestError::Newer { format } => {
            OpenError::FormatTooNew { path, found: format, known: MANIFEST_FORMAT }
        }
        ManifestError::Disk(error) => OpenError::disk("read", &path)(error),
    })
}

fn check_identity(
    data: &Path,
    manifest: &Manifest,
    expected: &Expectations,
) -> Result<(), OpenError> {
    let path = data.to_path_buf();
    if let Some(expected) = expected.cluster.filter(|cluster| *cluster != manifest.cluster) {
        return Err(OpenError::ForeignCluster { path, found: manifest.cluster, expected });
    }
    if let Some(expected) = expected.member.filter(|member| *member != manifest.member) {
        return Err(OpenError::ForeignMember { path, found: manifest.member, expected });
    }
    Ok(())
}

/// Removes what a crash left of a formation, of an install and of replaced generations; the one that counts must be
/// there.
fn remove_leftovers(disk: &dyn Disk, data: &Path, manifest: &Manifest) -> Result<(), OpenError> {
    let names = disk.list(data).map_err(OpenError::disk("list", data))?;
    let current = manifest.generation_name();
    if !names.contains(&current) {
        let what = format!("{current:?} is missing, which {MANIFEST_NAME} names");
        return Err(Damage::new(data.to_path_buf(), 0, what).into());
    }
    for name in names {
        let path = data.join(&name);
        if name == MANIFEST_NEW_NAME || name == FORMING_NAME {
            disk.remove_file(&path).map_err(OpenError::disk("remove", &path))?;
        } else if generation_number(&name).is_some() && name != current {
            disk.remove_dir_all(&path).map_err(OpenError::disk("remove", &path))?;
        }
    }
    Ok(())
}

/// How the log relates to the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    /// The log reaches the checkpoint and goes on after it.
    Continues,
    /// The checkpoint is a snapshot that was installed just before the process stopped; the log must restart there.
    Restarts,
}

/// INV-R1: purged ≤ checkpoint ≤ last.
fn fit(
    scanned: &Scanned,
    checkpoint: &SnapshotMeta,
    installed: bool,
    wal: &Path,
) -> Result<Fit, OpenError> {
    let (base, last) = (scanned.map.base(), scanned.tip.last_index);
    let damage = |what: String| Err(OpenError::Corrupt(Damage::new(wal.to_path_buf(), 0, what)));
    if checkpoint.index < base {
        return damage(format!(
            "the entries {} to {base} behind the checkpoint at {} are missing: its oldest segments are gone",
            checkpoint.index.next(),
            checkpoint.index
        ));
    }
    match scanned.checkpoint_term {
        Some(term) if term == checkpoint.term => Ok(Fit::Continues),
        _ if installed => Ok(Fit::Restarts),
        Some(term) => damage(format!(
            "entry {} has term {term}, the checkpoint there has term {}",
            checkpoint.index, checkpoint.term
        )),
        None => damage(format!(
            "the log ends with entry {last}, before the checkpoint at {}: its end is lost",
            checkpoint.index
        )),
    }
}

fn raised(mut hard_state: HardState, checkpoint: &SnapshotMeta) -> HardState {
    hard_state.commit = hard_state.commit.max(checkpoint.index);
    if hard_state.term < checkpoint.term {
        // The snapshot's term became known with the snapshot; nobody can have got a vote in it before that.
        hard_state.term = checkpoint.term;
        hard_state.vote = MemberId::NONE;
    }
    hard_state
}

/// Writes the record that the process did not come to write after it had installed a snapshot.
fn restart(
    wal: &mut Wal,
    hard_state: HardState,
    checkpoint: &SnapshotMeta,
) -> Result<(), WalError> {
    let (last_index, last_term): (LogIndex, Term) = (checkpoint.index, checkpoint.term);
    let token =
        Token { sequence: 0, term: hard_state.term, vote: hard_state.vote, last_index, last_term };
    wal.write(&[Record {
        token,
        hard_state,
        entries: Vec::new(),
        snapshot: Some(checkpoint.clone()),
    }])?;
    wal.sync().map(drop)
}

impl From<ScanError> for OpenError {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Damage(damage) => Self::Corrupt(damage),
            ScanError::Newer { path, format } => {
                Self::FormatTooNew { path, found: format, known: WAL_FORMAT }
            }
            ScanError::Disk { path, source } => Self::Disk { action: "read", path, source },
        }
    }
}

#[cfg(test)]
mod tests;
