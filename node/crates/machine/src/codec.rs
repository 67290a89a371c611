//! The encoding of an entry: format 1, written by hand so that it never changes meaning (INV-M3).
//!
//! ```text
//! offset  0         1                3              11            19          27
//!         format=1  feature_level    clock          member        life        sequence  user  auth_revision  command
//!         u8        u16 LE           u64 LE         u64 LE        u64 LE      varint    bytes varint         tag body
//!                   └── stamped by the accepting leader, in place ──┘
//! ```
//!
//! The two stamps lie at fixed places, since a leader stamps entries that another member encoded. A command is its tag and
//! then its fields in order; a list is its count and then its elements; bytes are their length and then themselves.
//! A command has no optional parts: what needs a further field is a further command, with a tag of its own.
//! Keys and values come out of [`Envelope::decode`] as slices of the entry.

use bytes::{BufMut, Bytes};

use crate::{
    Alarm, AlarmAction, Command, Compare, CompareTarget, DecodeError, DeleteRange, Envelope,
    FeatureLevel, Incarnation, KeyRange, LeaseId, LeaseTime, Member, MemberId, NextCommand,
    Operation, Put, Range, Relation, RequestId, SortOrder, SortTarget, Txn,
    limits::TXN_DEPTH_MAX,
    wire::{Reader, put_bytes, put_signed, put_texts, put_varint},
};

/// The only format so far.
const FORMAT: u8 = 1;
const LEVEL_AT: usize = 1;
const CLOCK_AT: usize = 3;
const REQUEST_AT: usize = 11;

/// Room for everything of a small entry but its keys and values.
const HEAD_BYTES: usize = 64;

/// Tags of commands. A number, once used, is never used for anything else.
mod tag {
    pub(super) const PUT: u64 = 1;
    pub(super) const DELETE_RANGE: u64 = 2;
    pub(super) const TXN: u64 = 3;
    pub(super) const COMPACT: u64 = 4;
    pub(super) const LEASE_GRANT: u64 = 5;
    pub(super) const LEASE_REVOKE: u64 = 6;
    pub(super) const LEASE_EXPIRE: u64 = 7;
    pub(super) const LEASE_RENEW: u64 = 8;
    pub(super) const ALARM: u64 = 9;
    pub(super) const MEMBER_ADD: u64 = 10;
    pub(super) const MEMBER_PROMOTE: u64 = 11;
    pub(super) const MEMBER_REMOVE: u64 = 12;
    pub(super) const MEMBER_UPDATE: u64 = 13;
    pub(super) const MEMBER_PUBLISH: u64 = 14;
    pub(super) const FEATURE_LEVEL: u64 = 15;
    pub(super) const CLOCK: u64 = 16;
}

impl Envelope {
    /// The entry's bytes.
    ///
    /// # Panics
    /// When transactions are nested beyond [`TXN_DEPTH_MAX`]: no client can send that, and no member could read it.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let Self { request, user, auth_revision, feature_level, clock, command } = self;
        let mut out = Vec::with_capacity(HEAD_BYTES + user.len() + payload_len(command));
        out.put_u8(FORMAT);
        out.put_u16_le(feature_level.0);
        out.put_u64_le(clock.0);
        out.put_u64_le(request.member.0);
        out.put_u64_le(request.life);
        put_varint(&mut out, request.sequence);
        put_bytes(&mut out, user);
        put_varint(&mut out, *auth_revision);
        put_command(&mut out, command);
        Bytes::from(out)
    }

    /// Reads an entry; keys, values and user are slices of it.
    ///
    /// # Errors
    /// See [`DecodeError`]; with [`DecodeError::is_unknown`] a newer build is needed.
    pub fn decode(entry: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(entry);
        let format = reader.byte()?;
        if format != FORMAT {
            return Err(DecodeError::UnknownFormat { what: "entry", found: format });
        }
        let feature_level = FeatureLevel(u16::from_le_bytes(reader.fixed()?));
        let clock = LeaseTime(u64::from_le_bytes(reader.fixed()?));
        let request = read_request(&mut reader)?;
        let user = reader.bytes()?;
        let auth_revision = reader.varint()?;
        let command = read_command(&mut reader)?;
        reader.finish()?;
        Ok(Self { request, user, auth_revision, feature_level, clock, command })
    }
}

/// Whose request an entry is, without reading the rest: how a member finds its own pending requests in the log.
///
/// # Errors
/// See [`DecodeError`].
pub fn request_id(entry: &Bytes) -> Result<RequestId, DecodeError> {
    let mut reader = Reader::new(entry);
    let format = reader.byte()?;
    if format != FORMAT {
        return Err(DecodeError::UnknownFormat { what: "entry", found: format });
    }
    reader.fixed::<{ REQUEST_AT - LEVEL_AT }>()?;
    read_request(&mut reader)
}

/// The entry with the accepting leader's stamps: the feature level that the command may rely on and the lease clock.
/// Copies only if the entry is shared.
///
/// # Errors
/// An entry too short to be one, or of another format.
pub fn stamp(
    entry: Bytes,
    feature_level: FeatureLevel,
    clock: LeaseTime,
) -> Result<Bytes, DecodeError> {
    match entry.first() {
        Some(&FORMAT) if entry.len() >= REQUEST_AT => {}
        Some(&FORMAT) | None => return Err(DecodeError::Truncated { offset: entry.len() }),
        Some(&found) => return Err(DecodeError::UnknownFormat { what: "entry", found }),
    }
    let mut entry = entry.try_into_mut().unwrap_or_else(|shared| shared[..].into());
    entry[LEVEL_AT..CLOCK_AT].copy_from_slice(&feature_level.0.to_le_bytes());
    entry[CLOCK_AT..REQUEST_AT].copy_from_slice(&clock.0.to_le_bytes());
    Ok(entry.freeze())
}

fn read_request(reader: &mut Reader<'_>) -> Result<RequestId, DecodeError> {
    Ok(RequestId {
        member: MemberId(u64::from_le_bytes(reader.fixed()?)),
        life: u64::from_le_bytes(reader.fixed()?),
        sequence: reader.varint()?,
    })
}

/// About how many bytes of keys and values a command carries, to reserve once.
fn payload_len(command: &Command) -> usize {
    match command {
        Command::Put(put) => put.key.len() + put.value.len(),
        Command::Txn(txn) => txn_payload_len(txn),
        Command::DeleteRange(_)
        | Command::Compact { .. }
        | Command::LeaseGrant { .. }
        | Command::LeaseRevoke { .. }
        | Command::LeaseExpire { .. }
        | Command::LeaseRenew { .. }
        | Command::Alarm { .. }
        | Command::MemberAdd(_)
        | Command::MemberPromote { .. }
        | Command::MemberRemove { .. }
        | Command::MemberUpdate { .. }
        | Command::MemberPublish { .. }
        | Command::FeatureLevel { .. }
        | Command::Clock
        | Command::Next(_) => 0,
    }
}

fn txn_payload_len(txn: &Txn) -> usize {
    let operations = txn.success.iter().chain(&txn.failure).map(|operation| match operation {
        Operation::Put(put) => HEAD_BYTES + put.key.len() + put.value.len(),
        Operation::Range(_) | Operation::DeleteRange(_) => HEAD_BYTES,
        Operation::Txn(txn) => txn_payload_len(txn),
    });
    txn.compare.len() * HEAD_BYTES + operations.sum::<usize>()
}

fn put_command(out: &mut Vec<u8>, command: &Command) {
    match command {
        Command::Put(put) => {
            put_varint(out, tag::PUT);
            put_put(out, put);
        }
        Command::DeleteRange(delete) => {
            put_varint(out, tag::DELETE_RANGE);
            put_delete_range(out, delete);
        }
        Command::Txn(txn) => {
            put_varint(out, tag::TXN);
            put_txn(out, txn, 1);
        }
        Command::Compact { revision } => put_numbered(out, tag::COMPACT, *revision),
        Command::LeaseGrant { id, ttl } => {
            put_numbered(out, tag::LEASE_GRANT, id.0);
            put_signed(out, *ttl);
        }
        Command::LeaseRevoke { id } => put_numbered(out, tag::LEASE_REVOKE, id.0),
        Command::LeaseExpire { ids } => put_lease_ids(out, tag::LEASE_EXPIRE, ids),
        Command::LeaseRenew { ids } => put_lease_ids(out, tag::LEASE_RENEW, ids),
        Command::Alarm { action, member, alarm } => {
            put_varint(out, tag::ALARM);
            out.put_u8(match action {
                AlarmAction::Activate => 0,
                AlarmAction::Deactivate => 1,
            });
            put_varint(out, member.0);
            put_alarm(out, *alarm);
        }
        Command::MemberAdd(member) => {
            put_varint(out, tag::MEMBER_ADD);
            put_member(out, member);
        }
        Command::MemberPromote { id } => put_of_member(out, tag::MEMBER_PROMOTE, *id),
        Command::MemberRemove { id } => put_of_member(out, tag::MEMBER_REMOVE, *id),
        Command::MemberUpdate { id, peer_urls } => {
            put_of_member(out, tag::MEMBER_UPDATE, *id);
            put_texts(out, peer_urls);
        }
        Command::MemberPublish { id, name, client_urls, incarnation, feature_level } => {
            put_of_member(out, tag::MEMBER_PUBLISH, *id);
            put_bytes(out, name.as_bytes());
            put_texts(out, client_urls);
            put_varint(out, incarnation.0);
            put_varint(out, feature_level.0.into());
        }
        Command::FeatureLevel { level } => {
            put_varint(out, tag::FEATURE_LEVEL);
            put_varint(out, level.0.into());
        }
        Command::Clock => put_varint(out, tag::CLOCK),
        Command::Next(next) => next.put(out),
    }
}

fn read_command(reader: &mut Reader<'_>) -> Result<Command, DecodeError> {
    Ok(match reader.varint()? {
        tag::PUT => Command::Put(read_put(reader)?),
        tag::DELETE_RANGE => Command::DeleteRange(read_delete_range(reader)?),
        tag::TXN => Command::Txn(read_txn(reader, 1)?),
        tag::COMPACT => Command::Compact { revision: reader.signed()? },
        tag::LEASE_GRANT => {
            Command::LeaseGrant { id: LeaseId(reader.signed()?), ttl: reader.signed()? }
        }
        tag::LEASE_REVOKE => Command::LeaseRevoke { id: LeaseId(reader.signed()?) },
        tag::LEASE_EXPIRE => Command::LeaseExpire { ids: read_lease_ids(reader)? },
        tag::LEASE_RENEW => Command::LeaseRenew { ids: read_lease_ids(reader)? },
        tag::ALARM => Command::Alarm {
            action: match reader.byte()? {
                0 => AlarmAction::Activate,
                1 => AlarmAction::Deactivate,
                tag => return unknown("alarm action", tag.into()),
            },
            member: MemberId(reader.varint()?),
            alarm: read_alarm(reader)?,
        },
        tag::MEMBER_ADD => Command::MemberAdd(read_member(reader)?),
        tag::MEMBER_PROMOTE => Command::MemberPromote { id: MemberId(reader.varint()?) },
        tag::MEMBER_REMOVE => Command::MemberRemove { id: MemberId(reader.varint()?) },
        tag::MEMBER_UPDATE => {
            Command::MemberUpdate { id: MemberId(reader.varint()?), peer_urls: reader.texts()? }
        }
        tag::MEMBER_PUBLISH => Command::MemberPublish {
            id: MemberId(reader.varint()?),
            name: reader.text()?,
            client_urls: reader.texts()?,
            incarnation: Incarnation(reader.varint()?),
            feature_level: read_feature_level(reader)?,
        },
        tag::FEATURE_LEVEL => Command::FeatureLevel { level: read_feature_level(reader)? },
        tag::CLOCK => Command::Clock,
        tag => Command::Next(NextCommand::read(tag, reader)?),
    })
}

fn unknown<T>(what: &'static str, tag: u64) -> Result<T, DecodeError> {
    Err(DecodeError::UnknownKind { what, tag })
}

fn put_numbered(out: &mut Vec<u8>, tag: u64, number: i64) {
    put_varint(out, tag);
    put_signed(out, number);
}

fn put_of_member(out: &mut Vec<u8>, tag: u64, id: MemberId) {
    put_varint(out, tag);
    put_varint(out, id.0);
}

fn put_lease_ids(out: &mut Vec<u8>, tag: u64, ids: &[LeaseId]) {
    put_varint(out, tag);
    put_varint(out, ids.len() as u64);
    for id in ids {
        put_signed(out, id.0);
    }
}

fn read_lease_ids(reader: &mut Reader<'_>) -> Result<Vec<LeaseId>, DecodeError> {
    reader.list(|reader| reader.signed().map(LeaseId))
}

pub(crate) fn read_feature_level(reader: &mut Reader<'_>) -> Result<FeatureLevel, DecodeError> {
    let found = reader.varint()?;
    u16::try_from(found)
        .map(FeatureLevel)
        .map_err(|_| DecodeError::OutOfRange { field: "feature level", found })
}

/// Up to eight booleans in a byte, the first in the lowest bit.
fn put_flags<const N: usize>(out: &mut Vec<u8>, flags: [bool; N]) {
    out.put_u8(
        flags.iter().enumerate().fold(0, |byte, (place, flag)| byte | u8::from(*flag) << place),
    );
}

fn read_flags<const N: usize>(
    reader: &mut Reader<'_>,
    what: &'static str,
) -> Result<[bool; N], DecodeError> {
    let byte = reader.byte()?;
    if u32::from(byte) >> N != 0 {
        return unknown(what, byte.into());
    }
    Ok(std::array::from_fn(|place| byte >> place & 1 == 1))
}

fn put_put(out: &mut Vec<u8>, put: &Put) {
    let Put { key, value, lease, prev_kv, ignore_value, ignore_lease } = put;
    put_bytes(out, key);
    put_bytes(out, value);
    put_signed(out, lease.0);
    put_flags(out, [*prev_kv, *ignore_value, *ignore_lease]);
}

fn read_put(reader: &mut Reader<'_>) -> Result<Put, DecodeError> {
    let key = reader.bytes()?;
    let value = reader.bytes()?;
    let lease = LeaseId(reader.signed()?);
    let [prev_kv, ignore_value, ignore_lease] = read_flags(reader, "put flags")?;
    Ok(Put { key, value, lease, prev_kv, ignore_value, ignore_lease })
}

fn put_delete_range(out: &mut Vec<u8>, delete: &DeleteRange) {
    let DeleteRange { range, prev_kv } = delete;
    put_key_range(out, range);
    put_flags(out, [*prev_kv]);
}

fn read_delete_range(reader: &mut Reader<'_>) -> Result<DeleteRange, DecodeError> {
    let range = read_key_range(reader)?;
    let [prev_kv] = read_flags(reader, "delete flags")?;
    Ok(DeleteRange { range, prev_kv })
}

fn put_key_range(out: &mut Vec<u8>, range: &KeyRange) {
    match range {
        KeyRange::Single(key) => {
            out.put_u8(0);
            put_bytes(out, key);
        }
        KeyRange::Interval(start, end) => {
            out.put_u8(1);
            put_bytes(out, start);
            put_bytes(out, end);
        }
        KeyRange::From(start) => {
            out.put_u8(2);
            put_bytes(out, start);
        }
    }
}

fn read_key_range(reader: &mut Reader<'_>) -> Result<KeyRange, DecodeError> {
    Ok(match reader.byte()? {
        0 => KeyRange::Single(reader.bytes()?),
        1 => KeyRange::Interval(reader.bytes()?, reader.bytes()?),
        2 => KeyRange::From(reader.bytes()?),
        tag => return unknown("key range", tag.into()),
    })
}

fn put_range(out: &mut Vec<u8>, range: &Range) {
    let Range {
        range,
        limit,
        revision,
        order,
        target,
        keys_only,
        count_only,
        min_mod_revision,
        max_mod_revision,
        min_create_revision,
        max_create_revision,
    } = range;
    put_key_range(out, range);
    put_signed(out, *limit);
    put_signed(out, *revision);
    out.put_u8(match order {
        SortOrder::None => 0,
        SortOrder::Ascend => 1,
        SortOrder::Descend => 2,
    });
    out.put_u8(match target {
        SortTarget::Key => 0,
        SortTarget::Version => 1,
        SortTarget::Create => 2,
        SortTarget::Mod => 3,
        SortTarget::Value => 4,
    });
    put_flags(out, [*keys_only, *count_only]);
    for bound in [min_mod_revision, max_mod_revision, min_create_revision, max_create_revision] {
        put_signed(out, *bound);
    }
}

fn read_range(reader: &mut Reader<'_>) -> Result<Range, DecodeError> {
    let range = read_key_range(reader)?;
    let limit = reader.signed()?;
    let revision = reader.signed()?;
    let order = match reader.byte()? {
        0 => SortOrder::None,
        1 => SortOrder::Ascend,
        2 => SortOrder::Descend,
        tag => return unknown("sort order", tag.into()),
    };
    let target = match reader.byte()? {
        0 => SortTarget::Key,
        1 => SortTarget::Version,
        2 => SortTarget::Create,
        3 => SortTarget::Mod,
        4 => SortTarget::Value,
        tag => return unknown("sort target", tag.into()),
    };
    let [keys_only, count_only] = read_flags(reader, "range flags")?;
    Ok(Range {
        range,
        limit,
        revision,
        order,
        target,
        keys_only,
        count_only,
        min_mod_revision: reader.signed()?,
        max_mod_revision: reader.signed()?,
        min_create_revision: reader.signed()?,
        max_create_revision: reader.signed()?,
    })
}

fn put_txn(out: &mut Vec<u8>, txn: &Txn, depth: usize) {
    assert!(depth <= TXN_DEPTH_MAX, "INV-M3: no entry is written that cannot be read back");
    let Txn { compare, success, failure } = txn;
    put_varint(out, compare.len() as u64);
    for compare in compare {
        put_compare(out, compare);
    }
    for branch in [success, failure] {
        put_varint(out, branch.len() as u64);
        for operation in branch {
            put_operation(out, operation, depth);
        }
    }
}

fn read_txn(reader: &mut Reader<'_>, depth: usize) -> Result<Txn, DecodeError> {
    if depth > TXN_DEPTH_MAX {
        return Err(DecodeError::TooDeep);
    }
    Ok(Txn {
        compare: reader.list(read_compare)?,
        success: reader.list(|reader| read_operation(reader, depth))?,
        failure: reader.list(|reader| read_operation(reader, depth))?,
    })
}

fn put_operation(out: &mut Vec<u8>, operation: &Operation, depth: usize) {
    match operation {
        Operation::Range(range) => {
            out.put_u8(0);
            put_range(out, range);
        }
        Operation::Put(put) => {
            out.put_u8(1);
            put_put(out, put);
        }
        Operation::DeleteRange(delete) => {
            out.put_u8(2);
            put_delete_range(out, delete);
        }
        Operation::Txn(txn) => {
            out.put_u8(3);
            put_txn(out, txn, depth + 1);
        }
    }
}

fn read_operation(reader: &mut Reader<'_>, depth: usize) -> Result<Operation, DecodeError> {
    Ok(match reader.byte()? {
        0 => Operation::Range(read_range(reader)?),
        1 => Operation::Put(read_put(reader)?),
        2 => Operation::DeleteRange(read_delete_range(reader)?),
        3 => Operation::Txn(read_txn(reader, depth + 1)?),
        tag => return unknown("operation", tag.into()),
    })
}

fn put_compare(out: &mut Vec<u8>, compare: &Compare) {
    let Compare { range, relation, target } = compare;
    put_key_range(out, range);
    out.put_u8(match relation {
        Relation::Equal => 0,
        Relation::Greater => 1,
        Relation::Less => 2,
        Relation::NotEqual => 3,
    });
    let (tag, number) = match target {
        CompareTarget::Version(number) => (0, *number),
        CompareTarget::CreateRevision(number) => (1, *number),
        CompareTarget::ModRevision(number) => (2, *number),
        CompareTarget::Value(value) => {
            out.put_u8(3);
            put_bytes(out, value);
            return;
        }
        CompareTarget::Lease(lease) => (4, lease.0),
    };
    out.put_u8(tag);
    put_signed(out, number);
}

fn read_compare(reader: &mut Reader<'_>) -> Result<Compare, DecodeError> {
    let range = read_key_range(reader)?;
    let relation = match reader.byte()? {
        0 => Relation::Equal,
        1 => Relation::Greater,
        2 => Relation::Less,
        3 => Relation::NotEqual,
        tag => return unknown("relation", tag.into()),
    };
    let target = match reader.byte()? {
        0 => CompareTarget::Version(reader.signed()?),
        1 => CompareTarget::CreateRevision(reader.signed()?),
        2 => CompareTarget::ModRevision(reader.signed()?),
        3 => CompareTarget::Value(reader.bytes()?),
        4 => CompareTarget::Lease(LeaseId(reader.signed()?)),
        tag => return unknown("compare target", tag.into()),
    };
    Ok(Compare { range, relation, target })
}

pub(crate) fn put_alarm(out: &mut Vec<u8>, alarm: Alarm) {
    out.put_u8(match alarm {
        Alarm::None => 0,
        Alarm::NoSpace => 1,
        Alarm::Corrupt => 2,
    });
}

pub(crate) fn read_alarm(reader: &mut Reader<'_>) -> Result<Alarm, DecodeError> {
    Ok(match reader.byte()? {
        0 => Alarm::None,
        1 => Alarm::NoSpace,
        2 => Alarm::Corrupt,
        tag => return unknown("alarm", tag.into()),
    })
}

pub(crate) fn put_member(out: &mut Vec<u8>, member: &Member) {
    let Member { id, name, peer_urls, client_urls, learner, incarnation, feature_level } = member;
    put_varint(out, id.0);
    put_bytes(out, name.as_bytes());
    put_texts(out, peer_urls);
    put_texts(out, client_urls);
    put_flags(out, [*learner]);
    put_varint(out, incarnation.0);
    put_varint(out, feature_level.0.into());
}

pub(crate) fn read_member(reader: &mut Reader<'_>) -> Result<Member, DecodeError> {
    let id = MemberId(reader.varint()?);
    let name = reader.text()?;
    let peer_urls = reader.texts()?;
    let client_urls = reader.texts()?;
    let [learner] = read_flags(reader, "member flags")?;
    let incarnation = Incarnation(reader.varint()?);
    let feature_level = read_feature_level(reader)?;
    Ok(Member { id, name, peer_urls, client_urls, learner, incarnation, feature_level })
}

#[cfg(test)]
mod tests;
