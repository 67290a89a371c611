//! Waiting for a condition inside a runtime, never for a time.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::time::MissedTickBehavior;

use crate::limits::{HEARTBEAT, POLL_INTERVAL};

/// Looks at a condition again and again until it holds or the deadline passes. `look` answers with
/// the value, or with why the condition does not hold yet.
///
/// # Errors
/// The deadline passed; the message says what was waited for, how long, and the last reason why not.
pub async fn until<T>(
    what: &str,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T> {
    let started = Instant::now();
    let mut said = started;
    let mut looks = tokio::time::interval(POLL_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let why_not = match look().await {
            Ok(value) => return Ok(value),
            Err(why_not) => why_not,
        };
        if started.elapsed() >= deadline {
            bail!("waited {} s for {what}, in vain: {why_not}", deadline.as_secs());
        }
        if said.elapsed() >= HEARTBEAT {
            println!("still waiting for {what}: {why_not}");
            said = Instant::now();
        }
    }
}

/// Looks at a condition again and again for a time, all of which it must hold: what a hasty operator would have broken by then.
///
/// # Errors
/// It did not hold; the message says what, when, and how it was broken.
pub async fn stays(
    what: &str,
    time: Duration,
    mut look: impl AsyncFnMut() -> Result<(), String>,
) -> Result<()> {
    let started = Instant::now();
    let mut looks = tokio::time::interval(POLL_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while started.elapsed() < time {
        looks.tick().await;
        if let Err(broken) = look().await {
            bail!("{what} ended after {:.1} s: {broken}", started.elapsed().as_secs_f64());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missed_deadline_names_the_thing_and_the_last_reason() {
        let rain = until::<()>("rain", Duration::ZERO, async || Err("sun".to_owned())).await;
        let text = rain.unwrap_err().to_string();
        assert!(text.contains("rain") && text.contains("sun"), "{text}");
    }

    #[tokio::test]
    async fn what_does_not_stay_is_told() {
        let mut looks = 0;
        let peace = stays("peace", Duration::from_secs(30), async || {
            looks += 1;
            if looks == 2 { Err("noise".to_owned()) } else { Ok(()) }
        });
        let text = peace.await.unwrap_err().to_string();
        assert!(text.contains("peace") && text.contains("noise"), "{text}");
    }

    #[tokio::test]
    async fn the_value_comes_back_once_the_condition_holds() {
        let mut looks = 0;
        let third = until("the third look", Duration::from_secs(30), async || {
            looks += 1;
            if looks == 3 { Ok("here") } else { Err("not yet".to_owned()) }
        });
        assert_eq!(third.await.unwrap(), "here");
        assert_eq!(looks, 3);
    }
}
