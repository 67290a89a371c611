//! etcd's gRPC services: plain async functions over decoded messages, and the one table that leads to them.
//!
//! A handler is a method of [`Api`], a file per service. It checks what etcd refuses before proposing (`validate.rs`),
//! turns the message into the machine's types (`convert.rs`), asks the member (`handle.rs`) and answers with types that
//! go to the wire as they are (`wire.rs`). Errors become etcd's codes and texts in one place (`status.rs`). Nothing here
//! knows tonic's generated traits: a leaner front end may call the same functions.

mod cluster;
mod codec;
pub mod convert;
mod health;
mod kv;
mod lease;
mod maintenance;
mod meter;
pub mod methods;
mod read;
mod space;
mod status;
mod validate;
mod watch;
mod wire;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use codec::EtcdCodec;
use futures::stream::{BoxStream, StreamExt};
use http::{HeaderMap, Request, Response};
use http_body::Body;
pub use meter::Metered;
use meter::Started;
use methods::{Call, Method};
use quorate_machine::{Alarm, AlarmAction, Applied, Command, MemberId};
use quorate_proto::etcdserverpb::ResponseHeader;
use space::Space;
use status::EtcdError;
use tokio::sync::watch as cell;
use tonic::{Code, Status, Streaming, server::Grpc};
use tower::service_fn;
use wire::Encode;

use crate::{
    clock,
    config::Config,
    handle::{Caller, Handle},
    metrics::Metrics,
};

/// What gRPC receives beyond `--max-request-bytes` before it refuses by itself (`v3rpc/grpc.go`, grpcOverheadBytes).
const OVERHEAD_BYTES: usize = 512 * 1024;

/// Election timeouts without a leader after which streams that require one end (`v3rpc/interceptor.go`, maxNoLeaderCnt).
const NO_LEADER_MAX: u32 = 3;

/// What the flags say to the services.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--max-txn-ops`
    pub max_txn_ops: usize,
    /// `--max-request-bytes`
    pub max_request_bytes: usize,
    /// The least TTL of a lease in seconds: one and a half election timeouts, rounded up (`etcdserver/server.go`).
    pub lease_ttl_min: i64,
    /// `--warning-unary-request-duration`
    pub warn_after: Duration,
    /// `--election-timeout`
    pub election_timeout: Duration,
}

impl Options {
    /// From the configuration.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let least = (config.election_timeout * 3 / 2).as_millis().div_ceil(1000);
        Self {
            max_txn_ops: config.max_txn_ops,
            max_request_bytes: config.max_request_bytes,
            lease_ttl_min: i64::try_from(least).expect("an election timeout is below a minute"),
            warn_after: config.warning_unary_request_duration,
            election_timeout: config.election_timeout,
        }
    }

    /// Above this a watch response is cut, if the client wants that.
    fn fragment_bytes(&self) -> usize {
        self.max_request_bytes.saturating_add(OVERHEAD_BYTES)
    }
}

/// The services. Cheap to clone; every call has its own.
#[derive(Clone)]
pub struct Api(Arc<Shared>);

struct Shared {
    handle: Handle,
    options: Options,
    metrics: Arc<Metrics>,
    space: Space,
    /// Whether the member has been without a leader for long.
    leaderless: cell::Sender<bool>,
    /// Whether streams are to end.
    closing: cell::Sender<bool>,
}

impl Api {
    /// Services over a member.
    #[must_use]
    pub fn new(handle: Handle, options: Options, metrics: Arc<Metrics>) -> Self {
        let (leaderless, closing) = (cell::Sender::new(false), cell::Sender::new(false));
        let space = Space::default();
        Self(Arc::new(Shared { handle, options, metrics, space, leaderless, closing }))
    }

    /// The member.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.0.handle
    }

    /// What the flags say.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.0.options
    }

    /// The counters.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    /// Ends all streams, now and from now on.
    pub fn end_streams(&self) {
        self.0.closing.send_replace(true);
    }

    /// Watches the leadership until the process ends, so that streams which require a leader do not outlive it for long.
    pub async fn monitor_leader(self) {
        let mut clock = tokio::time::interval(self.options().election_timeout);
        let mut missed = 0;
        loop {
            clock.tick().await;
            missed = if self.handle().leadership().leader == MemberId(0) { missed + 1 } else { 0 };
            let long = missed >= NO_LEADER_MAX;
            self.0.leaderless.send_if_modified(|before| std::mem::replace(before, long) != long);
        }
    }

    /// A header with a revision.
    fn header(&self, revision: i64) -> ResponseHeader {
        let handle = self.handle();
        ResponseHeader {
            cluster_id: handle.cluster_id().0,
            member_id: handle.member_id().0,
            revision,
            raft_term: handle.leadership().term,
        }
    }

    /// A header with the store's revision now.
    fn current_header(&self) -> ResponseHeader {
        self.header(self.handle().published().point.revision)
    }

    async fn propose(&self, command: Command) -> Result<Applied, Status> {
        let proposals = &self.metrics().proposals;
        proposals.pending.add(1);
        let result = self.handle().propose(command, Caller::default()).await;
        proposals.pending.add(-1);
        result.map_err(|error| {
            proposals.failed.add(1);
            status::propose_error(error)
        })
    }

    /// Refuses what the quota has no room for, and raises the alarm that makes every member refuse it (design §3:
    /// quota is checked at admission and may only propose NOSPACE).
    async fn admit_space(&self, bytes: u64) -> Result<(), Status> {
        if self.0.space.admit(bytes, clock::now_ms(), || self.handle().sizes()) {
            return Ok(());
        }
        let (member, alarm) = (self.handle().member_id(), Alarm::NoSpace);
        if !self.handle().published().alarms.contains(&(member, alarm)) {
            let raise = Command::Alarm { action: AlarmAction::Activate, member, alarm };
            // If it cannot be raised now, the next refusal tries again; this one stands anyway.
            self.propose(raise).await.ok();
        }
        Err(EtcdError::NoSpace.into())
    }

    /// When a stream must end though its client is there.
    fn ending(&self, require_leader: bool) -> Ending {
        Ending {
            closing: self.0.closing.subscribe(),
            leaderless: require_leader.then(|| self.0.leaderless.subscribe()),
        }
    }

    /// What is refused before the message is read: etcd's interceptors.
    fn admit(&self, method: &Method, headers: &HeaderMap) -> Result<(), Status> {
        let leadership = self.handle().leadership();
        if leadership.is_learner && !method.by_learners {
            return Err(EtcdError::NotSupportedForLearner.into());
        }
        if headers.get("client-api-version").is_some_and(|version| version.to_str().is_err()) {
            return Err(EtcdError::InvalidClientApiVersion.into());
        }
        if requires_leader(headers) && leadership.leader == MemberId(0) {
            return Err(EtcdError::NoLeader.into());
        }
        Ok(())
    }
}

/// When a stream must end.
struct Ending {
    closing: cell::Receiver<bool>,
    leaderless: Option<cell::Receiver<bool>>,
}

impl Ending {
    /// Waits for it; the error to end with.
    async fn wait(&mut self) -> EtcdError {
        let leaderless = async {
            match &mut self.leaderless {
                Some(leaderless) => leaderless.wait_for(|leaderless| *leaderless).await.is_ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.closing.wait_for(|closing| *closing) => EtcdError::Stopped,
            _ = leaderless => EtcdError::NoLeader,
        }
    }
}

/// The metadata `hasleader: true` (`rpctypes/metadatafields.go`).
fn requires_leader(headers: &HeaderMap) -> bool {
    headers.get("hasleader").is_some_and(|value| value == "true")
}

/// Anything that carries a gRPC request.
pub trait RequestBody:
    Body<Data = Bytes, Error: Into<tonic::codegen::StdError> + Send> + Unpin + Send + 'static
{
}

impl<B> RequestBody for B where
    B: Body<Data = Bytes, Error: Into<tonic::codegen::StdError> + Send> + Unpin + Send + 'static
{
}

/// A body towards the client.
pub type ReplyBody = Metered<tonic::body::Body>;

/// Answers one gRPC request.
pub async fn serve<B: RequestBody>(api: Api, request: Request<B>) -> Response<ReplyBody> {
    let Some(method) = methods::find(request.uri().path()) else {
        // Auth, Lock and Election are of later issues; clients find out by this code alone.
        let status = Status::unimplemented(format!("unknown method {}", request.uri().path()));
        return Metered::uncounted(status.into_http());
    };
    let metrics = api.metrics().grpc.clone();
    let started = Started::new(metrics.clone(), method);
    let request = request.map(|body| Metered::request(body, metrics, method));
    let response = match api.admit(method, request.headers()) {
        Ok(()) => dispatch(api, method, request).await,
        Err(status) => status.into_http(),
    };
    Metered::response(response, started)
}

/// Leads a call to its handler.
async fn dispatch<B: RequestBody>(
    api: Api,
    method: &'static Method,
    request: Request<B>,
) -> Response<tonic::body::Body> {
    match method.call {
        Call::Range => unary(api, method, request, Api::range).await,
        Call::Put => unary(api, method, request, Api::put).await,
        Call::Txn => unary(api, method, request, Api::txn).await,
        Call::DeleteRange => unary(api, method, request, Api::delete_range).await,
        Call::RangeStream => server_stream(api, request, Api::range_stream).await,
        Call::Compact => unary(api, method, request, Api::compact).await,
        Call::Watch => {
            let require_leader = requires_leader(request.headers());
            bidi_stream(api, request, move |api, requests| api.watch(requests, require_leader))
                .await
        }
        Call::LeaseGrant => unary(api, method, request, Api::lease_grant).await,
        Call::LeaseRevoke => unary(api, method, request, Api::lease_revoke).await,
        Call::LeaseKeepAlive => {
            let require_leader = requires_leader(request.headers());
            bidi_stream(api, request, move |api, requests| {
                let ending = api.ending(require_leader);
                until(ending, api.lease_keep_alive(requests))
            })
            .await
        }
        Call::LeaseTimeToLive => unary(api, method, request, Api::lease_time_to_live).await,
        Call::LeaseLeases => unary(api, method, request, Api::lease_leases).await,
        Call::MemberAdd => unary(api, method, request, Api::member_add).await,
        Call::MemberRemove => unary(api, method, request, Api::member_remove).await,
        Call::MemberUpdate => unary(api, method, request, Api::member_update).await,
        Call::MemberList => unary(api, method, request, Api::member_list).await,
        Call::MemberPromote => unary(api, method, request, Api::member_promote).await,
        Call::Alarm => unary(api, method, request, Api::alarm).await,
        Call::Status => unary(api, method, request, Api::status).await,
        Call::Defragment => unary(api, method, request, Api::defragment).await,
        Call::Hash => unary(api, method, request, Api::hash).await,
        Call::HashKv => unary(api, method, request, Api::hash_kv).await,
        Call::MoveLeader => unary(api, method, request, Api::move_leader).await,
        Call::HealthCheck => unary(api, method, request, Api::health_check).await,
        Call::HealthWatch => server_stream(api, request, Api::health_watch).await,
    }
}

type Answer = Response<tonic::body::Body>;

/// One message in, one out. A call that takes long is logged, as etcd does.
async fn unary<B, Q, R, F>(
    api: Api,
    method: &'static Method,
    request: Request<B>,
    handler: fn(Api, Q) -> F,
) -> Answer
where
    B: RequestBody,
    Q: prost::Message + Default + 'static,
    R: Encode + Sync,
    F: Future<Output = Result<R, Status>> + Send + 'static,
{
    let (started, warn_after) = (std::time::Instant::now(), api.options().warn_after);
    let mut grpc = grpc::<Q, R>(&api);
    let response = grpc
        .unary(
            service_fn(move |request: tonic::Request<Q>| {
                let answer = handler(api.clone(), request.into_inner());
                async move { answer.await.map(tonic::Response::new) }
            }),
            request,
        )
        .await;
    let took = started.elapsed();
    if took > warn_after {
        tracing::warn!(method = method.path, took_ms = took.as_millis(), "a request took too long");
    }
    too_large(response)
}

/// One message in, many out.
async fn server_stream<B, Q, R, F>(
    api: Api,
    request: Request<B>,
    handler: fn(Api, Q) -> F,
) -> Answer
where
    B: RequestBody,
    Q: prost::Message + Default + 'static,
    R: Encode + Sync,
    F: Future<Output = Result<BoxStream<'static, Result<R, Status>>, Status>> + Send + 'static,
{
    grpc::<Q, R>(&api)
        .server_streaming(
            service_fn(move |request: tonic::Request<Q>| {
                let answer = handler(api.clone(), request.into_inner());
                async move { answer.await.map(tonic::Response::new) }
            }),
            request,
        )
        .await
}

/// Many messages in, many out.
async fn bidi_stream<B, Q, R>(
    api: Api,
    request: Request<B>,
    handler: impl Fn(Api, Streaming<Q>) -> BoxStream<'static, Result<R, Status>> + Send,
) -> Answer
where
    B: RequestBody,
    Q: prost::Message + Default + 'static,
    R: Encode + Sync,
{
    grpc::<Q, R>(&api)
        .streaming(
            service_fn(move |request: tonic::Request<Streaming<Q>>| {
                let answer = handler(api.clone(), request.into_inner());
                std::future::ready(Ok(tonic::Response::new(answer)))
            }),
            request,
        )
        .await
}

fn grpc<Q, R>(api: &Api) -> Grpc<EtcdCodec<Q, R>>
where
    Q: prost::Message + Default + 'static,
    R: Encode + Sync,
{
    let receive = api.options().max_request_bytes.saturating_add(OVERHEAD_BYTES);
    Grpc::new(EtcdCodec::default()).max_decoding_message_size(receive)
}

/// A message beyond the receive limit: tonic calls that OutOfRange, gRPC's Go server (and so every etcd client)
/// ResourceExhausted.
fn too_large(response: Answer) -> Answer {
    let Some(status) = Status::from_header_map(response.headers()) else { return response };
    if status.code() == Code::OutOfRange && status.message().contains("message length too large") {
        let message = format!("grpc: received message larger than max ({})", status.message());
        return Status::resource_exhausted(message).into_http();
    }
    response
}

/// A stream that ends early when it must.
fn until<R: Send + 'static>(
    mut ending: Ending,
    stream: BoxStream<'static, Result<R, Status>>,
) -> BoxStream<'static, Result<R, Status>> {
    let mut end = Box::pin(async move { Status::from(ending.wait().await) });
    let mut stream = Some(stream);
    futures::stream::poll_fn(move |context| {
        use std::task::Poll;
        let Some(open) = &mut stream else { return Poll::Ready(None) };
        if let Poll::Ready(status) = end.as_mut().poll(context) {
            stream = None;
            return Poll::Ready(Some(Err(status)));
        }
        open.poll_next_unpin(context)
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_ttl_follows_the_election_timeout() {
        for (election_ms, seconds) in [(1000, 2), (500, 1), (100, 1), (2000, 3), (2001, 4)] {
            let election = format!("--election-timeout={election_ms}");
            let arguments =
                ["quorate", election.as_str(), "--heartbeat-interval=10"].map(str::to_owned);
            let read = crate::config::read(arguments.into_iter(), std::iter::empty());
            let Ok(crate::config::Invocation::Serve(config)) = read else { panic!("{read:?}") };
            assert_eq!(Options::new(&config).lease_ttl_min, seconds, "{election_ms} ms");
        }
    }

    #[test]
    fn a_leader_is_required_only_in_so_many_words() {
        let headers = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("hasleader", value.parse().unwrap());
            headers
        };
        assert!(requires_leader(&headers("true")));
        assert!(!requires_leader(&headers("false")));
        assert!(!requires_leader(&HeaderMap::new()));
    }

    #[test]
    fn what_is_too_large_to_receive_is_exhaustion_of_a_resource() {
        let tonic = Status::out_of_range("Error, decoded message length too large: found 9 bytes");
        let response = too_large(tonic.into_http());
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!(status.code(), Code::ResourceExhausted);
        let future = Status::from(EtcdError::FutureRev).into_http();
        let status = Status::from_header_map(too_large(future).headers()).unwrap();
        assert_eq!(status.code(), Code::OutOfRange, "a refused revision stays what it is");
    }

    #[tokio::test]
    async fn a_stream_ends_when_it_must() {
        let (closing, leaderless) = (cell::Sender::new(false), cell::Sender::new(false));
        let ending = |require: bool| Ending {
            closing: closing.subscribe(),
            leaderless: require.then(|| leaderless.subscribe()),
        };
        let silent = || futures::stream::pending::<Result<(), Status>>().boxed();
        let (mut requiring, mut patient) =
            (until(ending(true), silent()), until(ending(false), silent()));
        leaderless.send_replace(true);
        let ended = requiring.next().await.unwrap().unwrap_err();
        assert_eq!(ended.message(), EtcdError::NoLeader.text());
        assert!(requiring.next().await.is_none());
        assert!(futures::poll!(patient.next()).is_pending(), "who did not ask for a leader stays");
        closing.send_replace(true);
        assert_eq!(patient.next().await.unwrap().unwrap_err().message(), EtcdError::Stopped.text());
    }
}
