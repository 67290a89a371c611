//! One member's data side: committed entries through the machine, answers for this member's clients, changes for its watches.

use std::sync::Arc;

use quorate_consensus::{Configuration, Entry, LogIndex, MemberId, Payload, Term};
use quorate_machine::{
    Applied, Compacted, Event, Fatal, LeaseId, LeaseTime, Machine, Member, Outcome, Store,
};

use crate::{limits::EXPIRED_LEASES_MAX, proposals::Sequence, replica::ApplyReport, watch::Now};

/// What a batch of entries did, in the order in which the shell must make it known: first flush the rows, then publish
/// `now`, then the replies, then the changes to the watches.
#[derive(Debug, Default)]
pub struct Batch {
    /// Answers to requests of this life of this member.
    pub replies: Vec<(Sequence, Applied)>,
    /// Changes, by revision in order; empty revisions are left out.
    pub changes: Vec<Vec<Event>>,
    /// Compactions, in order: the hash of what was there before each is due.
    pub compactions: Vec<Compacted>,
}

/// The data side of one member. Pure but for what its store does.
#[derive(Debug)]
pub struct Applier<S: Store> {
    id: MemberId,
    life: u64,
    machine: Machine<S>,
    applied: LogIndex,
    applied_term: Term,
    members: Arc<Vec<Member>>,
    void_changes: Vec<LogIndex>,
    /// Where the machine stood when it was made or last replaced: entries up to there are in it.
    installed: LogIndex,
}

impl<S: Store> Applier<S> {
    /// A machine as recovered, for this life of this member; `term` is that of the entry it stands at.
    #[must_use]
    pub fn new(id: MemberId, life: u64, machine: Machine<S>, term: Term) -> Self {
        Self {
            id,
            life,
            applied: LogIndex(machine.applied()),
            applied_term: term,
            members: Arc::new(machine.members().to_vec()),
            void_changes: Vec::new(),
            installed: LogIndex(machine.applied()),
            machine,
        }
    }

    /// A snapshot takes the machine's place; `term` is that of the entry it stands at.
    ///
    /// # Panics
    /// If it lies behind (INV-R1).
    pub fn install(&mut self, machine: Machine<S>, term: Term) {
        let index = LogIndex(machine.applied());
        assert!(
            index > self.applied,
            "INV-R1: a snapshot at {index} replaced a machine at {}",
            self.applied
        );
        *self = Self::new(self.id, self.life, machine, term);
    }

    /// Who votes and who learns, as applied: what a snapshot of now says of the configuration.
    #[must_use]
    pub fn configuration(&self) -> Configuration {
        configuration(self.members.iter())
    }

    /// Applies committed entries in order.
    ///
    /// # Errors
    /// A failed read, or an entry that this build cannot understand: both are fatal for the process.
    pub fn apply(&mut self, entries: Vec<Entry>) -> Result<Batch, Fatal> {
        let mut batch = Batch::default();
        for entry in entries {
            if entry.index <= self.installed {
                // Handed out before a snapshot was installed that includes it.
                continue;
            }
            assert!(
                entry.index == self.applied.next(),
                "INV-R1: entry {} was handed to apply after {}",
                entry.index,
                self.applied
            );
            self.apply_entry(&entry, &mut batch)?;
            self.applied = entry.index;
            self.applied_term = entry.term;
        }
        Ok(batch)
    }

    fn apply_entry(&mut self, entry: &Entry, batch: &mut Batch) -> Result<(), Fatal> {
        let previous = self.machine.compacted();
        let mut applied = match &entry.payload {
            Payload::Empty => {
                self.machine.apply_empty(entry.index.0);
                return Ok(());
            }
            Payload::Command(bytes) => self.machine.apply(entry.index.0, bytes)?,
            Payload::Change(_, bytes) => {
                let applied = self.machine.apply(entry.index.0, bytes)?;
                if applied.change_is_void() {
                    self.void_changes.push(entry.index);
                }
                applied
            }
        };
        // A publication answers `Done`; so do rare others, and comparing costs less than a copy.
        if matches!(applied.result, Ok(Outcome::Members(_) | Outcome::Done))
            && !self.machine.members().iter().eq(self.members.iter())
        {
            self.members = Arc::new(self.machine.members().to_vec());
        }
        let revision = self.machine.compacted();
        if revision != previous {
            batch.compactions.push(Compacted { previous, revision });
        }
        let events = std::mem::take(&mut applied.events);
        if !events.is_empty() {
            batch.changes.push(events);
        }
        if applied.request.member.0 == self.id.0 && applied.request.life == self.life {
            batch.replies.push((Sequence(applied.request.sequence), applied));
        }
        Ok(())
    }

    /// What the consensus side must know.
    #[must_use]
    pub fn report(&mut self) -> ApplyReport {
        ApplyReport {
            index: self.applied,
            clock: self.machine.clock(),
            leases: !self.machine.leases().is_empty(),
            feature_level: self.machine.feature_level(),
            next: self.machine.state().next(),
            members: self.members.clone(),
            void_changes: std::mem::take(&mut self.void_changes),
        }
    }

    /// Leases that are due at a clock, the longest overdue first; at most as many as one entry revokes.
    #[must_use]
    pub fn leases_due(&self, at: LeaseTime) -> Vec<LeaseId> {
        self.machine.leases().due(at, EXPIRED_LEASES_MAX)
    }

    /// The store as watches see it.
    #[must_use]
    pub fn now(&self) -> Now {
        Now { revision: self.machine.revision(), compacted: self.machine.compacted() }
    }

    /// The last applied index and its term.
    #[must_use]
    pub fn applied(&self) -> (LogIndex, Term) {
        (self.applied, self.applied_term)
    }

    /// All members; the same value until they change.
    #[must_use]
    pub fn members(&self) -> Arc<Vec<Member>> {
        self.members.clone()
    }

    /// The machine, to look at.
    #[must_use]
    pub fn machine(&self) -> &Machine<S> {
        &self.machine
    }

    /// The machine, for what is not apply: its store's background steps.
    pub fn machine_mut(&mut self) -> &mut Machine<S> {
        &mut self.machine
    }
}

/// Who votes and who learns, as consensus knows it, of the machine's members.
#[must_use]
pub fn configuration<'a>(members: impl Iterator<Item = &'a Member>) -> Configuration {
    let mut configuration = Configuration::default();
    for member in members {
        let id = MemberId(member.id.0);
        if member.learner {
            configuration.learners.insert(id);
        } else {
            configuration.voters.insert(id);
        }
    }
    configuration
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quorate_machine::{
        ClusterId, Command, Envelope, FeatureLevel, Genesis, ModelStore, Put, RequestId,
    };

    use super::*;

    fn entry(index: u64, command: Command) -> Entry {
        let envelope = Envelope::unstamped(RequestId::default(), command);
        let payload = Payload::Command(envelope.encode());
        Entry { index: LogIndex(index), term: Term(1), payload }
    }

    #[test]
    fn a_batch_tells_of_each_compaction_that_was_not_refused() {
        let genesis = Genesis {
            cluster: ClusterId(1),
            members: Vec::new(),
            feature_level: FeatureLevel(1),
            index: 1,
        };
        let machine = Machine::new(genesis, ModelStore::default());
        let mut applier = Applier::new(MemberId(1), 1, machine, Term(1));
        let put = || Command::Put(Put { key: Bytes::from_static(b"k"), ..Put::default() });
        let compact = |revision| Command::Compact { revision };
        let commands = [put(), put(), compact(3), compact(2), put(), compact(9), compact(4)];
        let entries = (2..).zip(commands).map(|(index, command)| entry(index, command)).collect();
        let batch = applier.apply(entries).unwrap();
        let told =
            [Compacted { previous: -1, revision: 3 }, Compacted { previous: 3, revision: 4 }];
        assert_eq!(batch.compactions, told);
        assert_eq!(batch.changes.len(), 3);
        let more = applier.apply(vec![entry(9, put())]).unwrap();
        assert!(more.compactions.is_empty());
    }
}
