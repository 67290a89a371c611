//! Apply: a function of the state and the next entry, the same on every member (INV-M2).

use std::fmt;

use bytes::Bytes;

use crate::{
    Alarm, Applied, ClusterId, Command, DecodeError, Envelope, FEATURE_LEVEL_KNOWN, FeatureLevel,
    Genesis, LeaseId, LeaseTime, Leases, Membership, Outcome, RangeError, ReadFault, ReadPoint,
    Rejected, State, Store,
    txn::apply_txn,
    write::{Write, check_put},
};

/// Why apply cannot go on. The process stops: going on would make this member differ from the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fatal {
    /// The disk failed or its bytes are not what was written.
    ReadFault(ReadFault),
    /// The entry needs a newer build.
    Unknown {
        /// The entry's index.
        index: u64,
        /// What is not known.
        error: DecodeError,
    },
    /// The entry relies on a feature level that this build does not have.
    FeatureLevel {
        /// The entry's index.
        index: u64,
        /// The level it needs.
        level: FeatureLevel,
        /// The highest that is known here.
        known: FeatureLevel,
    },
    /// The entry's bytes are damaged.
    Undecodable {
        /// The entry's index.
        index: u64,
        /// How.
        error: DecodeError,
    },
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReadFault(_) => f.write_str("reading the rows failed while applying"),
            Self::Unknown { index, .. } => write!(
                f,
                "entry {index} was written by a newer build; this member stops rather than differ from the others: \
                 upgrade it"
            ),
            Self::FeatureLevel { index, level, known } => write!(
                f,
                "entry {index} needs feature level {}, this build has {}; this member stops rather than differ from \
                 the others: upgrade it",
                level.0, known.0
            ),
            Self::Undecodable { index, .. } => write!(
                f,
                "entry {index} is damaged although its checksum is right; replace this member, and report the entry"
            ),
        }
    }
}

impl std::error::Error for Fatal {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::ReadFault(fault) => Some(fault),
            Self::Unknown { error, .. } | Self::Undecodable { error, .. } => Some(error),
            Self::FeatureLevel { .. } => None,
        }
    }
}

/// Keys, leases, alarms and members of one cluster, on one member.
#[derive(Debug)]
pub struct Machine<S> {
    state: State,
    store: S,
    /// The highest feature level that this member knows.
    known: FeatureLevel,
}

/// A command's result and the events it made.
type Change = Result<Outcome, RangeError>;

impl<S: Store> Machine<S> {
    /// The machine of a cluster that is being formed, over an empty store.
    #[must_use]
    pub fn new(genesis: Genesis, store: S) -> Self {
        Self { state: State::of_genesis(genesis), store, known: FEATURE_LEVEL_KNOWN }
    }

    /// The machine as it was when [`Machine::encode_state`] was called, over the rows that belong to that moment.
    ///
    /// # Errors
    /// A state that cannot be read.
    pub fn restore(state: &Bytes, store: S) -> Result<Self, DecodeError> {
        Ok(Self { state: State::decode(state)?, store, known: FEATURE_LEVEL_KNOWN })
    }

    /// The same, behaving as a build that knows no more than this level (or, without the decoders, no less): members of different
    /// builds in one process, for tests and the simulator.
    ///
    /// # Errors
    /// The cluster's level is above it.
    pub fn knowing(self, known: FeatureLevel) -> Result<Self, DecodeError> {
        self.state.check_known(known)?;
        Ok(Self { known, ..self })
    }

    /// Applies the entry at `index`, the one after the last applied.
    ///
    /// # Errors
    /// See [`Fatal`]. The state is then undefined and must not be used or stored.
    ///
    /// # Panics
    /// If entries are left out or repeated (INV-M2).
    pub fn apply(&mut self, index: u64, entry: &Bytes) -> Result<Applied, Fatal> {
        let envelope = Envelope::decode(entry).map_err(|error| match error.is_unknown() {
            true => Fatal::Unknown { index, error },
            false => Fatal::Undecodable { index, error },
        })?;
        self.apply_envelope(index, &envelope)
    }

    /// As [`Machine::apply`], for a caller that has decoded the entry already.
    ///
    /// # Errors
    /// As [`Machine::apply`].
    ///
    /// # Panics
    /// As [`Machine::apply`].
    pub fn apply_envelope(&mut self, index: u64, envelope: &Envelope) -> Result<Applied, Fatal> {
        let Envelope { request, user: _, auth_revision, feature_level, clock, command } = envelope;
        self.check_known(index, command.needs().max(*feature_level))?;
        self.state.advance(index);
        self.state.advance_clock(*clock);
        let mut events = Vec::new();
        let result = match self.admit(command, *auth_revision) {
            Ok(()) => self.change(command, &mut events),
            Err(rejected) => Err(rejected.into()),
        };
        let result = match result {
            Ok(outcome) => Ok(outcome),
            Err(RangeError::Rejected(rejected)) => Err(rejected),
            Err(RangeError::Fault(fault)) => return Err(Fatal::ReadFault(fault)),
        };
        assert!(result.is_ok() || events.is_empty(), "INV-M2: what is refused has changed nothing");
        // This member may have told of a level that it no longer knows: an older build was put in its place.
        self.check_known(index, self.state.feature_level())?;
        Ok(Applied { request: *request, revision: self.state.revision(), result, events })
    }

    fn check_known(&self, index: u64, level: FeatureLevel) -> Result<(), Fatal> {
        let known = self.known;
        if level > known { Err(Fatal::FeatureLevel { index, level, known }) } else { Ok(()) }
    }

    /// Applies an entry without a payload: a leader's first of its term.
    ///
    /// # Panics
    /// As [`Machine::apply`].
    pub fn apply_empty(&mut self, index: u64) {
        self.state.advance(index);
    }

    /// The state to store beside the rows, for [`Machine::restore`].
    #[must_use]
    pub fn encode_state(&self) -> Bytes {
        self.state.encode()
    }

    /// A hash of everything logical; see [`State::digest`].
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.state.digest()
    }

    /// The small state.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The rows.
    #[must_use]
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The rows, for their upkeep: syncing, checkpoints, compaction steps. What readers see must not change by it.
    pub fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// The rows, given back.
    #[must_use]
    pub fn into_store(self) -> S {
        self.store
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.state.cluster()
    }

    /// The index of the last entry applied.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.state.applied()
    }

    /// The store's revision; 1 when empty.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.state.revision()
    }

    /// History below it is gone; −1 when nothing was ever compacted.
    #[must_use]
    pub fn compacted(&self) -> i64 {
        self.state.compacted()
    }

    /// What a reader that begins now needs to know.
    #[must_use]
    pub fn read_point(&self) -> ReadPoint {
        self.state.read_point()
    }

    /// The lease clock T.
    #[must_use]
    pub fn clock(&self) -> LeaseTime {
        self.state.clock()
    }

    /// The cluster's feature level.
    #[must_use]
    pub fn feature_level(&self) -> FeatureLevel {
        self.state.feature_level()
    }

    /// The leases and their keys.
    #[must_use]
    pub fn leases(&self) -> &Leases {
        self.state.leases()
    }

    /// The members.
    #[must_use]
    pub fn members(&self) -> &Membership {
        self.state.members()
    }

    /// Whether a membership command would be accepted if it were applied now. Apply decides; this saves an entry.
    ///
    /// # Errors
    /// Why not.
    pub fn would_accept(&self, command: &Command) -> Result<(), Rejected> {
        self.state.members().would_accept(command)
    }

    /// Everything that can be checked without reading rows.
    ///
    /// # Panics
    /// If an invariant does not hold.
    pub fn check_invariants(&self) {
        self.state.leases().check_invariants();
        let (revision, compacted) = (self.state.revision(), self.state.compacted());
        assert!(1 <= revision, "INV-M1: an empty store is at revision 1");
        assert!(compacted <= revision, "INV-M1: only history is compacted");
    }

    /// What refuses a command whatever it says: the cluster's feature level, alarms, then the auth store's revision (etcd
    /// `apply/{corrupt,capped,apply_auth}.go`, in this order).
    fn admit(&self, command: &Command, auth_revision: u64) -> Result<(), Rejected> {
        if command.needs() > self.state.feature_level() {
            return Err(Rejected::FeatureLevel);
        }
        let gates = Gates::of(command);
        if gates.writes && self.state.has_alarm(Alarm::Corrupt) {
            return Err(Rejected::Corrupt);
        }
        if gates.takes_space && self.state.has_alarm(Alarm::NoSpace) {
            return Err(Rejected::NoSpace);
        }
        if gates.permitted && auth_revision < self.state.auth_revision() {
            return Err(Rejected::AuthRevisionOld);
        }
        Ok(())
    }

    fn change(&mut self, command: &Command, events: &mut Vec<crate::Event>) -> Change {
        match command {
            Command::Put(put) => {
                check_put(&self.state, &self.store, put, self.state.read_point())?;
                self.write(events, |write| Ok(Outcome::Put(write.put(put)?)))
            }
            Command::DeleteRange(delete) => {
                self.write(events, |write| Ok(Outcome::DeleteRange(write.delete_range(delete)?)))
            }
            Command::Txn(txn) => {
                self.write(events, |write| Ok(Outcome::Txn(apply_txn(write, txn)?)))
            }
            Command::Compact { revision } => self.compact(*revision),
            Command::LeaseGrant { id, ttl } => {
                let now = self.state.clock();
                self.state.leases_mut().grant(*id, *ttl, now)?;
                Ok(Outcome::LeaseGrant { id: *id, ttl: *ttl })
            }
            Command::LeaseRevoke { id } => {
                if !self.state.leases().contains(*id) {
                    return Err(Rejected::LeaseNotFound.into());
                }
                self.revoke(&[*id], events)
            }
            Command::LeaseExpire { ids } => {
                let due: Vec<LeaseId> = ids.iter().copied().filter(|id| self.is_due(*id)).collect();
                self.revoke(&due, events)
            }
            Command::LeaseRenew { ids } => Ok(self.renew(ids)),
            Command::Alarm { action, member, alarm } => {
                Ok(Outcome::Alarm(self.state.alarm(*action, *member, *alarm)))
            }
            Command::MemberAdd(_)
            | Command::MemberPromote { .. }
            | Command::MemberRemove { .. }
            | Command::MemberUpdate { .. }
            | Command::MemberPublish { .. } => self.change_members(command),
            Command::FeatureLevel { level } => {
                self.state.raise_feature_level(*level);
                Ok(Outcome::Done)
            }
            Command::Clock => Ok(Outcome::Done),
            Command::Next(next) => {
                self.state.apply_next(*next);
                Ok(Outcome::Done)
            }
        }
    }

    fn write(
        &mut self,
        events: &mut Vec<crate::Event>,
        work: impl FnOnce(&mut Write<'_, S>) -> Change,
    ) -> Change {
        let mut write = Write::new(&mut self.state, &mut self.store);
        let outcome = work(&mut write)?;
        *events = write.finish();
        Ok(outcome)
    }

    fn compact(&mut self, revision: i64) -> Change {
        if revision <= self.state.compacted() {
            return Err(Rejected::Compacted.into());
        }
        if revision > self.state.revision() {
            return Err(Rejected::FutureRevision.into());
        }
        self.state.set_compacted(revision);
        self.store.compact(revision);
        Ok(Outcome::Compact)
    }

    /// An old leader may have thought it due; by the clock of its own entry it must be.
    fn is_due(&self, id: LeaseId) -> bool {
        self.state.leases().get(id).is_some_and(|lease| lease.deadline <= self.state.clock())
    }

    /// All keys of all these leases go in one revision, lease by lease as named, each lease's keys in order.
    fn revoke(&mut self, ids: &[LeaseId], events: &mut Vec<crate::Event>) -> Change {
        self.write(events, |write| {
            for id in ids {
                if let Some(keys) = write.state.leases_mut().revoke(*id) {
                    write.delete_keys(keys)?;
                }
            }
            Ok(Outcome::LeaseRevoke)
        })
    }

    /// A lease that is overdue and not revoked yet lives again: it ends when its keys do, not before.
    fn renew(&mut self, ids: &[LeaseId]) -> Outcome {
        let now = self.state.clock();
        let leases = self.state.leases_mut();
        Outcome::LeaseRenew(
            ids.iter().map(|id| (*id, leases.renew(*id, now).unwrap_or(0))).collect(),
        )
    }

    fn change_members(&mut self, command: &Command) -> Change {
        let members = self.state.members_mut();
        match command {
            Command::MemberAdd(member) => members.add(member)?,
            Command::MemberPromote { id } => members.promote(*id)?,
            Command::MemberRemove { id } => members.remove(*id)?,
            Command::MemberUpdate { id, peer_urls } => members.update(*id, peer_urls)?,
            Command::MemberPublish { id, name, client_urls, incarnation, feature_level } => {
                members.publish(*id, name, client_urls, *incarnation, *feature_level)?;
                return Ok(Outcome::Done);
            }
            Command::Put(_)
            | Command::DeleteRange(_)
            | Command::Txn(_)
            | Command::Compact { .. }
            | Command::LeaseGrant { .. }
            | Command::LeaseRevoke { .. }
            | Command::LeaseExpire { .. }
            | Command::LeaseRenew { .. }
            | Command::Alarm { .. }
            | Command::FeatureLevel { .. }
            | Command::Clock
            | Command::Next(_) => unreachable!("`change` passes membership commands only"),
        }
        Ok(Outcome::Members(members.to_vec()))
    }
}

/// Which gates a command passes.
struct Gates {
    /// Refused while CORRUPT is on: what changes keys or leases (etcd `apply/corrupt.go`).
    writes: bool,
    /// Refused while NOSPACE is on (etcd `apply/capped.go`).
    takes_space: bool,
    /// Done for a user whose permissions were checked against the auth store.
    permitted: bool,
}

impl Gates {
    fn of(command: &Command) -> Self {
        let (writes, takes_space, permitted) = match command {
            Command::Put(_) | Command::LeaseGrant { .. } => (true, true, true),
            Command::Txn(txn) => (true, txn.has_puts(), true),
            Command::DeleteRange(_) | Command::Compact { .. } | Command::LeaseRevoke { .. } => {
                (true, false, true)
            }
            // Proposed by the leader itself. With etcd an expiry is a revocation, so CORRUPT stops it as well.
            Command::LeaseExpire { .. } => (true, false, false),
            Command::LeaseRenew { .. }
            | Command::Alarm { .. }
            | Command::MemberAdd(_)
            | Command::MemberPromote { .. }
            | Command::MemberRemove { .. }
            | Command::MemberUpdate { .. }
            | Command::MemberPublish { .. }
            | Command::FeatureLevel { .. }
            | Command::Clock
            | Command::Next(_) => (false, false, false),
        };
        Self { writes, takes_space, permitted }
    }
}

#[cfg(test)]
mod tests;
