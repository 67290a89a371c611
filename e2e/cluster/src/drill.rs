//! The operator as a process of this host, ended at a chosen write and started again at once, and what the world looks like then.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use quorate_kubernetes::components::cache;
use quorate_kubernetes::{Progress, command};
use serde_json::{Value, json};

use crate::audit::Request;
use crate::fixture::Turn;
use crate::images::repository;
use crate::installation::{NAMESPACE, RELEASE, tool, words};
use crate::limits::{ROLLOUT, SCALED};
use crate::programs::Program;
use crate::store::{NAME, Store};
use crate::wait::until;

/// SIGKILL, as a process's end reports it.
const KILLED: i32 = 9;

/// As whom every operator of a drill holds the Lease, so that its successor need not wait for it to run out: the back-off of a
/// dead leader is not what is drilled.
const IDENTITY: &str = "drill";

/// A moment at which the operator is killed: a write of a recorded run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Once the answer is there, rather than before the request is sent.
    pub after: bool,
    /// At which of the writes of this name, counted from 1.
    pub number: usize,
    /// The method and the path, or the request to a member.
    pub write: String,
}

impl Point {
    /// Both moments of each write of a record, in order.
    #[must_use]
    pub fn all(writes: &[String]) -> Vec<Self> {
        let point = |index: usize, after| {
            let write = writes[index].clone();
            let number = writes[..=index].iter().filter(|earlier| **earlier == write).count();
            Self { after, number, write }
        };
        (0..writes.len()).flat_map(|index| [point(index, false), point(index, true)]).collect()
    }

    fn text(&self) -> String {
        let moment = if self.after { "after" } else { "before" };
        format!("{moment} {} {}", self.number, self.write)
    }
}

/// The bed without the operator that the chart installed, as long as this lives.
pub struct Drill<'a> {
    turn: &'a Turn,
    program: PathBuf,
    kubeconfig: PathBuf,
    record: PathBuf,
}

impl<'a> Drill<'a> {
    /// Builds the operator with its crash points, sends the installed one away, and takes over its ServiceAccount.
    ///
    /// # Errors
    /// It does not compile, or the installed one does not go.
    pub fn begin(turn: &'a Turn) -> Result<Self> {
        let progress = &Progress::start();
        let directory = cache().join("drill");
        fs::create_dir_all(&directory).context("make a place for the drill")?;
        let program = directory.join("quorate-operator");
        Program::Operator.build_variant("crash-points", progress, |built| {
            fs::copy(built, &program).context("set the drilled operator aside")
        })?;
        let kubeconfig = directory.join("kubeconfig");
        let record = directory.join("writes");
        let drill = Self { turn, program, kubeconfig, record };
        drill.kubectl(&["scale", "deployment", RELEASE, "--replicas=0"])?;
        let timeout = format!("--timeout={}s", ROLLOUT.as_secs());
        drill.kubectl(&["wait", "--for=delete", "pod", "--all", &timeout])?;
        drill.take_over()?;
        Ok(drill)
    }

    /// Writes a kubeconfig that speaks as the chart's ServiceAccount.
    fn take_over(&self) -> Result<()> {
        let token = self.kubectl(&["create", "token", RELEASE, "--duration=4h"])?;
        let mut view = self.turn.bed.kubectl();
        let own = command::output(view.args(["config", "view", "--raw", "-o", "json"]))?;
        let mut config: Value = serde_json::from_str(&own).context("read the kubeconfig")?;
        for user in config["users"].as_array_mut().context("the kubeconfig has users")? {
            user["user"] = json!({"token": token.trim()});
        }
        fs::write(&self.kubeconfig, config.to_string()).context("write the drill's kubeconfig")
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut line = words(&["kubectl", "-n", NAMESPACE]);
        line.extend(words(arguments));
        command::output(&mut tool(&line, &self.turn.bed.kubeconfig()))
    }

    /// Starts the operator, to be killed at a point or not at all.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&self, point: Option<&Point>) -> Result<Operator> {
        if self.record.exists() {
            fs::remove_file(&self.record).context("begin a new record")?;
        }
        let log = fs::File::create(self.record.with_extension("log")).context("open a log")?;
        let mut command = Command::new(&self.program);
        command.arg(format!("--kubeconfig={}", self.kubeconfig.display()));
        command
            .arg(format!("--lease-name={RELEASE}"))
            .arg(format!("--lease-namespace={NAMESPACE}"));
        command.arg(format!("--identity={IDENTITY}"));
        command.arg(format!("--store-image-repository={}", repository(Program::Store)));
        command.args(["--metrics-bind=127.0.0.1:0", "--health-bind=127.0.0.1:0"]);
        command.env("QUORATE_WRITES", &self.record);
        command.envs(point.map(|point| ("QUORATE_CRASH_POINT", point.text())));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().context("start the operator")?;
        Ok(Operator { child, record: self.record.clone(), point: point.map(Point::text) })
    }
}

impl Drop for Drill<'_> {
    fn drop(&mut self) {
        let timeout = format!("--timeout={}s", ROLLOUT.as_secs());
        let back = self
            .kubectl(&["scale", "deployment", RELEASE, "--replicas=1"])
            .and_then(|_| self.kubectl(&["rollout", "status", "deployment", RELEASE, &timeout]));
        if let Err(error) = back {
            println!("the operator does not come back: {error:#}");
        }
    }
}

/// An operator that runs on this host. Dropped, it is killed.
pub struct Operator {
    child: Child,
    record: PathBuf,
    point: Option<String>,
}

impl Operator {
    /// Whether it still runs; if not, it was killed where it was meant to be.
    ///
    /// # Errors
    /// It ended by itself.
    pub fn runs(&mut self) -> Result<bool> {
        let Some(status) = self.child.try_wait().context("look at the operator")? else {
            return Ok(true);
        };
        ensure!(
            self.point.is_some() && status.signal() == Some(KILLED),
            "the operator ended with {status}; its log: {}",
            self.record.with_extension("log").display()
        );
        Ok(false)
    }

    /// Kills it and returns the writes that it has sent.
    ///
    /// # Errors
    /// There is no record.
    pub fn end(mut self) -> Result<Vec<String>> {
        self.kill();
        // It may have had nothing to write.
        let record = fs::read_to_string(&self.record).unwrap_or_default();
        Ok(record.lines().map(str::to_owned).collect())
    }

    fn kill(&mut self) {
        // An error means that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What one change led to.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Everything that the operator answers for, without what differs between two runs of the same change.
    pub world: Value,
    /// How often it took something from somebody.
    pub disruptions: usize,
}

/// A change that is drilled, and how many members stand once it is done.
pub struct Change<'a> {
    /// What it is called in words.
    pub name: &'a str,
    /// Members afterwards.
    pub members: i32,
}

impl Drill<'_> {
    /// Makes a change while an operator runs that is killed at a point, or at none; another goes on. Returns what came of it
    /// and what the first operator had written.
    ///
    /// # Errors
    /// The change is not carried out, or the operator outlived its point.
    pub async fn carry_out(
        &self,
        store: &Store,
        change: &Change<'_>,
        point: Option<&Point>,
        make: impl AsyncFnOnce() -> Result<()>,
    ) -> Result<(Outcome, Vec<String>)> {
        let before = store.audit.requests()?.len();
        let mut operator = self.start(point)?;
        make().await?;
        if let Some(point) = point {
            let what = format!("{} to end {}", change.name, point.text());
            until(&what, SCALED, async || match operator.runs() {
                Ok(true) => Err("the operator runs".to_owned()),
                Ok(false) => Ok(Ok(())),
                Err(error) => Ok(Err(error)),
            })
            .await??;
            operator = self.start(None)?;
        }
        store.settled(change.members).await.with_context(|| change.name.to_owned())?;
        if !operator.runs()? {
            bail!("the operator that went on is gone");
        }
        let writes = operator.end()?;
        let requests = store.audit.requests()?;
        let disruptions = requests[before..].iter().filter(|it| disrupts(it)).count();
        Ok((Outcome { world: world(store)?, disruptions }, writes))
    }
}

/// Whether the operator took something from somebody by it.
fn disrupts(request: &Request) -> bool {
    let evicted = request.is_operators() && request.resource == "pods/eviction";
    let deleted = ["statefulsets", "pods", "persistentvolumeclaims", "services", "jobs"];
    evicted && request.succeeded() || deleted.iter().any(|resource| request.deleted(resource))
}

/// The kinds of what the operator makes.
const CHILDREN: &str = "statefulset,service,persistentvolumeclaim,poddisruptionbudget,job";

/// The objects of a namespace as they must be again after any crash.
fn world(store: &Store) -> Result<Value> {
    let get = |arguments: &[&str]| -> Result<Value> {
        let listed = store.kubectl(&[&["get", "-o", "json"], arguments].concat())?;
        serde_json::from_str(&listed).context("read what there is")
    };
    let own = get(&["storecluster", NAME])?;
    let children = get(&[CHILDREN, "-l", &format!("quorate.dev/cluster={NAME}")])?;
    let mut children = children["items"].as_array().cloned().unwrap_or_default();
    for child in &mut children {
        // What controllers and kubelets report is theirs.
        child["status"] = Value::Null;
    }
    children.sort_by_key(|it| format!("{}/{}", it["kind"], it["metadata"]["name"]));
    let names = identities(&own);
    let mut world = Value::Array(vec![own, Value::Array(children)]);
    normalise(&mut world, &names);
    Ok(world)
}

/// Ids that a StoreCluster tells of itself and its members, each with what stands for it in a normalised world.
fn identities(cluster: &Value) -> Vec<(String, String)> {
    let mut names = Vec::new();
    let mut stands = |value: &Value, name: String| {
        names.extend(value.as_str().map(|id| (id.to_owned(), format!("<{name}>"))));
    };
    stands(&cluster["metadata"]["uid"], "uid".to_owned());
    stands(&cluster["status"]["clusterID"], "cluster id".to_owned());
    for member in cluster["status"]["members"].as_array().into_iter().flatten() {
        stands(&member["id"], format!("id of {}", member["name"]));
        stands(&member["claimUID"], format!("claim of {}", member["name"]));
    }
    names
}

/// Removes what differs between two runs of the same change (where, when, how often written), and gives ids their names.
fn normalise(value: &mut Value, names: &[(String, String)]) {
    const DIFFERS: [&str; 17] = [
        "uid",
        "resourceVersion",
        "generation",
        "observedGeneration",
        "managedFields",
        "volumeName",
        "creationTimestamp",
        "lastTransitionTime",
        "since",
        "clusterIP",
        "clusterIPs",
        "node",
        "leader",
        "lag",
        "message",
        "batch.kubernetes.io/controller-uid",
        // A digest over the object as it was applied, owner and all.
        "quorate.dev/built",
    ];
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| {
                // What the binder and the provisioner note on a claim.
                let bound = name.starts_with("volume.kubernetes.io/")
                    || name.starts_with("pv.kubernetes.io/");
                !bound && !DIFFERS.contains(&name.as_str())
            });
            fields.values_mut().for_each(|field| normalise(field, names));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| normalise(item, names)),
        Value::String(text) => {
            for (id, name) in names {
                *text = text.replace(id, name);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_write_has_two_points_and_a_number_of_its_own() {
        let writes = ["PATCH /a", "MemberAdd", "PATCH /a"].map(str::to_owned);
        let texts: Vec<String> = Point::all(&writes).iter().map(Point::text).collect();
        let expected = [
            "before 1 PATCH /a",
            "after 1 PATCH /a",
            "before 1 MemberAdd",
            "after 1 MemberAdd",
            "before 2 PATCH /a",
            "after 2 PATCH /a",
        ];
        assert_eq!(texts, expected);
    }

    #[test]
    fn who_where_and_when_differ_and_nothing_else() {
        let mut object = json!({
            "metadata": {"uid": "u", "name": "db-0", "annotations": {"volume.kubernetes.io/x": "n"}},
            "spec": {"replicas": 1, "flag": "--member=a1", "volumeName": "pvc-7"},
            "conditions": [{"type": "A", "reason": "R", "lastTransitionTime": "t"}],
        });
        normalise(&mut object, &[("a1".to_owned(), "<id of db-0>".to_owned())]);
        let left = json!({
            "metadata": {"name": "db-0", "annotations": {}},
            "spec": {"replicas": 1, "flag": "--member=<id of db-0>"},
            "conditions": [{"type": "A", "reason": "R"}],
        });
        assert_eq!(object, left);
    }
}
