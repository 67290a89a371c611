//! One leader and the feature level: when it asks for a higher one, and what it refuses below it.

use quorate_consensus::{Configuration, HardState};

use super::*;

const OLD: FeatureLevel = FeatureLevel(1);
const NEW: FeatureLevel = FeatureLevel(2);

/// The one voter of its cluster, leading, with a build that knows the new level.
struct Bench {
    replica: Replica,
    applied: LogIndex,
}

impl Bench {
    fn leading() -> Self {
        let id = MemberId(1);
        let consensus = ConsensusSettings {
            id,
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
            feature_level_known: NEW,
            request_timeout_ms: 7_000,
        };
        let mut configuration = Configuration::default();
        configuration.voters.insert(id);
        let index = LogIndex(1);
        let recovered = Recovered {
            hard_state: HardState { term: Term(1), vote: MemberId::NONE, commit: index },
            snapshot: SnapshotMeta { index, term: Term(1), configuration },
            entries: Vec::new(),
            last_index: index,
        };
        let report = ApplyReport { index, feature_level: OLD, ..ApplyReport::default() };
        let mut bench = Self { replica: Replica::new(settings, recovered, report), applied: index };
        for _ in 0..4 {
            bench.tick();
        }
        assert_eq!(bench.replica.soft().role, Role::Leader);
        bench
    }

    /// A tick, with all that it makes durable at once; the commands that were put into the log.
    fn tick(&mut self) -> Vec<Command> {
        self.replica.step(Input::Tick { elapsed_ms: 100 });
        let mut commands = Vec::new();
        while let Some(record) = self.drain(&mut commands) {
            self.replica.step(Input::Persisted(record));
        }
        commands
    }

    fn drain(&mut self, commands: &mut Vec<Command>) -> Option<Token> {
        let output = self.replica.drain();
        if let Some(last) = output.committed.last() {
            self.applied = last.index;
        }
        let record = output.record?;
        for entry in &record.entries {
            if let Payload::Command(bytes) = &entry.payload {
                commands.push(Envelope::decode(bytes).unwrap().command);
            }
        }
        Some(record.token)
    }

    /// What apply says of a cluster at this level whose members know these.
    fn report(&mut self, feature_level: FeatureLevel, knows: &[FeatureLevel]) {
        let members = (1..).zip(knows).map(|(id, level)| Member {
            id: quorate_machine::MemberId(id),
            feature_level: *level,
            ..Member::default()
        });
        self.replica.step(Input::Applied(ApplyReport {
            index: self.applied,
            feature_level,
            members: Arc::new(members.collect()),
            ..ApplyReport::default()
        }));
    }

    fn propose(&mut self, sequence: u64, needs: FeatureLevel) -> Vec<(Sequence, Failure)> {
        let request = RequestId { sequence, ..RequestId::default() };
        let envelope = Envelope::unstamped(request, Command::Clock).encode();
        let sequence = Sequence(sequence);
        self.replica.step(Input::Propose(Proposal { sequence, envelope, change: None, needs }));
        self.replica.drain().failed
    }
}

#[test]
fn a_leader_asks_for_a_level_once_every_member_has_told_that_it_knows_it() {
    let mut bench = Bench::leading();
    for knows in [&[NEW, OLD][..], &[NEW, FeatureLevel(0)], &[OLD, NEW, NEW]] {
        bench.report(OLD, knows);
        assert_eq!(bench.tick(), [], "{knows:?}");
    }
    bench.report(OLD, &[NEW, NEW]);
    assert_eq!(bench.tick(), [Command::FeatureLevel { level: NEW }]);
    // Nor does it ask for what its own build does not know.
    bench.report(NEW, &[FeatureLevel(3), FeatureLevel(3)]);
    let more = bench.tick();
    assert!(
        !more.iter().any(|command| matches!(command, Command::FeatureLevel { .. })),
        "{more:?}"
    );
}

#[test]
fn what_needs_a_level_is_refused_before_it_sets_out() {
    let mut bench = Bench::leading();
    bench.report(OLD, &[NEW, OLD]);
    assert_eq!(bench.propose(1, NEW), [(Sequence(1), Failure::FeatureLevel)]);
    assert_eq!(bench.propose(2, OLD), []);
    bench.report(NEW, &[NEW, NEW]);
    assert_eq!(bench.propose(3, NEW), []);
    assert_eq!(bench.replica.pending().0, 2, "two are on their way, and the refused one is not");
}
