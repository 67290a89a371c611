//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::limits::{HEARTBEAT, POLL_INTERVAL};
use crate::progress::Progress;

/// Looks at a condition again and again until it holds or the deadline passes.
///
/// `look` answers `Ok(Ok(value))` when the condition holds, `Ok(Err(why_not))` when it does not hold yet, and `Err` when
/// waiting longer makes no sense. A line is printed every twenty seconds, so that a long wait can be told from a hang.
///
/// # Errors
/// The deadline passed (the message says what was waited for, how long, and the last reason why not), or `look` failed.
pub fn until<T>(
    progress: &Progress,
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Result<Result<T, String>>,
) -> Result<T> {
    let started = Instant::now();
    let mut said = started;
    loop {
        let why_not = match look()? {
            Ok(value) => return Ok(value),
            Err(why_not) => why_not,
        };
        if started.elapsed() >= deadline {
            bail!("waited {} s for {what}, in vain: {why_not}", deadline.as_secs());
        }
        if said.elapsed() >= HEARTBEAT {
            progress.say(format!("still waiting for {what}: {why_not}"));
            said = Instant::now();
        }
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "the pause between two looks, here and nowhere else")]
fn pause() {
    std::thread::sleep(POLL_INTERVAL);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_the_value_once_the_condition_holds() {
        let mut looks = 0;
        let value = until(&Progress::start(), "the third look", Duration::from_secs(5), || {
            looks += 1;
            Ok(if looks == 3 { Ok("here") } else { Err("not yet".to_owned()) })
        });
        assert_eq!((value.unwrap(), looks), ("here", 3));
    }

    #[test]
    fn a_missed_deadline_names_the_thing_and_the_last_reason() {
        let error =
            until::<()>(&Progress::start(), "rain", Duration::ZERO, || Ok(Err("sun".into())));
        let text = error.unwrap_err().to_string();
        assert!(text.contains("rain") && text.contains("sun"), "{text}");
    }

    #[test]
    fn a_failed_look_ends_the_wait_at_once() {
        let error = until::<()>(&Progress::start(), "rain", Duration::from_secs(60), || {
            bail!("the window is bricked up")
        });
        assert_eq!(error.unwrap_err().to_string(), "the window is bricked up");
    }
}
