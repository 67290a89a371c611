//! The plain HTTP pages: health, version, metrics.

use std::{fmt::Write, sync::Arc};

use axum::{
    Router,
    extract::{RawQuery, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

use super::health::{Check, Health, LIVEZ, READYZ, Readiness};
use crate::{config::version, grpc::Api};

/// What the pages look at.
#[derive(Clone)]
struct Seen {
    api: Api,
    readiness: Arc<Readiness>,
}

/// Metrics and health, for `--listen-metrics-urls`.
pub(super) fn metrics_and_health(api: Api, readiness: Arc<Readiness>) -> Router {
    pages().with_state(Seen { api, readiness })
}

/// All pages, for the client ports.
pub(super) fn all(api: Api, readiness: Arc<Readiness>) -> Router {
    pages().route("/version", get(version_page)).with_state(Seen { api, readiness })
}

fn pages() -> Router<Seen> {
    let mut pages =
        Router::new().route("/metrics", get(metrics_page)).route("/health", get(health_page));
    for (root, checks) in [("/livez", LIVEZ), ("/readyz", READYZ)] {
        pages = pages.route(
            root,
            get(move |State(seen): State<Seen>, RawQuery(query): RawQuery| async move {
                let query = Query::new(query.as_deref());
                let excluded = query.values("exclude");
                let wanted = checks.iter().filter(|check| !excluded.contains(&check.name()));
                checks_page(&seen, wanted, query.has("verbose")).await
            }),
        );
        for check in checks {
            pages = pages.route(
                &format!("{root}/{}", check.name()),
                get(move |State(seen): State<Seen>, RawQuery(query): RawQuery| async move {
                    let verbose = Query::new(query.as_deref()).has("verbose");
                    checks_page(&seen, [check].into_iter(), verbose).await
                }),
            );
        }
    }
    pages
}

async fn checks_page<'a>(
    seen: &Seen,
    checks: impl Iterator<Item = &'a Check>,
    verbose: bool,
) -> Response {
    let mut results = Vec::new();
    for check in checks {
        results.push((check.name(), seen.readiness.run(*check, &seen.api).await));
    }
    let (status, text) = report(&results, verbose);
    let kind = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (status, kind, text).into_response()
}

/// etcd's text: details when something failed or when asked, and "ok" at the end when nothing did.
fn report(results: &[(&str, Result<(), String>)], verbose: bool) -> (StatusCode, String) {
    let mut details = String::new();
    for (name, result) in results {
        match result {
            Ok(()) => writeln!(details, "[+]{name} ok"),
            Err(reason) => writeln!(details, "[-]{name} failed: {reason}"),
        }
        .expect("writing to a string does not fail");
    }
    if results.iter().any(|(_, result)| result.is_err()) {
        return (StatusCode::SERVICE_UNAVAILABLE, details);
    }
    let text = if verbose { details + "ok\n" } else { "ok\n".to_owned() };
    (StatusCode::OK, text)
}

async fn health_page(State(seen): State<Seen>, RawQuery(query): RawQuery) -> Response {
    let query = Query::new(query.as_deref());
    let serializable = query.values("serializable").first() == Some(&"true");
    let health = Health::of(&seen.api, &query.values("exclude"), serializable).await;
    let counts = &seen.api.metrics().health;
    if health.is_well() {
        counts.success.add(1);
        (StatusCode::OK, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], health.json())
            .into_response()
    } else {
        counts.failures.add(1);
        let json = health.json();
        tracing::warn!(output = json, "/health error");
        (StatusCode::SERVICE_UNAVAILABLE, json + "\n").into_response()
    }
}

async fn version_page() -> Response {
    let json = format!(
        "{{\"etcdserver\":\"{}\",\"etcdcluster\":\"{}\",\"storage\":\"{}\"}}",
        version::ETCD_API,
        version::ETCD_CLUSTER,
        version::ETCD_STORAGE
    );
    ([(header::CONTENT_TYPE, "application/json")], json).into_response()
}

async fn metrics_page(State(seen): State<Seen>) -> Response {
    let page = seen.api.metrics().page(seen.api.handle());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response()
}

/// A query string. The values that the pages know need no percent escapes.
struct Query<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Query<'a> {
    fn new(query: Option<&'a str>) -> Self {
        let parts = query.unwrap_or_default().split('&').filter(|part| !part.is_empty());
        Self(parts.map(|part| part.split_once('=').unwrap_or((part, ""))).collect())
    }

    /// Every value of a name that is not empty.
    fn values(&self, name: &str) -> Vec<&'a str> {
        self.0
            .iter()
            .filter(|(key, value)| *key == name && !value.is_empty())
            .map(|(_, value)| *value)
            .collect()
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| *key == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_as_etcds() {
        let fine = [("a", Ok(())), ("b", Ok(()))];
        assert_eq!(report(&fine, false), (StatusCode::OK, "ok\n".to_owned()));
        assert_eq!(report(&fine, true), (StatusCode::OK, "[+]a ok\n[+]b ok\nok\n".to_owned()));
        let ill = [("a", Ok(())), ("b", Err("why".to_owned()))];
        let expected = (StatusCode::SERVICE_UNAVAILABLE, "[+]a ok\n[-]b failed: why\n".to_owned());
        assert_eq!(report(&ill, false), expected);
        assert_eq!(report(&[], false), (StatusCode::OK, "ok\n".to_owned()), "everything excluded");
    }

    #[test]
    fn queries_may_repeat_a_name() {
        let query =
            Query::new(Some("exclude=NOSPACE&verbose&exclude=CORRUPT&exclude=&serializable=true"));
        assert_eq!(query.values("exclude"), ["NOSPACE", "CORRUPT"]);
        assert!(query.has("verbose") && !query.has("other"));
        assert_eq!(query.values("serializable"), ["true"]);
        assert!(Query::new(None).values("x").is_empty());
    }
}
