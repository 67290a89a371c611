//! Accepting connections, serving each on a task of its own, and asking them to go.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::BoxError;
use crate::config::Config;

/// What one stream may have on its way to us before we have read it: a put of the greatest usual size in one flight.
const STREAM_WINDOW: u32 = 1 << 20;
/// What all streams of one connection may.
const CONNECTION_WINDOW: u32 = 4 << 20;

/// Streams that a client reset before we looked at them; etcd's clients cancel watches and calls in bursts, and 20, the
/// library's bound against abuse, ends such a connection.
const RESET_STREAMS_MAX: usize = 1024;

/// How long we wait after accept failed, most likely for want of descriptors, before we try again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How connections behave.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    max_concurrent_streams: u32,
    keepalive_interval: Option<Duration>,
    keepalive_timeout: Duration,
}

impl Settings {
    /// From the configuration.
    pub(super) fn new(config: &Config) -> Self {
        Self {
            max_concurrent_streams: config.max_concurrent_streams,
            keepalive_interval: config.keepalive.interval,
            keepalive_timeout: config.keepalive.timeout,
        }
    }

    fn builder(&self) -> auto::Builder<TokioExecutor> {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new());
        builder
            .http2()
            .timer(TokioTimer::new())
            // grpc-go sends none either, and each client would parse it.
            .auto_date_header(false)
            .max_concurrent_streams(self.max_concurrent_streams)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
            .keep_alive_interval(self.keepalive_interval)
            .keep_alive_timeout(self.keepalive_timeout);
        builder
    }
}

/// All connections of all doors.
#[derive(Clone, Debug, Default)]
pub(super) struct Connections {
    tasks: TaskTracker,
    /// Accept no more, and ask those that are there to go.
    leave: CancellationToken,
    /// Those that did not go in time are cut.
    cut: CancellationToken,
}

impl Connections {
    /// Runs a task that ends with the doors.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let leave = self.leave.clone();
        self.tasks.spawn(async move {
            leave.run_until_cancelled(task).await;
        });
    }

    /// Accepts at a door and answers with `answer`.
    pub(super) fn serve<A, F, B>(&self, listener: TcpListener, settings: &Settings, answer: A)
    where
        A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Result<Response<B>, BoxError>> + Send + 'static,
        B: Body<Data = Bytes, Error = BoxError> + Send + 'static,
    {
        let (this, builder) = (self.clone(), settings.builder());
        self.tasks.spawn(async move {
            while let Some(accepted) = this.leave.run_until_cancelled(listener.accept()).await {
                match accepted {
                    Ok((stream, _)) => {
                        this.spawn_connection(stream, builder.clone(), answer.clone());
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted; trying again");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        });
    }

    fn spawn_connection<A, F, B>(
        &self,
        stream: TcpStream,
        builder: auto::Builder<TokioExecutor>,
        answer: A,
    ) where
        A: Fn(Request<Incoming>) -> F + Send + 'static,
        F: Future<Output = Result<Response<B>, BoxError>> + Send + 'static,
        B: Body<Data = Bytes, Error = BoxError> + Send + 'static,
    {
        // A reply waits for nothing: without this, small ones would wait for the acknowledgement of the one before.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
        let (leave, cut) = (self.leave.clone(), self.cut.clone());
        self.tasks.spawn(async move {
            let connection = builder.serve_connection(TokioIo::new(stream), service_fn(answer));
            tokio::pin!(connection);
            let served = tokio::select! {
                served = connection.as_mut() => served,
                () = leave.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    tokio::select! {
                        served = connection.as_mut() => served,
                        () = cut.cancelled() => return,
                    }
                }
            };
            if let Err(error) = served {
                tracing::debug!(%error, "a connection ended");
            }
        });
    }

    /// Ends everything, in at most `grace`; whether it ended by itself.
    pub(super) async fn close(self, grace: Duration) -> bool {
        self.leave.cancel();
        self.tasks.close();
        let left = tokio::time::timeout(grace, self.tasks.wait()).await.is_ok();
        self.cut.cancel();
        self.tasks.wait().await;
        left
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::{BodyExt, Full};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::Semaphore,
    };

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn settings() -> Settings {
        Settings {
            max_concurrent_streams: 100,
            keepalive_interval: None,
            keepalive_timeout: Duration::from_secs(20),
        }
    }

    /// A door whose answers wait for a permit each; `arrived` counts requests.
    async fn door(
        connections: &Connections,
    ) -> (std::net::SocketAddr, Arc<Semaphore>, Arc<Semaphore>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (permits, arrived) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let (wait, arrive) = (permits.clone(), arrived.clone());
        connections.serve(listener, &settings(), move |request: Request<Incoming>| {
            let (wait, arrive) = (wait.clone(), arrive.clone());
            async move {
                arrive.add_permits(1);
                wait.acquire().await.expect("never closed").forget();
                let text = format!("{:?} {}", request.version(), request.uri().path());
                Ok(Response::new(
                    Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed(),
                ))
            }
        });
        (address, permits, arrived)
    }

    async fn get(address: std::net::SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET /page HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn one_port_speaks_http_1_and_http_2_by_preface() {
        let connections = Connections::default();
        let (address, permits, _) = door(&connections).await;
        permits.add_permits(2);
        assert!(get(address).await.ends_with("HTTP/1.1 /page"));
        let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        let driver = tokio::spawn(connection);
        let request = Request::get("http://x/other").body(Full::<Bytes>::default()).unwrap();
        let body = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes(), "HTTP/2.0 /other");
        assert!(connections.close(SOON).await);
        // The server's GOAWAY ends the client's connection without an error.
        tokio::time::timeout(SOON, driver).await.expect("GOAWAY").unwrap().unwrap();
    }

    #[tokio::test]
    async fn closing_lets_calls_finish_and_takes_no_new_ones() {
        let connections = Connections::default();
        let (address, permits, arrived) = door(&connections).await;
        let call = tokio::spawn(get(address));
        arrived.acquire().await.unwrap().forget();
        let closing = tokio::spawn(connections.close(SOON));
        // The listener goes away while the call is under way.
        tokio::time::timeout(SOON, async {
            while TcpStream::connect(address).await.is_ok() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the door is shut");
        assert!(!closing.is_finished(), "a call is under way");
        permits.add_permits(1);
        assert!(call.await.unwrap().ends_with("/page"));
        assert!(closing.await.unwrap(), "everything ended by itself");
    }

    #[tokio::test]
    async fn what_does_not_end_in_time_is_cut() {
        let connections = Connections::default();
        let (address, _permits, arrived) = door(&connections).await;
        let call = tokio::spawn(get(address));
        arrived.acquire().await.unwrap().forget();
        assert!(!connections.close(Duration::from_millis(50)).await, "it was cut");
        assert_eq!(call.await.unwrap(), "", "no answer came");
    }
}
