//! Three members of one of the two servers: started by etcd's flags, watched, killed, started again, stopped.

use std::fmt;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::process::{Child, Command};
use tokio::time::sleep;

use crate::accounting::{Memory, Usage};
use crate::arguments::Plan;
use crate::client;
use crate::limits::{
    IDLE_SHARE, IDLE_WAIT_MAX, IDLE_WINDOW, MEMBERS, RESTART_MAX, SAMPLE_INTERVAL, START_MAX,
};

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Server {
    /// The yardstick.
    Etcd,
    /// Ours.
    Quorate,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Server::Etcd => "etcd",
            Server::Quorate => "quorate",
        })
    }
}

/// A command whose process the kernel kills when the thread that starts it ends, however that comes about.
pub(crate) fn bound_command(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// A running cluster. Dropping it kills its members and deletes their data.
#[derive(Debug)]
pub(crate) struct Cluster {
    program: PathBuf,
    directory: PathBuf,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    arguments: Vec<String>,
    log: PathBuf,
    client_port: u16,
    process: Child,
}

impl Cluster {
    /// Starts three members with empty directories and waits until each answers a linearizable read.
    pub(crate) async fn start(plan: &Plan, server: Server) -> Result<Cluster> {
        let directory = plan.directory.join(format!("bench-{server}"));
        if directory.exists() {
            fs::remove_dir_all(&directory)
                .with_context(|| format!("remove what an earlier run left: {directory:?}"))?;
        }
        fs::create_dir_all(&directory).with_context(|| format!("create {directory:?}"))?;
        // What the other server wrote goes to the disk now, and not while this one is measured.
        rustix::fs::sync();
        let program = match server {
            Server::Etcd => plan.etcd.clone(),
            Server::Quorate => plan.quorate.clone(),
        };
        let ports = free_ports(2 * MEMBERS)?;
        let mut cluster = Cluster { program, directory, members: Vec::new() };
        let started = Instant::now();
        for number in 0..MEMBERS {
            let arguments = arguments(&cluster.directory, number, &ports);
            let log = cluster.directory.join(format!("m{number}.log"));
            let process = spawn(&cluster.program, &arguments, &log)?;
            let client_port = ports[number];
            cluster.members.push(Member { arguments, log, client_port, process });
        }
        for member in &cluster.members {
            let first = client::first_read(member.client_port, started, START_MAX).await;
            first.with_context(|| format!("start {server}; its log is {:?}", member.log))?;
        }
        Ok(cluster)
    }

    /// The client ports, member by member.
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.members.iter().map(|member| member.client_port).collect()
    }

    fn pids(&self) -> Result<Vec<u32>> {
        let pid = |member: &Member| {
            let pid = member.process.id();
            pid.with_context(|| format!("a server ended by itself; its log: {:?}", member.log))
        };
        self.members.iter().map(pid).collect()
    }

    /// What all members have used since they started.
    pub(crate) fn usage(&self) -> Result<Usage> {
        Usage::of(&self.pids()?)
    }

    /// What the greatest member holds now.
    pub(crate) fn memory(&self) -> Result<Memory> {
        Memory::of(&self.pids()?)
    }

    /// Waits for something and meanwhile keeps the greatest memory of any member.
    pub(crate) async fn sampled<T>(
        &self,
        most: &mut Memory,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        tokio::pin!(work);
        let mut pace = tokio::time::interval(SAMPLE_INTERVAL);
        loop {
            tokio::select! {
                done = &mut work => {
                    most.raise(self.memory()?);
                    return done;
                }
                _ = pace.tick() => most.raise(self.memory()?),
            }
        }
    }

    /// Waits until the members do next to nothing, or have not come to rest in the time that they are given.
    pub(crate) async fn idle(&self) -> Result<()> {
        let started = Instant::now();
        let mut before = self.usage()?;
        while started.elapsed() < IDLE_WAIT_MAX {
            let window = Instant::now();
            sleep(IDLE_WINDOW).await;
            let now = self.usage()?;
            let share = now.since(&before).cpu / 1e6 / window.elapsed().as_secs_f64();
            if share < IDLE_SHARE {
                break;
            }
            before = now;
        }
        Ok(())
    }

    /// Kills a follower with SIGKILL, starts it again at once, and returns how long from there to its first linearizable
    /// read, and what it holds when it has come to rest. It must have at least `keys` keys then.
    pub(crate) async fn restart_follower(&mut self, keys: usize) -> Result<(Duration, Memory)> {
        let mut follower = None;
        for (number, port) in self.ports().into_iter().enumerate() {
            if !client::leads(port).await? {
                follower = Some(number);
            }
        }
        let number = follower.context("every member claims to lead")?;
        let member = &mut self.members[number];
        member.process.kill().await.context("kill a follower")?;
        let started = Instant::now();
        member.process = spawn(&self.program, &member.arguments, &member.log)?;
        let port = member.client_port;
        let took = client::first_read(port, started, RESTART_MAX).await;
        let took = took.with_context(|| format!("restart; the log is {:?}", member.log))?;
        let count = client::count(port).await?;
        if usize::try_from(count)? < keys {
            bail!("after the restart the member has {count} keys of {keys}");
        }
        self.idle().await?;
        let pid = self.members[number].process.id().context("the restarted member ended")?;
        Ok((took, Memory::of(&[pid])?))
    }

    /// Kills the members, waits for their end, and deletes their data.
    pub(crate) async fn stop(mut self) -> Result<()> {
        for member in &mut self.members {
            member.process.kill().await.context("stop a server")?;
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            // Fails only for one that has ended.
            member.process.start_kill().ok();
        }
        for number in 0..self.members.len() {
            // Logs stay for whoever wants to know why a run failed. A member that still writes may leave a file; the
            // next start removes it.
            fs::remove_dir_all(self.directory.join(format!("m{number}"))).ok();
        }
    }
}

fn spawn(program: &Path, arguments: &[String], log: &Path) -> Result<Child> {
    let log = File::options().create(true).append(true).open(log);
    let log = log.context("open the log of a server")?;
    let mut command = bound_command(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command.stdout(log.try_clone().context("open the log a second time")?).stderr(log);
    command.spawn().context("start a server by setpriv (Debian package util-linux)")
}

/// The same flags for both servers: names and addresses, and logs of errors only.
fn arguments(directory: &Path, number: usize, ports: &[u16]) -> Vec<String> {
    let peer = |number: usize| format!("http://127.0.0.1:{}", ports[MEMBERS + number]);
    let client = format!("http://127.0.0.1:{}", ports[number]);
    let all: Vec<String> = (0..MEMBERS).map(|n| format!("m{n}={}", peer(n))).collect();
    vec![
        format!("--name=m{number}"),
        format!("--data-dir={}", directory.join(format!("m{number}")).display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={}", peer(number)),
        format!("--initial-advertise-peer-urls={}", peer(number)),
        format!("--initial-cluster={}", all.join(",")),
        "--initial-cluster-token=quorate-bench".to_owned(),
        "--initial-cluster-state=new".to_owned(),
        "--log-level=error".to_owned(),
    ]
}

/// Ports of the loopback that nobody listens on; all are held while they are chosen, so that none comes twice.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let listeners: std::io::Result<Vec<TcpListener>> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    let listeners = listeners.context("find free ports")?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_distinct() {
        let mut ports = free_ports(2 * MEMBERS).unwrap();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 2 * MEMBERS);
    }

    #[test]
    fn members_differ_in_name_place_and_address_only() {
        let ports = [1, 2, 3, 11, 12, 13];
        let first = arguments(Path::new("/d"), 0, &ports);
        let last = arguments(Path::new("/d"), 2, &ports);
        let differ = first.iter().zip(&last).filter(|(a, b)| a != b).count();
        assert_eq!(differ, 6, "{first:?} {last:?}");
        assert!(first.iter().any(|flag| flag.ends_with("m2=http://127.0.0.1:13")), "{first:?}");
    }
}
