//! The service `etcdserverpb.Watch`: many watches on one stream, told in the order in which the member tells them.

use std::collections::{BTreeMap, VecDeque};

use futures::{
    future::BoxFuture,
    stream::{self, BoxStream, StreamExt},
};
use quorate_machine::KeyRange;
use quorate_proto::etcdserverpb::{
    ResponseHeader, WatchCreateRequest, WatchRequest, watch_request::RequestUnion,
};
use quorate_replica::watch::{Delivery, WatchId, WatchSpec};
use tonic::{Status, Streaming};

use super::{
    Api, Ending, convert,
    status::EtcdError,
    wire::{Encode, WatchReply, event_len},
};
use crate::handle::WatchAsker;

/// The id of no watch: of a refusal, and of progress for the whole stream (`clientv3.InvalidWatchID`).
const NO_WATCH: i64 = -1;

/// etcd's text for an id that is taken on the stream (`mvcc/watcher.go`).
const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";
/// etcd's text for a range that ends where it begins (`mvcc/watcher.go`).
const EMPTY_RANGE: &str = "mvcc: watcher range is empty";

/// What the client's request becomes.
#[derive(Debug, PartialEq, Eq)]
enum Ask {
    Create(WatchId, WatchSpec),
    Cancel(WatchId),
    Progress,
    /// Refused here; the stream stays up.
    Refuse(&'static str),
    /// Nothing to do, as in etcd: an empty request, or the cancellation of an unknown watch.
    Skip,
}

/// The stream's book of its watches: which ids are taken, and who wants fragments.
#[derive(Debug, Default)]
struct Watches {
    next_id: i64,
    /// By id, whether its large responses are cut.
    fragmented: BTreeMap<i64, bool>,
}

impl Watches {
    fn request(&mut self, request: WatchRequest) -> Ask {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(&create),
            Some(RequestUnion::CancelRequest(cancel)) => {
                if self.fragmented.contains_key(&cancel.watch_id) {
                    Ask::Cancel(WatchId(cancel.watch_id))
                } else {
                    Ask::Skip
                }
            }
            Some(RequestUnion::ProgressRequest(_)) => Ask::Progress,
            None => Ask::Skip,
        }
    }

    fn create(&mut self, request: &WatchCreateRequest) -> Ask {
        if request.start_revision < 0 {
            return Ask::Refuse(EtcdError::Compacted.text());
        }
        let spec = convert::watch(request);
        if let KeyRange::Interval(start, end) = &spec.range
            && start >= end
        {
            return Ask::Refuse(EMPTY_RANGE);
        }
        let id = match request.watch_id {
            0 => self.free_id(),
            given if self.fragmented.contains_key(&given) => return Ask::Refuse(DUPLICATE_ID),
            given => given,
        };
        self.fragmented.insert(id, request.fragment);
        Ask::Create(WatchId(id), spec)
    }

    /// The next number that no watch has, from 0.
    fn free_id(&mut self) -> i64 {
        while self.fragmented.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// What the client is told, and the header's revision; cut by `bytes_max` if the watch asked for fragments.
    fn delivery(
        &mut self,
        delivery: Delivery,
        header: impl Fn(i64) -> ResponseHeader,
        bytes_max: usize,
    ) -> VecDeque<WatchReply> {
        let reply = match delivery {
            Delivery::Created { watch, revision } => WatchReply {
                header: header(revision),
                watch_id: watch.0,
                created: true,
                ..WatchReply::default()
            },
            Delivery::DuplicateId { revision } => refusal(header(revision), DUPLICATE_ID),
            Delivery::Events { watch, revision, events, prev_kv } => {
                let whole = WatchReply {
                    header: header(revision),
                    watch_id: watch.0,
                    events: events.iter().map(|event| event.encoded(prev_kv)).collect(),
                    ..WatchReply::default()
                };
                if self.fragmented.get(&watch.0).copied().unwrap_or_default() {
                    return fragments(whole, bytes_max);
                }
                whole
            }
            Delivery::Compacted { watch, revision, compact_revision } => {
                self.fragmented.remove(&watch.0);
                WatchReply {
                    header: header(revision),
                    watch_id: watch.0,
                    canceled: true,
                    compact_revision,
                    ..WatchReply::default()
                }
            }
            Delivery::Canceled { watch, revision } => {
                self.fragmented.remove(&watch.0);
                WatchReply {
                    header: header(revision),
                    watch_id: watch.0,
                    canceled: true,
                    ..WatchReply::default()
                }
            }
            Delivery::Progress { watch, revision } => WatchReply {
                header: header(revision),
                watch_id: watch.map_or(NO_WATCH, |watch| watch.0),
                ..WatchReply::default()
            },
        };
        VecDeque::from([reply])
    }
}

/// A watch that could not be made: made and over in one response, of no id.
fn refusal(header: ResponseHeader, reason: &'static str) -> WatchReply {
    WatchReply {
        header,
        watch_id: NO_WATCH,
        created: true,
        canceled: true,
        cancel_reason: reason,
        ..WatchReply::default()
    }
}

/// Cuts a response whose encoding reaches `bytes_max`, between events; all but the last part say that more follows.
/// One event larger than the bound goes alone (`v3rpc/watch.go`, sendFragments).
fn fragments(mut whole: WatchReply, bytes_max: usize) -> VecDeque<WatchReply> {
    if whole.encoded_len() < bytes_max || whole.events.len() < 2 {
        return VecDeque::from([whole]);
    }
    let events = std::mem::take(&mut whole.events);
    whole.fragment = true;
    let empty = whole.encoded_len();
    let mut parts = VecDeque::new();
    let mut part = whole.clone();
    let mut bytes = empty;
    for event in events {
        let cost = event_len(&event);
        if !part.events.is_empty() && bytes + cost >= bytes_max {
            parts.push_back(std::mem::replace(&mut part, whole.clone()));
            bytes = empty;
        }
        bytes += cost;
        part.events.push(event);
    }
    part.fragment = false;
    parts.push_back(part);
    parts
}

/// One client's stream.
struct Session {
    api: Api,
    watches: Watches,
    asker: WatchAsker,
    /// None once the client sends no more; its watches go on, as in etcd.
    requests: Option<Streaming<WatchRequest>>,
    /// Held as a stream: a `next` that is dropped half way would lose what it was about to deliver.
    deliveries: BoxStream<'static, Delivery>,
    /// A request on its way to the member; the next one waits for it, deliveries do not.
    asking: Option<BoxFuture<'static, ()>>,
    replies: VecDeque<WatchReply>,
    ending: Ending,
}

/// What wakes a session.
enum Wake {
    Ended(EtcdError),
    Asked,
    Request(Option<Result<WatchRequest, Status>>),
    Delivery(Option<Delivery>),
}

impl Api {
    /// Watch.
    pub fn watch(
        self,
        requests: Streaming<WatchRequest>,
        require_leader: bool,
    ) -> BoxStream<'static, Result<WatchReply, Status>> {
        let (asker, hearing) = self.handle().watch();
        let deliveries = stream::unfold(hearing, |mut hearing| async move {
            let delivery = hearing.next().await?;
            Some((delivery, hearing))
        })
        .boxed();
        let session = Session {
            ending: self.ending(require_leader),
            api: self,
            watches: Watches::default(),
            asker,
            requests: Some(requests),
            deliveries,
            asking: None,
            replies: VecDeque::new(),
        };
        stream::unfold(Some(session), |session| async move {
            let mut session = session?;
            match session.next().await {
                Ok(reply) => Some((Ok(reply), Some(session))),
                Err(status) => Some((Err(status), None)),
            }
        })
        .boxed()
    }
}

impl Session {
    async fn next(&mut self) -> Result<WatchReply, Status> {
        loop {
            if let Some(reply) = self.replies.pop_front() {
                return Ok(reply);
            }
            match self.wake().await {
                Wake::Ended(error) => return Err(error.into()),
                Wake::Asked => self.asking = None,
                Wake::Request(None) => self.requests = None,
                Wake::Request(Some(request)) => self.request(request?),
                Wake::Delivery(None) => return Err(EtcdError::Stopped.into()),
                Wake::Delivery(Some(delivery)) => {
                    let bytes_max = self.api.options().fragment_bytes();
                    let header = |revision| self.api.header(revision);
                    self.replies = self.watches.delivery(delivery, header, bytes_max);
                }
            }
        }
    }

    async fn wake(&mut self) -> Wake {
        let Self { ending, asking, deliveries, requests, .. } = self;
        let free = asking.is_none();
        tokio::select! {
            error = ending.wait() => Wake::Ended(error),
            () = async {
                match asking {
                    Some(asking) => asking.await,
                    None => std::future::pending().await,
                }
            } => Wake::Asked,
            delivery = deliveries.next() => Wake::Delivery(delivery),
            request = async {
                match requests {
                    Some(requests) => requests.next().await,
                    None => std::future::pending().await,
                }
            }, if free => Wake::Request(request),
        }
    }

    fn request(&mut self, request: WatchRequest) {
        let asker = self.asker.clone();
        match self.watches.request(request) {
            Ask::Create(id, spec) => {
                self.asking = Some(Box::pin(async move { asker.create(id, spec).await }));
            }
            Ask::Cancel(id) => self.asking = Some(Box::pin(async move { asker.cancel(id).await })),
            Ask::Progress => asker.progress(),
            Ask::Refuse(reason) => {
                self.replies.push_back(refusal(self.api.current_header(), reason));
            }
            Ask::Skip => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use quorate_machine::{EncodedKeyValue, Revision};
    use quorate_proto::etcdserverpb::{WatchCancelRequest, WatchProgressRequest};
    use quorate_replica::watch::WatchEvent;

    use super::*;

    fn create(request: WatchCreateRequest) -> WatchRequest {
        WatchRequest { request_union: Some(RequestUnion::CreateRequest(request)) }
    }

    fn numbered(watch_id: i64) -> WatchRequest {
        create(WatchCreateRequest { key: "k".into(), watch_id, ..Default::default() })
    }

    fn cancel(watch_id: i64) -> WatchRequest {
        WatchRequest {
            request_union: Some(RequestUnion::CancelRequest(WatchCancelRequest { watch_id })),
        }
    }

    fn id_of(ask: &Ask) -> i64 {
        match ask {
            Ask::Create(id, _) => id.0,
            other => panic!("{other:?}"),
        }
    }

    fn header(revision: i64) -> ResponseHeader {
        ResponseHeader { revision, ..Default::default() }
    }

    #[test]
    fn ids_count_from_zero_and_step_over_the_clients_own() {
        let mut watches = Watches::default();
        assert_eq!(id_of(&watches.request(numbered(0))), 0);
        assert_eq!(id_of(&watches.request(numbered(1))), 1);
        assert_eq!(id_of(&watches.request(numbered(0))), 2);
        assert_eq!(id_of(&watches.request(numbered(77))), 77);
        assert_eq!(watches.request(numbered(77)), Ask::Refuse(DUPLICATE_ID));
        assert_eq!(id_of(&watches.request(numbered(0))), 3);
    }

    #[test]
    fn bad_creations_are_refused_without_taking_an_id() {
        let mut watches = Watches::default();
        let with = |key: &'static str, end: &'static str, start_revision| {
            create(WatchCreateRequest {
                key: key.into(),
                range_end: end.into(),
                start_revision,
                ..Default::default()
            })
        };
        let compacted = Ask::Refuse("etcdserver: mvcc: required revision has been compacted");
        assert_eq!(watches.request(with("k", "", -1)), compacted);
        assert_eq!(watches.request(with("b", "a", 0)), Ask::Refuse(EMPTY_RANGE));
        assert_eq!(watches.request(with("b", "b", 0)), Ask::Refuse(EMPTY_RANGE));
        assert_eq!(id_of(&watches.request(with("a", "b", 1 << 40))), 0, "a future start is legal");
    }

    #[test]
    fn a_cancelled_or_compacted_id_is_free_again() {
        let mut watches = Watches::default();
        watches.request(numbered(5));
        assert_eq!(watches.request(cancel(6)), Ask::Skip, "an unknown id gets no answer");
        assert_eq!(watches.request(cancel(5)), Ask::Cancel(WatchId(5)));
        assert_eq!(
            watches.request(numbered(5)),
            Ask::Refuse(DUPLICATE_ID),
            "not before it is over"
        );
        let told =
            watches.delivery(Delivery::Canceled { watch: WatchId(5), revision: 9 }, header, 100);
        assert!(told[0].canceled && told[0].header.revision == 9 && told[0].compact_revision == 0);
        assert_eq!(id_of(&watches.request(numbered(5))), 5);
        let over = Delivery::Compacted { watch: WatchId(5), revision: 9, compact_revision: 7 };
        let told = watches.delivery(over, header, 100);
        assert!(told[0].canceled && told[0].compact_revision == 7);
        assert_eq!(watches.request(cancel(5)), Ask::Skip);
        assert_eq!(watches.request(WatchRequest::default()), Ask::Skip);
        let progress = WatchRequest {
            request_union: Some(RequestUnion::ProgressRequest(WatchProgressRequest {})),
        };
        assert_eq!(watches.request(progress), Ask::Progress);
    }

    #[test]
    fn progress_of_the_whole_stream_has_no_id() {
        let mut watches = Watches::default();
        let told = |watches: &mut Watches, watch| {
            watches
                .delivery(Delivery::Progress { watch, revision: 4 }, header, 100)
                .remove(0)
                .unwrap()
        };
        let all = told(&mut watches, None);
        assert_eq!((all.watch_id, all.header.revision, all.events.len()), (-1, 4, 0));
        assert!(!all.created && !all.canceled);
        assert_eq!(told(&mut watches, Some(WatchId(3))).watch_id, 3);
    }

    #[test]
    fn a_refusal_is_made_and_over_at_once() {
        let mut watches = Watches::default();
        let told = watches.delivery(Delivery::DuplicateId { revision: 4 }, header, 100);
        assert_eq!((told[0].watch_id, told[0].created, told[0].canceled), (-1, true, true));
        assert_eq!(told[0].cancel_reason, DUPLICATE_ID);
    }

    fn events(sizes: &[usize]) -> Vec<Arc<WatchEvent>> {
        sizes
            .iter()
            .enumerate()
            .map(|(sub, size)| {
                let revision = Revision { main: 5, sub: i64::try_from(sub).unwrap() };
                let kv = EncodedKeyValue(Bytes::from(vec![0x3a; *size]));
                Arc::new(WatchEvent::new(revision, Bytes::from_static(b"k"), false, kv, None))
            })
            .collect()
    }

    fn parts_of(fragment: bool, sizes: &[usize], bytes_max: usize) -> Vec<(usize, bool)> {
        let mut watches = Watches::default();
        watches.request(create(WatchCreateRequest {
            key: "k".into(),
            fragment,
            ..Default::default()
        }));
        let delivery = Delivery::Events {
            watch: WatchId(0),
            revision: 5,
            events: events(sizes),
            prev_kv: false,
        };
        let parts = watches.delivery(delivery, header, bytes_max);
        assert!(parts.iter().all(|part| part.header.revision == 5));
        parts.iter().map(|part| (part.events.len(), part.fragment)).collect()
    }

    #[test]
    fn large_responses_are_cut_only_for_who_asked() {
        assert_eq!(parts_of(false, &[400, 400, 400], 500), [(3, false)]);
        assert_eq!(parts_of(true, &[400, 400, 400], 500), [(1, true), (1, true), (1, false)]);
        assert_eq!(parts_of(true, &[100, 100, 100, 100, 100], 350), [(3, true), (2, false)]);
        assert_eq!(parts_of(true, &[10, 10], 500), [(2, false)]);
        assert_eq!(parts_of(true, &[9000], 500), [(1, false)], "one event cannot be cut");
        assert_eq!(parts_of(true, &[9000, 10], 500), [(1, true), (1, false)]);
    }

    #[test]
    fn every_part_but_a_single_event_is_below_the_bound() {
        let mut watches = Watches::default();
        watches.request(create(WatchCreateRequest {
            key: "k".into(),
            fragment: true,
            ..Default::default()
        }));
        let sizes: Vec<usize> = (0..200).map(|number| number % 37 + 1).collect();
        let delivery = Delivery::Events {
            watch: WatchId(0),
            revision: 5,
            events: events(&sizes),
            prev_kv: false,
        };
        let parts = watches.delivery(delivery, header, 256);
        assert!(parts.len() > 10);
        assert_eq!(parts.iter().map(|part| part.events.len()).sum::<usize>(), 200);
        for part in &parts {
            assert!(part.encoded_len() < 256, "{}", part.encoded_len());
        }
    }
}
