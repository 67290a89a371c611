//! A follower that hears no leader: for how long its clients' requests wait for one.

use quorate_consensus::{Configuration, HardState, Message as ConsensusMessage};

use super::*;

const TIMEOUT_MS: u64 = 1_000;
const TICK_MS: u64 = 100;
const OWN: MemberId = MemberId(1);
const LEADER: MemberId = MemberId(2);

/// One of three voters, by itself: it asks for votes and gets none.
struct Lonely(Replica);

impl Lonely {
    fn new() -> Self {
        let consensus = ConsensusSettings {
            id: OWN,
            election_ticks: 2,
            heartbeat_ticks: 1,
            inflight_messages_max: 8,
            inflight_bytes_max: 1 << 20,
            append_bytes_max: 1 << 20,
            committed_bytes_max: 1 << 20,
            uncommitted_bytes_max: 1 << 20,
            memory_bytes_max: 1 << 20,
            seed: 1,
        };
        let settings = Settings {
            consensus,
            life: 7,
            strict_reconfig: true,
            learners_max: 1,
            feature_level_known: FEATURE_LEVEL_FORMED,
            request_timeout_ms: TIMEOUT_MS,
        };
        let mut configuration = Configuration::default();
        configuration.voters.extend([OWN, LEADER, MemberId(3)]);
        let index = LogIndex(1);
        let recovered = Recovered {
            hard_state: HardState { term: Term(1), vote: MemberId::NONE, commit: index },
            snapshot: SnapshotMeta { index, term: Term(1), configuration },
            entries: Vec::new(),
            last_index: index,
        };
        let report =
            ApplyReport { index, feature_level: FEATURE_LEVEL_FORMED, ..ApplyReport::default() };
        Self(Replica::new(settings, recovered, report))
    }

    fn propose(&mut self, sequence: u64) {
        let request = RequestId { sequence, ..RequestId::default() };
        let envelope = Envelope::unstamped(request, Command::Clock);
        self.0.step(Input::Propose(proposal(Sequence(sequence), &envelope)));
        assert_eq!(self.forwarded(), [], "there is nobody to forward it to");
    }

    /// Time passes, and nobody is heard.
    fn wait(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds / TICK_MS {
            self.0.step(Input::Tick { elapsed_ms: TICK_MS });
            assert_eq!(self.forwarded(), [], "there is nobody to forward it to");
        }
    }

    /// A leader is heard at last; what it is sent.
    fn hear_leader(&mut self) -> Vec<u64> {
        let term = Term(self.0.soft().term.0 + 1);
        let heartbeat = ConsensusMessage {
            from: LEADER,
            to: OWN,
            term,
            body: quorate_consensus::Body::Heartbeat {
                commit: LogIndex(1),
                context: quorate_consensus::ReadContext(0),
            },
        };
        let clock = LeaseTime(0);
        let body = PeerBody::Consensus(heartbeat);
        self.0.step(Input::Peer(PeerMessage { from: LEADER, to: OWN, clock, body }));
        let mut forwarded = self.forwarded();
        assert_eq!(self.0.soft().leader, LEADER);
        // What waits is sent by the drain after the one that heard of the leader.
        forwarded.extend(self.forwarded());
        forwarded
    }

    /// The requests in the forwards of a drain.
    fn forwarded(&mut self) -> Vec<u64> {
        let mut sequences = Vec::new();
        for message in self.0.drain().messages {
            if let PeerBody::Forward { requests, .. } = message.body {
                assert!(!requests.is_empty(), "a forward of nothing");
                sequences.extend(requests.iter().map(|request| request.sequence.0));
            }
        }
        sequences
    }
}

#[test]
fn what_a_caller_still_waits_for_goes_to_the_first_leader_that_is_heard() {
    let mut member = Lonely::new();
    member.wait(5 * TICK_MS);
    member.propose(1);
    member.wait(TIMEOUT_MS - TICK_MS);
    assert_eq!(member.hear_leader(), [1]);
}

#[test]
fn what_its_caller_was_told_timed_out_is_not_forwarded_when_a_leader_is_heard() {
    let mut member = Lonely::new();
    member.wait(5 * TICK_MS);
    member.propose(1);
    member.wait(3 * TICK_MS);
    member.propose(2);
    member.wait(TIMEOUT_MS - 3 * TICK_MS);
    // Nobody came to say that the first one is to be forgotten.
    assert_eq!(member.0.pending().0, 2);
    assert_eq!(member.hear_leader(), [2]);
    assert_eq!(member.0.pending().0, 1, "the first one is dropped, not kept");
}

#[test]
fn a_process_that_was_frozen_forwards_nothing_of_before() {
    let mut member = Lonely::new();
    member.propose(1);
    // One late tick, as a thawed process has it.
    member.0.step(Input::Tick { elapsed_ms: 60_000 });
    member.propose(2);
    assert_eq!(member.hear_leader(), [2]);
}
