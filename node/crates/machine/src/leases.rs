//! Leases and what is attached to them, by the replicated clock alone (design §3 Leases).

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use bytes::Bytes;

use crate::{
    DecodeError, LeaseId, LeaseTime, LeaseView, Rejected,
    digest::Digest,
    wire::{Reader, put_bytes, put_signed, put_varint},
};

const MILLIS_PER_SECOND: u64 = 1000;

/// All leases. INV-M4: a key is attached to a lease exactly if the lease lists the key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leases {
    granted: BTreeMap<LeaseId, Lease>,
    attached: BTreeMap<Bytes, LeaseId>,
    by_deadline: BTreeSet<(LeaseTime, LeaseId)>,
    /// The sum of every lease's and attachment's hash: order does not matter, so it follows each change in one step.
    digest: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Lease {
    ttl: i64,
    deadline: LeaseTime,
    keys: BTreeSet<Bytes>,
}

impl Lease {
    fn digest(&self, id: LeaseId) -> u64 {
        Digest::new(1)
            .word(id.0.cast_unsigned())
            .word(self.ttl.cast_unsigned())
            .word(self.deadline.0)
            .value()
    }
}

fn attachment_digest(key: &[u8], id: LeaseId) -> u64 {
    Digest::new(2).word(id.0.cast_unsigned()).bytes(key).value()
}

/// Never overflows: etcd's longest TTL (9·10⁹ s) is far from the end of the clock, and beyond that a lease is for ever.
fn deadline(now: LeaseTime, ttl: i64) -> LeaseTime {
    let seconds = u64::try_from(ttl).unwrap_or(0);
    LeaseTime(now.0.saturating_add(seconds.saturating_mul(MILLIS_PER_SECOND)))
}

impl Leases {
    /// Whether there is such a lease.
    #[must_use]
    pub fn contains(&self, id: LeaseId) -> bool {
        self.granted.contains_key(&id)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.granted.len()
    }

    /// Whether there are none: then the clock need not be told to anybody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.granted.is_empty()
    }

    /// One lease.
    #[must_use]
    pub fn get(&self, id: LeaseId) -> Option<LeaseView> {
        self.granted.get(&id).map(|lease| view(id, lease))
    }

    /// All leases, the next to be due first (etcd lists them by expiry).
    pub fn iter(&self) -> impl Iterator<Item = LeaseView> {
        self.by_deadline.iter().map(|(_, id)| view(*id, &self.granted[id]))
    }

    /// The keys of a lease, in order; none if there is no such lease.
    pub fn keys(&self, id: LeaseId) -> impl Iterator<Item = &Bytes> {
        self.granted.get(&id).into_iter().flat_map(|lease| &lease.keys)
    }

    /// The lease that a key is attached to.
    #[must_use]
    pub fn of_key(&self, key: &[u8]) -> Option<LeaseId> {
        self.attached.get(key).copied()
    }

    /// The leases that are due at `now`, longest due first, at most so many: what the leader proposes to expire.
    #[must_use]
    pub fn due(&self, now: LeaseTime, leases_max: usize) -> Vec<LeaseId> {
        let until = (now, LeaseId(i64::MAX));
        let due = self.by_deadline.range((Bound::Unbounded, Bound::Included(until)));
        due.take(leases_max).map(|(_, id)| *id).collect()
    }

    /// When the next lease is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<LeaseTime> {
        self.by_deadline.first().map(|(deadline, _)| *deadline)
    }

    pub(crate) fn grant(&mut self, id: LeaseId, ttl: i64, now: LeaseTime) -> Result<(), Rejected> {
        if self.contains(id) {
            return Err(Rejected::LeaseExists);
        }
        self.insert(id, Lease { ttl, deadline: deadline(now, ttl), keys: BTreeSet::new() });
        Ok(())
    }

    /// Moves the deadline; the TTL in seconds, or none for an unknown lease.
    pub(crate) fn renew(&mut self, id: LeaseId, now: LeaseTime) -> Option<i64> {
        let lease = self.granted.get_mut(&id)?;
        self.digest = self.digest.wrapping_sub(lease.digest(id));
        self.by_deadline.remove(&(lease.deadline, id));
        lease.deadline = deadline(now, lease.ttl);
        self.by_deadline.insert((lease.deadline, id));
        self.digest = self.digest.wrapping_add(lease.digest(id));
        Some(lease.ttl)
    }

    /// Takes a lease away and gives the keys that were attached to it; none for an unknown lease.
    pub(crate) fn revoke(&mut self, id: LeaseId) -> Option<BTreeSet<Bytes>> {
        let lease = self.granted.remove(&id)?;
        self.by_deadline.remove(&(lease.deadline, id));
        self.digest = self.digest.wrapping_sub(lease.digest(id));
        for key in &lease.keys {
            let other = self.attached.remove(key);
            assert!(other == Some(id), "INV-M4: a key that a lease lists is attached to it");
            self.digest = self.digest.wrapping_sub(attachment_digest(key, id));
        }
        Some(lease.keys)
    }

    /// A put of `key` with `id`: attached to that lease from now on and to no other. With [`LeaseId::NONE`], or a lease
    /// that does not exist, to none.
    pub(crate) fn attach(&mut self, key: &[u8], id: LeaseId) {
        if self.of_key(key).is_some_and(|attached| attached == id) {
            return;
        }
        self.detach(key);
        if let Some(lease) = self.granted.get_mut(&id) {
            // A copy: a slice would keep the whole entry that it came in.
            let key = Bytes::copy_from_slice(key);
            lease.keys.insert(key.clone());
            self.digest = self.digest.wrapping_add(attachment_digest(&key, id));
            self.attached.insert(key, id);
        }
    }

    /// A deletion of `key`.
    pub(crate) fn detach(&mut self, key: &[u8]) {
        if let Some(id) = self.attached.remove(key) {
            let lease = self.granted.get_mut(&id);
            let listed = lease.is_some_and(|lease| lease.keys.remove(key));
            assert!(listed, "INV-M4: the lease that a key is attached to lists the key");
            self.digest = self.digest.wrapping_sub(attachment_digest(key, id));
        }
    }

    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    fn insert(&mut self, id: LeaseId, lease: Lease) {
        self.digest = self.digest.wrapping_add(lease.digest(id));
        self.by_deadline.insert((lease.deadline, id));
        for key in &lease.keys {
            self.digest = self.digest.wrapping_add(attachment_digest(key, id));
            self.attached.insert(key.clone(), id);
        }
        self.granted.insert(id, lease);
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.granted.len() as u64);
        for (id, lease) in &self.granted {
            put_signed(out, id.0);
            put_signed(out, lease.ttl);
            put_varint(out, lease.deadline.0);
            put_varint(out, lease.keys.len() as u64);
            for key in &lease.keys {
                put_bytes(out, key);
            }
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut leases = Self::default();
        let listed = reader.list(|reader| {
            let id = LeaseId(reader.signed()?);
            let ttl = reader.signed()?;
            let deadline = LeaseTime(reader.varint()?);
            let keys = reader.list(|reader| Ok(copy(&reader.bytes()?)))?;
            Ok((id, Lease { ttl, deadline, keys: keys.into_iter().collect() }))
        })?;
        for (id, lease) in listed {
            leases.insert(id, lease);
        }
        Ok(leases)
    }

    /// INV-M4 in both directions, and that nothing followed step by step has drifted.
    ///
    /// # Panics
    /// If it does not hold.
    pub fn check_invariants(&self) {
        let listed: BTreeMap<Bytes, LeaseId> = self
            .granted
            .iter()
            .flat_map(|(id, lease)| lease.keys.iter().map(|key| (key.clone(), *id)))
            .collect();
        assert!(listed == self.attached, "INV-M4: attachments and the leases' lists are the same");
        let mut again = Self::default();
        for (id, lease) in &self.granted {
            again.insert(*id, lease.clone());
        }
        assert!(*self == again, "INV-M2: deadlines and digest follow the leases");
    }
}

fn view(id: LeaseId, lease: &Lease) -> LeaseView {
    LeaseView { id, granted_ttl: lease.ttl, deadline: lease.deadline }
}

fn copy(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leases() -> Leases {
        let mut leases = Leases::default();
        leases.grant(LeaseId(7), 10, LeaseTime(500)).unwrap();
        leases.grant(LeaseId(3), 5, LeaseTime(500)).unwrap();
        leases
    }

    #[test]
    fn a_deadline_counts_from_the_clock_of_the_entry() {
        let mut leases = leases();
        assert_eq!(leases.next_deadline(), Some(LeaseTime(5_500)));
        assert_eq!(leases.due(LeaseTime(5_499), 10), []);
        assert_eq!(leases.due(LeaseTime(5_500), 10), [LeaseId(3)]);
        assert_eq!(leases.due(LeaseTime(10_500), 10), [LeaseId(3), LeaseId(7)]);
        assert_eq!(leases.due(LeaseTime(10_500), 1), [LeaseId(3)]);
        assert_eq!(leases.renew(LeaseId(3), LeaseTime(9_000)), Some(5));
        assert_eq!(leases.due(LeaseTime(10_500), 10), [LeaseId(7)]);
        assert_eq!(leases.renew(LeaseId(4), LeaseTime(9_000)), None);
        leases.check_invariants();
    }

    #[test]
    fn a_lease_without_end_does_not_overflow() {
        assert_eq!(deadline(LeaseTime(u64::MAX - 1), i64::MAX), LeaseTime(u64::MAX));
        assert_eq!(deadline(LeaseTime(9), -1), LeaseTime(9));
    }

    #[test]
    fn a_key_is_attached_to_its_last_lease_only() {
        let mut leases = leases();
        leases.attach(b"a", LeaseId(3));
        leases.attach(b"b", LeaseId(3));
        leases.attach(b"a", LeaseId(7));
        leases.attach(b"c", LeaseId(99));
        leases.check_invariants();
        assert_eq!(leases.of_key(b"a"), Some(LeaseId(7)));
        assert_eq!(leases.of_key(b"c"), None);
        assert_eq!(leases.keys(LeaseId(3)).collect::<Vec<_>>(), [&b"b"[..]]);
        leases.detach(b"b");
        leases.detach(b"b");
        leases.check_invariants();
        let keys = leases.revoke(LeaseId(7)).unwrap();
        assert_eq!(keys.into_iter().collect::<Vec<_>>(), [&b"a"[..]]);
        assert_eq!(leases.of_key(b"a"), None);
        assert_eq!(leases.revoke(LeaseId(7)), None);
        leases.check_invariants();
    }

    #[test]
    fn the_digest_forgets_what_was_undone() {
        let mut changed = leases();
        changed.attach(b"a", LeaseId(3));
        assert_ne!(changed.digest(), leases().digest());
        changed.detach(b"a");
        changed.grant(LeaseId(8), 2, LeaseTime(1)).unwrap();
        changed.revoke(LeaseId(8)).unwrap();
        assert_eq!(changed.digest(), leases().digest());
        changed.renew(LeaseId(3), LeaseTime(501)).unwrap();
        assert_ne!(changed.digest(), leases().digest());
    }
}
