//! Several members on the loopback interface: formed by flags, cleaned up and judged by their logs when dropped.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use quorate_kubernetes::{Progress, wait};
use serde_json::Value;
use tempfile::TempDir;

use crate::etcdctl::Etcdctl;
use crate::member::Member;
use crate::{binary, limits, log, ports};

/// Whose server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// Ours.
    Quorate,
    /// The one that ours stands in for.
    Etcd,
}

/// Members that were formed together, and those that were added.
#[derive(Debug)]
pub struct Cluster {
    /// In the order of their making.
    pub members: Vec<Member>,
    server: Server,
    program: PathBuf,
    flags: Vec<String>,
    allowed: Vec<String>,
    /// Dropped last.
    directory: TempDir,
}

/// The names of the first members; those of later ones go on in the alphabet.
const NAMES: [&str; 9] = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];

/// What any cluster may say: members do not start at one moment, two cores carry all of them and whoever compiles, and the disk is
/// shared with others, so that a leader may be lost before all have published themselves.
const ALLOWED: [&str; 4] = [
    "cannot reach peer",
    "took too long",
    "the disk of the log takes longer than an election timeout",
    "cannot publish this member yet",
];

impl Cluster {
    /// Prepares a cluster of so many members with further flags for each, and starts nothing.
    ///
    /// # Errors
    /// The server does not compile, or no port is free.
    pub fn prepare(server: Server, size: usize, flags: &[&str]) -> Result<Self> {
        let program = match server {
            Server::Quorate => binary::quorate()?,
            Server::Etcd => binary::etcd("etcd")?,
        };
        let directory = TempDir::with_prefix("quorate-e2e-").context("make a directory")?;
        let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        let (members, allowed) = (Vec::new(), Vec::new());
        let mut cluster = Self { members, server, program, flags, allowed, directory };
        cluster.allow(&ALLOWED);
        for _ in 0..size {
            cluster.push_member()?;
        }
        let initial: Vec<String> = cluster
            .members
            .iter()
            .map(|member| format!("{}={}", member.name, member.peer_url()))
            .collect();
        let initial = format!("--initial-cluster={}", initial.join(","));
        for member in &mut cluster.members {
            member.arguments.push(initial.clone());
        }
        Ok(cluster)
    }

    /// Forms and starts a cluster, and waits until every member is ready.
    ///
    /// # Errors
    /// It does not come up; the message has the log of the member that did not.
    pub fn start(server: Server, size: usize, flags: &[&str]) -> Result<Self> {
        let mut cluster = Self::prepare(server, size, flags)?;
        for member in &mut cluster.members {
            member.start()?;
        }
        for member in &mut cluster.members {
            member.wait_ready()?;
        }
        Ok(cluster)
    }

    /// Allows log lines of level WARN or ERROR that contain a text.
    pub fn allow(&mut self, texts: &[&str]) {
        self.allowed.extend(texts.iter().map(|&text| text.to_owned()));
    }

    /// Where its files are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Makes one member more, with ports and a directory of its own. The caller completes its flags and starts it.
    ///
    /// # Errors
    /// No port is free.
    pub fn push_member(&mut self) -> Result<&mut Member> {
        let name = NAMES.get(self.members.len()).context("more members than names")?;
        let (client_port, peer_port) = (ports::free_port()?, ports::free_port()?);
        let (client, peer) =
            (format!("http://127.0.0.1:{client_port}"), format!("http://127.0.0.1:{peer_port}"));
        let data = self.directory.path().join(name);
        let mut arguments = vec![
            format!("--name={name}"),
            format!("--data-dir={}", data.display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
        ];
        arguments.extend(self.flags.iter().cloned());
        self.members.push(Member {
            name: (*name).to_owned(),
            client_port,
            peer_port,
            data,
            log: self.directory.path().join(format!("{name}.log")),
            program: self.program.clone(),
            arguments,
            process: None,
        });
        Ok(self.members.last_mut().expect("one was pushed above"))
    }

    /// The client URLs of all members.
    #[must_use]
    pub fn endpoints(&self) -> String {
        let urls: Vec<String> = self.members.iter().map(Member::client_url).collect();
        urls.join(",")
    }

    /// etcdctl that knows all members.
    ///
    /// # Errors
    /// It cannot be built.
    pub fn etcdctl(&self) -> Result<Etcdctl> {
        Etcdctl::new(self.endpoints())
    }

    /// etcdctl that knows one member.
    ///
    /// # Errors
    /// It cannot be built.
    pub fn etcdctl_of(&self, member: usize) -> Result<Etcdctl> {
        Etcdctl::new(self.members[member].client_url())
    }

    /// What a running member says of itself: the `Status` of `endpoint status`.
    ///
    /// # Errors
    /// It does not answer.
    pub fn status(&self, member: usize) -> Result<Value> {
        let answer = self.etcdctl_of(member)?.json(&["endpoint", "status"])?;
        Ok(answer[0]["Status"].clone())
    }

    /// The HashKV of every member at one revision that all of them have: leases end without being asked, so each member's own revision
    /// may be another.
    ///
    /// # Errors
    /// One does not answer.
    pub fn hashes(&self) -> Result<Vec<u64>> {
        let mut common = u64::MAX;
        for member in 0..self.members.len() {
            let revision = self.status(member)?["header"]["revision"].as_u64();
            common = common.min(revision.context("a status without a revision")?);
        }
        let words = ["endpoint", "hashkv", "--rev", &common.to_string()];
        let answer = self.etcdctl()?.json(&words)?;
        let hashes = answer.as_array().context("hashes are a list")?;
        let hash = |one: &Value| one["HashKV"]["hash"].as_u64().context("a hash is a number");
        hashes.iter().map(hash).collect()
    }

    /// The running member that leads, once all running members agree on it.
    ///
    /// # Errors
    /// They do not in time.
    pub fn leader(&mut self) -> Result<usize> {
        let running: Vec<usize> =
            (0..self.members.len()).filter(|&at| self.members[at].is_running()).collect();
        wait::until(&Progress::start(), "all members to know one leader", limits::SETTLED, || {
            let mut leaders = Vec::new();
            let mut ids = Vec::new();
            for &at in &running {
                match self.status(at) {
                    Ok(status) => {
                        leaders.push(status["leader"].as_u64().unwrap_or(0));
                        ids.push((status["header"]["member_id"].as_u64(), at));
                    }
                    Err(error) => return Ok(Err(format!("{error:#}"))),
                }
            }
            let agreed = leaders.windows(2).all(|pair| pair[0] == pair[1]);
            let place = ids.iter().find(|(id, _)| *id == leaders.first().copied());
            Ok(match place {
                Some(&(_, at)) if agreed => Ok(at),
                _ => Err(format!("they say {leaders:x?}")),
            })
        })
    }

    /// Waits until all running members have applied the same index.
    ///
    /// # Errors
    /// They do not in time.
    pub fn wait_level(&mut self) -> Result<()> {
        let running: Vec<usize> =
            (0..self.members.len()).filter(|&at| self.members[at].is_running()).collect();
        wait::until(&Progress::start(), "all members to be level", limits::SETTLED, || {
            let mut applied = Vec::new();
            for &at in &running {
                match self.status(at) {
                    Ok(status) => applied.push(status["raftAppliedIndex"].as_u64()),
                    Err(error) => return Ok(Err(format!("{error:#}"))),
                }
            }
            let level = applied.windows(2).all(|pair| pair[0] == pair[1]);
            Ok(if level { Ok(()) } else { Err(format!("they stand at {applied:?}")) })
        })
    }
}

impl Drop for Cluster {
    /// A failed test shows the logs; one that passed must have none to show.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for member in &self.members {
                println!("--- the end of the log of {}\n{}", member.name, member.log_tail());
            }
            return;
        }
        if self.server == Server::Etcd {
            return;
        }
        for member in &self.members {
            let complaints = log::complaints(&member.log_text(), &self.allowed);
            assert!(
                complaints.is_empty(),
                "{} complains of what this test did not expect:\n{}",
                member.name,
                complaints.join("\n")
            );
        }
    }
}
