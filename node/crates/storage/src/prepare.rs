//! Makes a data directory: what a static start with state `new` and `quorate prepare form` both write, and the empty
//! one of a member that joins.
//!
//! The manifest comes last, by a rename. Before it a marker says that a formation is under way, so that parts without
//! a manifest are known to be an unfinished formation, never data whose manifest was lost.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use quorate_consensus::{Configuration, HardState, LogIndex, MemberId, SnapshotMeta, Term};

use crate::checkpoint::CheckpointAt;
use crate::directory::{LOCK_NAME, WAL_NAME};
use crate::disk::Disk;
use crate::identity::{ClusterId, IdentityError, cluster_id, member_id};
use crate::manifest::Manifest;
use crate::recovery::{Contents, OpenError, look, read_manifest};
use crate::rows::{RowStore, StoreError};
use crate::wal::{Owner, Wal, WalError, WalSettings};

/// The marker of an unfinished formation.
pub(crate) const FORMING_NAME: &str = "FORMING";

/// The revision of a store in which nothing was ever written, as in etcd.
const FIRST_REVISION: i64 = 1;

/// A member of the initial cluster, as flags name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founder {
    /// Its name.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; known only to the member itself when it starts by flags.
    pub client_urls: Vec<String>,
}

/// An initial cluster: its ids and what its log starts from. Equal for all members that form it from the same flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founding {
    /// What the cluster was formed with: etcd's `--initial-cluster-token`, or the UID that an operator chose.
    pub token: String,
    /// The cluster's id.
    pub cluster: ClusterId,
    /// Its members by id.
    pub members: Vec<(MemberId, Founder)>,
}

impl Founding {
    /// Computes the ids from peer URLs and token, as etcd does.
    ///
    /// # Errors
    /// When no cluster can be formed of these members.
    pub fn new(token: &str, founders: Vec<Founder>) -> Result<Self, IdentityError> {
        let mut members: Vec<(MemberId, Founder)> = founders
            .into_iter()
            .map(|founder| (member_id(&founder.peer_urls, token, None), founder))
            .collect();
        members.sort_unstable_by_key(|(id, _)| *id);
        let ids: Vec<MemberId> = members.iter().map(|(id, _)| *id).collect();
        Ok(Self { token: token.into(), cluster: cluster_id(&ids)?, members })
    }

    /// The id of the member with this name.
    #[must_use]
    pub fn member_named(&self, name: &str) -> Option<MemberId> {
        self.members.iter().find(|(_, founder)| founder.name == name).map(|(id, _)| *id)
    }

    /// Index 1, term 1, all members as voters: the state that every founder starts from, as if one committed entry had
    /// made it.
    #[must_use]
    pub fn snapshot(&self) -> SnapshotMeta {
        let voters = self.members.iter().map(|(id, _)| *id).collect();
        let configuration = Configuration { voters, learners: [].into() };
        SnapshotMeta { index: LogIndex(1), term: Term(1), configuration }
    }
}

/// Whether a directory was made, or had been made before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prepared {
    /// It was made now.
    Made,
    /// The same call made it earlier; nothing was changed.
    WasThere,
}

/// Why a directory was not made.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// Another formation's data is there.
    #[error(
        "the directory was formed with token {found:?} as member {found_member} of cluster {found_cluster}, not with \
         token {token:?} as member {member} of cluster {cluster}: it is left as it is; use another directory, or empty \
         it if its data is not needed"
    )]
    OtherToken {
        /// The token in the directory.
        found: String,
        /// The member in the directory.
        found_member: MemberId,
        /// The cluster in the directory.
        found_cluster: ClusterId,
        /// The token asked for.
        token: String,
        /// The member asked for.
        member: MemberId,
        /// The cluster asked for.
        cluster: ClusterId,
    },
    /// The member asked for is none of the founders.
    #[error("member {0} is not in the initial cluster; name it there, or let it join")]
    NotAFounder(MemberId),
    /// The directory could not be looked at or made.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The log could not be made.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The rows or their checkpoint could not be made.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Forms a cluster in the directory `data` of one of its members. `machine_state` is the machine's small state at index
/// 1 and revision 1, with the members' names and URLs; to storage it is bytes. `incarnation` is random.
///
/// Crash and call again as often as you like: it ends with the same directory, or [`Prepared::WasThere`].
///
/// # Errors
/// See [`PrepareError`]; data that is there is never touched.
pub fn form(
    disk: &Arc<dyn Disk>,
    data: &Path,
    founding: &Founding,
    member: MemberId,
    incarnation: u64,
    settings: &WalSettings,
    machine_state: Bytes,
) -> Result<Prepared, PrepareError> {
    let checkpoint = founding.snapshot();
    if !checkpoint.configuration.voters.contains(&member) {
        return Err(PrepareError::NotAFounder(member));
    }
    let manifest = Manifest {
        cluster: founding.cluster,
        member,
        incarnation,
        starts: 0,
        token: founding.token.clone(),
        generation: 1,
        checkpoint,
        installed: false,
    };
    make(disk, data, &manifest, settings, machine_state)
}

/// Makes the directory of a member that joins `cluster`: an empty log and the machine's empty state; what they lack
/// comes from the leader. As for [`form`], it may be called again.
///
/// # Errors
/// See [`PrepareError`]; data that is there is never touched.
pub fn join(
    disk: &Arc<dyn Disk>,
    data: &Path,
    cluster: ClusterId,
    member: MemberId,
    incarnation: u64,
    settings: &WalSettings,
    machine_state: Bytes,
) -> Result<Prepared, PrepareError> {
    let manifest = Manifest {
        cluster,
        member,
        incarnation,
        starts: 0,
        token: String::new(),
        generation: 1,
        checkpoint: SnapshotMeta::default(),
        installed: false,
    };
    make(disk, data, &manifest, settings, machine_state)
}

fn make(
    disk: &Arc<dyn Disk>,
    data: &Path,
    manifest: &Manifest,
    settings: &WalSettings,
    machine_state: Bytes,
) -> Result<Prepared, PrepareError> {
    if look(&**disk, data)? == Contents::Manifest {
        return was_there(&**disk, data, manifest);
    }
    create_with_parents(&**disk, data).map_err(OpenError::disk("create", data))?;
    let _lock = disk.lock(&data.join(LOCK_NAME)).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => OpenError::Locked(data.to_path_buf()),
        _ => OpenError::disk("lock", data)(error),
    })?;
    // Somebody may have been faster before the lock was ours.
    if look(&**disk, data)? == Contents::Manifest {
        return was_there(&**disk, data, manifest);
    }
    let marker = data.join(FORMING_NAME);
    disk.create(&marker).map_err(OpenError::disk("create", &marker))?;
    disk.sync_dir(data).map_err(OpenError::disk("sync", data))?;

    let generation = data.join(manifest.generation_name());
    disk.remove_dir_all(&generation).map_err(OpenError::disk("remove", &generation))?;
    disk.create_dir(&generation).map_err(OpenError::disk("create", &generation))?;
    let base = &manifest.checkpoint;
    let at = CheckpointAt { index: base.index, term: base.term, revision: FIRST_REVISION };
    RowStore::create(disk.clone(), generation.clone(), at, machine_state)?;
    disk.sync_dir(&generation).map_err(OpenError::disk("sync", &generation))?;

    let owner = Owner {
        cluster: manifest.cluster,
        member: manifest.member,
        incarnation: manifest.incarnation,
    };
    let hard_state = HardState { term: base.term, vote: MemberId::NONE, commit: base.index };
    Wal::create(disk.clone(), &data.join(WAL_NAME), owner, settings.clone(), hard_state, base)?;
    disk.sync_dir(data).map_err(OpenError::disk("sync", data))?;
    manifest.write(&**disk, data).map_err(OpenError::disk("write the manifest of", data))?;
    disk.remove_file(&marker).map_err(OpenError::disk("remove", &marker))?;
    sync_parent(&**disk, data)?;
    Ok(Prepared::Made)
}

/// Makes a directory, and those above it that are missing, as etcd does.
fn create_with_parents(disk: &dyn Disk, path: &Path) -> std::io::Result<()> {
    match (disk.create_dir(path), path.parent()) {
        (Err(error), Some(parent)) if error.kind() == std::io::ErrorKind::NotFound => {
            create_with_parents(disk, parent)?;
            disk.create_dir(path)
        }
        (outcome, _) => outcome,
    }
}

/// The data directory's own name must be durable, too. A parent that may not be opened (the root of a volume) was there
/// before.
fn sync_parent(disk: &dyn Disk, data: &Path) -> Result<(), PrepareError> {
    let Some(parent) = data.parent() else { return Ok(()) };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    match disk.sync_dir(parent) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
        outcome => Ok(outcome.map_err(OpenError::disk("sync", parent))?),
    }
}

fn was_there(disk: &dyn Disk, data: &Path, asked: &Manifest) -> Result<Prepared, PrepareError> {
    let found = read_manifest(disk, data)?;
    if (&found.token, found.cluster, found.member) == (&asked.token, asked.cluster, asked.member) {
        // The earlier call may have ended between the rename and the sync that makes it durable.
        disk.sync_dir(data).map_err(OpenError::disk("sync", data))?;
        sync_parent(disk, data)?;
        return Ok(Prepared::WasThere);
    }
    Err(PrepareError::OtherToken {
        found: found.token,
        found_member: found.member,
        found_cluster: found.cluster,
        token: asked.token.clone(),
        member: asked.member,
        cluster: asked.cluster,
    })
}
