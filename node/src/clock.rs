//! The only reader of time in the member: ticks for consensus and apply.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

/// Milliseconds by the monotonic clock, since the first call in this process: the age of pins.
#[must_use]
pub fn now_ms() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Calls `on_tick(elapsed milliseconds since the call before)` every `interval` on a thread of its own, until
/// [`Ticker::stop`]. A late tick is not made up for: consensus counts ticks, and only the lease clock counts milliseconds.
pub struct Ticker {
    stop: Arc<(Mutex<bool>, Condvar)>,
    stopped: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Ticker {
    /// Starts ticking.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        interval: Duration,
        mut on_tick: impl FnMut(u64) + Send + 'static,
    ) -> std::io::Result<Self> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let stopped = Arc::new(AtomicBool::new(false));
        let (stop_seen, stopped_seen) = (stop.clone(), stopped.clone());
        let thread = thread::Builder::new().name("ticker".into()).spawn(move || {
            let mut last = Instant::now();
            let mut due = last + interval;
            loop {
                let now = Instant::now();
                if now < due {
                    let guard = stop_seen.0.lock().expect("nobody panics with it");
                    let waited =
                        stop_seen.1.wait_timeout(guard, due - now).expect("nobody panics with it");
                    drop(waited);
                    if stopped_seen.load(Ordering::Acquire) {
                        return;
                    }
                    continue;
                }
                let elapsed = now - last;
                last = now;
                due = (due + interval).max(now);
                on_tick(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
            }
        })?;
        Ok(Self { stop, stopped, thread: Some(thread) })
    }

    /// Ends the thread and waits for it.
    pub fn stop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the ticker does not panic");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn it_ticks_until_it_is_stopped() {
        let (ticks, seen) = mpsc::channel();
        let mut ticker = Ticker::start(Duration::from_millis(5), move |elapsed| {
            ticks.send(elapsed).ok();
        })
        .unwrap();
        for _ in 0..3 {
            seen.recv_timeout(Duration::from_secs(5)).expect("a tick");
        }
        ticker.stop();
        while seen.try_recv().is_ok() {}
        assert_eq!(
            seen.recv_timeout(Duration::from_secs(5)),
            Err(mpsc::RecvTimeoutError::Disconnected)
        );
    }
}
