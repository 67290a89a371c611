//! The store's side of the world: disks, processes, membership, leadership. Ground truth, with no
//! planner in it.

use crate::random::Random;
use std::collections::{BTreeMap, BTreeSet};

/// What a volume holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Disk {
    Empty,
    Data {
        cluster: u64,
        member: u64,
        token: String,
    },
    /// Data that are not what was written.
    Broken {
        cluster: u64,
        member: u64,
    },
}

/// One entry of the membership.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) peer_url: String,
    pub(crate) learner: bool,
    pub(crate) applied: u64,
}

/// The one cluster that may exist.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    pub(crate) cluster: Option<u64>,
    /// Token of the formation.
    pub(crate) token: String,
    /// Whether a member ever served; from then on nothing may be formed with that token.
    pub(crate) served: bool,
    pub(crate) entries: Vec<Entry>,
    pub(crate) removed: BTreeSet<u64>,
    pub(crate) leader: Option<u64>,
    pub(crate) term: u64,
    pub(crate) index: u64,
    /// Ids of members whose process runs.
    pub(crate) up: BTreeSet<u64>,
    next: u64,
    /// Members whose data differ, as the alarm CORRUPT has it.
    pub(crate) corrupt: BTreeSet<u64>,
    /// Learners that receive nothing.
    pub(crate) stuck: BTreeSet<u64>,
    /// Ids that ever had a vote, in the life of an earlier StoreCluster too.
    pub(crate) voted: BTreeSet<u64>,
    /// Joins that the store has received and not yet carried out.
    pub(crate) delayed: Vec<(usize, String)>,
}

impl Store {
    pub(crate) fn entry(&self, id: u64) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.id == id)
    }

    pub(crate) fn voters(&self) -> usize {
        self.entries.iter().filter(|entry| !entry.learner).count()
    }

    pub(crate) fn voters_up_without(&self, id: Option<u64>) -> usize {
        let counts = |e: &&Entry| !e.learner && self.up.contains(&e.id) && Some(e.id) != id;
        self.entries.iter().filter(counts).count()
    }

    pub(crate) fn has_quorum(&self) -> bool {
        self.voters() > 0 && self.voters_up_without(None) > self.voters() / 2
    }

    /// `prepare form`: the ids hang on the token alone, so that it succeeds again on its own.
    pub(crate) fn form(
        &mut self,
        disk: &mut Disk,
        token: &str,
        name: &str,
        url: &str,
    ) -> Result<(u64, u64), String> {
        let fold = |hash: u64, byte: u8| (hash * 31 + u64::from(byte)) & 0xffff_ffff;
        let cluster = 0x1_0000_0000 + token.bytes().fold(7, fold) * 2;
        match disk {
            Disk::Data { cluster, member, token: held } if held == token => Ok((*cluster, *member)),
            Disk::Data { .. } | Disk::Broken { .. } => {
                Err("the directory holds another token's data".to_owned())
            }
            Disk::Empty => {
                let again = self.served && self.token == token;
                assert!(!again, "INV-O5: an empty directory formed a cluster after one had served");
                *self = Self { token: token.to_owned(), next: self.next, ..Self::default() };
                let member = cluster + 1;
                *disk = Disk::Data { cluster, member, token: token.to_owned() };
                self.cluster = Some(cluster);
                self.entries = vec![Entry {
                    id: member,
                    name: name.to_owned(),
                    peer_url: url.to_owned(),
                    learner: false,
                    applied: 1,
                }];
                self.index = self.index.max(1);
                Ok((cluster, member))
            }
        }
    }

    pub(crate) fn add_learner(&mut self, url: &str) -> Result<(), String> {
        if self.leader.is_none() || !self.has_quorum() {
            return Err("no leader".to_owned());
        }
        if self.entries.iter().any(|entry| entry.peer_url == url) {
            return Err("peer URL exists".to_owned());
        }
        if self.entries.iter().any(|entry| entry.learner) {
            return Err("too many learners".to_owned());
        }
        self.next += 1;
        self.entries.push(Entry {
            id: 0x5000 + self.next,
            name: String::new(),
            peer_url: url.to_owned(),
            learner: true,
            applied: 0,
        });
        Ok(())
    }

    pub(crate) fn promote(&mut self, id: u64) -> Result<(), String> {
        if self.leader.is_none() || !self.has_quorum() {
            return Err("no leader".to_owned());
        }
        let behind = self.index;
        let entry = self.entries.iter_mut().find(|entry| entry.id == id && entry.learner);
        let entry = entry.ok_or("not a learner")?;
        if entry.applied * 10 < behind * 9 {
            return Err("not in sync".to_owned());
        }
        entry.learner = false;
        Ok(())
    }

    pub(crate) fn remove(&mut self, id: u64) -> Result<(), String> {
        if self.leader.is_none() || !self.has_quorum() {
            return Err("no leader".to_owned());
        }
        let before = self.entries.len();
        self.entries.retain(|entry| entry.id != id);
        if self.entries.len() == before {
            return Err("member not found".to_owned());
        }
        self.removed.insert(id);
        self.up.remove(&id);
        if self.leader == Some(id) {
            self.leader = None;
        }
        Ok(())
    }

    pub(crate) fn disarm(&mut self, id: u64) -> Result<(), String> {
        if self.leader.is_none() || !self.has_quorum() {
            return Err("no leader".to_owned());
        }
        self.corrupt.remove(&id);
        Ok(())
    }

    pub(crate) fn move_leader(&mut self, from: u64, to: u64) -> Result<(), String> {
        let votes = self.entry(to).is_some_and(|entry| !entry.learner) && self.up.contains(&to);
        if self.leader != Some(from) || !votes {
            return Err("not the leader, or no voter".to_owned());
        }
        self.leader = Some(to);
        self.term += 1;
        Ok(())
    }

    /// Time passes: elections, replication, delayed requests.
    pub(crate) fn tick(&mut self, random: &mut Random) {
        if self.leader.is_some_and(|leader| !self.up.contains(&leader)) || !self.has_quorum() {
            self.leader = None;
        }
        if self.leader.is_none() && self.has_quorum() && !random.once_in(3) {
            let able: Vec<u64> = self
                .entries
                .iter()
                .filter(|entry| !entry.learner && self.up.contains(&entry.id))
                .map(|entry| entry.id)
                .collect();
            self.leader = random.pick(&able).copied();
            self.term += 1;
        }
        self.voted.extend(self.entries.iter().filter(|entry| !entry.learner).map(|entry| entry.id));
        if self.leader.is_some() {
            self.served = true;
            self.index += random.next() % 2000;
            let index = self.index;
            for entry in &mut self.entries {
                if self.up.contains(&entry.id) && !self.stuck.contains(&entry.id) {
                    let gap = index - entry.applied.min(index);
                    let stride = gap / if entry.learner { 3 } else { 2 } + 1000;
                    entry.applied += gap.min(stride + random.next() % 500);
                }
            }
        }
        for (left, _url) in &mut self.delayed {
            *left = left.saturating_sub(1);
        }
        let due: Vec<String> = self
            .delayed
            .iter()
            .filter(|(left, _)| *left == 0)
            .map(|(_, url)| url.clone())
            .collect();
        self.delayed.retain(|(left, _)| *left > 0);
        for url in due {
            // A late request is refused or succeeds; nobody hears of it either way.
            let _outcome = self.add_learner(&url);
        }
    }

    pub(crate) fn ids(&self) -> BTreeMap<u64, Entry> {
        self.entries.iter().map(|entry| (entry.id, entry.clone())).collect()
    }
}
