//! A watcher that outlives the members it watches at: resumes where it was told last, and keeps all it was told.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::{watch_client::WatchClient, watch_request::RequestUnion};
use quorate_proto::mvccpb::{Event, event::EventType};
use quorate_sim::judge::{Change, ChangeLog, Note, Selector, Transaction, Watch, WatchEvent};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use crate::session::{channel, pair};

/// How often a watcher asks how far it is. Each answer is a promise that the judge checks.
const ASK_PROGRESS: Duration = Duration::from_millis(500);

/// How long a member may take to answer before the watcher goes to the next one.
const SILENCE: Duration = Duration::from_secs(3);

/// The least time between two streams of one watcher.
const REDIAL: Duration = Duration::from_millis(50);

/// Everything that one watcher was told.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// One for each stream, in order.
    pub watches: Vec<Watch>,
    /// When each revision was first seen, in nanoseconds of the run.
    pub seen: BTreeMap<i64, u64>,
}

impl Observation {
    /// The last revision that it knows to have been; none if it was told nothing.
    #[must_use]
    pub fn told_up_to(&self) -> Option<i64> {
        self.watches.last().map(|watch| watch.next() - 1)
    }
}

/// Watches keys from revision 1 on, at one member after the other, until it has been told everything up to the revision that
/// `until` comes to name.
pub async fn observe(
    name: String,
    urls: Vec<String>,
    first: usize,
    keys: Selector,
    started: Instant,
    mut until: watch::Receiver<Option<i64>>,
) -> Observation {
    let mut observation = Observation::default();
    let mut next = 1;
    // A cluster that is down is not dialled in a loop.
    let mut pace = tokio::time::interval(REDIAL);
    for stream in 0.. {
        pace.tick().await;
        let url = &urls[(first + stream) % urls.len()];
        let mut one = Watch {
            name: format!("{name}.{stream} at {url} from {next}"),
            keys: keys.clone(),
            start: next,
            no_put: false,
            no_delete: false,
            prev: true,
            notes: Vec::new(),
            must_reach: None,
        };
        // An error is a member that died or stands still; what it told before counts.
        follow(url, &mut one, &mut observation.seen, started, &mut until).await.ok();
        next = one.next();
        let reached = until.borrow().is_some_and(|target| next > target);
        if reached {
            one.must_reach = *until.borrow();
        }
        observation.watches.push(one);
        if reached {
            return observation;
        }
    }
    observation
}

/// Follows one stream until it breaks or the target is reached.
async fn follow(
    url: &str,
    one: &mut Watch,
    seen: &mut BTreeMap<i64, u64>,
    started: Instant,
    until: &mut watch::Receiver<Option<i64>>,
) -> Result<()> {
    let create = pb::WatchCreateRequest {
        key: one.keys.start.clone().into(),
        range_end: one.keys.end.clone().into(),
        start_revision: one.start,
        prev_kv: true,
        ..Default::default()
    };
    let (requests, receiver) = mpsc::channel(4);
    let create = RequestUnion::CreateRequest(create);
    requests.send(pb::WatchRequest { request_union: Some(create) }).await?;
    let mut client = WatchClient::new(channel(url)).max_decoding_message_size(usize::MAX);
    let opening = client.watch(ReceiverStream::new(receiver));
    let mut stream = tokio::time::timeout(SILENCE, opening).await??.into_inner();
    let mut ask = tokio::time::interval(ASK_PROGRESS);
    let mut heard = Instant::now();
    loop {
        if until.borrow_and_update().is_some_and(|target| one.next() > target) {
            return Ok(());
        }
        tokio::select! {
            message = stream.message() => {
                let message = message?.context("the stream ended")?;
                heard = Instant::now();
                note(message, one, seen, started)?;
            }
            _ = ask.tick() => {
                if heard.elapsed() > SILENCE {
                    bail!("no answer for {SILENCE:?}");
                }
                let progress = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
                requests.try_send(pb::WatchRequest { request_union: Some(progress) }).ok();
            }
            changed = until.changed() => changed?,
        }
    }
}

fn note(
    message: pb::WatchResponse,
    one: &mut Watch,
    seen: &mut BTreeMap<i64, u64>,
    started: Instant,
) -> Result<()> {
    let revision = message.header.context("an answer without a header")?.revision;
    if message.created {
        one.notes.push(Note::Created { revision });
    }
    if message.canceled {
        bail!("cancelled: {}", message.cancel_reason);
    }
    if message.events.is_empty() {
        if !message.created {
            one.notes.push(Note::Progress { revision });
        }
        return Ok(());
    }
    let now = u64::try_from(started.elapsed().as_nanos()).expect("less than centuries");
    let events: Vec<WatchEvent> = message.events.into_iter().filter_map(event).collect();
    for event in &events {
        seen.entry(event.revision).or_insert(now);
    }
    one.notes.push(Note::Events { events, compacted: 0 });
    Ok(())
}

fn event(event: Event) -> Option<WatchEvent> {
    let kind = event.r#type();
    let kv = event.kv?;
    let (revision, key) = (kv.mod_revision, kv.key.to_vec());
    let pair_now = match kind {
        EventType::Put => Some(pair(kv)),
        EventType::Delete => None,
    };
    Some(WatchEvent { revision, key, pair: pair_now, prev: event.prev_kv.map(pair) })
}

/// What happened, as a watcher of all keys was told it, with the earliest time that any watcher saw each revision.
#[must_use]
pub fn change_log(all: &Observation, others: &[Observation]) -> ChangeLog {
    let mut transactions: BTreeMap<i64, Vec<Change>> = BTreeMap::new();
    for note in all.watches.iter().flat_map(|watch| &watch.notes) {
        let Note::Events { events, .. } = note else { continue };
        for event in events {
            let change = Change { key: event.key.clone(), pair: event.pair.clone() };
            transactions.entry(event.revision).or_default().push(change);
        }
    }
    let first_seen = |revision: i64| {
        let observations = others.iter().chain(std::iter::once(all));
        observations.filter_map(|one| one.seen.get(&revision).copied()).min().unwrap_or(u64::MAX)
    };
    let transactions = transactions
        .into_iter()
        .map(|(revision, changes)| Transaction {
            revision,
            changes,
            first_seen: first_seen(revision),
        })
        .collect();
    ChangeLog { transactions }
}
