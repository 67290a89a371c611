//! Trouble: what is known of a cluster that suffers, in words: a lost quorum, alarms, lost members.

use crate::action::Alarm;
use crate::draft::Draft;
use crate::limits::STOP_LIMIT;
use crate::loss::{self, Loss, NodeFate};
use crate::memory::member_id;
use crate::observed::{MemberView, Nodes};
use crate::reason::Reason;
use crate::world::{World, runs};
use quorate_crds::MemberStatus;

/// A stable reason and a sentence.
pub(crate) type Trouble = (Reason, String);

/// What is said when too few voters answer: that all of them are lost, or who is, and how far each was.
/// Nothing is done about it, and nothing is guessed.
pub(crate) fn lost_quorum(draft: &Draft<'_>) -> Trouble {
    let world = draft.world;
    let mut all_lost = true;
    let mut lines = Vec::new();
    for member in draft.memory.voters() {
        let loss = loss::of(&world, member);
        let view = member_id(member).and_then(|id| world.observed.members.get(&id));
        let (answers, how_far) = match view {
            Some(MemberView::Answered(answer)) => (true, Some((answer.term, answer.raft_index))),
            Some(MemberView::Unreachable { last, .. }) => {
                (false, last.map(|last| (last.term, last.index)))
            }
            None => (false, None),
        };
        all_lost &= loss.is_some() && !answers;
        let what = match (&loss, answers) {
            (Some(loss), _) => loss.words(member),
            (None, true) => "answers".to_owned(),
            (None, false) => format!("does not answer{}", silence(&world, member)),
        };
        let how_far = how_far.map_or_else(String::new, |(term, index)| {
            format!(", known up to term {term}, index {index}")
        });
        lines.push(format!("{} {what}{how_far}", member.name));
    }
    let members = lines.join("; ");
    if all_lost {
        let message = format!(
            "every voter is lost, and nothing is made in their place, since it would be empty: \
             {members}; bring a volume back, or restore a snapshot into a new StoreCluster"
        );
        return (Reason::AllMembersLost, message);
    }
    let message = format!(
        "too few voters can be reached to serve clients; nothing is removed or replaced for that, \
         the cluster serves again when they are back: {members}"
    );
    (Reason::QuorumLost, message)
}

/// What the pod of a member that does not answer says about why.
fn silence(world: &World<'_>, member: &MemberStatus) -> &'static str {
    match world.pod(member.ordinal) {
        None => ", it has no pod",
        Some(_pod) if never_stops(world, member) => {
            ", its pod is to stop and does not: its node may be lost"
        }
        // Nobody but its peers could tell that an empty directory is not its own, and with too few of
        // them it waits (docs/contract.md).
        Some(pod) if runs(pod) => {
            " although its server runs: see the log of its pod, an empty volume waits like that for the \
             others"
        }
        Some(_pod) => "",
    }
}

/// Whether a member's pod was asked to stop so long ago that nobody carries it out.
fn never_stops(world: &World<'_>, member: &MemberStatus) -> bool {
    let pod = world.pod(member.ordinal);
    let asked = pod.and_then(|pod| pod.metadata.deletion_timestamp.as_ref());
    asked.is_some_and(|asked| world.age(asked) >= STOP_LIMIT)
}

/// That data differ between members.
pub(crate) fn corruption(draft: &Draft<'_>) -> Option<Trouble> {
    let standing = draft.world.observed.alarms();
    let accused: Vec<u64> = standing
        .iter()
        .filter(|(_id, alarm)| *alarm == Alarm::Corrupt)
        .map(|(id, _)| *id)
        .collect();
    if accused.is_empty() {
        return None;
    }
    let names: Vec<&str> =
        draft.memory.voters().filter(|member| is_of(member, &accused)).map(name).collect();
    let voters = draft.memory.voters().count();
    let message = if accused.contains(&0) || 2 * names.len() >= voters && !names.is_empty() {
        "the members hold different data (the alarm CORRUPT), every write is refused, and no majority \
         tells whose are right: compare the members (etcdctl endpoint hashkv), or restore a snapshot"
            .to_owned()
    } else if names.is_empty() {
        "the alarm CORRUPT stands and every write is refused, but no voter is accused: it is disarmed \
         if it was raised by a member that was removed; else look at etcdctl alarm list"
            .to_owned()
    } else {
        format!(
            "{} holds other data than the others (the alarm CORRUPT) and every write is refused: it is \
             removed, the alarm is disarmed, and another member takes its place",
            names.join(", ")
        )
    };
    Some((Reason::CorruptAlarm, message))
}

/// That a member has no room left, with what fills it.
pub(crate) fn full_store(draft: &Draft<'_>) -> Option<Trouble> {
    let world = draft.world;
    let standing = world.observed.alarms();
    let full: Vec<u64> = standing
        .iter()
        .filter(|(_id, alarm)| *alarm == Alarm::NoSpace)
        .map(|(id, _)| *id)
        .collect();
    if full.is_empty() {
        return None;
    }
    let members = draft.memory.members.values().filter(|member| is_of(member, &full));
    let mut crowded = false;
    let mut lines = Vec::new();
    for member in members {
        let answer = member_id(member).and_then(|id| world.observed.answer(id));
        let told = answer.filter(|answer| answer.quota > 0).map(|answer| {
            // Rounded, so that a message that says the same is the same.
            let percent = answer.size_in_use.saturating_mul(100) / answer.quota;
            crowded |= percent >= 90;
            let kept = if percent >= 90 { "at least 90 %" } else { "less than 90 %" };
            format!("{} keeps {kept} of its quota of {} MiB", member.name, answer.quota >> 20)
        });
        crowded |= told.is_none();
        lines.push(told.unwrap_or_else(|| format!("{} is full", member.name)));
    }
    let what_to_do = if crowded {
        "keys and their history fill it: delete keys, compact (etcdctl compact), or raise \
         spec.options.quotaBackendBytes, then etcdctl alarm disarm"
    } else {
        "there is room again: etcdctl alarm disarm"
    };
    let whose =
        if lines.is_empty() { "no member of ours is full".to_owned() } else { lines.join(", ") };
    let message = format!("the alarm NOSPACE stands and writes are refused: {whose}; {what_to_do}");
    Some((Reason::NoSpaceAlarm, message))
}

/// Voters that are lost, or whose server refuses its data for a reason that only a person can judge.
pub(crate) fn lost_members(draft: &Draft<'_>) -> Option<Trouble> {
    let world = draft.world;
    let listed = draft.memory.members.values().filter(|member| member.role.is_listed());
    let lost: Vec<(&MemberStatus, Loss)> =
        listed.clone().filter_map(|it| Some((it, loss::of(&world, it)?))).collect();
    if let Some((_member, first)) = lost.first() {
        let lines: Vec<_> =
            lost.iter().map(|(it, loss)| format!("{} {}", it.name, loss.words(it))).collect();
        let message = format!(
            "{}; another member takes its place, its claim stays until that votes",
            lines.join("; ")
        );
        return Some((first.reason(), message));
    }
    let refusing: Vec<_> = listed
        .clone()
        .filter_map(|it| Some(format!("{} ({})", it.name, it.verdict.as_ref()?)))
        .collect();
    if !refusing.is_empty() {
        let message =
            format!("{} does not start on its data; see the log of its pod", refusing.join(", "));
        return Some((Reason::MemberRefuses, message));
    }
    let suspect: Vec<_> = listed
        .filter_map(|it| match loss::node(&world, it) {
            NodeFate::Suspect(why) => Some(format!("{} does not answer and {why}", it.name)),
            NodeFate::Fine | NodeFate::Lost(_) => None,
        })
        .collect();
    (!suspect.is_empty()).then(|| (Reason::NodeLost, suspect.join("; ")))
}

/// Voters without which the others go on: silent, or cut off from their peers. Elections pass before a
/// kubelet calls anybody unready, so that they are not told.
pub(crate) fn absent_members(draft: &Draft<'_>) -> Option<Trouble> {
    let world = draft.world;
    let names = |which: &dyn Fn(&MemberStatus, u64) -> bool| {
        let started = draft.memory.voters().filter(|member| member.started);
        let those = started.filter(|member| member_id(member).is_some_and(|id| which(member, id)));
        those.map(name).collect::<Vec<_>>().join(", ")
    };
    let answers = |id| world.observed.answer(id).is_some();
    let silent = names(&|_member, id| !answers(id));
    let apart = names(&|member, id| {
        let led = world.leader().is_some() && world.follows(id).is_none();
        answers(id) && led && !member.ready
    });
    let mut lines = Vec::new();
    if !silent.is_empty() {
        lines.push(format!("{silent} cannot be reached; the others go on"));
    }
    if !apart.is_empty() {
        lines.push(format!(
            "{apart} answers, but follows no leader: look at the network between it and the other \
             members"
        ));
    }
    (!lines.is_empty()).then(|| (Reason::MemberDown, lines.join("; ")))
}

/// Why the state of the nodes does not count although it should: they cannot be read, and a member is
/// silent that would be replaced with its node, or whose pod nobody stops.
pub(crate) fn unreadable_nodes(draft: &Draft<'_>) -> Option<Trouble> {
    let world = draft.world;
    let Nodes::Unseen { error } = &world.observed.nodes else { return None };
    let silent = draft.memory.voters().filter(|member| {
        let gone = member_id(member).is_some_and(|id| world.long_unreachable(id));
        gone && (world.desired.replace_after.is_some() || never_stops(&world, member))
    });
    let silent: Vec<&str> = silent.map(name).collect();
    (!silent.is_empty()).then(|| {
        let message = format!(
            "{} cannot be reached, and whether a node is lost cannot be told, since the operator cannot \
             read Nodes ({}): give it get, list and watch on them; or, if the node is dead, delete the \
             Node or give it the taint node.kubernetes.io/out-of-service, and Kubernetes starts the pod \
             elsewhere; if its volume is tied to that node delete its claim too, and the member is \
             replaced",
            silent.join(", "),
            crate::reason::short(error)
        );
        (Reason::NodesUnreadable, message)
    })
}

fn is_of(member: &MemberStatus, ids: &[u64]) -> bool {
    member_id(member).is_some_and(|id| ids.contains(&id))
}

fn name(member: &MemberStatus) -> &str {
    member.name.as_str()
}
