//! The operator's own HTTP pages: /healthz, /readyz and /metrics.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// OpenMetrics: the encoder ends its text with `# EOF`, which the classic type does not allow.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the pages are made of.
pub(crate) trait Readiness: Send + Sync + 'static {
    /// What this process still waits for, by name; empty when it is ready. A standby without the
    /// Lease is ready: it would act at once if it got it.
    fn waiting_for(&self) -> Vec<String>;
}

/// The probes of the kubelet.
///
/// `/healthz` answers as long as the process runs its event loop: a restart mends nothing else.
pub(crate) async fn serve_health(
    bind: SocketAddr,
    readiness: Arc<dyn Readiness>,
    until: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(readiness);
    serve("health", bind, router, until).await
}

/// The page that Prometheus reads.
pub(crate) async fn serve_metrics(
    bind: SocketAddr,
    metrics: Arc<Metrics>,
    until: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let router = Router::new().route("/metrics", get(scrape)).with_state(metrics);
    serve("metrics", bind, router, until).await
}

async fn serve(
    page: &str,
    bind: SocketAddr,
    router: Router,
    until: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let listener =
        TcpListener::bind(bind).await.with_context(|| format!("bind {page} listener to {bind}"))?;
    axum::serve(listener, router)
        .with_graceful_shutdown(until)
        .await
        .with_context(|| format!("serve {page} on {bind}"))
}

async fn readyz(State(readiness): State<Arc<dyn Readiness>>) -> Response {
    let missing = readiness.waiting_for();
    if missing.is_empty() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for: {}\n", missing.join(", ")))
        .into_response()
}

async fn scrape(State(metrics): State<Arc<Metrics>>) -> Response {
    match metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("encode metrics: {error}\n"))
            .into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Waiting(Vec<String>);

    impl Readiness for Waiting {
        fn waiting_for(&self) -> Vec<String> {
            self.0.clone()
        }
    }

    async fn status_and_body(missing: &[&str]) -> (StatusCode, String) {
        let waiting = Waiting(missing.iter().map(|name| (*name).to_owned()).collect());
        let response = readyz(State(Arc::new(waiting))).await;
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_names_what_is_missing() {
        let (status, body) = status_and_body(&["pods", "storeclusters"]).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body, "waiting for: pods, storeclusters\n");
        assert_eq!(status_and_body(&[]).await.0, StatusCode::OK);
    }
}
