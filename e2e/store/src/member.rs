//! One server process: started, asked, hurt and ended by its process id.

use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use quorate_kubernetes::{Progress, wait};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{http, limits};

/// A member: its flags, its files, and its process while there is one.
#[derive(Debug)]
pub struct Member {
    /// Its name, and the stem of its log's.
    pub name: String,
    /// Where it serves clients.
    pub client_port: u16,
    /// Where it serves peers.
    pub peer_port: u16,
    /// Its data directory.
    pub data: PathBuf,
    /// Everything that its processes ever said.
    pub log: PathBuf,
    /// The program.
    pub program: PathBuf,
    /// What it is started with.
    pub arguments: Vec<String>,
    pub(crate) process: Option<Child>,
}

impl Member {
    /// Its client URL.
    #[must_use]
    pub fn client_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.client_port)
    }

    /// Its peer URL.
    #[must_use]
    pub fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer_port)
    }

    /// Starts its process. It is killed when the thread that calls this ends, so that a test that is killed itself
    /// leaves no server behind.
    ///
    /// # Errors
    /// It runs already, or cannot be started.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "{} runs already", self.name);
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("open {}", self.log.display()))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(&self.program).args(&self.arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("start {}", self.name))?;
        self.process = Some(child);
        Ok(())
    }

    /// Whether its process is there. One that ended by itself is taken note of.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Waits until it may be sent clients. A process that ends meanwhile is an error at once.
    ///
    /// # Errors
    /// It ended, or is not ready in time; the message has the end of its log.
    pub fn wait_ready(&mut self) -> Result<()> {
        let what = format!("{} to be ready", self.name);
        wait::until(&Progress::start(), &what, limits::READY, || {
            if !self.is_running() {
                bail!("{} ended before it was ready:\n{}", self.name, self.log_tail());
            }
            Ok(match http::get(self.client_port, "/readyz") {
                Ok((200, _)) => Ok(()),
                Ok((code, body)) => Err(format!("{code} {body}")),
                Err(error) => Err(format!("{error:#}")),
            })
        })
    }

    /// Kills its process as a power cut would, and sees it gone.
    ///
    /// # Errors
    /// There was none, it had ended by itself before, or it would not go.
    pub fn kill(&mut self) -> Result<()> {
        ensure!(self.is_running(), "{} does not run, so it cannot be killed", self.name);
        let pid = self.signal(Signal::KILL)?;
        let status = self.wait_exit(limits::GONE)?;
        ensure!(status.code().is_none(), "{} ended by itself with {status}", self.name);
        ensure!(!pid_exists(pid), "process {pid} of {} was killed and is there", self.name);
        Ok(())
    }

    /// Asks it to stop (SIGTERM) and waits until it has.
    ///
    /// # Errors
    /// It does not run, or does not stop in time.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait_exit(limits::STOPPED)
    }

    /// Sends a signal to its process and returns the process id.
    ///
    /// # Errors
    /// There is no process.
    pub fn signal(&mut self, signal: Signal) -> Result<u32> {
        let child = self.process.as_ref().with_context(|| format!("{} does not run", self.name))?;
        let pid = Pid::from_child(child);
        kill_process(pid, signal).with_context(|| format!("send a signal to {}", self.name))?;
        Ok(child.id())
    }

    /// Waits until its process has ended, by itself or not.
    ///
    /// # Errors
    /// It goes on.
    pub fn wait_exit(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let name = &self.name;
        let child = self.process.as_mut().with_context(|| format!("{name} does not run"))?;
        let status = wait::until(&Progress::start(), &format!("{name} to end"), deadline, || {
            Ok(child.try_wait()?.ok_or_else(|| format!("process {} runs", child.id())))
        })?;
        self.process = None;
        Ok(status)
    }

    /// The termination message of the last process that ended by itself: its verdict, and what it says.
    ///
    /// # Errors
    /// There is none in its log.
    pub fn last_word(&self) -> Result<(String, String)> {
        let log = self.log_text();
        let mut words = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let word = words.rfind(|value| value.get("verdict").is_some());
        let word = word.with_context(|| format!("no termination message in {log}"))?;
        let text = |name: &str| word[name].as_str().map(str::to_owned);
        text("verdict").zip(text("message")).with_context(|| format!("{word} is none"))
    }

    /// Everything that its processes said.
    #[must_use]
    pub fn log_text(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The end of [`Member::log_text`].
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = self.log_text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(limits::LOG_TAIL_LINES)..].join("\n")
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(child) = &mut self.process {
            // An error means that it has ended.
            child.kill().ok();
            child.wait().ok();
        }
    }
}

fn pid_exists(pid: u32) -> bool {
    PathBuf::from(format!("/proc/{pid}")).exists()
}
