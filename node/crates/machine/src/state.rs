//! The small state: everything of the machine that is not a row.

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes};

use crate::{
    Alarm, AlarmAction, ClusterId, DecodeError, FEATURE_LEVEL_KNOWN, FeatureLevel, LeaseTime,
    Leases, Member, MemberId, Membership, NextCommand, NextReport, ReadPoint, Row,
    codec::{put_alarm, read_alarm, read_feature_level},
    digest::Digest,
    next_level::NextState,
    wire::{Reader, put_signed, put_varint},
};

/// The format of level 1.
const FORMAT: u8 = 1;

/// The revision of an empty store (etcd `mvcc/kvstore.go`).
const FIRST_REVISION: i64 = 1;

/// What [`State::compacted`] is while nothing was ever compacted (etcd `mvcc/kvstore.go`).
const NEVER_COMPACTED: i64 = -1;

/// What a cluster begins with, the same on each of its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Genesis {
    /// The cluster's id, as the shell computed it.
    pub cluster: ClusterId,
    /// Who forms it.
    pub members: Vec<Member>,
    /// The feature level it begins with: [`FEATURE_LEVEL_FORMED`](crate::FEATURE_LEVEL_FORMED).
    pub feature_level: FeatureLevel,
    /// The log index that stands for the formation: the first entry applied is the one after it.
    pub index: u64,
}

/// Everything of the machine that is not a row: small, in memory, stored as a whole beside the rows that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    cluster: ClusterId,
    applied: u64,
    feature_level: FeatureLevel,
    clock: LeaseTime,
    auth_revision: u64,
    revision: i64,
    compacted: i64,
    rows: Digest,
    alarms: BTreeSet<(Alarm, MemberId)>,
    leases: Leases,
    members: Membership,
    next: NextState,
}

impl State {
    /// The state of a cluster at its formation.
    #[must_use]
    pub fn of_genesis(genesis: Genesis) -> Self {
        let Genesis { cluster, members, feature_level, index } = genesis;
        Self {
            cluster,
            applied: index,
            feature_level,
            clock: LeaseTime::default(),
            auth_revision: 0,
            revision: FIRST_REVISION,
            compacted: NEVER_COMPACTED,
            rows: Digest::new(0),
            alarms: BTreeSet::new(),
            leases: Leases::default(),
            members: Membership::formed_of(members),
            next: NextState::default(),
        }
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The index of the last entry applied.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// The cluster's feature level.
    #[must_use]
    pub fn feature_level(&self) -> FeatureLevel {
        self.feature_level
    }

    /// The lease clock T: the highest stamp applied.
    #[must_use]
    pub fn clock(&self) -> LeaseTime {
        self.clock
    }

    /// The auth store's revision; 0 while authentication has never been set up.
    #[must_use]
    pub fn auth_revision(&self) -> u64 {
        self.auth_revision
    }

    /// The store's revision; 1 when empty.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// History below it is gone; −1 when nothing was ever compacted (etcd shows the same in HashKV).
    #[must_use]
    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// What a reader that begins now needs to know.
    #[must_use]
    pub fn read_point(&self) -> ReadPoint {
        ReadPoint { revision: self.revision, compacted: self.compacted }
    }

    /// The alarms that are on.
    pub fn alarms(&self) -> impl ExactSizeIterator<Item = (MemberId, Alarm)> {
        self.alarms.iter().map(|(alarm, member)| (*member, *alarm))
    }

    /// Whether an alarm is on for any member.
    #[must_use]
    pub fn has_alarm(&self, alarm: Alarm) -> bool {
        self.alarms.iter().any(|(on, _)| *on == alarm)
    }

    /// The leases.
    #[must_use]
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// The members.
    #[must_use]
    pub fn members(&self) -> &Membership {
        &self.members
    }

    /// What the next feature level keeps.
    #[must_use]
    pub fn next(&self) -> NextReport {
        self.next.report(self.revision)
    }

    pub(crate) fn apply_next(&mut self, command: NextCommand) {
        self.next.apply(command, self.applied, self.clock, self.revision);
    }

    pub(crate) fn leases_mut(&mut self) -> &mut Leases {
        &mut self.leases
    }

    pub(crate) fn members_mut(&mut self) -> &mut Membership {
        &mut self.members
    }

    /// An entry is applied after the one before it, and after no other.
    pub(crate) fn advance(&mut self, index: u64) {
        assert!(
            index == self.applied + 1,
            "INV-M2: apply goes entry by entry; {index} cannot follow {}",
            self.applied
        );
        self.applied = index;
    }

    /// The clock never goes back: an old leader's stamp may be behind.
    pub(crate) fn advance_clock(&mut self, stamp: LeaseTime) {
        self.clock = self.clock.max(stamp);
    }

    pub(crate) fn raise_feature_level(&mut self, level: FeatureLevel) {
        if self.members.all_know(level) {
            self.feature_level = self.feature_level.max(level);
        }
    }

    pub(crate) fn note_row(&mut self, row: &Row) {
        let Row { revision, key: _, kv, created: _, version: _, tombstone } = row;
        self.rows = self
            .rows
            .word(revision.main.cast_unsigned())
            .word(revision.sub.cast_unsigned() << 1 | u64::from(*tombstone))
            .bytes(&kv.0);
    }

    pub(crate) fn set_revision(&mut self, revision: i64) {
        assert!(
            revision == self.revision || revision == self.revision + 1,
            "INV-M1: the revision grows by one for each write that changes something"
        );
        self.revision = revision;
    }

    pub(crate) fn set_compacted(&mut self, revision: i64) {
        assert!(
            self.compacted < revision && revision <= self.revision,
            "INV-M1: compaction moves forward and stays within history"
        );
        self.compacted = revision;
    }

    /// Raises or clears, and gives the alarms touched (etcd `v3alarm/alarms.go`: an alarm that is on already is given as
    /// well).
    pub(crate) fn alarm(
        &mut self,
        action: AlarmAction,
        member: MemberId,
        alarm: Alarm,
    ) -> Vec<(MemberId, Alarm)> {
        match action {
            AlarmAction::Activate if alarm == Alarm::None => Vec::new(),
            AlarmAction::Activate => {
                self.alarms.insert((alarm, member));
                vec![(member, alarm)]
            }
            AlarmAction::Deactivate => {
                let all_members = member == MemberId::default();
                let all_alarms = alarm == Alarm::None;
                let meant = |(on, of): &(Alarm, MemberId)| {
                    (all_members || *of == member) && (all_alarms || *on == alarm)
                };
                let cleared: Vec<_> = self.alarms.iter().copied().filter(meant).collect();
                self.alarms.retain(|alarm| !meant(alarm));
                cleared.into_iter().map(|(alarm, member)| (member, alarm)).collect()
            }
        }
    }

    /// A hash of everything logical: equal on all members that have applied the same entries, also after a restart or an
    /// installed snapshot. Costs a few multiplications.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let Self {
            cluster,
            applied,
            feature_level,
            clock,
            auth_revision,
            revision,
            compacted,
            rows,
            alarms,
            leases,
            members,
            next,
        } = self;
        let mut digest = Digest::new(4)
            .word(cluster.0)
            .word(*applied)
            .word(feature_level.0.into())
            .word(clock.0)
            .word(*auth_revision)
            .word(revision.cast_unsigned())
            .word(compacted.cast_unsigned())
            .word(rows.value())
            .word(leases.digest())
            .word(members.digest());
        for (alarm, member) in alarms {
            digest = digest.word(alarm_number(*alarm)).word(member.0);
        }
        next.digest(digest).value()
    }

    /// Its bytes: format 1, or the next level's once that has rows.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let Self {
            cluster,
            applied,
            feature_level,
            clock,
            auth_revision,
            revision,
            compacted,
            rows,
            alarms: _,
            leases: _,
            members: _,
            next,
        } = self;
        let mut out = Vec::new();
        out.put_u8(next.format().unwrap_or(FORMAT));
        put_varint(&mut out, cluster.0);
        put_varint(&mut out, *applied);
        put_varint(&mut out, feature_level.0.into());
        put_varint(&mut out, clock.0);
        put_varint(&mut out, *auth_revision);
        put_signed(&mut out, *revision);
        put_signed(&mut out, *compacted);
        out.put_u64_le(rows.value());
        self.encode_tables(&mut out);
        next.encode(&mut out);
        Bytes::from(out)
    }

    /// Alarms, leases and members: what etcd keeps in buckets of their own.
    pub(crate) fn encode_tables(&self, out: &mut Vec<u8>) {
        put_varint(out, self.alarms.len() as u64);
        for (alarm, member) in &self.alarms {
            put_alarm(out, *alarm);
            put_varint(out, member.0);
        }
        self.leases.encode(out);
        self.members.encode(out);
    }

    /// Reads a state.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(state: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(state);
        let format = reader.byte()?;
        let has_next = NextState::is_in(format);
        if format != FORMAT && !has_next {
            return Err(DecodeError::UnknownFormat { what: "state", found: format });
        }
        let state = Self {
            cluster: ClusterId(reader.varint()?),
            applied: reader.varint()?,
            feature_level: read_feature_level(&mut reader)?,
            clock: LeaseTime(reader.varint()?),
            auth_revision: reader.varint()?,
            revision: reader.signed()?,
            compacted: reader.signed()?,
            rows: Digest::resume(u64::from_le_bytes(reader.fixed()?)),
            alarms: reader
                .list(|reader| Ok((read_alarm(reader)?, MemberId(reader.varint()?))))?
                .into_iter()
                .collect(),
            leases: Leases::decode(&mut reader)?,
            members: Membership::decode(&mut reader)?,
            next: if has_next { NextState::decode(&mut reader)? } else { NextState::default() },
        };
        reader.finish()?;
        state.check_known(FEATURE_LEVEL_KNOWN)?;
        Ok(state)
    }

    /// Whether a build that knows this level may go on from here: entries behind may hold anything up to the cluster's level.
    pub(crate) fn check_known(&self, known: FeatureLevel) -> Result<(), DecodeError> {
        if self.feature_level > known {
            let (level, known) = (self.feature_level.0, known.0);
            return Err(DecodeError::UnknownLevel { level, known });
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn rows_digest(&self) -> u64 {
        self.rows.value()
    }

    #[cfg(test)]
    pub(crate) fn set_auth_revision(&mut self, revision: u64) {
        self.auth_revision = revision;
    }
}

fn alarm_number(alarm: Alarm) -> u64 {
    match alarm {
        Alarm::None => 0,
        Alarm::NoSpace => 1,
        Alarm::Corrupt => 2,
    }
}
