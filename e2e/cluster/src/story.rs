//! The story that `cargo xtask demo` tells: from nothing to a replicated store that survives its leader.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use quorate_kubernetes::components::{ETCD, HELM};
use quorate_kubernetes::{Cluster, Options, Progress, command, layout, wait};

use crate::images::Images;
use crate::installation::{self, program_file, words};
use crate::limits::{FORMED, HEALED, SCALED, TOLD};

/// The namespace of the story.
const NAMESPACE: &str = "demo";

/// The four lines that a person writes.
const MANIFEST: &str = "\
apiVersion: quorate.dev/v1alpha1
kind: StoreCluster
metadata: {name: demo}
spec: {replicas: 3, version: \"0.1.0\", storage: {size: 1Gi}}
";

/// The Kubernetes that the story is played on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Ours, brought up on this host.
    TestBed,
    /// Somebody's own.
    Given {
        /// How to reach it.
        kubeconfig: PathBuf,
        /// Its nodes have both images.
        images_loaded: bool,
    },
}

impl Place {
    fn kubeconfig(&self) -> PathBuf {
        match self {
            Self::TestBed => layout::kubeconfig(),
            Self::Given { kubeconfig, .. } => kubeconfig.clone(),
        }
    }

    /// A command line that acts on this Kubernetes.
    #[must_use]
    pub fn command(&self, line: &[String]) -> Command {
        let mut command = installation::tool(line, &self.kubeconfig());
        if matches!(self, Self::Given { .. }) && line.first().is_some_and(|word| word == "kubectl")
        {
            // The owner of a cluster has a kubectl of the right version; ours is not built for it.
            command = Command::new("kubectl");
            command.args(&line[1..]).env("KUBECONFIG", self.kubeconfig());
        }
        command
    }
}

/// Tells the whole story.
///
/// # Errors
/// The first step that fails; nothing after it is told.
pub fn tell(place: &Place) -> Result<()> {
    let mut teller = Teller { place, progress: Progress::start(), chapter: 0 };
    teller.kubernetes()?;
    let images = teller.images()?;
    teller.operator(&images)?;
    teller.store()?;
    teller.key()?;
    teller.leader_dies()?;
    teller.grow()?;
    teller.shrink()?;
    teller.end()
}

/// What to look at when a step failed.
#[must_use]
pub fn diagnosis() -> Vec<Vec<String>> {
    let lines: [&[&str]; 4] = [
        &["kubectl", "-n", NAMESPACE, "get", "storecluster,pods,jobs,pvc", "-o", "wide"],
        &["kubectl", "-n", NAMESPACE, "describe", "storecluster", "demo"],
        &["kubectl", "-n", NAMESPACE, "logs", "-l", "quorate.dev/cluster=demo", "--tail=20"],
        &[
            "kubectl",
            "-n",
            installation::NAMESPACE,
            "logs",
            "deployment/quorate-operator",
            "--tail=40",
        ],
    ];
    lines.into_iter().map(words).collect()
}

struct Teller<'a> {
    place: &'a Place,
    progress: Progress,
    chapter: usize,
}

impl Teller<'_> {
    fn kubernetes(&mut self) -> Result<()> {
        match self.place {
            Place::TestBed => {
                self.chapter("A real Kubernetes of three nodes, on this host");
                println!("$ cargo xtask cluster up");
                Cluster::up(&Options::default())?;
                HELM.ensure(&self.progress)?;
            }
            Place::Given { kubeconfig, .. } => {
                self.chapter(&format!("The Kubernetes of {}", kubeconfig.display()));
                HELM.ensure(&self.progress)?;
            }
        }
        ETCD.ensure(&self.progress)?;
        println!("$ export KUBECONFIG={}", self.place.kubeconfig().display());
        self.run(&["kubectl", "get", "nodes"])
    }

    fn images(&mut self) -> Result<Images> {
        self.chapter("The images of store and operator, from this tree");
        let images = Images::build(&self.progress)?;
        match self.place {
            Place::TestBed => {
                let bed = Cluster::existing()?;
                for image in images.all() {
                    bed.import_image(&image.archive)?;
                    println!("{} is on every node", image.name);
                }
            }
            Place::Given { images_loaded: true, .. } => println!("the nodes have them, you say"),
            Place::Given { images_loaded: false, .. } => self.load(&images)?,
        }
        Ok(images)
    }

    /// Hands the images to a cluster that runs in containers of this host; for another, says what to do.
    fn load(&self, images: &Images) -> Result<()> {
        let context = self.ask(&["kubectl", "config", "current-context"])?;
        let context = context.trim();
        for image in images.all() {
            let archive = image.archive.display().to_string();
            if let Some(name) = context.strip_prefix("kind-") {
                self.run(&["kind", "load", "image-archive", &archive, "--name", name])?;
            } else if let Some(name) = context.strip_prefix("k3d-") {
                self.run(&["k3d", "image", "import", &archive, "--cluster", name])?;
            } else {
                bail!(
                    "{context} is neither a kind nor a k3d cluster, and these images are in no \
                     registry. Hand both archives to its nodes, for instance by\n  \
                     ctr -n k8s.io images import {}\n  ctr -n k8s.io images import {}\non each \
                     node, and start again with --images-loaded",
                    images.store.archive.display(),
                    images.operator.archive.display()
                );
            }
        }
        Ok(())
    }

    fn operator(&mut self, images: &Images) -> Result<()> {
        self.chapter("The operator, by its chart");
        self.run_words(&installation::crds())?;
        self.run_words(&installation::helm(images))?;
        self.run(&["kubectl", "-n", installation::NAMESPACE, "get", "pods"])
    }

    fn store(&mut self) -> Result<()> {
        self.chapter("A store of three members, from four lines");
        self.run(&["kubectl", "delete", "namespace", NAMESPACE, "--ignore-not-found"])?;
        self.run(&["kubectl", "create", "namespace", NAMESPACE])?;
        println!("$ kubectl -n {NAMESPACE} apply -f - <<EOF\n{MANIFEST}EOF");
        let apply = words(&["kubectl", "-n", NAMESPACE, "apply", "-f", "-"]);
        print!("{}", command::output_with_input(&mut self.place.command(&apply), MANIFEST)?);
        self.wait("condition=Available")?;
        self.show_members_until("3/3", FORMED.as_secs())?;
        self.run(&["kubectl", "-n", NAMESPACE, "get", "storecluster,pods,pvc"])
    }

    fn key(&mut self) -> Result<()> {
        self.chapter("A key goes in, by stock etcdctl");
        self.etcdctl(&["put", "greeting", "hello from before"])?;
        self.etcdctl(&["get", "greeting"])
    }

    fn leader_dies(&mut self) -> Result<()> {
        self.chapter("The leader dies, and the key is still there");
        let leader = self.leader()?;
        println!("(the leader is {leader})");
        let pod = format!("{leader}-0");
        self.run(&[
            "kubectl",
            "-n",
            NAMESPACE,
            "delete",
            "pod",
            &pod,
            "--force",
            "--grace-period=0",
        ])?;
        let value = self.etcdctl_output(&["get", "greeting", "--print-value-only"])?;
        print!("{value}");
        ensure!(value.trim() == "hello from before", "the key is lost: etcdctl printed {value:?}");
        self.etcdctl(&["put", "epitaph", &format!("{leader} led well")])?;
        let heir = wait::until(&self.progress, "another leader", HEALED, || {
            let heir = self.leader()?;
            Ok(if heir.is_empty() || heir == leader { Err(format!("{heir:?}")) } else { Ok(heir) })
        })?;
        println!("({heir} leads now; {leader} comes back)");
        self.show_members_until("3/3", HEALED.as_secs())?;
        self.run(&["kubectl", "-n", NAMESPACE, "get", "storecluster"])
    }

    fn grow(&mut self) -> Result<()> {
        self.chapter("From three to five: each a learner first, then a voter");
        self.run(&["kubectl", "-n", NAMESPACE, "scale", "storecluster/demo", "--replicas=5"])?;
        self.show_members_until("5/5", SCALED.as_secs())?;
        self.etcdctl(&["get", "greeting"])
    }

    fn shrink(&mut self) -> Result<()> {
        self.chapter("From five to three");
        self.run(&["kubectl", "-n", NAMESPACE, "scale", "storecluster/demo", "--replicas=3"])?;
        self.show_members_until("3/3", SCALED.as_secs())?;
        self.etcdctl(&["get", "greeting"])?;
        self.etcdctl(&["get", "epitaph"])
    }

    fn end(&mut self) -> Result<()> {
        self.chapter("The end");
        let events = [
            "-n",
            NAMESPACE,
            "get",
            "events",
            "--field-selector",
            "involvedObject.kind=StoreCluster",
        ];
        let events: Vec<&str> = ["kubectl"].into_iter().chain(events).collect();
        self.run(&events)?;
        self.run(&["kubectl", "-n", NAMESPACE, "get", "storecluster"])?;
        println!(
            "\nThe whole story took {:.0} s. Look around; to clean up:",
            self.progress.elapsed().as_secs_f64()
        );
        match self.place {
            Place::TestBed => println!("  cargo xtask cluster down"),
            Place::Given { .. } => println!(
                "  kubectl delete namespace {NAMESPACE}\n  helm uninstall {} -n {}\n  kubectl delete -f crds/",
                installation::RELEASE,
                installation::NAMESPACE
            ),
        }
        Ok(())
    }

    fn chapter(&mut self, title: &str) {
        self.chapter += 1;
        println!("\n== {}. {title}", self.chapter);
    }

    fn leader(&self) -> Result<String> {
        let path = "jsonpath={.status.leader}";
        self.ask(&["kubectl", "-n", NAMESPACE, "get", "storecluster", "demo", "-o", path])
    }

    fn wait(&self, what: &str) -> Result<()> {
        let (what, timeout) = (format!("--for={what}"), format!("--timeout={}s", FORMED.as_secs()));
        self.run(&["kubectl", "-n", NAMESPACE, "wait", "storecluster/demo", &what, &timeout])
    }

    /// Shows the members whenever they change, until all are there and ready.
    fn show_members_until(&self, ready: &str, seconds: u64) -> Result<()> {
        let path = "jsonpath={.status.ready} {.status.leader}:\
                    {range .status.members[*]} {.name}={.role}{end}\
                    {\" \"}{.status.operation.kind}{\"\\n\"}";
        let line = ["kubectl", "-n", NAMESPACE, "get", "storecluster", "demo", "-o", path];
        println!("$ {}     (whenever it changes)", shown(&words(&line)));
        let mut told = String::new();
        let deadline = Duration::from_secs(seconds);
        wait::until(&self.progress, &format!("{ready} ready"), deadline, || {
            let row = self.ask(&line)?;
            if row != told {
                print!("[{:5.1} s] {row}", self.progress.elapsed().as_secs_f64());
                told.clone_from(&row);
            }
            let whole = row.starts_with(&format!("{ready} "));
            let under_way = row.ends_with("Join\n") || row.ends_with("Leave\n");
            Ok(if whole && !under_way { Ok(()) } else { Err(row.trim().to_owned()) })
        })?;
        // Ready pods and a finished operation: the operator itself says so a moment later.
        let settled = "--for=condition=Progressing=false";
        let timeout = format!("--timeout={}s", TOLD.as_secs());
        self.run(&["kubectl", "-n", NAMESPACE, "wait", "storecluster/demo", settled, &timeout])
    }

    fn etcdctl(&self, arguments: &[&str]) -> Result<()> {
        print!("{}", self.etcdctl_output(arguments)?);
        Ok(())
    }

    /// Runs etcdctl against the client Service.
    fn etcdctl_output(&self, arguments: &[&str]) -> Result<String> {
        let door = self.door()?;
        let mut line = words(&["etcdctl", "--endpoints", &door.endpoint]);
        line.extend(words(arguments));
        println!("$ {}", shown(&line));
        command::output(&mut self.place.command(&line))
    }

    /// A way to the client Service from this host. On the test bed its address is reached as it is.
    fn door(&self) -> Result<Door> {
        let service = ["kubectl", "-n", NAMESPACE, "get", "service", "demo-client", "-o"];
        if *self.place == Place::TestBed {
            let path = "jsonpath={.spec.clusterIP}";
            let line: Vec<&str> = service.into_iter().chain([path]).collect();
            let endpoint = format!("http://{}:2379", self.ask(&line)?.trim());
            return Ok(Door { endpoint, forwarder: None });
        }
        let line =
            words(&["kubectl", "-n", NAMESPACE, "port-forward", "service/demo-client", ":2379"]);
        println!("$ {} &", shown(&line));
        let mut forwarder = self.place.command(&line);
        let mut forwarder =
            forwarder.stdout(Stdio::piped()).spawn().context("start kubectl port-forward")?;
        let words = forwarder.stdout.take().context("the pipe was asked for above")?;
        let mut door = Door { endpoint: String::new(), forwarder: Some(forwarder) };
        let mut first = String::new();
        BufReader::new(words).read_line(&mut first).context("read from kubectl port-forward")?;
        let address =
            first.strip_prefix("Forwarding from ").and_then(|rest| rest.split(' ').next());
        door.endpoint = format!(
            "http://{}",
            address.with_context(|| format!("kubectl port-forward said {first:?}"))?
        );
        Ok(door)
    }

    fn run(&self, line: &[&str]) -> Result<()> {
        self.run_words(&words(line))
    }

    /// Runs a command on this terminal, after having shown it.
    fn run_words(&self, line: &[String]) -> Result<()> {
        println!("$ {}", shown(line));
        let mut command = self.place.command(line);
        let status = command
            .status()
            .with_context(|| format!("start {}", program_file(&line[0]).display()))?;
        ensure!(status.success(), "`{}` ended with {status}", shown(line));
        Ok(())
    }

    fn ask(&self, line: &[&str]) -> Result<String> {
        command::output(&mut self.place.command(&words(line)))
    }
}

/// An endpoint for etcdctl, open as long as this lives.
struct Door {
    endpoint: String,
    forwarder: Option<Child>,
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(forwarder) = &mut self.forwarder {
            // It ends by nothing else; a failure means that it has ended.
            forwarder.kill().ok();
            forwarder.wait().ok();
        }
    }
}

/// A command line as a person would type it into a shell.
fn shown(line: &[String]) -> String {
    let plain = |word: &String| {
        let safe = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@%+".contains(c);
        if !word.is_empty() && word.chars().all(safe) { word.clone() } else { format!("'{word}'") }
    };
    line.iter().map(plain).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_typed() {
        let line = words(&["kubectl", "get", "-o", "jsonpath={.status.leader}", "a=b"]);
        assert_eq!(shown(&line), "kubectl get -o 'jsonpath={.status.leader}' a=b");
    }

    #[test]
    fn the_manifest_asks_for_the_version_that_the_images_carry() {
        assert!(MANIFEST.contains(&format!("version: \"{}\"", crate::images::VERSION)));
        assert_eq!(MANIFEST.lines().count(), 4);
    }
}
