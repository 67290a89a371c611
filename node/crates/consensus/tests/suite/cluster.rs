//! A shell around several members: network, disks and machines, each under the test's control.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use quorate_consensus::{
    Body, Configuration, Consensus, Entry, Fetch, HardState, Input, LogIndex, MemberId, Message,
    Output, Payload, Record, Role, Settings, SnapshotMeta, Term,
};

use crate::disk::Disk;
use crate::print;
use crate::safety::Witness;

/// What of a member waits until the test says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hold {
    Persist,
    Apply,
    Fetch,
    Stream,
}

/// One member: consensus, and the shell's side of it.
#[derive(Debug)]
pub(crate) struct Member {
    /// None while crashed.
    pub(crate) consensus: Option<Consensus>,
    pub(crate) disk: Disk,
    /// Records on their way to the disk.
    pub(crate) writes: VecDeque<Record>,
    /// Committed entries on their way to the machine.
    pub(crate) applying: VecDeque<Entry>,
    /// Where the machine stands.
    pub(crate) machine: SnapshotMeta,
    pub(crate) fetches: VecDeque<Fetch>,
    /// A snapshot that consensus agreed to install.
    offered: Option<SnapshotMeta>,
    pub(crate) holds: BTreeSet<Hold>,
    lives: u64,
}

impl Member {
    /// The log as the member itself sees it: what is on disk, overlaid with what is on its way.
    pub(crate) fn log(&self) -> BTreeMap<u64, Entry> {
        let mut disk = self.disk.clone();
        for record in &self.writes {
            disk.write(record);
        }
        disk.wal
    }

    pub(crate) fn leads(&self) -> bool {
        self.consensus.as_ref().is_some_and(|c| c.soft_state().role == Role::Leader)
    }
}

/// A snapshot on its way.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) from: MemberId,
    pub(crate) to: MemberId,
    pub(crate) meta: SnapshotMeta,
}

/// Members, and the world between them.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) members: BTreeMap<MemberId, Member>,
    pub(crate) network: VecDeque<Message>,
    /// Directions in which nothing arrives.
    pub(crate) blocked: BTreeSet<(MemberId, MemberId)>,
    pub(crate) streams: Vec<Stream>,
    pub(crate) settings: Settings,
    pub(crate) witness: Witness,
    pub(crate) trace: Vec<String>,
    pub(crate) tracing: bool,
}

pub(crate) fn settings() -> Settings {
    Settings {
        id: MemberId::NONE,
        election_ticks: 10,
        heartbeat_ticks: 2,
        inflight_messages_max: 8,
        inflight_bytes_max: 1 << 20,
        append_bytes_max: 1 << 16,
        committed_bytes_max: 1 << 16,
        uncommitted_bytes_max: 1 << 20,
        memory_bytes_max: 1 << 20,
        seed: 1,
    }
}

impl Cluster {
    /// Members that were formed together: index 1, term 1, and this configuration, as `prepare form` writes it.
    pub(crate) fn new(voters: &[u64], learners: &[u64], settings: Settings) -> Self {
        let mut cluster = Self {
            members: BTreeMap::new(),
            network: VecDeque::new(),
            blocked: BTreeSet::new(),
            streams: Vec::new(),
            settings,
            witness: Witness::default(),
            trace: Vec::new(),
            tracing: false,
        };
        let set = |ids: &[u64]| ids.iter().map(|id| MemberId(*id)).collect();
        let configuration = Configuration { voters: set(voters), learners: set(learners) };
        let formed = SnapshotMeta { index: LogIndex(1), term: Term(1), configuration };
        for id in voters.iter().chain(learners) {
            let hard_state = HardState { term: Term(1), vote: MemberId::NONE, commit: LogIndex(1) };
            let disk = Disk { hard_state, checkpoint: formed.clone(), ..Disk::default() };
            cluster.add(MemberId(*id), disk);
        }
        cluster.witness.commit = LogIndex(1);
        cluster
    }

    /// A member with an empty disk, that waits to be told.
    pub(crate) fn join(&mut self, id: MemberId) {
        self.add(id, Disk::default());
    }

    fn add(&mut self, id: MemberId, disk: Disk) {
        let member = Member {
            consensus: None,
            machine: disk.checkpoint.clone(),
            disk,
            writes: VecDeque::new(),
            applying: VecDeque::new(),
            fetches: VecDeque::new(),
            offered: None,
            holds: BTreeSet::new(),
            lives: 0,
        };
        self.members.insert(id, member);
        self.restart(id, false);
    }

    pub(crate) fn member(&self, id: MemberId) -> &Member {
        self.members.get(&id).unwrap_or_else(|| panic!("no member {id}"))
    }

    pub(crate) fn member_mut(&mut self, id: MemberId) -> &mut Member {
        self.members.get_mut(&id).unwrap_or_else(|| panic!("no member {id}"))
    }

    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if self.tracing {
            self.trace.push(line());
        }
    }

    /// Loses memory, and all writes but the first few.
    pub(crate) fn crash(&mut self, id: MemberId, writes_kept: usize) {
        let member = self.member_mut(id);
        for record in member.writes.drain(..).take(writes_kept) {
            member.disk.write(&record);
        }
        member.consensus = None;
        member.applying.clear();
        member.fetches.clear();
        member.offered = None;
        self.streams.retain(|stream| stream.from != id && stream.to != id);
        self.witness.forget_reads(id);
    }

    pub(crate) fn restart(&mut self, id: MemberId, tail_only: bool) {
        let mut settings = self.settings.clone();
        let member = self.member_mut(id);
        member.lives += 1;
        settings.id = id;
        // Each life has a seed of its own, as the shell must arrange.
        settings.seed ^= member.lives << 32;
        member.machine = member.disk.checkpoint.clone();
        let recovered = member.disk.recover(tail_only);
        let consensus = Consensus::new(settings, recovered);
        consensus.check_invariants();
        member.consensus = Some(consensus);
        self.settle(id);
    }

    /// One input, and everything that follows from it here.
    pub(crate) fn step(&mut self, id: MemberId, input: Input) {
        self.step_undrained(id, input);
        self.settle(id);
    }

    /// One input of a batch.
    pub(crate) fn step_undrained(&mut self, id: MemberId, input: Input) {
        if let Input::ReadIndex(ticket) = &input {
            self.witness.see_ask(id, *ticket);
        }
        if let Some(consensus) = &mut self.member_mut(id).consensus {
            consensus.step(input);
            consensus.check_invariants();
        }
    }

    /// Drains, and does what is not held, until nothing is left to do.
    pub(crate) fn settle(&mut self, id: MemberId) {
        loop {
            let Some(consensus) = &mut self.member_mut(id).consensus else { return };
            let output = consensus.drain();
            consensus.check_invariants();
            self.absorb(id, output);
            let member = self.member(id);
            if !member.holds.contains(&Hold::Persist) && !member.writes.is_empty() {
                self.persist(id, 1);
            } else if !member.holds.contains(&Hold::Apply) && !member.applying.is_empty() {
                self.apply(id, usize::MAX);
            } else if !member.holds.contains(&Hold::Fetch) && !member.fetches.is_empty() {
                self.fetch(id);
            } else {
                break;
            }
        }
    }

    fn absorb(&mut self, id: MemberId, output: Output) {
        if let Some(state) = output.soft_state {
            self.note(|| format!("{id} {}", print::state(&state)));
        }
        if let Some(record) = output.record {
            self.note(|| format!("{id} {}", print::record(&record)));
            let member = self.member(id);
            let before = record.entries.first().map(|first| first.index.previous());
            let before = before.and_then(|index| {
                let on_log = member.log().get(&index.0).map(|entry| entry.term);
                on_log.or_else(|| member.disk.term(index))
            });
            self.witness.see_record(&record, before);
            self.member_mut(id).writes.push_back(record);
        }
        let Some(consensus) = &self.member(id).consensus else { return };
        let state = consensus.soft_state();
        if self.witness.wants_log(id, state) {
            let (log, base) = (self.member(id).log(), self.member(id).machine.index);
            self.witness.see_leader(id, state, &log, base);
        }
        for message in output.send_now {
            self.witness.see_message(&message, &self.member(id).disk);
            self.note(|| print::message(&message));
            self.network.push_back(message);
        }
        for accepted in &output.accepted {
            self.note(|| {
                format!(
                    "{id} accepts proposal {} as {}@{}",
                    accepted.ticket.0, accepted.index, accepted.term
                )
            });
        }
        self.witness.refusals += output.refused.len();
        for (ticket, refusal) in &output.refused {
            self.note(|| format!("{id} refuses proposal {}: {refusal:?}", ticket.0));
        }
        for ready in &output.reads {
            self.note(|| format!("{id} may serve read {} at {}", ready.ticket.0, ready.index));
            self.witness.see_read(id, ready.ticket, ready.index);
        }
        self.absorb_entries(id, output.committed, output.fetch);
        for to in output.snapshots_wanted {
            self.begin_stream(id, to);
        }
        if let Some((_, meta)) = output.install {
            self.note(|| format!("{id} would install {}@{}", meta.index, meta.term));
            self.member_mut(id).offered = Some(meta);
        }
    }

    fn absorb_entries(&mut self, id: MemberId, committed: Vec<Entry>, fetches: Vec<Fetch>) {
        if !committed.is_empty() {
            self.note(|| format!("{id} commits {}", print::entries(&committed)));
        }
        for entry in committed {
            self.witness.see_committed(&entry);
            let member = self.member_mut(id);
            let last = member.applying.back().map_or(member.machine.index, |entry| entry.index);
            assert_eq!(entry.index, last.next(), "{id} was handed entries with a gap");
            assert!(
                member.disk.last_index() >= entry.index,
                "{id} was handed what its own disk lacks"
            );
            member.applying.push_back(entry);
        }
        for fetch in fetches {
            self.note(|| {
                format!("{id} fetches {}..{} for {}", fetch.from, fetch.to, fetch.for_member)
            });
            self.member_mut(id).fetches.push_back(fetch);
        }
    }

    fn begin_stream(&mut self, from: MemberId, to: MemberId) {
        let meta = self.member(from).machine.clone();
        self.note(|| format!("{from} streams {}@{} to {to}", meta.index, meta.term));
        let Some(consensus) = &self.member(from).consensus else { return };
        let term = consensus.soft_state().term;
        let body = Body::Snapshot { meta: meta.clone() };
        let message = Message { from, to, term, body };
        self.note(|| print::message(&message));
        self.network.push_back(message);
        self.streams.push(Stream { from, to, meta });
    }

    /// Ends the stream to a member: installed if it arrived and is wanted, else reported as failed.
    pub(crate) fn end_stream(&mut self, at: usize, arrives: bool) {
        let Stream { from, to, meta } = self.streams.remove(at);
        let member = self.member_mut(to);
        let wanted = member.offered.as_ref() == Some(&meta) && meta.index > member.machine.index;
        let delivered = arrives && wanted && member.consensus.is_some();
        if delivered {
            member.offered = None;
            member.machine = meta.clone();
            member.disk.checkpoint = meta.clone();
            member.applying.retain(|entry| entry.index > meta.index);
            self.note(|| format!("{to} installs {}@{}", meta.index, meta.term));
            self.step(to, Input::Installed(meta.clone()));
        }
        self.note(|| {
            format!(
                "{from} hears that the stream to {to} {}",
                if delivered { "arrived" } else { "failed" }
            )
        });
        self.step(from, Input::SnapshotSent { to, index: meta.index, delivered });
    }

    /// Makes the next few records durable and says so.
    pub(crate) fn persist(&mut self, id: MemberId, count: usize) {
        for _ in 0..count {
            let Some(token) = self.write(id) else { return };
            let held = self.member(id).holds.contains(&Hold::Persist);
            if held {
                self.note(|| format!("{id} has #{} on disk", token.sequence));
            }
            self.step_undrained(id, Input::Persisted(token));
        }
    }

    /// Makes the next record durable without saying so.
    pub(crate) fn write(&mut self, id: MemberId) -> Option<quorate_consensus::Token> {
        let member = self.member_mut(id);
        let record = member.writes.pop_front()?;
        member.disk.write(&record);
        Some(record.token)
    }

    /// Applies the next few entries and says so.
    pub(crate) fn apply(&mut self, id: MemberId, count: usize) {
        let held = self.member(id).holds.contains(&Hold::Apply);
        let member = self.member_mut(id);
        let count = count.min(member.applying.len());
        for entry in member.applying.drain(..count) {
            member.machine.index = entry.index;
            member.machine.term = entry.term;
            if let Payload::Change(change, _) = entry.payload {
                member.machine.configuration.apply(change);
            }
        }
        let applied = member.machine.index;
        if held {
            self.note(|| format!("{id} has applied {applied}"));
        }
        self.step_undrained(id, Input::Applied(applied));
        let member = self.member(id);
        if let Some(consensus) = &member.consensus {
            assert_eq!(
                consensus.configuration(),
                &member.machine.configuration,
                "INV-R7: as applied"
            );
        }
    }

    /// Answers the oldest fetch.
    pub(crate) fn fetch(&mut self, id: MemberId) {
        let member = self.member_mut(id);
        let Some(fetch) = member.fetches.pop_front() else { return };
        let entries = member.disk.fetch(&fetch);
        self.note(|| format!("{id} has fetched {}", print::entries(&entries)));
        self.step_undrained(id, Input::Fetched { fetch, entries });
    }

    /// A durable checkpoint at the applied index, and the WAL purged up to `purge`.
    pub(crate) fn checkpoint(&mut self, id: MemberId, purge: LogIndex) {
        let member = self.member_mut(id);
        member.disk.checkpoint = member.machine.clone();
        let index = member.disk.checkpoint.index;
        // NB: the WAL goes no further than what is durable in it, or a record in flight would leave a hole.
        member.disk.purge(purge.min(index));
        self.step(id, Input::Compact(index));
    }

    /// Takes the message at a place in the network's queue and hands it over, unless its way is blocked.
    pub(crate) fn deliver(&mut self, at: usize) {
        let Some(message) = self.network.remove(at) else { return };
        let alive = self.members.get(&message.to).is_some_and(|member| member.consensus.is_some());
        if !alive || self.blocked.contains(&(message.from, message.to)) {
            self.note(|| format!("lost: {}", print::message(&message)));
            return;
        }
        let to = message.to;
        self.step(to, Input::Peer(message));
        self.run_streams(to);
    }

    /// Ends what streams are not held, to this receiver.
    fn run_streams(&mut self, to: MemberId) {
        if self.member(to).holds.contains(&Hold::Stream) || self.member(to).offered.is_none() {
            return;
        }
        if let Some(at) = self.streams.iter().position(|stream| stream.to == to) {
            self.end_stream(at, true);
        }
    }

    /// Delivers until nobody has anything to say.
    pub(crate) fn stabilize(&mut self) {
        let mut bound = 100_000;
        while !self.network.is_empty() {
            self.deliver(0);
            bound -= 1;
            assert!(bound > 0, "the members never fall silent");
        }
    }

    pub(crate) fn leader(&self) -> Option<MemberId> {
        let leads = self.members.iter().filter(|(_, member)| member.leads());
        let term = |member: &Member| member.consensus.as_ref().map(|c| c.soft_state().term);
        leads.max_by_key(|(_, member)| term(member)).map(|(id, _)| *id)
    }
}
