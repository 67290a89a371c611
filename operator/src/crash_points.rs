//! A drill: the process ends as by kill -9 right before or after a chosen write. Only builds with the feature `drill`, which
//! no image has, hold it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::pin::Pin;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::task::{Context, Poll};

use http::{Method, Request, Response};
use kube::client::Body;
use rustix::process::{Signal, getpid, kill_process};
use tower::{Layer, Service};

/// Names a file to which each write appends a line when it is about to be sent.
const RECORD: &str = "QUORATE_WRITES";

/// Begins the line that says that a write was refused, as one is whose precondition no longer holds.
const REFUSED: &str = "refused ";

/// `before <number> <write>` or `after <number> <write>`: ends the process at the first, second, … write with this name.
const POINT: &str = "QUORATE_CRASH_POINT";

static DRILL: LazyLock<Drill> = LazyLock::new(Drill::from_environment);

/// Where a drill ends the process.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Point {
    /// Once the answer is there, rather than before the request is sent.
    after: bool,
    /// At which of the writes of this name, counted from 1.
    number: u32,
    write: String,
}

impl Point {
    fn parse(text: &str) -> Option<Point> {
        let mut words = text.splitn(3, ' ');
        let after = match words.next()? {
            "before" => false,
            "after" => true,
            _ => return None,
        };
        Some(Point { after, number: words.next()?.parse().ok()?, write: words.next()?.to_owned() })
    }
}

struct Drill {
    record: Option<Mutex<File>>,
    point: Option<Point>,
    seen: Mutex<BTreeMap<String, u32>>,
}

impl Drill {
    fn from_environment() -> Drill {
        let record = std::env::var_os(RECORD).map(|path| {
            let file = OpenOptions::new().create(true).append(true).open(path);
            Mutex::new(file.expect("a drill is given a file that it may write"))
        });
        let point = std::env::var(POINT).ok().map(|text| {
            Point::parse(&text).expect("a drill is given `before` or `after`, a number and a write")
        });
        Drill { record, point, seen: Mutex::default() }
    }

    fn note(&self, line: &str) {
        if let Some(record) = &self.record {
            let mut file = record.lock().unwrap_or_else(PoisonError::into_inner);
            writeln!(file, "{line}").expect("a drill's record is written");
        }
    }

    /// Notes a write, and says whether it is the chosen one.
    fn meets(&self, write: &str) -> Option<&Point> {
        self.note(write);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let number = seen.entry(write.to_owned()).or_default();
        *number += 1;
        self.point.as_ref().filter(|point| point.write == write && point.number == *number)
    }
}

/// Sends a write, unless the process is to end before, or to end after.
async fn around<T, E>(
    write: String,
    request: impl Future<Output = Result<T, E>>,
    accepted: impl FnOnce(&T) -> bool,
) -> Result<T, E> {
    let point = DRILL.meets(&write);
    if point.is_some_and(|point| !point.after) {
        end();
    }
    let answer = request.await;
    if point.is_some() {
        end();
    }
    if !answer.as_ref().is_ok_and(accepted) {
        DRILL.note(&format!("{REFUSED}{write}"));
    }
    answer
}

/// Nothing is flushed, nothing is told, no lease is given up.
fn end() -> ! {
    let killed = kill_process(getpid(), Signal::KILL);
    unreachable!("a process outlived its own SIGKILL: {killed:?}")
}

/// Sends a request to a member; those that only read are no points.
pub(crate) async fn of_member<T, E>(
    method: &str,
    request: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    if matches!(method, "Status" | "Range" | "MemberList") {
        request.await
    } else {
        around(method.to_owned(), request, |_answer| true).await
    }
}

/// Names the writes that go to the API server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ApiWrites;

impl<S> Layer<S> for ApiWrites {
    type Service = Named<S>;

    fn layer(&self, inner: S) -> Named<S> {
        Named(inner)
    }
}

/// A client whose writes have names.
#[derive(Clone, Debug)]
pub(crate) struct Named<S>(S);

impl<S, B> Service<Request<Body>> for Named<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: 'static,
    B: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let write = name(request.method(), request.uri().path());
        let answer = self.0.call(request);
        match write {
            Some(write) => Box::pin(around(write, answer, |answer| answer.status().is_success())),
            None => Box::pin(answer),
        }
    }
}

/// What a request to the API server is called, if it is a write. The Lease is renewed by the clock, not by what happens, so its
/// writes are no points; and one namespace is served, whose name says nothing.
fn name(method: &Method, path: &str) -> Option<String> {
    let read = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    let lease = path.starts_with("/apis/coordination.k8s.io/");
    let (group, rest) = path.split_once("/namespaces/").unwrap_or((path, ""));
    let object = rest.split_once('/').map_or("", |(_namespace, object)| object);
    // An event that is told again has a name that holds a time.
    let object = if object.starts_with("events/") { "events" } else { object };
    (!read && !lease).then(|| format!("{method} {group}/{object}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_the_number_th_write_of_its_name() {
        let point = Point::parse("after 2 PATCH /api/v1/pods/a b").unwrap();
        assert_eq!(point, Point { after: true, number: 2, write: "PATCH /api/v1/pods/a b".into() });
        let drill = Drill { record: None, point: Some(point.clone()), seen: Mutex::default() };
        assert_eq!(drill.meets("PATCH /api/v1/pods/a b"), None);
        assert_eq!(drill.meets("MemberAdd"), None);
        assert_eq!(drill.meets("PATCH /api/v1/pods/a b"), Some(&point));
        assert_eq!(drill.meets("PATCH /api/v1/pods/a b"), None);
        for wrong in ["", "before", "during 1 x", "before x y", "before 1"] {
            assert_eq!(Point::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn reads_and_the_lease_have_no_name() {
        assert_eq!(name(&Method::GET, "/api/v1/pods"), None);
        assert_eq!(name(&Method::PUT, "/apis/coordination.k8s.io/v1/namespaces/n/leases/l"), None);
        let written = name(&Method::PUT, "/apis/apps/v1/namespaces/n/statefulsets/db-0");
        assert_eq!(written.unwrap(), "PUT /apis/apps/v1/statefulsets/db-0");
        let told =
            name(&Method::PATCH, "/apis/events.k8s.io/v1/namespaces/n/events/db.18eac3430e318d57");
        assert_eq!(told.unwrap(), "PATCH /apis/events.k8s.io/v1/events");
    }
}
