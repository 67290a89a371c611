//! The operator as a process of this host: ended at a chosen write and started again at once, or two of them that hear late; and what
//! the world looks like then.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::DeleteParams;
use quorate_kubernetes::components::cache;
use quorate_kubernetes::{Progress, command};
use serde_json::{Value, json};

use crate::audit::Request;
use crate::fixture::Turn;
use crate::images::repository;
use crate::installation::{NAMESPACE, RELEASE, tool, words};
use crate::limits::{ATTEMPTS, LAST_WRITE, ROLLOUT, SCALED, TOLD, WATCHES_LATE};
use crate::programs::Program;
use crate::store::{NAME, Store};
use crate::wait::until;

/// SIGKILL, as a process's end reports it.
const KILLED: i32 = 9;

/// Begins a line of an operator's record that says that a write was refused.
const REFUSED: &str = "refused ";

/// A moment at which the operator is killed: a write of a recorded run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Once the answer is there, rather than before the request is sent.
    pub after: bool,
    /// At which of the writes of this name, counted from 1.
    pub number: usize,
    /// The method and the path, or the request to a member.
    pub write: String,
    /// Whether one before it was refused, for which it makes up: a life in which none is refused does not come to it.
    pub again: bool,
}

impl Point {
    /// Both moments of each write of a record, in order.
    #[must_use]
    pub fn all(record: &[String]) -> Vec<Self> {
        let point = |index: usize, after| {
            let write = record[index].clone();
            let number = record[..=index].iter().filter(|earlier| **earlier == write).count();
            let again = record[..index].contains(&format!("{REFUSED}{write}"));
            Self { after, number, write, again }
        };
        let writes = (0..record.len()).filter(|index| !record[*index].starts_with(REFUSED));
        writes.flat_map(|index| [point(index, false), point(index, true)]).collect()
    }

    /// Whether how often it comes depends on when things happen: what the operator tells or says again, and nothing that it does.
    fn comes_and_goes(&self) -> bool {
        self.again || self.write.ends_with("/status") || self.write.ends_with("/events")
    }

    fn text(&self) -> String {
        let moment = if self.after { "after" } else { "before" };
        format!("{moment} {} {}", self.number, self.write)
    }
}

/// The points that are still to be drilled: a queue for each change.
#[derive(Debug)]
pub struct Agenda {
    queues: Vec<VecDeque<Point>>,
    missed: BTreeMap<(usize, String), u32>,
}

impl Agenda {
    /// One queue for each change.
    #[must_use]
    pub fn new(points: Vec<Vec<Point>>) -> Self {
        Self { queues: points.into_iter().map(VecDeque::from).collect(), missed: BTreeMap::new() }
    }

    /// The next point of each change that has one left; nothing once there is none.
    pub fn next_life(&mut self) -> Option<Vec<Option<Point>>> {
        let points: Vec<_> = self.queues.iter_mut().map(VecDeque::pop_front).collect();
        points.iter().any(Option::is_some).then_some(points)
    }

    /// Puts a point back that a life did not come to: how often the state of a cluster is told depends on when things happen.
    ///
    /// # Errors
    /// No life comes to it, and it is not one of those that come and go.
    pub fn missed(&mut self, change: usize, point: Point) -> Result<()> {
        let missed = self.missed.entry((change, point.text())).or_default();
        *missed += 1;
        if *missed < ATTEMPTS {
            self.queues[change].push_back(point);
            return Ok(());
        }
        ensure!(point.comes_and_goes(), "{ATTEMPTS} lives did not come to {}", point.text());
        println!(
            "no life comes to {}: it was told less often, or refused less often",
            point.text()
        );
        Ok(())
    }
}

/// The bed without the operator that the chart installed, as long as this lives.
pub struct Drill<'a> {
    turn: &'a Turn,
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl<'a> Drill<'a> {
    /// Builds the operator with its drills, sends the installed one away, and takes over its ServiceAccount.
    ///
    /// # Errors
    /// It does not compile, or the installed one does not go.
    pub fn begin(turn: &'a Turn) -> Result<Self> {
        let progress = &Progress::start();
        let directory = cache().join("drill");
        fs::create_dir_all(&directory).context("make a place for the drill")?;
        let program = directory.join("quorate-operator");
        Program::Operator.build_variant("drill", progress, |built| {
            fs::copy(built, &program).context("set the drilled operator aside")
        })?;
        turn.bed.start_storage_driver()?;
        let drill = Self { turn, program, kubeconfig: directory.join("kubeconfig") };
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

    /// Starts an operator that serves one namespace. It holds no Lease: to wait for that of a dead leader is not what is drilled, and
    /// of two operators at once each believes that it is the one.
    fn start(&self, namespace: &str, name: &str, drilled: Drilled<'_>) -> Result<Operator> {
        let record = self.kubeconfig.with_file_name(format!("{namespace}-{name}"));
        if record.exists() {
            fs::remove_file(&record).context("begin a new record")?;
        }
        let log = fs::File::create(record.with_extension("log")).context("open a log")?;
        let mut command = Command::new(&self.program);
        command.arg(format!("--kubeconfig={}", self.kubeconfig.display()));
        command.arg(format!("--namespaces={namespace}")).arg("--leader-elect=false");
        command.arg(format!("--store-image-repository={}", repository(Program::Store)));
        command.args(["--metrics-bind=127.0.0.1:0", "--health-bind=127.0.0.1:0"]);
        command.env("QUORATE_WRITES", &record);
        match drilled {
            Drilled::Nowhere => {}
            Drilled::Dies(point) => drop(command.env("QUORATE_CRASH_POINT", point.text())),
            Drilled::HearsLate => {
                command.env("QUORATE_WATCHES_LATE", WATCHES_LATE.as_millis().to_string());
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().context("start the operator")?;
        let dies = matches!(drilled, Drilled::Dies(_));
        Ok(Operator { child, record, dies })
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

/// What is wrong with an operator.
#[derive(Clone, Copy)]
enum Drilled<'a> {
    /// Nothing.
    Nowhere,
    /// It is killed at a point.
    Dies(&'a Point),
    /// What its watches tell is old.
    HearsLate,
}

/// An operator that runs on this host. Dropped, it is killed.
struct Operator {
    child: Child,
    record: PathBuf,
    dies: bool,
}

impl Operator {
    /// Waits until it has been killed where it was meant to be.
    async fn killed(&mut self, what: &str, deadline: Duration) -> Result<()> {
        until(what, deadline, async || match self.runs() {
            Ok(true) => Err("the operator runs".to_owned()),
            Ok(false) => Ok(Ok(())),
            Err(error) => Ok(Err(error)),
        })
        .await?
    }

    /// Whether it still runs; if not, it was killed where it was meant to be.
    fn runs(&mut self) -> Result<bool> {
        let Some(status) = self.child.try_wait().context("look at the operator")? else {
            return Ok(true);
        };
        ensure!(
            self.dies && status.signal() == Some(KILLED),
            "the operator ended with {status}; its log: {}",
            self.record.with_extension("log").display()
        );
        Ok(false)
    }

    /// Kills it, unless it is gone by itself, and returns its record: the writes that it has sent, and which were refused.
    fn end(mut self) -> Result<Vec<String>> {
        ensure!(self.runs()?, "the operator that goes on is gone");
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

/// What is asked of the operator.
#[derive(Clone, Debug)]
pub enum Asked {
    /// A StoreCluster of this spec.
    Make(Value),
    /// Another spec.
    Change(Value),
    /// A member's claim is deleted: another takes its place.
    Replace(&'static str),
}

/// A change that is drilled.
#[derive(Clone, Debug)]
pub struct Change {
    /// What it is called in words.
    pub name: &'static str,
    /// Who leads when it begins, so that two lives have the same to do.
    pub leader: Option<&'static str>,
    /// What is asked.
    pub asked: Asked,
    /// The members once it is done.
    pub members: &'static [&'static str],
}

/// Who carries out a change.
#[derive(Clone, Copy, Debug)]
pub enum Staff<'a> {
    /// An operator with which nothing is wrong.
    One,
    /// One that is killed at a point, and then another.
    Successor(&'a Point),
    /// Two at once, both of whom hear late.
    TwoThatHearLate,
}

/// One cluster in a namespace of its own, and the operators that serve it and nothing else.
pub struct Life<'a> {
    drill: &'a Drill<'a>,
    /// The cluster.
    pub store: Store,
}

impl<'a> Life<'a> {
    /// Begins anew in a namespace.
    ///
    /// # Errors
    /// What is left of the life before does not go.
    pub async fn begin(drill: &'a Drill<'a>, namespace: &str) -> Result<Self> {
        // It goes only while an operator lets it.
        let undertaker = drill.start(namespace, "undertaker", Drilled::Nowhere)?;
        let store = Store::namespace(drill.turn, namespace).await?;
        undertaker.end()?;
        Ok(Self { drill, store })
    }

    /// Has a change made, after which the world should be as expected, if anything is. Returns what came of it and what was
    /// written for it: nothing if the life did not come to its point.
    ///
    /// # Errors
    /// It is not carried out.
    pub async fn carry_out(
        &self,
        change: &Change,
        staff: Staff<'_>,
        expected: Option<&Value>,
    ) -> Result<(Outcome, Option<Vec<String>>)> {
        if let Some(leader) = change.leader {
            self.store.let_lead(leader).await?;
        }
        let before = self.store.audit.requests()?.len();
        let start = |name, drilled| self.drill.start(&self.store.namespace, name, drilled);
        let mut reached = true;
        let mut operators = match staff {
            Staff::One => vec![start("one", Drilled::Nowhere)?],
            Staff::Successor(point) => vec![start("first", Drilled::Dies(point))?],
            Staff::TwoThatHearLate => {
                vec![start("this", Drilled::HearsLate)?, start("that", Drilled::HearsLate)?]
            }
        };
        self.ask(change).await?;
        if let Staff::Successor(point) = staff {
            reached = self.came_to(point, &mut operators[0], change).await?;
            if reached {
                operators = vec![start("second", Drilled::Nowhere)?];
            }
        }
        self.done(change).await.with_context(|| change.name.to_owned())?;
        let world = self.world(expected).await?;
        let mut writes = Vec::new();
        for operator in operators {
            writes.extend(operator.end()?);
        }
        let requests = self.store.audit.requests()?;
        let disruptions = requests[before..].iter().filter(|it| disrupts(it)).count();
        let outcome = Outcome { world, disruptions };
        Ok((outcome, reached.then_some(writes)))
    }

    async fn ask(&self, change: &Change) -> Result<()> {
        let api = self.store.api::<PersistentVolumeClaim>();
        match &change.asked {
            Asked::Make(spec) => self.store.create(spec.clone()).await.map(drop),
            Asked::Change(spec) => self.store.patch(json!({"spec": spec})).await.map(drop),
            Asked::Replace(member) => {
                let claim = format!("{member}-1");
                let deleted = api.delete(&claim, &DeleteParams::default()).await;
                deleted.map(drop).with_context(|| format!("delete {claim}"))
            }
        }
    }

    /// Whether the operator was killed at its point, rather than done without coming to it.
    async fn came_to(
        &self,
        point: &Point,
        operator: &mut Operator,
        change: &Change,
    ) -> Result<bool> {
        let what = format!("{} to end {}", change.name, point.text());
        tokio::select! {
            killed = operator.killed(&what, SCALED) => return killed.map(|()| true),
            done = self.done(change) => done?,
        }
        // What comes last is told when all is done.
        match operator.killed(&what, LAST_WRITE).await {
            Ok(()) => Ok(true),
            Err(_) if operator.runs()? => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waits until the cluster is as it was asked for, and nothing is wrong with it.
    async fn done(&self, change: &Change) -> Result<()> {
        self.store.consists_of(change.members).await?;
        self.store.told("ResizePending", "False", "UpToDate").await?;
        self.store.told("Degraded", "False", "AsExpected").await.map(drop)
    }

    /// The world once it is as expected, or else as it is in the end: one who died may have told that all is well before the last
    /// label was put right, and its successor needs a moment to see that.
    async fn world(&self, expected: Option<&Value>) -> Result<Value> {
        let mut is = world(&self.store)?;
        let Some(expected) = expected else { return Ok(is) };
        let settled = until("the same world", TOLD, async || {
            match world(&self.store) {
                Ok(seen) => is = seen,
                Err(error) => return Ok(Err(error)),
            }
            if is == *expected { Ok(Ok(())) } else { Err("it differs".to_owned()) }
        });
        // Who compares the two says what differs.
        settled.await.unwrap_or(Ok(()))?;
        Ok(is)
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
    stands(&cluster["metadata"]["namespace"], "namespace".to_owned());
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
        Value::Array(items) => {
            // Where pods land is the scheduler's affair, and what is told of it.
            items.retain(|item| item["type"] != "PlacementWarning");
            items.iter_mut().for_each(|item| normalise(item, names));
        }
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
        let record = ["PATCH /a", "refused PATCH /a", "MemberAdd", "PATCH /a"].map(str::to_owned);
        let points = Point::all(&record);
        let texts: Vec<String> = points.iter().map(Point::text).collect();
        let expected = [
            "before 1 PATCH /a",
            "after 1 PATCH /a",
            "before 1 MemberAdd",
            "after 1 MemberAdd",
            "before 2 PATCH /a",
            "after 2 PATCH /a",
        ];
        assert_eq!(texts, expected);
        let again: Vec<bool> = points.iter().map(|point| point.again).collect();
        assert_eq!(
            again,
            [false, false, false, false, true, true],
            "the last makes up for the first"
        );
    }

    #[test]
    fn a_point_that_no_life_comes_to_is_tried_again_and_then_told() {
        let mut agenda = Agenda::new(vec![Point::all(&["MemberAdd".to_owned()]), Vec::new()]);
        let mut lives = 0;
        let told = loop {
            let life = agenda.next_life().expect("the missed one comes again");
            lives += 1;
            let point = life[0].clone().unwrap();
            assert_eq!(life[1], None);
            if point.after {
                continue;
            }
            if let Err(error) = agenda.missed(0, point) {
                break error.to_string();
            }
        };
        assert!(told.ends_with("did not come to before 1 MemberAdd"), "{told}");
        assert_eq!(lives, 1 + ATTEMPTS, "the other point, and this one again and again");
        let told =
            |write: &str, again| Point { after: true, number: 9, write: write.into(), again };
        for point in [told("PUT /a/db/status", false), told("PATCH /a", true)] {
            for _ in 0..ATTEMPTS {
                agenda
                    .missed(0, point.clone())
                    .expect("what is told, or told again, comes and goes");
            }
        }
    }

    #[test]
    fn who_where_and_when_differ_and_nothing_else() {
        let mut object = json!({
            "metadata": {"uid": "u", "name": "db-0", "annotations": {"volume.kubernetes.io/x": "n"}},
            "spec": {"replicas": 1, "flag": "--member=a1", "volumeName": "pvc-7"},
            "conditions": [
                {"type": "A", "reason": "R", "lastTransitionTime": "t"},
                {"type": "PlacementWarning", "reason": "R"},
            ],
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
