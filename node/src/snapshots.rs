//! Snapshots in and out: the tasks between the peers' connections, consensus and the apply thread.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use parking_lot::Mutex;
use quorate_consensus::{MemberId, SnapshotMeta};
use quorate_machine::{Row, State, Store};
use quorate_replica::{Input, PeerBody, PeerMessage};
use quorate_storage::{
    checkpoint::{CheckpointAt, Step},
    directory::{DataDirectory, NewGeneration},
    disk::Disk,
    rows::{RowSettings, RowStore},
};
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot, watch},
};
use tracing::{info, warn};

use crate::{
    apply_loop::{ApplyInput, ApplySender},
    peers::{
        Identity,
        snapshot::{Head, Incoming, Outgoing, send},
    },
};

/// How long consensus may take to say that it wants an announced snapshot.
const WANTED_TIMEOUT: Duration = Duration::from_secs(5);

/// Batches of rows between the connection and the disk.
const BATCHES_AHEAD: usize = 4;

/// A received snapshot, durable in a generation of its own and not yet in force.
pub struct Received {
    /// What it stands for.
    pub meta: SnapshotMeta,
    /// The machine's small state.
    pub state: bytes::Bytes,
    /// Its rows.
    pub store: RowStore,
    /// Where they are.
    pub generation: NewGeneration,
    /// Whether it was put in force.
    pub installed: oneshot::Sender<bool>,
}

/// Sends one snapshot and tells consensus how it went.
pub async fn send_one(
    outgoing: Outgoing,
    addresses: Vec<String>,
    identity: Arc<Identity>,
    inputs: mpsc::Sender<Input>,
    index: quorate_consensus::LogIndex,
) {
    let to = outgoing.announcement.to;
    info!(peer = %to, %index, "sending a snapshot");
    let delivered = match send(outgoing, addresses, identity).await {
        Ok(()) => {
            info!(peer = %to, %index, "snapshot delivered");
            true
        }
        Err(error) => {
            warn!(peer = %to, %index, "snapshot not delivered, will be sent again: {error:#}");
            false
        }
    };
    // Fails only while the process stops.
    inputs.send(Input::SnapshotSent { to, index, delivered }).await.ok();
}

/// Takes snapshot connections, one at a time.
pub struct Receiving {
    /// The manifest: where a new generation may be built.
    pub directory: Arc<Mutex<DataDirectory>>,
    /// The files.
    pub disk: Arc<dyn Disk>,
    /// To consensus: announcements.
    pub inputs: mpsc::Sender<Input>,
    /// What consensus wants to be installed.
    pub wanted: watch::Receiver<Option<(MemberId, SnapshotMeta)>>,
    /// To the apply thread: what is ready.
    pub apply: ApplySender,
    /// Who we are.
    pub identity: Arc<Identity>,
}

impl Receiving {
    /// Runs until the queue's other end is dropped.
    pub async fn run(mut self, mut connections: mpsc::Receiver<(MemberId, TcpStream)>) {
        while let Some((from, stream)) = connections.recv().await {
            if let Err(error) = self.receive(from, stream).await {
                warn!(peer = %from, "snapshot not installed: {error:#}");
            }
        }
    }

    async fn receive(&mut self, from: MemberId, stream: TcpStream) -> anyhow::Result<()> {
        let mut incoming = Incoming::new(stream);
        let Head { announcement, meta, state } = incoming.head().await?;
        let message = PeerMessage {
            from,
            to: self.identity.member,
            clock: quorate_machine::LeaseTime(0),
            body: PeerBody::Consensus(announcement),
        };
        self.inputs.send(Input::Peer(message)).await.context("this member is stopping")?;
        let wanted = Some((from, meta.clone()));
        let waiting = self.wanted.wait_for(|now| *now == wanted);
        let is_wanted = matches!(tokio::time::timeout(WANTED_TIMEOUT, waiting).await, Ok(Ok(_)));
        if !is_wanted {
            info!(peer = %from, index = %meta.index, "an announced snapshot is not wanted");
            return incoming.answer(false).await;
        }
        info!(peer = %from, index = %meta.index, "receiving a snapshot");
        let (store, generation) = self.build(&mut incoming, &meta, state.clone()).await?;
        let (installed, outcome) = oneshot::channel();
        let received = Received { meta, state, store, generation, installed };
        self.apply.send(ApplyInput::Install(Box::new(received)));
        let installed = outcome.await.context("this member is stopping")?;
        incoming.answer(installed).await
    }

    /// Writes what comes into a new generation, durably.
    async fn build(
        &self,
        incoming: &mut Incoming,
        meta: &SnapshotMeta,
        state: bytes::Bytes,
    ) -> anyhow::Result<(RowStore, NewGeneration)> {
        let generation = self.directory.lock().begin_generation()?;
        let state_read = State::decode(&state).context("decode the snapshot's machine state")?;
        let at =
            CheckpointAt { index: meta.index, term: meta.term, revision: state_read.revision() };
        let (batches, rows) = mpsc::channel(BATCHES_AHEAD);
        let (disk, path) = (self.disk.clone(), generation.path().to_path_buf());
        let writer = tokio::task::spawn_blocking(move || write(disk, path, at, state, rows));
        while let Some(batch) = incoming.rows().await? {
            if batches.send(batch).await.is_err() {
                break;
            }
        }
        drop(batches);
        let store = writer.await.context("write the snapshot's rows")??;
        Ok((store, generation))
    }
}

/// An abandoned connection leaves a generation that nothing names; the next one begins by removing it.
fn write(
    disk: Arc<dyn Disk>,
    path: PathBuf,
    at: CheckpointAt,
    state: bytes::Bytes,
    mut rows: mpsc::Receiver<Vec<Row>>,
) -> anyhow::Result<RowStore> {
    RowStore::create(disk.clone(), path.clone(), at, state.clone())?;
    let mut store = RowStore::open(disk, path, RowSettings::default())?.store;
    while let Some(batch) = rows.blocking_recv() {
        for row in batch {
            store.append(row);
        }
        store.flush()?;
    }
    let mut job =
        store.begin_checkpoint(at, state)?.context("nothing else checkpoints a new generation")?;
    while !matches!(job.step(at.index)?, Step::Published(_)) {}
    Ok(store)
}
