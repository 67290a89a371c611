//! Stock etcdctl, run as a person runs it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use quorate_kubernetes::{Progress, command, wait};
use serde_json::Value;

use crate::{binary, limits};

/// etcdctl with the endpoints that it talks to.
#[derive(Clone, Debug)]
pub struct Etcdctl {
    program: PathBuf,
    endpoints: String,
}

impl Etcdctl {
    /// For these endpoints, separated by commas.
    ///
    /// # Errors
    /// etcdctl is not in the cache and cannot be built.
    pub fn new(endpoints: impl Into<String>) -> Result<Self> {
        Ok(Self { program: binary::etcd("etcdctl")?, endpoints: endpoints.into() })
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(format!("--endpoints={}", self.endpoints));
        command.arg(format!("--command-timeout={}", limits::COMMAND)).args(words);
        command
    }

    /// Its standard output.
    ///
    /// # Errors
    /// It ended with another code than 0.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        command::output(&mut self.command(words))
    }

    /// As [`Etcdctl::run`], with a text on standard input.
    ///
    /// # Errors
    /// It ended with another code than 0.
    pub fn run_with_input(&self, words: &[&str], input: &str) -> Result<String> {
        command::output_with_input(&mut self.command(words), input)
    }

    /// Its answer as JSON.
    ///
    /// # Errors
    /// It failed, or printed something else.
    pub fn json(&self, words: &[&str]) -> Result<Value> {
        let text = self.run(&[words, &["--write-out=json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("etcdctl {words:?} printed {text:?}"))
    }

    /// The last line of what it complains of; for a command that must fail.
    ///
    /// # Errors
    /// It did not fail.
    pub fn refused(&self, words: &[&str]) -> Result<String> {
        let result = self.command(words).stdin(Stdio::null()).output().context("start etcdctl")?;
        let said = String::from_utf8_lossy(&result.stderr).into_owned();
        ensure!(!result.status.success(), "etcdctl {words:?} must fail and did not");
        Ok(said.lines().last().unwrap_or_default().to_owned())
    }

    /// Starts one that goes on until it is dropped: a watch, a lease that is kept alive. What it says goes to a file.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self, words: &[&str], output: &Path) -> Result<Running> {
        let file = File::create(output).with_context(|| format!("create {}", output.display()))?;
        let mut command = self.command(words);
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().context("start etcdctl")?;
        Ok(Running { child, output: output.to_owned() })
    }
}

/// An etcdctl that runs beside the test.
#[derive(Debug)]
pub struct Running {
    child: Child,
    output: PathBuf,
}

impl Running {
    /// What it has said so far.
    #[must_use]
    pub fn text(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// Waits until what it said satisfies a condition, and returns it.
    ///
    /// # Errors
    /// It does not in time; the message has what it said.
    pub fn wait_text(
        &mut self,
        what: &str,
        deadline: Duration,
        enough: impl Fn(&str) -> bool,
    ) -> Result<String> {
        wait::until(&Progress::start(), what, deadline, || {
            let text = self.text();
            if enough(&text) {
                return Ok(Ok(text));
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("etcdctl ended with {status} and had said: {text}");
            }
            Ok(Err(format!("so far: {text}")))
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that it has ended.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
