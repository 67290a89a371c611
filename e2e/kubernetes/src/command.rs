//! Runs a foreign program to its end and turns a failure into a message that holds its last words.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};

use anyhow::{Context, Result, bail};

use crate::limits::{HEARTBEAT, LOG_TAIL_LINES};
use crate::progress::Progress;

/// The command as a person would type it, for messages.
#[must_use]
pub fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

/// Runs a command and returns what it printed on standard output.
///
/// # Errors
/// It could not be started, or ended with another code than 0; the message quotes its standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let said = describe(command);
    let result =
        command.stdin(Stdio::null()).output().with_context(|| format!("start `{said}`"))?;
    if !result.status.success() {
        let words = String::from_utf8_lossy(&result.stderr);
        bail!("`{said}` ended with {}: {}", result.status, last_lines(words.trim()));
    }
    Ok(String::from_utf8_lossy(&result.stdout).into_owned())
}

/// Runs a command with a text on its standard input and returns its standard output.
///
/// # Errors
/// As [`output`].
pub fn output_with_input(command: &mut Command, input: &str) -> Result<String> {
    let said = describe(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start `{said}`"))?;
    let mut pipe = child.stdin.take().expect("the pipe was asked for three lines above");
    // NB: written whole before anything is read. Good for manifests, which are shorter than a pipe's buffer is deep or
    // are read by kubectl to the end before it answers.
    let written = pipe.write_all(input.as_bytes());
    drop(pipe);
    let result = child.wait_with_output().with_context(|| format!("wait for `{said}`"))?;
    if !result.status.success() {
        let words = String::from_utf8_lossy(&result.stderr);
        bail!("`{said}` ended with {}: {}", result.status, last_lines(words.trim()));
    }
    written.with_context(|| format!("write to `{said}`"))?;
    Ok(String::from_utf8_lossy(&result.stdout).into_owned())
}

/// Whether a command ends well, whatever it says.
#[must_use]
pub fn succeeds(command: &mut Command) -> bool {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Runs a long command with its words going to a log file, and prints a line every twenty seconds until it ends: the
/// label, and the last thing that the command said.
///
/// # Errors
/// It could not be started, or ended with another code than 0; the message quotes the end of the log.
pub fn run_logged(
    command: &mut Command,
    log: &Path,
    label: &str,
    progress: &Progress,
) -> Result<()> {
    let status = status_logged(command, log, label, progress)?;
    if !status.success() {
        let said = describe(command);
        bail!("`{said}` ended with {status}. The end of {}:\n{}", log.display(), tail(log));
    }
    Ok(())
}

/// As [`run_logged`], for a caller that judges the end of the command itself.
///
/// # Errors
/// It could not be started.
pub fn status_logged(
    command: &mut Command,
    log: &Path,
    label: &str,
    progress: &Progress,
) -> Result<ExitStatus> {
    let said = describe(command);
    let file = File::create(log).with_context(|| format!("create log {}", log.display()))?;
    let errors = file.try_clone().context("open the log a second time")?;
    let child = command.stdin(Stdio::null()).stdout(file).stderr(errors).spawn();
    let mut child = child.with_context(|| format!("start `{said}`"))?;
    let (ended_tx, ended_rx) = mpsc::sync_channel(1);
    let waiter = std::thread::spawn(move || ended_tx.send(child.wait()));
    let status = loop {
        match ended_rx.recv_timeout(HEARTBEAT) {
            Ok(status) => break status.with_context(|| format!("wait for `{said}`"))?,
            Err(RecvTimeoutError::Timeout) => {
                let words = tail(log);
                progress.say(format!("{label}: {}", words.lines().last().unwrap_or("still quiet")));
            }
            Err(RecvTimeoutError::Disconnected) => bail!("lost sight of `{said}`"),
        }
    };
    drop(waiter.join());
    Ok(status)
}

/// The last lines of a log file, for an error message; an unreadable file gives its reason instead.
#[must_use]
pub fn tail(log: &Path) -> String {
    match fs::read(log) {
        Ok(bytes) => last_lines(String::from_utf8_lossy(&bytes).trim_end()),
        Err(error) => format!("({} cannot be read: {error})", log.display()),
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_quotes_the_last_words() {
        let error = output(Command::new("sh").args(["-c", "echo lost the key >&2; exit 3"]));
        let text = error.unwrap_err().to_string();
        assert!(text.contains("lost the key") && text.contains('3'), "{text}");
    }

    #[test]
    fn input_reaches_the_command() {
        assert_eq!(
            output_with_input(&mut Command::new("cat"), "one\ntwo\n").unwrap(),
            "one\ntwo\n"
        );
    }

    #[test]
    fn only_the_last_lines_are_quoted() {
        let text: Vec<String> = (0..40).map(|line| line.to_string()).collect();
        let quoted = last_lines(&text.join("\n"));
        assert_eq!(quoted.lines().count(), LOG_TAIL_LINES);
        assert!(quoted.ends_with("39"), "{quoted}");
    }
}
