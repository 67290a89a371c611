//! The API server's audit log: who did what to a namespace, and when, by a witness that is not the operator.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::installation::OPERATOR_USER;

/// Begins the user name of every kubelet.
const KUBELETS: &str = "system:node:";

/// The log from some moment on, as far as it concerns one namespace.
#[derive(Clone, Debug)]
pub struct Audit {
    path: PathBuf,
    from: u64,
    namespace: String,
}

/// One request that the API server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// When it came in.
    pub began: Timestamp,
    /// When it was answered.
    pub at: Timestamp,
    /// `create`, `delete`, `patch`, …
    pub verb: String,
    /// Who asked.
    pub user: String,
    /// The resource, with its subresource: `pods/eviction`.
    pub resource: String,
    /// The object's name; empty for a list, or where the server made the name.
    pub name: String,
    /// The HTTP status of the answer.
    pub code: i64,
}

impl Request {
    /// Whether the operator asked.
    #[must_use]
    pub fn is_operators(&self) -> bool {
        self.user == OPERATOR_USER
    }

    /// Whether it was carried out.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// Whether the operator made a new object by it: a server-side apply of an absent object is
    /// answered with 201 as a create is.
    #[must_use]
    pub fn made(&self, resource: &str) -> bool {
        self.is_operators() && self.resource == resource && self.code == 201
    }

    /// Whether the operator deleted an object by it.
    #[must_use]
    pub fn deleted(&self, resource: &str) -> bool {
        let delete = self.verb == "delete" && self.resource == resource;
        self.is_operators() && delete && self.succeeded()
    }

    /// Whether somebody deleted this pod by it.
    fn deletes_pod(&self, pod: &str) -> bool {
        let delete = self.resource == "pods" && self.verb == "delete";
        delete && self.name == pod && self.succeeded()
    }

    /// Whether a kubelet said by it that this pod is gone.
    fn buries_pod(&self, pod: &str) -> bool {
        self.deletes_pod(pod) && self.user.starts_with(KUBELETS)
    }

    /// Whether this pod got a node by it.
    fn binds_pod(&self, pod: &str) -> bool {
        self.resource == "pods/binding" && self.name == pod && self.succeeded()
    }
}

impl Audit {
    /// What will happen to a namespace from now on.
    ///
    /// # Errors
    /// There is no log.
    pub fn from_now(path: &Path, namespace: &str) -> Result<Self> {
        let from = fs::metadata(path).context("find the audit log")?.len();
        Ok(Self { path: path.to_owned(), from, namespace: namespace.to_owned() })
    }

    /// What has happened, in order.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn requests(&self) -> Result<Vec<Request>> {
        let mut file = File::open(&self.path).context("open the audit log")?;
        file.seek(SeekFrom::Start(self.from)).context("find the place in the audit log")?;
        let ours = format!("\"namespace\":\"{}\"", self.namespace);
        let mut requests = Vec::new();
        for line in BufReader::new(file).lines() {
            let line = line.context("read the audit log")?;
            // The last line may be half written.
            let event = line.contains(&ours).then(|| serde_json::from_str::<Value>(&line).ok());
            requests.extend(event.flatten().as_ref().and_then(|event| self.request(event)));
        }
        Ok(requests)
    }

    fn request(&self, event: &Value) -> Option<Request> {
        let object = &event["objectRef"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if object["namespace"].as_str() != Some(&self.namespace) {
            return None;
        }
        let subresource = object["subresource"].as_str();
        let resource = text(&object["resource"]);
        Some(Request {
            began: event["requestReceivedTimestamp"].as_str()?.parse().ok()?,
            at: event["stageTimestamp"].as_str()?.parse().ok()?,
            verb: text(&event["verb"]),
            user: text(&event["user"]["username"]),
            resource: subresource.map_or(resource.clone(), |sub| format!("{resource}/{sub}")),
            name: text(&object["name"]),
            code: event["responseStatus"]["code"].as_i64()?,
        })
    }
}

/// Whether a pod has a node at a moment. One that has is gone only when its kubelet says so; one that no node was found for is gone
/// with the request that takes it.
///
/// All here goes by when requests came in: what follows from a deletion may be asked before that one is answered.
fn has_node(requests: &[Request], pod: &str, at: Timestamp) -> bool {
    let before = requests.iter().filter(|request| request.began < at);
    let turns = before.filter(|request| request.binds_pod(pod) || request.buries_pod(pod));
    turns.max_by_key(|request| request.began).is_some_and(|last| last.binds_pod(pod))
}

/// Law: the operator stops one member at a time. Before it deletes another member's set the last pod
/// of the one whose set it deleted before is gone: it was stopped before its removal, or goes with its
/// set. Returns how many sets it deleted.
///
/// # Errors
/// The law is broken; the message names both members.
pub fn one_stop_at_a_time(requests: &[Request]) -> Result<usize> {
    let stops: Vec<&Request> =
        requests.iter().filter(|request| request.deleted("statefulsets")).collect();
    for pair in stops.windows(2) {
        let (first, second) = (pair[0], pair[1]);
        let pod = format!("{}-0", first.name);
        let deleted = requests.iter().any(|it| it.deletes_pod(&pod) && it.began < second.began);
        let gone = deleted && !has_node(requests, &pod, second.began);
        ensure!(gone, "{} was stopped before the pod of {} was gone", second.name, first.name);
    }
    Ok(stops.len())
}

/// Pods that the operator evicted or deleted, in order.
#[must_use]
pub fn restarts(requests: &[Request]) -> Vec<&Request> {
    let taken = |request: &&Request| {
        let evicted = request.resource == "pods/eviction" && request.succeeded();
        request.is_operators() && evicted || request.deleted("pods")
    };
    requests.iter().filter(taken).collect()
}

/// Law: the operator takes one pod at a time. Between two of them the kubelet has said that the first
/// is gone, unless no node was found for it. Returns the members whose pods it took, in order.
///
/// # Errors
/// The law is broken; the message names both pods.
pub fn one_restart_at_a_time(requests: &[Request]) -> Result<Vec<String>> {
    let taken = restarts(requests);
    for pair in taken.windows(2) {
        let (first, second) = (pair[0], pair[1]);
        let buried = requests.iter().any(|request| {
            let between = (first.began..second.began).contains(&request.began);
            between && request.buries_pod(&first.name)
        });
        let gone = buried || !has_node(requests, &first.name, first.began);
        ensure!(gone, "{} was taken before {} was gone", second.name, first.name);
    }
    let member =
        |request: &&Request| request.name.strip_suffix("-0").unwrap_or(&request.name).to_owned();
    Ok(taken.iter().map(member).collect())
}

/// Law: the operator neither deletes nor evicts a pod.
///
/// # Errors
/// It did; the message quotes the request.
pub fn no_pod_is_taken(requests: &[Request]) -> Result<()> {
    let taken = requests.iter().find(|request| {
        request.is_operators()
            && (request.resource == "pods/eviction"
                || request.resource == "pods" && request.verb == "delete")
    });
    ensure!(taken.is_none(), "the operator took a pod: {taken:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(second: i64, user: &str, verb: &str, resource: &str, name: &str) -> Request {
        Request {
            began: Timestamp::from_second(second).unwrap(),
            at: Timestamp::from_second(second).unwrap(),
            verb: verb.to_owned(),
            user: user.to_owned(),
            resource: resource.to_owned(),
            name: name.to_owned(),
            code: 200,
        }
    }

    fn bound(second: i64, pod: &str) -> Request {
        request(second, "system:kube-scheduler", "create", "pods/binding", pod)
    }

    #[test]
    fn two_stops_at_once_are_found() {
        let stop = |second, name| request(second, OPERATOR_USER, "delete", "statefulsets", name);
        let gone = |second, name| request(second, "system:node:n1", "delete", "pods", name);
        let good = [stop(1, "db-4"), gone(2, "db-4-0"), stop(3, "db-3"), gone(4, "db-3-0")];
        assert_eq!(one_stop_at_a_time(&good).unwrap(), 2);
        let bad = [stop(1, "db-4"), stop(3, "db-3"), gone(4, "db-4-0")];
        assert!(one_stop_at_a_time(&bad).is_err());
        // What the garbage collector asks of the kubelet is not the end of a pod that has a node.
        let collector = "system:serviceaccount:kube-system:generic-garbage-collector";
        let asked = request(2, collector, "delete", "pods", "db-4-0");
        let homeless = [stop(1, "db-4"), asked.clone(), stop(3, "db-3")];
        assert_eq!(one_stop_at_a_time(&homeless).unwrap(), 2);
        // The collector may be faster than the answer to who deleted the set.
        let mut slow = stop(1, "db-4");
        slow.at = Timestamp::from_second(3).unwrap();
        assert_eq!(one_stop_at_a_time(&[slow, asked.clone(), stop(4, "db-3")]).unwrap(), 2);
        let bound = bound(0, "db-4-0");
        let asked_only = [bound.clone(), stop(1, "db-4"), asked, stop(3, "db-3")];
        assert!(one_stop_at_a_time(&asked_only).is_err());
        // Stopped before its set is deleted; and what went before its last start is not its end.
        let earlier =
            |second| [bound.clone(), gone(second, "db-4-0"), stop(3, "db-4"), stop(4, "db-3")];
        assert_eq!(one_stop_at_a_time(&earlier(2)).unwrap(), 2);
        assert!(one_stop_at_a_time(&earlier(-1)).is_err());
    }

    #[test]
    fn two_restarts_at_once_are_found() {
        let evict = |second, name| request(second, OPERATOR_USER, "create", "pods/eviction", name);
        let gone = |second, name| request(second, "system:node:n1", "delete", "pods", name);
        let mut refused = evict(2, "db-2-0");
        refused.code = 429;
        let bound = bound(0, "db-1-0");
        let good =
            [bound.clone(), evict(1, "db-1-0"), refused, gone(3, "db-1-0"), evict(4, "db-0-0")];
        assert_eq!(one_restart_at_a_time(&good).unwrap(), ["db-1", "db-0"]);
        let bad = [bound.clone(), evict(1, "db-1-0"), evict(2, "db-0-0"), gone(3, "db-1-0")];
        assert!(one_restart_at_a_time(&bad).is_err());
        // What was said of the pod before it was taken is not its end.
        let earlier = [gone(-1, "db-1-0"), bound.clone(), evict(1, "db-1-0"), evict(2, "db-0-0")];
        assert!(one_restart_at_a_time(&earlier).is_err());
        // A kubelet that was refused has not said it.
        let mut denied = gone(2, "db-1-0");
        denied.code = 409;
        let unsaid = [bound.clone(), evict(1, "db-1-0"), denied, evict(3, "db-0-0")];
        assert!(one_restart_at_a_time(&unsaid).is_err());
        // The pod that came after it had no node, and no kubelet to say that it is gone; the third had one again.
        let mut homeless = vec![bound, evict(1, "db-1-0"), gone(2, "db-1-0"), evict(3, "db-1-0")];
        homeless.push(evict(5, "db-0-0"));
        assert_eq!(one_restart_at_a_time(&homeless).unwrap(), ["db-1", "db-1", "db-0"]);
        homeless.extend([self::bound(4, "db-0-0"), evict(6, "db-2-0")]);
        assert!(one_restart_at_a_time(&homeless).is_err());
        let by_hand = request(1, "kubernetes-admin", "delete", "pods", "db-1-0");
        assert!(restarts(&[by_hand]).is_empty());
    }

    #[test]
    fn a_line_of_the_log_is_read() {
        let audit = Audit { path: PathBuf::new(), from: 0, namespace: "demo".to_owned() };
        let line = r#"{"requestReceivedTimestamp":"2026-11-23T13:22:16.490001Z",
            "stageTimestamp":"2026-11-23T13:22:16.499159Z","verb":"create",
            "user":{"username":"system:serviceaccount:quorate-system:quorate-operator"},
            "objectRef":{"resource":"pods","subresource":"eviction","namespace":"demo","name":"a"},
            "responseStatus":{"code":201}}"#;
        let read = audit.request(&serde_json::from_str(line).unwrap()).unwrap();
        assert!(read.made("pods/eviction") && read.name == "a");
        assert!(no_pod_is_taken(&[read]).is_err());
        let elsewhere = Audit { namespace: "other".to_owned(), ..audit };
        assert_eq!(elsewhere.request(&serde_json::from_str(line).unwrap()), None);
    }
}
