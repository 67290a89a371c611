//! A Corrupt end and the start after it: the mark that is left, and the look at everything before it is taken away.
//!
//! ```text
//!   damage is met ─► end Corrupt, mark left ─► start with the mark ─► every row and the log are read ─┬─► whole: mark cleared, serve
//!                                                     ▲   before it answers or votes                  │
//!                                                     └───────────────────── end Corrupt ◄────────────┴─► damage
//! ```

use std::{
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Instant,
};

use quorate_storage::{
    corrupt_mark::{self, CORRUPT_NAME},
    directory::DirectoryError,
    disk::FileSystem,
    rows::{RowStore, Work},
};
use tracing::{error, info, warn};
use tracing_subscriber::fmt::{
    format::Writer,
    time::{FormatTime, SystemTime},
};

use crate::{
    fatal::{Fatal, Verdict, error_chain},
    limits,
};

/// Leaves the mark in the data directory if this end is Corrupt. If the disk refuses it or hangs, that is said, and the end stays
/// what it was.
pub fn leave_mark(data: &Path, fatal: &Fatal) {
    if fatal.verdict != Verdict::Corrupt {
        return;
    }
    let path = data.join(CORRUPT_NAME);
    let (done, left) = mpsc::sync_channel(1);
    let (directory, words) = (data.to_path_buf(), words(fatal));
    // A thread of its own: a disk that hangs must not keep the process from its end.
    let leaving = thread::Builder::new().name("corrupt-mark".into()).spawn(move || {
        done.send(corrupt_mark::leave(&FileSystem, &directory, &words)).ok();
    });
    let unmarked = match leaving.map(|_| left.recv_timeout(limits::CORRUPT_MARK_GRACE)) {
        Ok(Ok(Ok(true))) => {
            info!("{} is left: the next start reads everything first", path.display());
            return;
        }
        // Every start finds out by itself what is wrong with such a directory.
        Ok(Ok(Ok(false))) => return,
        Ok(Ok(Err(error))) => error_chain(&error),
        Ok(Err(_)) => "the disk does not answer".to_owned(),
        Err(error) => error.to_string(),
    };
    error!(
        "cannot leave {}: {unmarked}. A start may serve again until the damage is met once more: replace this member",
        path.display()
    );
}

/// What the mark says.
fn words(fatal: &Fatal) -> String {
    let mut when = String::new();
    if SystemTime.format_time(&mut Writer::new(&mut when)).is_err() {
        when.push_str("an unknown time");
    }
    format!(
        "At {when} this member ended {}:\n\n  {}\n\nAs long as this file is here, a start reads every row and the log before it answers \
         or votes. It ends again if any is damaged, and removes this file if all is whole. Do not remove it by hand.\n",
        fatal.verdict.name(),
        fatal.message
    )
}

/// The mark that an earlier process left, if there is one.
pub struct Mark {
    data: PathBuf,
}

impl Mark {
    /// Looks for the mark in an open data directory.
    ///
    /// # Errors
    /// The disk fails.
    pub fn find(data: &Path) -> Result<Option<Self>, DirectoryError> {
        let Some(words) = corrupt_mark::words(&FileSystem, data)? else { return Ok(None) };
        warn!(
            mark = words,
            "this member ended Corrupt; it reads everything before it takes part again"
        );
        Ok(Some(Self { data: data.to_path_buf() }))
    }

    /// Reads every row. The async thread is given back between two steps, so that SIGTERM is heard.
    ///
    /// # Errors
    /// Corrupt: a row is damaged, or cannot be read, which proves it no better.
    pub async fn scrub(&self, store: &RowStore) -> Result<(), Fatal> {
        let mut scrub = store.scrub();
        let (started, mut told) = (Instant::now(), Instant::now());
        loop {
            let step = scrub.step();
            let (bytes, total) = scrub.progress();
            match step {
                Ok(Work::Some) => {}
                Ok(Work::None) => {
                    let took_ms = started.elapsed().as_millis();
                    info!(bytes, took_ms, "every row is whole");
                    return Ok(());
                }
                Err(error) => return Err(Fatal::new(Verdict::Corrupt, error_chain(&error))),
            }
            if told.elapsed() >= limits::SCRUB_TOLD_EVERY {
                told = Instant::now();
                info!(bytes, total, "reading every row");
            }
            tokio::task::yield_now().await;
        }
    }

    /// Takes the mark away: rows, checkpoint and log were read to their ends.
    ///
    /// # Errors
    /// The disk fails.
    pub fn clear(self) -> Result<(), DirectoryError> {
        corrupt_mark::clear(&FileSystem, &self.data)?;
        info!("{} is removed: all is whole", self.data.join(CORRUPT_NAME).display());
        Ok(())
    }
}
