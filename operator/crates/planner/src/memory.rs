//! Memory: what the operator must remember between two plans, read from status and written back to
//! it.
//!
//! It is input of every plan and is written, with a resourceVersion precondition, before the act
//! that it announces. A crash between the writing and the act leaves an announcement that the next
//! plan carries out or takes back.

use crate::naming::{ClusterName, hex, parse_hex};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use quorate_crds::{
    FormationStatus, MemberRole, MemberStatus, OperationKind, OperationStatus, StoreClusterStatus,
};
use std::collections::BTreeMap;

/// The memory, typed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Memory {
    /// Which life of the cluster this is; part of the names of claims.
    pub(crate) incarnation: i64,
    /// Ordinal of the next member.
    pub(crate) next_ordinal: i32,
    /// The one formation.
    pub(crate) formation: Option<FormationStatus>,
    /// Id of the formed cluster; once set, nothing is formed again (INV-O5).
    pub(crate) cluster_id: Option<u64>,
    /// The membership change under way.
    pub(crate) operation: Option<OperationStatus>,
    /// Joiners in a row that were given up.
    pub(crate) joins_given_up: u32,
    /// Members by ordinal.
    pub(crate) members: BTreeMap<i32, MemberStatus>,
}

/// The memory in status cannot be read: what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable(pub(crate) String);

impl Memory {
    /// The memory of a cluster about which nothing is remembered.
    pub(crate) fn empty() -> Self {
        Self {
            incarnation: 1,
            next_ordinal: 0,
            formation: None,
            cluster_id: None,
            operation: None,
            joins_given_up: 0,
            members: BTreeMap::new(),
        }
    }

    /// Reads the memory.
    pub(crate) fn read(status: &StoreClusterStatus) -> Result<Self, Unreadable> {
        let cluster_id = match &status.cluster_id {
            None => None,
            Some(text) => Some(parse_hex(text).ok_or_else(|| {
                Unreadable(format!("status.clusterID {text:?} is not a hexadecimal number"))
            })?),
        };
        let mut members = BTreeMap::new();
        for member in &status.members {
            if member.id.as_deref().is_some_and(|id| parse_hex(id).is_none()) {
                return Err(Unreadable(format!(
                    "status.members: the id of {} is not hexadecimal",
                    member.name
                )));
            }
            if members.insert(member.ordinal, member.clone()).is_some() {
                return Err(Unreadable(format!(
                    "status.members lists ordinal {} twice",
                    member.ordinal
                )));
            }
        }
        if cluster_id.is_none() && status.formation.is_none() && !members.is_empty() {
            return Err(Unreadable(
                "status lists members but neither a formation nor a cluster id".to_owned(),
            ));
        }
        let past = members.keys().next_back().map_or(0, |last| last + 1);
        Ok(Self {
            incarnation: status.incarnation.unwrap_or(1),
            next_ordinal: status.next_ordinal.unwrap_or(0).max(past),
            formation: status.formation.clone(),
            cluster_id,
            operation: status.operation.clone(),
            joins_given_up: status.joins_given_up.map_or(0, |n| u32::try_from(n).unwrap_or(0)),
            members,
        })
    }

    /// Writes the memory over what a status remembered before.
    pub(crate) fn write(&self, status: &mut StoreClusterStatus) {
        let something = !self.is_empty();
        status.incarnation = something.then_some(self.incarnation);
        status.next_ordinal = something.then_some(self.next_ordinal);
        status.formation = self.formation.clone();
        status.cluster_id = self.cluster_id.map(hex);
        status.operation = self.operation.clone();
        let given_up = i32::try_from(self.joins_given_up).unwrap_or(i32::MAX);
        status.joins_given_up = (given_up > 0).then_some(given_up);
        status.members = self.members.values().cloned().collect();
    }

    /// Whether nothing is remembered: no formation was ever begun.
    pub(crate) fn is_empty(&self) -> bool {
        self.formation.is_none() && self.cluster_id.is_none() && self.members.is_empty()
    }

    /// Decides upon a new member: takes the next ordinal, for ever.
    pub(crate) fn reserve(&mut self, name: &ClusterName, now: Timestamp) -> i32 {
        let ordinal = self.next_ordinal;
        self.next_ordinal += 1;
        self.insert(name, ordinal, now);
        ordinal
    }

    /// Remembers a member of an ordinal that is in use.
    pub(crate) fn insert(&mut self, name: &ClusterName, ordinal: i32, now: Timestamp) {
        self.next_ordinal = self.next_ordinal.max(ordinal + 1);
        self.members.insert(
            ordinal,
            MemberStatus {
                ordinal,
                name: name.member(ordinal),
                id: None,
                role: MemberRole::Pending,
                claim: name.claim(ordinal, self.incarnation),
                claim_uid: None,
                node: None,
                endpoint: None,
                ready: false,
                health: None,
                lag: None,
                started: false,
                version: None,
                verdict: None,
                since: Time(now),
            },
        );
    }

    /// Announces a membership change.
    pub(crate) fn begin(&mut self, kind: OperationKind, ordinal: i32, now: Timestamp) {
        let same = self.operation.as_ref().is_some_and(|o| o.kind == kind && o.ordinal == ordinal);
        if !same {
            self.operation = Some(OperationStatus { kind, ordinal, since: Time(now) });
        }
    }

    /// Members that are or shall become part of the membership.
    pub(crate) fn counted(&self) -> usize {
        self.members.values().filter(|m| m.role != MemberRole::Removed).count()
    }

    /// Ordinals of the remembered voters.
    pub(crate) fn voters(&self) -> impl Iterator<Item = &MemberStatus> {
        self.members.values().filter(|m| m.role == MemberRole::Voter)
    }
}

/// The id of a remembered member. [`Memory::read`] has refused ids that are not numbers.
pub(crate) fn member_id(member: &MemberStatus) -> Option<u64> {
    member.id.as_deref().and_then(parse_hex)
}
