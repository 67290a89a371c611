//! Golden scripts: verbs after `>`, what they gave below. `UPDATE_SCRIPTS=1` rewrites them; the diff is reviewed like code.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    str::SplitWhitespace,
};

use bytes::Bytes;

use crate::{
    Alarm, AlarmAction, Applied, ClusterId, Command, Compare, CompareTarget, DeleteRange,
    EncodedKeyValue, Envelope, Event, FeatureLevel, Genesis, Incarnation, KeyRange, LeaseId,
    LeaseTime, Machine, Member, MemberId, ModelStore, Operation, OperationOutcome, Outcome, Put,
    Range, RangeOutcome, Relation, RequestId, SortOrder, SortTarget, Store, Txn, TxnOutcome,
    hash::tests::crc32c, hash_kv, range,
};

#[test]
fn every_script_gives_what_it_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    #[expect(clippy::disallowed_methods, reason = "a test's switch, not the crate's behaviour")]
    let update = std::env::var("UPDATE_SCRIPTS").is_ok();
    let scripts = scripts_under(&root);
    assert!(scripts.len() >= 10, "the scripts were found");
    for path in scripts {
        let script = fs::read_to_string(&path).unwrap();
        let given = run(&script);
        if update {
            fs::write(&path, given).unwrap();
        } else {
            assert!(given == script, "{}: expected\n{script}\ngiven\n{given}", path.display());
        }
    }
}

fn scripts_under(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(scripts_under(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Comments and verbs stay, everything else is written anew.
fn run(script: &str) -> String {
    let mut bench = Bench::new();
    let mut given = String::new();
    for line in script.lines() {
        if let Some(verb) = line.strip_prefix("> ") {
            writeln!(given, "{line}").unwrap();
            for line in bench.run(verb).lines() {
                writeln!(given, "  {line}").unwrap();
            }
        } else if line.is_empty() || line.starts_with('#') {
            writeln!(given, "{line}").unwrap();
        }
    }
    bench.machine.check_invariants();
    given
}

struct Bench {
    machine: Machine<ModelStore>,
    clock: u64,
}

impl Bench {
    fn new() -> Self {
        let voter = |id: u64| Member {
            id: MemberId(id),
            name: format!("m{id}"),
            peer_urls: vec![format!("p{id}")],
            ..Member::default()
        };
        let genesis = Genesis {
            cluster: ClusterId(0xc1),
            members: vec![voter(1), voter(2)],
            feature_level: FeatureLevel(1),
            index: 1,
        };
        let machine = Machine::new(genesis, ModelStore::default());
        // Scripts raise levels that no build knows yet.
        let machine = machine.knowing(FeatureLevel(9)).expect("the genesis is of level 1");
        Self { machine, clock: 0 }
    }

    fn run(&mut self, line: &str) -> String {
        let mut words = Words(line.split_whitespace());
        let given = match words.next() {
            "get" => self.get(&words.range()),
            "hash" => self.hash(words.number()),
            "reclaim" => format!("{} rows removed", self.machine.store_mut().reclaim(usize::MAX)),
            "show" => self.show(),
            "clock" => {
                self.clock = self.clock.saturating_add_signed(words.number());
                format!("T would be {}", self.clock)
            }
            verb => {
                let command = words.command(verb);
                let index = self.machine.applied() + 1;
                let envelope = Envelope {
                    request: RequestId { member: MemberId(1), life: 1, sequence: index },
                    user: Bytes::new(),
                    auth_revision: 0,
                    feature_level: FeatureLevel(1),
                    clock: LeaseTime(self.clock),
                    command,
                };
                print_applied(&self.machine.apply(index, &envelope.encode()).unwrap())
            }
        };
        assert_eq!(words.0.next(), None, "{line} was read to its end");
        given
    }

    fn get(&self, request: &Range) -> String {
        let mut given = String::new();
        let reader = self.machine.store().reader();
        match range(&reader, request, self.machine.read_point()) {
            Ok(outcome) => print_range(&mut given, "", &outcome),
            Err(error) => given = format!("{error}"),
        }
        given
    }

    fn hash(&self, revision: i64) -> String {
        let reader = self.machine.store().reader();
        match hash_kv(&reader, revision, self.machine.read_point(), crc32c) {
            Ok(hash) => format!(
                "{:08x} compact_revision={} hash_revision={}",
                hash.hash, hash.compact_revision, hash.hash_revision
            ),
            Err(error) => format!("{error}"),
        }
    }

    fn show(&self) -> String {
        let machine = &self.machine;
        let mut given = format!(
            "revision={} compacted={} T={} level={}\n",
            machine.revision(),
            machine.compacted(),
            machine.clock().0,
            machine.feature_level().0
        );
        for lease in machine.leases().iter() {
            let keys: Vec<_> = machine.leases().keys(lease.id).map(|key| text(key)).collect();
            writeln!(
                given,
                "lease {} ttl={} deadline={} keys=[{}]",
                lease.id,
                lease.granted_ttl,
                lease.deadline.0,
                keys.join(" ")
            )
            .unwrap();
        }
        for (member, alarm) in machine.state().alarms() {
            writeln!(given, "alarm {alarm:?} of {member}").unwrap();
        }
        for member in machine.members().iter() {
            writeln!(given, "{}", print_member(member)).unwrap();
        }
        for id in machine.members().removed() {
            writeln!(given, "removed {id}").unwrap();
        }
        given
    }
}

/// The words of a verb, read from left to right.
struct Words<'a>(SplitWhitespace<'a>);

impl<'a> Words<'a> {
    fn next(&mut self) -> &'a str {
        self.0.next().expect("another word")
    }

    fn number(&mut self) -> i64 {
        let word = self.next();
        word.parse().unwrap_or_else(|_| panic!("{word} is a number"))
    }

    fn bytes(&mut self) -> Bytes {
        Bytes::copy_from_slice(self.next().as_bytes())
    }

    fn member(&mut self) -> MemberId {
        MemberId(self.number() as u64)
    }

    fn leases(&mut self) -> Vec<LeaseId> {
        self.0.by_ref().map(|word| LeaseId(word.parse().unwrap())).collect()
    }

    fn texts(&mut self) -> Vec<String> {
        self.next().split(',').map(str::to_owned).collect()
    }

    /// `a`, `a..c` or `a..`.
    fn keys(&mut self) -> KeyRange {
        let copy = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        match self.next().split_once("..") {
            None => unreachable!("split_once is asked of a word with dots only"),
            Some((start, "")) => KeyRange::From(copy(start)),
            Some((start, end)) => KeyRange::Interval(copy(start), copy(end)),
        }
    }

    fn key_range(&mut self) -> KeyRange {
        let word = self.0.clone().next().expect("a key");
        if word.contains("..") { self.keys() } else { KeyRange::Single(self.bytes()) }
    }

    /// Options until a word that is none.
    fn options(&mut self, mut known: impl FnMut(&str) -> bool) {
        while let Some(word) = self.0.clone().next() {
            if !known(word) {
                break;
            }
            self.next();
        }
    }

    fn put(&mut self) -> Put {
        let mut put = Put { key: self.bytes(), ..Put::default() };
        self.options(|word| {
            match word.split_once('=') {
                Some(("lease", id)) => put.lease = LeaseId(id.parse().unwrap()),
                Some(("value", value)) => put.value = Bytes::copy_from_slice(value.as_bytes()),
                _ => match word {
                    "prev" => put.prev_kv = true,
                    "ignore_value" => put.ignore_value = true,
                    "ignore_lease" => put.ignore_lease = true,
                    _ => return false,
                },
            }
            true
        });
        put
    }

    fn delete(&mut self) -> DeleteRange {
        let mut delete = DeleteRange { range: self.key_range(), prev_kv: false };
        self.options(|word| {
            delete.prev_kv |= word == "prev";
            word == "prev"
        });
        delete
    }

    fn range(&mut self) -> Range {
        let mut range = Range::of(self.key_range());
        self.options(|word| {
            let Some((name, given)) = word.split_once('=') else {
                match word {
                    "keys" => range.keys_only = true,
                    "count" => range.count_only = true,
                    "ascend" => range.order = SortOrder::Ascend,
                    "descend" => range.order = SortOrder::Descend,
                    _ => return false,
                }
                return true;
            };
            let number = || given.parse().unwrap();
            match name {
                "limit" => range.limit = number(),
                "rev" => range.revision = number(),
                "min_mod" => range.min_mod_revision = number(),
                "max_mod" => range.max_mod_revision = number(),
                "min_create" => range.min_create_revision = number(),
                "max_create" => range.max_create_revision = number(),
                "by" => {
                    range.target = match given {
                        "key" => SortTarget::Key,
                        "version" => SortTarget::Version,
                        "create" => SortTarget::Create,
                        "mod" => SortTarget::Mod,
                        "value" => SortTarget::Value,
                        other => panic!("{other} is a sort target"),
                    }
                }
                other => panic!("{other} is an option of get"),
            }
            true
        });
        range
    }

    /// `if version a = 1 , value b != x then put a value=1 ; get a else … end`
    fn txn(&mut self) -> Txn {
        let mut txn = Txn::default();
        assert_eq!(self.next(), "if");
        loop {
            match self.next() {
                "then" => break,
                "," => {}
                target => txn.compare.push(self.compare(target)),
            }
        }
        let mut list = &mut txn.success;
        loop {
            match self.next() {
                "end" => return txn,
                ";" => {}
                "else" => list = &mut txn.failure,
                "put" => list.push(Operation::Put(self.put())),
                "del" => list.push(Operation::DeleteRange(self.delete())),
                "get" => list.push(Operation::Range(self.range())),
                "txn" => list.push(Operation::Txn(self.txn())),
                other => panic!("{other} is an operation"),
            }
        }
    }

    fn compare(&mut self, target: &str) -> Compare {
        let range = self.key_range();
        let relation = match self.next() {
            "=" => Relation::Equal,
            "!=" => Relation::NotEqual,
            "<" => Relation::Less,
            ">" => Relation::Greater,
            other => panic!("{other} is a relation"),
        };
        let target = match target {
            "version" => CompareTarget::Version(self.number()),
            "create" => CompareTarget::CreateRevision(self.number()),
            "mod" => CompareTarget::ModRevision(self.number()),
            "value" => CompareTarget::Value(self.bytes()),
            "lease" => CompareTarget::Lease(LeaseId(self.number())),
            other => panic!("{other} is a target"),
        };
        Compare { range, relation, target }
    }

    fn command(&mut self, verb: &str) -> Command {
        match verb {
            "put" => Command::Put(self.put()),
            "del" => Command::DeleteRange(self.delete()),
            "txn" => Command::Txn(self.txn()),
            "compact" => Command::Compact { revision: self.number() },
            "grant" => Command::LeaseGrant { id: LeaseId(self.number()), ttl: self.number() },
            "revoke" => Command::LeaseRevoke { id: LeaseId(self.number()) },
            "expire" => Command::LeaseExpire { ids: self.leases() },
            "renew" => Command::LeaseRenew { ids: self.leases() },
            "alarm" => Command::Alarm {
                action: match self.next() {
                    "on" => AlarmAction::Activate,
                    _ => AlarmAction::Deactivate,
                },
                alarm: match self.next() {
                    "nospace" => Alarm::NoSpace,
                    "corrupt" => Alarm::Corrupt,
                    _ => Alarm::None,
                },
                member: self.member(),
            },
            "add" | "add-learner" => Command::MemberAdd(Member {
                id: self.member(),
                peer_urls: self.texts(),
                learner: verb == "add-learner",
                ..Member::default()
            }),
            "promote" => Command::MemberPromote { id: self.member() },
            "remove" => Command::MemberRemove { id: self.member() },
            "update" => Command::MemberUpdate { id: self.member(), peer_urls: self.texts() },
            "publish" => Command::MemberPublish {
                id: self.member(),
                name: self.next().to_owned(),
                client_urls: self.texts(),
                incarnation: Incarnation(self.number() as u64),
                feature_level: FeatureLevel(self.number() as u16),
            },
            "level" => Command::FeatureLevel { level: FeatureLevel(self.number() as u16) },
            "tick" => Command::Clock,
            other => panic!("{other} is a verb"),
        }
    }
}

fn print_applied(applied: &Applied) -> String {
    let mut given = String::new();
    match &applied.result {
        Err(rejected) => writeln!(given, "{rejected:?}, revision {}", applied.revision).unwrap(),
        Ok(outcome) => {
            writeln!(given, "ok, revision {}", applied.revision).unwrap();
            print_outcome(&mut given, outcome);
        }
    }
    for event in &applied.events {
        writeln!(given, "{}", print_event(event)).unwrap();
    }
    given
}

fn print_outcome(given: &mut String, outcome: &Outcome) {
    match outcome {
        Outcome::Put(put) => print_pairs(given, "previous ", put.prev_kv.as_slice()),
        Outcome::DeleteRange(delete) => {
            writeln!(given, "deleted {}", delete.deleted).unwrap();
            print_pairs(given, "previous ", &delete.prev_kvs);
        }
        Outcome::Txn(txn) => print_txn(given, "", txn),
        Outcome::LeaseGrant { id, ttl } => writeln!(given, "lease {id} ttl={ttl}").unwrap(),
        Outcome::LeaseRenew(renewed) => {
            for (id, ttl) in renewed {
                writeln!(given, "lease {id} ttl={ttl}").unwrap();
            }
        }
        Outcome::Alarm(alarms) => {
            for (member, alarm) in alarms {
                writeln!(given, "alarm {alarm:?} of {member}").unwrap();
            }
        }
        Outcome::Members(members) => {
            for member in members {
                writeln!(given, "{}", print_member(member)).unwrap();
            }
        }
        Outcome::Compact | Outcome::LeaseRevoke | Outcome::Done => {}
    }
}

fn print_txn(given: &mut String, margin: &str, txn: &TxnOutcome) {
    let branch = if txn.succeeded { "then" } else { "else" };
    writeln!(given, "{margin}{branch}, header {}", txn.revision).unwrap();
    let deeper = format!("{margin}  ");
    for response in &txn.responses {
        match response {
            OperationOutcome::Range(range) => print_range(given, &deeper, range),
            OperationOutcome::Put(put) => {
                writeln!(given, "{deeper}put, header {}", put.revision).unwrap();
                print_pairs(given, &deeper, put.prev_kv.as_slice());
            }
            OperationOutcome::DeleteRange(delete) => {
                writeln!(given, "{deeper}deleted {}, header {}", delete.deleted, delete.revision)
                    .unwrap();
                print_pairs(given, &deeper, &delete.prev_kvs);
            }
            OperationOutcome::Txn(txn) => print_txn(given, &deeper, txn),
        }
    }
}

fn print_range(given: &mut String, margin: &str, range: &RangeOutcome) {
    let more = if range.more { " and more" } else { "" };
    writeln!(given, "{margin}count {}{more}, header {}", range.count, range.revision).unwrap();
    print_pairs(given, margin, &range.kvs);
}

fn print_pairs(given: &mut String, margin: &str, kvs: &[EncodedKeyValue]) {
    for kv in kvs {
        let kv = kv.decode().unwrap();
        writeln!(
            given,
            "{margin}{}={} create={} mod={} version={} lease={}",
            text(&kv.key),
            text(&kv.value),
            kv.create_revision,
            kv.mod_revision,
            kv.version,
            kv.lease
        )
        .unwrap();
    }
}

fn print_event(event: &Event) -> String {
    let kv = event.kv.decode().unwrap();
    let before = match &event.previous {
        Some(version) => format!(", before {}", version.modified),
        None => String::new(),
    };
    if event.deleted {
        format!("event {} delete {} mod={}{before}", event.revision, text(&kv.key), kv.mod_revision)
    } else {
        format!("event {} put {}={}{before}", event.revision, text(&kv.key), text(&kv.value))
    }
}

fn print_member(member: &Member) -> String {
    format!(
        "member {} name={} peers={} clients={}{} incarnation={} level={}",
        member.id,
        member.name,
        member.peer_urls.join(","),
        member.client_urls.join(","),
        if member.learner { " learner" } else { "" },
        member.incarnation.0,
        member.feature_level.0
    )
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
