//! The doors to clients: listeners, one port for gRPC and plain HTTP, the pages, and an orderly end.
//!
//! As with etcd, one client port serves both: HTTP/2 by its preface, and within it gRPC by its content type. With
//! `--listen-client-http-urls` the pages move to ports of their own; `--listen-metrics-urls` adds ports for metrics and
//! health alone.

mod connections;
mod health;
mod pages;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use connections::{Connections, Settings};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::net::{TcpListener, TcpSocket};
use tower::ServiceExt;

use crate::{
    config::{Config, Url},
    grpc::{self, Api},
};
use health::Readiness;

/// Connections that the kernel holds for us before we take them: a thousand clients may start at once.
const BACKLOG: u32 = 1024;

/// A failure to open a door, or at one.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What is served at a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// gRPC and the pages.
    Both,
    /// gRPC alone.
    Grpc,
    /// All pages.
    Pages,
    /// Metrics and health.
    Metrics,
}

/// Open ports that nobody is served at yet: clients may connect and wait.
#[derive(Debug)]
pub struct Doors {
    listeners: Vec<(Role, TcpListener)>,
    settings: Settings,
}

/// Opens every port that the configuration names.
///
/// # Errors
/// A port that is taken or not ours; the text names it.
pub fn bind(config: &Config) -> anyhow::Result<Doors> {
    let clients = if config.listen_client_http_urls.is_empty() { Role::Both } else { Role::Grpc };
    let wanted = [
        (clients, &config.listen_client_urls),
        (Role::Pages, &config.listen_client_http_urls),
        (Role::Metrics, &config.listen_metrics_urls),
    ];
    let mut listeners = Vec::new();
    for (role, urls) in wanted {
        for url in urls {
            listeners.push((role, listen(url, config.reuse_port)?));
        }
    }
    Ok(Doors { listeners, settings: Settings::new(config) })
}

fn listen(url: &Url, reuse_port: bool) -> anyhow::Result<TcpListener> {
    let address = url.bind_address().map_err(anyhow::Error::msg)?;
    let open = || -> std::io::Result<TcpListener> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(reuse_port)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    open().map_err(|error| {
        anyhow::anyhow!(
            "cannot listen on {url}: {error}; is another server there, or another of our own?"
        )
    })
}

impl Doors {
    /// Serves at all doors until [`Serving::close`].
    #[must_use]
    pub fn open(self, api: Api) -> Serving {
        let readiness = Arc::new(Readiness::default());
        let connections = Connections::default();
        let pages = pages::all(api.clone(), readiness.clone());
        let metrics = pages::metrics_and_health(api.clone(), readiness.clone());
        connections.spawn(api.clone().monitor_leader());
        for (role, listener) in self.listeners {
            if let Ok(address) = listener.local_addr() {
                tracing::info!(%address, ?role, "serving clients");
            }
            let pages = match role {
                Role::Both | Role::Pages => Some(pages.clone()),
                Role::Metrics => Some(metrics.clone()),
                Role::Grpc => None,
            };
            let api = matches!(role, Role::Both | Role::Grpc).then(|| api.clone());
            connections.serve(listener, &self.settings, move |request| {
                answer(api.clone(), pages.clone(), request)
            });
        }
        Serving { api, readiness, connections }
    }
}

/// The open doors.
pub struct Serving {
    api: Api,
    readiness: Arc<Readiness>,
    connections: Connections,
}

impl Serving {
    /// `/readyz` says no from now on; everything is still served (docs/contract.md).
    pub fn unready(&self) {
        self.readiness.drain();
    }

    /// Takes no new connection, tells the present ones to go (GOAWAY), ends streams, and lets calls finish, for at most
    /// `grace`. Whether all of them did.
    pub async fn close(self, grace: Duration) -> bool {
        self.api.end_streams();
        self.connections.close(grace).await
    }
}

/// One request, by content type.
async fn answer(
    api: Option<Api>,
    pages: Option<axum::Router>,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, BoxError> {
    let is_grpc = request
        .headers()
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    match (api, pages) {
        (Some(api), _) if is_grpc => Ok(grpc::serve(api, request).await.map(AnswerBody::Grpc)),
        (_, Some(pages)) => {
            let request = request.map(axum::body::Body::new);
            let response = pages.oneshot(request).await.unwrap_or_else(|never| match never {});
            Ok(response.map(AnswerBody::Page))
        }
        (_, None) => {
            let mut response = Response::new(AnswerBody::Page(axum::body::Body::empty()));
            *response.status_mut() = http::StatusCode::NOT_FOUND;
            Ok(response)
        }
    }
}

/// The body of either kind of answer.
enum AnswerBody {
    Grpc(grpc::ReplyBody),
    Page(axum::body::Body),
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Grpc(body) => {
                Pin::new(body).poll_frame(context).map_err(|status| Box::new(status) as BoxError)
            }
            Self::Page(body) => {
                Pin::new(body).poll_frame(context).map_err(|error| Box::new(error) as BoxError)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Grpc(body) => body.is_end_stream(),
            Self::Page(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Grpc(body) => body.size_hint(),
            Self::Page(body) => body.size_hint(),
        }
    }
}
