//! The six laws of watches, checked one watch at a time against what happened.
//!
//! *Ordered*: revisions rise. *Unique*: nothing is told twice. *Reliable*: nothing is left out. *Atomic*: all changes of a
//! revision come together. *Resumable*: a watch from any revision that is not compacted is told everything from there, whichever
//! member serves it. *Bookmarkable*: progress at R means that everything up to R was told before. And `prev_kv` is the pair before.

use super::{
    Violation,
    history::{ChangeLog, Selector},
    model::{Change, Model, Pair},
};

/// One change as a watch was told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchEvent {
    /// Its revision.
    pub revision: i64,
    /// Which key.
    pub key: Vec<u8>,
    /// What it is from now on; none = deleted.
    pub pair: Option<Pair>,
    /// The pair before, if that was told.
    pub prev: Option<Pair>,
}

/// One message to a watch, in the order in which they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// It stands.
    Created {
        /// The store's revision then.
        revision: i64,
    },
    /// Changes. A message that came in fragments is put together first.
    Events {
        /// In the order told.
        events: Vec<WatchEvent>,
        /// The highest revision that anybody had asked to compact to when they came: pairs before changes up to there may
        /// be missing.
        compacted: i64,
    },
    /// Everything up to here has been told.
    Progress {
        /// The revision.
        revision: i64,
    },
    /// It wanted history that is gone, and ended.
    Compacted {
        /// The compacted revision.
        compacted: i64,
    },
}

/// A watch and everything that it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Which one, for messages.
    pub name: String,
    /// Which keys.
    pub keys: Selector,
    /// From which revision on; 0 = from the one behind its creation.
    pub start: i64,
    /// Without puts.
    pub no_put: bool,
    /// Without deletions.
    pub no_delete: bool,
    /// With the pairs before.
    pub prev: bool,
    /// What it was told.
    pub notes: Vec<Note>,
    /// Set for a watch that was waited for: it must have been told everything up to here.
    pub must_reach: Option<i64>,
}

impl Watch {
    fn wants(&self, change: &Change) -> bool {
        let filtered = if change.pair.is_some() { self.no_put } else { self.no_delete };
        !filtered && self.keys.contains(&change.key)
    }

    /// The first revision that it was not told of, as far as it can know: where to resume.
    #[must_use]
    pub fn next(&self) -> i64 {
        let mut next = self.start;
        for note in &self.notes {
            next = match note {
                Note::Created { revision } if self.start == 0 => revision + 1,
                Note::Created { .. } | Note::Compacted { .. } => next,
                Note::Events { events, .. } => {
                    events.last().map_or(next, |event| next.max(event.revision + 1))
                }
                Note::Progress { revision } => next.max(revision + 1),
            };
        }
        next
    }
}

/// Checks one watch; `model` is the log replayed.
///
/// # Errors
/// The first law that is broken.
pub fn check_watch(watch: &Watch, log: &ChangeLog, model: &Model) -> Result<(), Violation> {
    let mut told = Told { watch, log, model, upto: watch.start - 1, created: false, over: false };
    for note in &watch.notes {
        told.note(note)?;
    }
    match watch.must_reach {
        Some(revision) if !told.over => told.nothing_missing(revision, "reliable"),
        Some(_) | None => Ok(()),
    }
}

struct Told<'a> {
    watch: &'a Watch,
    log: &'a ChangeLog,
    model: &'a Model,
    /// Everything that matters up to here has been told.
    upto: i64,
    created: bool,
    over: bool,
}

impl Told<'_> {
    fn broken(&self, law: &'static str, what: &str) -> Violation {
        Violation::new(law, format!("{what}; told up to {}: {:?}", self.upto, self.watch))
    }

    fn note(&mut self, note: &Note) -> Result<(), Violation> {
        if self.over {
            return Err(self.broken("watch: ordered", "something came after the end"));
        }
        if self.created == matches!(note, Note::Created { .. }) {
            return Err(self.broken("watch: ordered", "the creation comes first, and once"));
        }
        match note {
            Note::Created { revision } => {
                self.created = true;
                if self.watch.start == 0 {
                    self.upto = *revision;
                }
                Ok(())
            }
            Note::Events { events, compacted } => self.events(events, *compacted),
            Note::Progress { revision } => {
                self.nothing_missing(*revision, "watch: bookmarkable")?;
                self.upto = self.upto.max(*revision);
                Ok(())
            }
            Note::Compacted { compacted } => {
                self.over = true;
                if self.upto < *compacted {
                    return Ok(());
                }
                let what = format!("ended for a compaction at {compacted} that took nothing");
                Err(self.broken("watch: resumable", &what))
            }
        }
    }

    fn nothing_missing(&self, upto: i64, law: &'static str) -> Result<(), Violation> {
        for revision in self.upto + 1..=upto.min(self.log.last()) {
            let Some(made) = self.log.at(revision) else { continue };
            if made.changes.iter().any(|change| self.watch.wants(change)) {
                return Err(self.broken(law, &format!("revision {revision} was left out")));
            }
        }
        if upto > self.log.last() {
            return Err(self.broken(law, &format!("revision {upto} never was")));
        }
        Ok(())
    }

    fn events(&mut self, events: &[WatchEvent], compacted: i64) -> Result<(), Violation> {
        if events.is_empty() {
            return Err(self.broken("watch: ordered", "an empty delivery"));
        }
        let groups = events.chunk_by(|left, right| left.revision == right.revision);
        for group in groups {
            let revision = group[0].revision;
            if revision <= self.upto {
                let what = format!("revision {revision} came again, or too late");
                return Err(self.broken("watch: unique, ordered", &what));
            }
            self.nothing_missing(revision - 1, "watch: reliable")?;
            self.group(revision, group, compacted)?;
            self.upto = revision;
        }
        Ok(())
    }

    /// The events of one revision are exactly its changes that the watch wants.
    fn group(&self, revision: i64, group: &[WatchEvent], compacted: i64) -> Result<(), Violation> {
        let made = self.log.at(revision).map_or(&[][..], |made| &made.changes);
        let wanted: Vec<&Change> = made.iter().filter(|change| self.watch.wants(change)).collect();
        let as_told = |event: &WatchEvent, change: &Change| {
            event.key == change.key && event.pair == change.pair
        };
        let whole = wanted.len() == group.len()
            && group.iter().zip(&wanted).all(|(event, change)| as_told(event, change));
        if !whole {
            let what = format!("revision {revision} was told as {group:?}, it is {wanted:?}");
            return Err(self.broken("watch: atomic", &what));
        }
        for event in group {
            let before = self.model.get(&event.key, revision - 1);
            let right = match &event.prev {
                Some(prev) => self.watch.prev && before == Some(prev),
                None => !self.watch.prev || before.is_none() || revision <= compacted,
            };
            if !right {
                let what =
                    format!("before {event:?} the key was {before:?} (compacted {compacted})");
                return Err(self.broken("watch: prev_kv", &what));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "watch_laws_tests.rs"]
mod tests;
