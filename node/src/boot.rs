//! From flags and whatever is in the data directory to an open directory: recover, form, or join.

use std::{path::Path, sync::Arc, time::Duration};

use quorate_consensus::{MemberId, SnapshotMeta, Term};
use quorate_machine::{
    ClusterId, FEATURE_LEVEL_FORMED, FeatureLevel, Genesis, Machine, Member, State,
};
use quorate_storage::{
    checkpoint,
    directory::DataDirectory,
    disk::{Disk, FileSystem},
    prepare::{self, Founder, Founding, PrepareError},
    recovery::{self, Expectations, OpenError, Recovery},
    rows::{RowSettings, RowStore},
    wal::WalSettings,
};
use tracing::{info, warn};

use crate::{
    apply_loop::StoreMachine,
    config::{Config, Form, InitialCluster, Start},
    fatal::{Fatal, Verdict},
    peers::{
        membership::{self, KnownCluster},
        peer_addresses,
    },
    scrub::Mark,
};

/// The pause between two rounds of asking peers for the membership.
const JOIN_RETRY: Duration = Duration::from_millis(500);

/// What this member starts from.
pub struct Booted {
    /// The directory, the log, and what consensus starts from.
    pub recovery: Recovery,
    /// The machine as the last checkpoint has it; that of a joiner is empty until its snapshot comes.
    pub machine: StoreMachine,
    /// The term of the entry that the machine stands at.
    pub term: Term,
    /// Members as a peer named them, for one that joins: until its snapshot comes its own machine knows of nobody to answer.
    pub introduced: Vec<Member>,
}

/// Opens the data directory, making it first if it is empty and the flags say how, and recovers what is in it.
///
/// # Errors
/// A verdict of docs/contract.md.
pub async fn boot(config: &Config, epoch_seed: u64) -> Result<Booted, Fatal> {
    let settings = WalSettings::new(epoch_seed);
    let directory = open(config, &settings).await?;
    let mark = Mark::find(&config.data_dir)?;
    // An older build leaves a directory that it cannot read as it is; opening the rows cuts them to the checkpoint.
    let state = checkpoint::machine_state(&FileSystem, &directory.generation_path())?;
    State::decode(&state).map_err(|error| unreadable_state(&error))?;
    let rows =
        RowStore::open(Arc::new(FileSystem), directory.generation_path(), RowSettings::default())?;
    let machine =
        Machine::restore(&rows.machine, rows.store).map_err(|error| unreadable_state(&error))?;
    assert!(
        machine.applied() == rows.at.index.0,
        "INV-S1: the machine stands at {}, its rows at {}",
        machine.applied(),
        rows.at.index
    );
    if let Some(mark) = &mark {
        mark.scrub(machine.store()).await?;
    }
    let configuration = quorate_replica::configuration(machine.members().iter());
    let checkpoint = SnapshotMeta { index: rows.at.index, term: rows.at.term, configuration };
    let recovery = recovery::recover(directory, &checkpoint, &settings).map_err(open_fatal)?;
    // The checkpoint was read whole to be loaded, the log to be recovered.
    if let Some(mark) = mark {
        mark.clear()?;
    }
    info!(
        checkpoint = recovery.recovered.snapshot.index.0,
        last = recovery.recovered.last_index.0,
        "recovered; what lies behind the checkpoint is applied again"
    );
    let introduced = if machine.members().iter().len() == 0 {
        introductions(config, machine.cluster(), recovery.directory.manifest().member).await?
    } else {
        Vec::new()
    };
    Ok(Booted { recovery, machine, term: rows.at.term, introduced })
}

/// Asks the peers that the flags name who else there is.
async fn introductions(
    config: &Config,
    cluster: ClusterId,
    own: MemberId,
) -> Result<Vec<Member>, Fatal> {
    let addresses = peer_addresses(&join_peers(config));
    let mut told = String::new();
    loop {
        match membership::ask(&addresses, cluster).await {
            Ok(known) => {
                let others = known.members.into_iter().filter(|member| member.id != own.0);
                return Ok(others
                    .map(|member| Member {
                        id: quorate_machine::MemberId(member.id),
                        peer_urls: member.peer_ur_ls,
                        ..Member::default()
                    })
                    .collect());
            }
            Err(error) => wait_to_join(&format!("no peer answers: {error:#}"), &mut told).await,
        }
    }
}

/// Where a member that joins may ask.
fn join_peers(config: &Config) -> Vec<String> {
    match &config.start {
        Start::New(initial) | Start::Existing(initial) => {
            let urls = initial.members.values().flatten();
            urls.filter(|url| !config.advertise_peer_urls.contains(url))
                .map(ToString::to_string)
                .collect()
        }
        Start::Join { peers, .. } => peers.iter().map(ToString::to_string).collect(),
    }
}

/// Says once what is waited for, and waits a little.
async fn wait_to_join(waiting_for: &str, told: &mut String) {
    if waiting_for != told {
        warn!("waiting to join: {waiting_for}");
        waiting_for.clone_into(told);
    }
    tokio::time::sleep(JOIN_RETRY).await;
}

async fn open(config: &Config, settings: &WalSettings) -> Result<DataDirectory, Fatal> {
    let disk: Arc<dyn Disk> = Arc::new(FileSystem);
    let data = config.data_dir.as_path();
    // As in etcd, --initial-cluster and its token mean nothing to a directory that has data; a joiner is told by id.
    let cluster = match &config.start {
        Start::Join { cluster_id, .. } => Some(quorate_storage::identity::ClusterId(*cluster_id)),
        Start::New(_) | Start::Existing(_) => None,
    };
    let expected = Expectations { cluster, member: None };
    match recovery::open(disk.clone(), data, &expected) {
        Err(OpenError::Empty(_)) => {}
        outcome => return outcome.map_err(open_fatal),
    }
    config.verify_start().map_err(|error| Fatal::new(Verdict::Configuration, error.to_string()))?;
    match &config.start {
        Start::New(initial) => form_static(&disk, config, initial, settings)?,
        Start::Existing(_) => join(&disk, config, ClusterId(0), settings).await?,
        Start::Join { cluster_id, .. } => {
            join(&disk, config, ClusterId(*cluster_id), settings).await?
        }
    }
    recovery::open(disk, data, &expected).map_err(open_fatal)
}

/// `quorate prepare form`: a cluster of one. What is printed is the termination message of the contract.
///
/// # Errors
/// A verdict of docs/contract.md.
pub fn prepare_form(form: &Form) -> Result<String, Fatal> {
    let disk: Arc<dyn Disk> = Arc::new(FileSystem);
    let founder = Founder {
        name: form.name.clone(),
        peer_urls: form.peer_urls.iter().map(ToString::to_string).collect(),
        client_urls: form.client_urls.iter().map(ToString::to_string).collect(),
    };
    let founding = Founding::new(&form.token, vec![founder]).map_err(configuration)?;
    let member = founding.member_named(&form.name).expect("it is the one founder");
    let settings = WalSettings::new(rand::random());
    found(&disk, &form.data_dir, &founding, member, &settings)?;
    let message = serde_json::json!({
        "clusterID": format!("{:x}", founding.cluster.0),
        "memberID": format!("{:x}", member.0),
    });
    Ok(message.to_string())
}

fn form_static(
    disk: &Arc<dyn Disk>,
    config: &Config,
    initial: &InitialCluster,
    settings: &WalSettings,
) -> Result<(), Fatal> {
    let founders = initial
        .members
        .iter()
        .map(|(name, urls)| Founder {
            name: name.clone(),
            peer_urls: urls.iter().map(ToString::to_string).collect(),
            client_urls: Vec::new(),
        })
        .collect();
    let founding = Founding::new(&config.initial_cluster_token, founders).map_err(configuration)?;
    let member = founding.member_named(&config.name).expect("verify_start found it");
    info!(cluster = %founding.cluster, %member, "forming a new cluster");
    found(disk, &config.data_dir, &founding, member, settings)
}

/// Writes the state that every founder starts from.
fn found(
    disk: &Arc<dyn Disk>,
    data: &Path,
    founding: &Founding,
    member: MemberId,
    settings: &WalSettings,
) -> Result<(), Fatal> {
    let members = founding
        .members
        .iter()
        .map(|(id, founder)| Member {
            id: quorate_machine::MemberId(id.0),
            // As in etcd, a founder counts as started from the beginning: it has a name.
            name: founder.name.clone(),
            peer_urls: founder.peer_urls.clone(),
            client_urls: founder.client_urls.clone(),
            ..Member::default()
        })
        .collect();
    let state = genesis_state(ClusterId(founding.cluster.0), members);
    let incarnation = rand::random_range(1..=u64::MAX);
    prepare::form(disk, data, founding, member, incarnation, settings, state)
        .map_err(prepare_fatal)?;
    Ok(())
}

/// The machine's state at index 1: no keys, revision 1, these members.
fn genesis_state(cluster: ClusterId, members: Vec<Member>) -> bytes::Bytes {
    let genesis = Genesis { cluster, members, feature_level: FEATURE_LEVEL_FORMED, index: 1 };
    State::of_genesis(genesis).encode()
}

/// Asks peers for the membership until one answers that knows this member's peer URLs, and makes an empty directory for it.
async fn join(
    disk: &Arc<dyn Disk>,
    config: &Config,
    cluster: ClusterId,
    settings: &WalSettings,
) -> Result<(), Fatal> {
    let own: Vec<String> = config.advertise_peer_urls.iter().map(ToString::to_string).collect();
    let addresses = peer_addresses(&join_peers(config));
    let mut told = String::new();
    let (cluster, member) = loop {
        let waiting_for = match ask_round(&addresses, cluster, &own).await {
            Ok((known, member)) => break (known.cluster, member),
            Err(JoinWait::Started) => {
                return Err(Fatal::new(
                    Verdict::Empty,
                    format!(
                        "the data directory {} is empty, but the member with peer URLs {} has started before: a voter that \
                         forgot its votes is dangerous, so this one does not start; remove the member and add it anew",
                        config.data_dir.display(),
                        own.join(",")
                    ),
                ));
            }
            Err(JoinWait::NotYet(reason)) => reason,
        };
        wait_to_join(&waiting_for, &mut told).await;
    };
    info!(cluster = %format!("{:x}", cluster.0), %member, "joining a cluster");
    let incarnation = rand::random_range(1..=u64::MAX);
    let nothing =
        Genesis { cluster, members: Vec::new(), feature_level: FeatureLevel(0), index: 0 };
    let state = State::of_genesis(nothing).encode();
    let cluster = quorate_storage::identity::ClusterId(cluster.0);
    prepare::join(disk, &config.data_dir, cluster, member, incarnation, settings, state)
        .map_err(prepare_fatal)?;
    Ok(())
}

/// Why this member cannot join now.
enum JoinWait {
    /// Its entry has a name: it has started before, with another directory.
    Started,
    /// Nobody answers, or nobody knows it yet.
    NotYet(String),
}

async fn ask_round(
    addresses: &[String],
    cluster: ClusterId,
    own: &[String],
) -> Result<(KnownCluster, MemberId), JoinWait> {
    let known = membership::ask(addresses, cluster)
        .await
        .map_err(|error| JoinWait::NotYet(format!("no peer answers: {error:#}")))?;
    let same =
        |urls: &[String]| urls.len() == own.len() && urls.iter().all(|url| own.contains(url));
    let Some(entry) = known.members.iter().find(|member| same(&member.peer_ur_ls)) else {
        return Err(JoinWait::NotYet(format!(
            "cluster {:x} has no member with peer URLs {}: add it (`etcdctl member add`)",
            known.cluster.0,
            own.join(",")
        )));
    };
    if !entry.name.is_empty() {
        return Err(JoinWait::Started);
    }
    let member = MemberId(entry.id);
    Ok((known, member))
}

/// The verdict for a machine that cannot be restored from its state.
#[must_use]
pub fn unreadable_state(error: &quorate_machine::DecodeError) -> Fatal {
    let verdict = if error.is_unknown() { Verdict::FormatTooNew } else { Verdict::Corrupt };
    Fatal::new(verdict, format!("the checkpoint's machine state cannot be read: {error}"))
}

fn configuration(error: impl std::error::Error) -> Fatal {
    Fatal::new(Verdict::Configuration, crate::fatal::error_chain(&error))
}

fn prepare_fatal(error: PrepareError) -> Fatal {
    match error {
        PrepareError::Open(error) => open_fatal(error),
        PrepareError::OtherToken { .. } => Fatal::new(Verdict::ForeignCluster, error.to_string()),
        PrepareError::NotAFounder(_) => Fatal::new(Verdict::Configuration, error.to_string()),
        PrepareError::Wal(error) => error.into(),
        PrepareError::Store(error) => error.into(),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn open_fatal(error: OpenError) -> Fatal {
    let verdict = match error.verdict() {
        Some(recovery::Verdict::Empty) => Verdict::Empty,
        Some(recovery::Verdict::Corrupt) => Verdict::Corrupt,
        Some(recovery::Verdict::ForeignCluster) => Verdict::ForeignCluster,
        Some(recovery::Verdict::FormatTooNew) => Verdict::FormatTooNew,
        None => match error {
            OpenError::Disk { .. }
            | OpenError::Wal(_)
            | OpenError::Directory(_)
            | OpenError::Store(_) => Verdict::DiskFailed,
            OpenError::Empty(_)
            | OpenError::Corrupt(_)
            | OpenError::ForeignCluster { .. }
            | OpenError::ForeignMember { .. }
            | OpenError::FormatTooNew { .. }
            | OpenError::Locked(_) => Verdict::Failed,
        },
    };
    Fatal::new(verdict, crate::fatal::error_chain(&error))
}
