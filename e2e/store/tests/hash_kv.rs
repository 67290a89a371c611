//! Random histories against ours and against etcd: the same answers, the same HashKV after every few steps and around
//! every compaction.

#![allow(clippy::unwrap_used, reason = "a test says that it failed by a panic")]

use std::collections::{BTreeMap, BTreeSet};

use quorate_e2e_store::cluster::{Cluster, Server};
use quorate_e2e_store::member::Member;
use quorate_e2e_store::session::{Session, channel};
use quorate_proto::etcdserverpb::{
    CompactionRequest, HashKvRequest, kv_client::KvClient, maintenance_client::MaintenanceClient,
};
use quorate_sim::judge::{
    Compare, CompareTarget, Delete, Outcome, Put, Range, Relation, Request, Response, Selector,
    Sort, Txn,
};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use tonic::Status;

/// Requests of one history.
const STEPS: usize = 700;

/// Histories; the cluster goes on, so the later ones have a longer past.
const SEEDS: u64 = 3;

struct Dice {
    rng: StdRng,
    revision: i64,
    next_lease: i64,
}

impl Dice {
    fn key(&mut self) -> Vec<u8> {
        vec![*b"abcdef".choose(&mut self.rng).unwrap()]
    }

    fn keys(&mut self) -> Selector {
        let start = self.key();
        match self.rng.random_range(0..4) {
            0 | 1 => Selector::key(&start),
            2 => Selector { start, end: vec![0] },
            _ => {
                let end = vec![start[0] + self.rng.random_range(1..4)];
                Selector { start, end }
            }
        }
    }

    fn lease(&mut self) -> i64 {
        if self.rng.random_bool(0.2) { self.rng.random_range(1..=self.next_lease) } else { 0 }
    }

    fn put(&mut self, key: Vec<u8>) -> Put {
        let value = format!("v{}", self.rng.random_range(0..50)).into_bytes();
        let (lease, prev) = (self.lease(), self.rng.random_bool(0.3));
        Put { key, value, lease, prev, ignore_value: false, ignore_lease: false }
    }

    fn range(&mut self) -> Range {
        let sorts = [Sort::Key, Sort::KeyDescending, Sort::Modified, Sort::ModifiedDescending];
        Range {
            keys: self.keys(),
            revision: if self.rng.random_bool(0.3) {
                self.rng.random_range((self.revision - 30).max(1)..self.revision + 2)
            } else {
                0
            },
            limit: self.rng.random_range(0..4),
            sort: *sorts.choose(&mut self.rng).unwrap(),
            keys_only: self.rng.random_bool(0.2),
            count_only: self.rng.random_bool(0.1),
            serializable: false,
        }
    }

    fn compare(&mut self) -> Compare {
        let target = match self.rng.random_range(0..5) {
            0 => CompareTarget::Version(self.rng.random_range(0..3)),
            1 => CompareTarget::Create(self.revision - self.rng.random_range(0..9)),
            2 => CompareTarget::Modified(self.revision - self.rng.random_range(0..9)),
            3 => CompareTarget::Lease(self.rng.random_range(0..3)),
            _ => CompareTarget::Value(format!("v{}", self.rng.random_range(0..50)).into_bytes()),
        };
        let relations = [Relation::Equal, Relation::NotEqual, Relation::Less, Relation::Greater];
        let relation = *relations.choose(&mut self.rng).unwrap();
        Compare { keys: self.keys(), relation, target }
    }

    /// Requests that touch no key twice, as a transaction demands.
    fn branch(&mut self) -> Vec<Request> {
        let mut free: Vec<u8> = b"abcdef".to_vec();
        let mut requests = Vec::new();
        for _ in 0..self.rng.random_range(0..4) {
            let at = self.rng.random_range(0..free.len());
            let key = vec![free.remove(at)];
            requests.push(match self.rng.random_range(0..3) {
                0 => Request::Range(Range { revision: 0, ..self.range() }),
                1 => Request::Delete(Delete { keys: Selector::key(&key), prev: true }),
                _ => Request::Put(Put { lease: 0, ..self.put(key) }),
            });
        }
        requests
    }

    fn request(&mut self) -> Request {
        match self.rng.random_range(0..100) {
            0..35 => {
                let key = self.key();
                Request::Put(self.put(key))
            }
            35..38 => {
                let key = self.key();
                let put = self.put(key);
                Request::Put(Put { value: Vec::new(), ignore_value: true, ..put })
            }
            38..41 => {
                let key = self.key();
                let put = self.put(key);
                Request::Put(Put { lease: 0, ignore_lease: true, ..put })
            }
            41..53 => {
                Request::Delete(Delete { keys: self.keys(), prev: self.rng.random_bool(0.5) })
            }
            53..70 => Request::Range(self.range()),
            70..90 => Request::Txn(Txn {
                compare: (0..self.rng.random_range(0..3)).map(|_| self.compare()).collect(),
                success: self.branch(),
                failure: self.branch(),
            }),
            90..93 => Request::Compact(self.revision - self.rng.random_range(0..20)),
            93..97 => {
                self.next_lease += 1;
                Request::Grant { id: self.next_lease, ttl: 9_000_000_000_000 }
            }
            97 | 98 => Request::Revoke(self.rng.random_range(1..=self.next_lease)),
            _ => Request::Renew(self.rng.random_range(1..=self.next_lease)),
        }
    }
}

#[tokio::test]
async fn equal_histories_have_equal_answers_and_hashes() {
    let ours = Cluster::start(Server::Quorate, 1, &[]).unwrap();
    let etcd = Cluster::start(Server::Etcd, 1, &[]).unwrap();
    let (ours, etcd) = (&ours.members[0].client_url(), &etcd.members[0].client_url());
    let mut sessions =
        [Session::new(std::slice::from_ref(ours), 0), Session::new(std::slice::from_ref(etcd), 0)];
    let mut compacted_to = BTreeSet::new();
    let (mut hashes, mut writes) = (0, 0);
    let mut dice = Dice { rng: StdRng::seed_from_u64(0), revision: 1, next_lease: 1 };
    for seed in 0..SEEDS {
        dice.rng = StdRng::seed_from_u64(seed);
        for step in 0..STEPS {
            let request = dice.request();
            if matches!(request, Request::Compact(revision) if revision < 1) {
                continue;
            }
            let one = sessions[0].perform(&request).await;
            let other = sessions[1].perform(&request).await;
            assert_eq!(
                one, other,
                "seed {seed}, step {step}: ours and etcd's answer to {request:?}"
            );
            if let Outcome::Answered { revision, .. } = one {
                writes += usize::from(revision > dice.revision);
                dice.revision = dice.revision.max(revision);
                if let Request::Compact(at) = request {
                    compacted_to.insert(at);
                }
            }
            if step % 5 == 0 {
                hashes += usize::from(
                    compare_hashes(&mut dice, &mut sessions, &compacted_to, [ours, etcd]).await,
                );
            }
        }
    }
    println!("{writes} writes, {} compactions, {hashes} hashes compared", compacted_to.len());
    assert!(writes > 500 && compacted_to.len() > 10 && hashes > 150);
}

/// Compares HashKV at some revision. Left out is what etcd itself does not answer by the history alone: a revision that it
/// compacted to (it answers by whether it has finished; the other test waits for that), and one without a key (how far it
/// compacted then shows).
async fn compare_hashes(
    dice: &mut Dice,
    sessions: &mut [Session; 2],
    compacted_to: &BTreeSet<i64>,
    urls: [&String; 2],
) -> bool {
    let back = dice.rng.random_range(0..8);
    let revision = (dice.revision - back).max(1);
    if !has_keys(&mut sessions[0], revision).await || compacted_to.contains(&revision) {
        return false;
    }
    let mut answers = Vec::new();
    for url in urls {
        answers.push(hash_kv(url, revision).await.unwrap());
    }
    // etcd says -1 for "never compacted" only in its own words; both answers must use the same.
    assert_eq!(answers[0], answers[1], "HashKV at {revision}, the store at {}", dice.revision);
    true
}

/// Whether there is a key at a revision that can still be read.
async fn has_keys(session: &mut Session, revision: i64) -> bool {
    let keys = Selector { start: vec![0], end: vec![0] };
    let count = Range { keys, revision, count_only: true, ..Range::default() };
    let counted = session.perform(&Request::Range(count)).await;
    matches!(
        counted,
        Outcome::Answered { response: Response::Range { count, .. }, .. } if count > 0
    )
}

/// What HashKV answers but for the header: the hash, the compacted revision, the revision.
type Hashed = (u32, i64, i64);

async fn hash_kv(url: &str, revision: i64) -> Result<Hashed, Status> {
    let mut maintenance = MaintenanceClient::new(channel(url));
    let answer = maintenance.hash_kv(HashKvRequest { revision }).await?.into_inner();
    Ok((answer.hash, answer.compact_revision, answer.hash_revision))
}

/// Compactions of the second test: more than the ten whose hashes are kept.
const COMPACTIONS: usize = 13;

/// Requests before each of them.
const STEPS_BETWEEN: usize = 30;

/// Performs writes and reads, no compactions, on both sides.
async fn go_on(dice: &mut Dice, sessions: &mut [Session; 2]) {
    for _ in 0..STEPS_BETWEEN {
        let request = match dice.request() {
            Request::Compact(_) => continue,
            request => request,
        };
        let one = sessions[0].perform(&request).await;
        assert_eq!(one, sessions[1].perform(&request).await, "answers to {request:?}");
        if let Outcome::Answered { revision, .. } = one {
            dice.revision = dice.revision.max(revision);
        }
    }
}

#[tokio::test]
async fn compaction_to_a_revision_leaves_its_hash_as_it_was() {
    let mut ours = Cluster::start(Server::Quorate, 3, &[]).unwrap();
    let mut etcd = Cluster::start(Server::Etcd, 1, &[]).unwrap();
    let urls: Vec<String> = ours.members.iter().map(Member::client_url).collect();
    let etcd_url = etcd.members[0].client_url();
    let mut sessions =
        [Session::new(&urls[..1], 0), Session::new(std::slice::from_ref(&etcd_url), 0)];
    let mut dice = Dice { rng: StdRng::seed_from_u64(41), revision: 1, next_lease: 1 };
    let mut kept: BTreeMap<i64, Hashed> = BTreeMap::new();
    while kept.len() < COMPACTIONS {
        go_on(&mut dice, &mut sessions).await;
        let last = kept.last_key_value().map_or(0, |(revision, _)| *revision);
        let revision = dice.revision - dice.rng.random_range(0..6);
        if revision <= last || !has_keys(&mut sessions[0], revision).await {
            continue;
        }
        ours.wait_level().unwrap();
        let before = hash_kv(&etcd_url, revision).await.unwrap();
        for url in &urls {
            assert_eq!(hash_kv(url, revision).await.unwrap(), before, "before, at {revision}");
        }
        // etcd answers a physical one when it has finished, hash and all; ours must not need that.
        for (url, physical) in [(&etcd_url, true), (&urls[0], false)] {
            let compact = CompactionRequest { revision, physical };
            KvClient::new(channel(url)).compact(compact).await.unwrap();
        }
        kept.insert(revision, before);
        // Not level: a member that has not compacted yet must give the same answer as one that has.
        for (revision, before) in kept.iter().rev().take(10) {
            assert_eq!(hash_kv(&etcd_url, *revision).await.unwrap(), *before, "etcd's own");
            for url in &urls {
                assert_eq!(hash_kv(url, *revision).await.unwrap(), *before, "after, at {revision}");
            }
        }
    }
    ours.wait_level().unwrap();
    let forgotten = *kept.iter().rev().nth(10).unwrap().0;
    for url in urls.iter().chain([&etcd_url]) {
        let refused = hash_kv(url, forgotten).await.unwrap_err();
        assert!(refused.message().contains("has been compacted"), "{refused:?}");
    }
    // It is a member's memory: after a start the answer is that of a store compacted there, as etcd's.
    let (last, before) = kept.last_key_value().unwrap();
    for member in [&mut ours.members[1], &mut etcd.members[0]] {
        // etcd ends by the signal, ours with a code of its own.
        member.terminate().unwrap();
        member.start().unwrap();
        member.wait_ready().unwrap();
    }
    let again = hash_kv(&urls[1], *last).await.unwrap();
    assert_eq!(again, hash_kv(&etcd_url, *last).await.unwrap());
    assert!(again.0 != before.0 && again.1 == *last, "the compaction shows: {again:?}, {before:?}");
    assert_eq!(hash_kv(&urls[0], *last).await.unwrap(), *before, "who did not stop remembers");
}
