//! Conditions: what the status says about a cluster, type by type, with stable reasons.
//!
//! Which reasons there are stands in `vocabulary.rs`, and what they mean in docs/user-guide.md.
//!
//! Messages carry no times and no counters, so that a status that says the same is the same.

use crate::draft::Draft;
use crate::growth;
use crate::limits;
use crate::memory::member_id;
use crate::reason::Reason;
use crate::trouble;
use crate::vocabulary::knows;
use crate::world::quorum;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use quorate_crds::{MemberRole, MemberStatus, OperationKind};
use std::collections::BTreeMap;

/// Type of a condition of a StoreCluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionType {
    /// Clients are served: a member leads and a quorum of voters follows it.
    Available,
    /// Something is under way or waits.
    Progressing,
    /// Something is wrong that the cluster survives for now, or that a person must put right.
    Degraded,
    /// A quorum of voters is reachable.
    QuorumHealthy,
    /// Members run settings that are not the wanted ones.
    RestartPending,
    /// Members have smaller volumes than wanted, or volumes that are not as large yet as they were asked
    /// to be.
    ResizePending,
    /// Claims of an earlier cluster of this name exist.
    EarlierVolumesFound,
    /// The number of members is even, or larger than any number of failures justifies.
    SizeWarning,
    /// Two voters run on one node.
    PlacementWarning,
}

impl ConditionType {
    /// The word of the API for this type.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Available => "Available",
            Self::Progressing => "Progressing",
            Self::Degraded => "Degraded",
            Self::QuorumHealthy => "QuorumHealthy",
            Self::RestartPending => "RestartPending",
            Self::ResizePending => "ResizePending",
            Self::EarlierVolumesFound => "EarlierVolumesFound",
            Self::SizeWarning => "SizeWarning",
            Self::PlacementWarning => "PlacementWarning",
        }
    }
}

/// The reason while the operator is cut off from members that serve.
const MEMBERS_UNSEEN: &str = "MembersUnseen";

/// What is found about one condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) type_: ConditionType,
    /// `None` while nobody can tell.
    pub(crate) holds: Option<bool>,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

fn finding(
    type_: ConditionType,
    holds: impl Into<Option<bool>>,
    reason: &'static str,
    message: impl Into<String>,
) -> Finding {
    Finding { type_, holds: holds.into(), reason, message: message.into() }
}

/// The word of the API for whether a condition holds.
pub(crate) fn status_word(holds: Option<bool>) -> &'static str {
    match holds {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    }
}

/// What the conditions are derived from.
struct Facts {
    formed: bool,
    hibernated: bool,
    deleting: bool,
    /// Remembered voters.
    voters: usize,
    reachable: usize,
    /// Voters that their kubelets call ready.
    ready: usize,
    following: usize,
    leader: Option<u64>,
    /// No voter has been ready since it was started on purpose, or too few to expect a quorum.
    starting: bool,
}

impl Facts {
    fn of(draft: &Draft<'_>) -> Self {
        let world = draft.world;
        let ids = || draft.memory.voters().filter_map(member_id);
        let foreign = draft
            .memory
            .cluster_id
            .and_then(|cluster_id| world.roster(cluster_id))
            .map_or(0, |roster| roster.foreign.iter().filter(|seat| !seat.learner).count());
        Self {
            formed: draft.memory.cluster_id.is_some(),
            hibernated: world.desired.hibernated,
            deleting: world.observed.cluster.deleting,
            voters: draft.memory.voters().count() + foreign,
            reachable: ids().filter(|id| world.observed.answer(*id).is_some()).count(),
            ready: draft.memory.voters().filter(|member| member.ready).count(),
            following: ids().filter(|id| world.follows(*id).is_some()).count(),
            leader: world.leader(),
            // One of two that was restarted takes the quorum with it: that was expected.
            starting: draft.memory.voters().all(|member| !member.started)
                || draft.memory.voters().count() < 3
                    && draft.memory.voters().any(|member| !member.started),
        }
    }

    /// Why nobody expects the members to serve, in the words of a condition.
    fn not_to_be_expected(&self) -> Option<(&'static str, &'static str)> {
        if !self.formed {
            Some(("Forming", "the cluster is not formed yet"))
        } else if self.hibernated {
            Some(("Hibernated", "the cluster is stopped because spec.hibernated is set"))
        } else if self.deleting {
            Some(("Deleting", "the cluster is being deleted"))
        } else {
            None
        }
    }

    /// Whether too few voters answer although they should.
    fn misses_quorum(&self) -> bool {
        !self.has_quorum() && !self.starting && self.not_to_be_expected().is_none()
    }

    /// What is said when it is the operator that is cut off, and not the store: a quorum of voters does
    /// not answer it, but is ready, which nobody is without a leader (`docs/contract.md`).
    fn unseen(&self) -> Option<String> {
        (self.misses_quorum() && self.ready >= quorum(self.voters)).then(|| {
            format!(
                "the operator reaches {} of {} voters, while their kubelets call {} of them ready: \
                    nothing is changed until it reaches them; look at the network between the \
                    operator and the members",
                self.reachable, self.voters, self.ready
            )
        })
    }

    fn has_quorum(&self) -> bool {
        self.voters > 0 && self.reachable >= quorum(self.voters)
    }
}

/// Everything that is found, one finding for each type.
pub(crate) fn findings(draft: &Draft<'_>) -> Vec<Finding> {
    let facts = Facts::of(draft);
    vec![
        available(draft, &facts),
        progressing(draft, &facts),
        degraded(draft, &facts),
        quorum_healthy(draft, &facts),
        restart_pending(draft),
        resize_pending(draft),
        earlier_volumes(draft),
        size_warning(draft.world.desired.replicas),
        placement_warning(draft),
    ]
}

fn available(draft: &Draft<'_>, facts: &Facts) -> Finding {
    let no = |reason, message: &str| finding(ConditionType::Available, false, reason, message);
    let follows = facts.leader.is_some() && facts.following >= quorum(facts.voters);
    if follows && draft.world.observed.is_corrupt() {
        no("CorruptAlarm", "the alarm CORRUPT stands: writes are refused and no member is ready")
    } else if facts.leader.is_some() && facts.voters > 0 && facts.following >= quorum(facts.voters)
    {
        finding(
            ConditionType::Available,
            true,
            "Serving",
            "a member leads and a quorum of voters follows it",
        )
    } else if let Some((reason, message)) = facts.not_to_be_expected() {
        no(reason, message)
    } else if facts.starting {
        no("Starting", "the members are starting")
    } else if facts.has_quorum() {
        no("NoLeader", "a quorum of voters can be reached, but nobody leads it")
    } else if let Some(message) = facts.unseen() {
        finding(ConditionType::Available, None, MEMBERS_UNSEEN, message)
    } else {
        no(
            "QuorumLost",
            "too few voters can be reached to serve clients; QuorumHealthy says what is known of each",
        )
    }
}

fn quorum_healthy(draft: &Draft<'_>, facts: &Facts) -> Finding {
    let type_ = ConditionType::QuorumHealthy;
    if facts.has_quorum() {
        finding(type_, true, "QuorumReachable", "a quorum of voters answers")
    } else if let Some((reason, message)) = facts.not_to_be_expected() {
        finding(type_, false, reason, message)
    } else if let Some(message) = facts.unseen() {
        finding(type_, None, MEMBERS_UNSEEN, message)
    } else {
        let (reason, message) = trouble::lost_quorum(draft);
        finding(type_, false, reason.as_str(), message)
    }
}

fn progressing(draft: &Draft<'_>, facts: &Facts) -> Finding {
    let type_ = ConditionType::Progressing;
    let yes = |reason, message: &str| finding(type_, true, reason, message);
    let no = |reason, message: &str| finding(type_, false, reason, message);
    let world = draft.world;
    let by = |reason: Reason| draft.waiting.iter().find(|waiting| waiting.reason == reason);
    if facts.deleting {
        let message = draft.waiting.first().map_or("the cluster is being deleted", |w| &w.message);
        return yes("Deleting", message);
    }
    if by(Reason::Paused).is_some() {
        return no("Paused", "spec.paused is set: nothing is changed");
    }
    if let Some(waiting) = by(Reason::EarlierVolumesFound) {
        return no("EarlierVolumesFound", &waiting.message);
    }
    if facts.hibernated && by(Reason::Forming).is_none() {
        let runs = draft.memory.members.keys().any(|ordinal| world.pod(*ordinal).is_some());
        return if runs {
            yes("Hibernating", "the members are being stopped")
        } else {
            no(
                "Hibernated",
                "spec.hibernated is set: the members are stopped, their volumes are kept",
            )
        };
    }
    if let Some(waiting) = draft.waiting.first() {
        return yes(waiting.reason.as_str(), &waiting.message);
    }
    if !facts.formed {
        return yes("Forming", "the cluster is being formed");
    }
    if let Some(operation) = &draft.memory.operation {
        let name = world.desired.name.member(operation.ordinal);
        return match operation.kind {
            OperationKind::Join => yes("JoinerStarting", &format!("{name} joins")),
            OperationKind::Leave => yes("PodStopping", &format!("{name} leaves")),
        };
    }
    let (counted, wanted) = (draft.memory.counted(), world.desired.replicas);
    if usize::try_from(wanted).is_ok_and(|wanted| wanted != counted) {
        let message =
            format!("{counted} members, {wanted} are wanted: they come and go one at a time");
        return yes("Scaling", &message);
    }
    let starting = member_names(draft, |member| {
        let unready = world.pod(member.ordinal).is_none_or(|pod| !crate::world::is_ready(pod));
        member.role == MemberRole::Voter && unready
    });
    if starting.is_empty() {
        no("Reconciled", "everything is as wanted")
    } else {
        yes("MembersStarting", &format!("waiting for {starting} to be ready"))
    }
}

/// What a person must put right comes before what may pass on its own.
const TROUBLES: [Reason; 6] = [
    Reason::MemoryUnreadable,
    Reason::ForeignCluster,
    Reason::ForeignMember,
    Reason::NameTaken,
    Reason::FormationFailed,
    Reason::VersionRefused,
];

fn degraded(draft: &Draft<'_>, facts: &Facts) -> Finding {
    let type_ = ConditionType::Degraded;
    let yes = |reason, message: String| finding(type_, true, reason, message);
    let told = |reason: &Reason| draft.waiting.iter().find(|w| w.reason == *reason);
    if let Some(waiting) = TROUBLES.iter().find_map(told) {
        return yes(waiting.reason.as_str(), waiting.message.clone());
    }
    if let Some(message) = facts.unseen() {
        return yes(MEMBERS_UNSEEN, message);
    }
    if facts.misses_quorum() {
        let (reason, message) = trouble::lost_quorum(draft);
        return yes(reason.as_str(), message);
    }
    if facts.formed && !facts.hibernated && !facts.deleting {
        let lost = trouble::corruption(draft).or_else(|| trouble::lost_members(draft));
        if let Some((reason, message)) = lost.or_else(|| trouble::unreadable_nodes(draft)) {
            return yes(reason.as_str(), message);
        }
    }
    if let Some(waiting) = told(&Reason::RolloutFailed) {
        return yes(waiting.reason.as_str(), waiting.message.clone());
    }
    if let Some((reason, message)) = trouble::full_store(draft) {
        return yes(reason.as_str(), message);
    }
    if draft.memory.joins_given_up > 0 {
        let message =
            "a joiner made no progress and was given up; the next one gets more time: look \
             at its pod and claim"
                .to_owned();
        return yes(Reason::JoinerStuck.as_str(), message);
    }
    if facts.hibernated || facts.deleting {
        return finding(type_, false, "AsExpected", "nothing is wrong");
    }
    match trouble::absent_members(draft) {
        Some((reason, message)) => yes(reason.as_str(), message),
        None => finding(type_, false, "AsExpected", "nothing is wrong"),
    }
}

fn restart_pending(draft: &Draft<'_>) -> Finding {
    let type_ = ConditionType::RestartPending;
    let world = draft.world;
    let desired = world.desired;
    let old = world.observed.status.conditions.iter().find(|c| c.type_ == type_.as_str());
    let held = old.is_some_and(|condition| condition.status == "True") && !desired.hibernated;
    let pending = member_names(draft, |member| {
        let outdated = world.pod(member.ordinal).is_some_and(|pod| world.is_outdated(pod));
        // Who was restarted last is not forgotten before it is ready.
        let comes_up = held && !member.started && member.role == MemberRole::Voter;
        member.role != MemberRole::Removed && (outdated || comes_up)
    });
    if pending.is_empty() {
        return finding(type_, false, "UpToDate", "every member runs the wanted settings");
    }
    let how = if desired.on_delete {
        "a pod that is deleted comes back with the new ones, one at a time keeps the quorum"
    } else if draft.version_refused {
        "they are not restarted, since the wanted version is refused"
    } else if desired.rollout_paused {
        "they are not restarted while spec.updateStrategy.paused is set"
    } else {
        "they are restarted one at a time, the leader last"
    };
    finding(type_, true, "SettingsChanged", format!("{pending} run older settings; {how}"))
}

fn resize_pending(draft: &Draft<'_>) -> Finding {
    let type_ = ConditionType::ResizePending;
    match growth::told(&draft.world, &draft.memory) {
        Some((reason, message)) => finding(type_, true, reason, message),
        None => finding(type_, false, "UpToDate", "every volume has the wanted size"),
    }
}

fn earlier_volumes(draft: &Draft<'_>) -> Finding {
    let type_ = ConditionType::EarlierVolumesFound;
    match draft.waiting.iter().find(|waiting| waiting.reason == Reason::EarlierVolumesFound) {
        Some(waiting) => finding(type_, true, "EarlierVolumesFound", waiting.message.clone()),
        None => finding(
            type_,
            false,
            "NoneFound",
            "no claims of an earlier cluster wait for a decision",
        ),
    }
}

fn size_warning(replicas: i32) -> Finding {
    let type_ = ConditionType::SizeWarning;
    if replicas > limits::VOTERS_WORTH_IT {
        finding(
            type_,
            true,
            "ManyVoters",
            format!(
                "each of {replicas} members takes part in every write; {} tolerate the loss of three \
                 at once, which is enough for any cluster",
                limits::VOTERS_WORTH_IT
            ),
        )
    } else if replicas % 2 == 0 {
        finding(
            type_,
            true,
            "EvenSize",
            format!(
                "{replicas} members tolerate no more failures than {}; use an odd number",
                replicas - 1
            ),
        )
    } else {
        finding(type_, false, "OddSize", "the number of members is odd")
    }
}

/// Where voters run is read from memory, which their pods have just refreshed: while one is restarted
/// nothing is known to have changed.
fn placement_warning(draft: &Draft<'_>) -> Finding {
    let type_ = ConditionType::PlacementWarning;
    let mut nodes: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for member in draft.memory.voters() {
        if let Some(node) = &member.node {
            nodes.entry(node).or_default().push(&member.name);
        }
    }
    nodes.retain(|_node, names| names.len() > 1);
    let Some(most) = nodes.values().map(Vec::len).max() else {
        return finding(type_, false, "VotersApart", "no two voters run on one node");
    };
    let voters = draft.memory.voters().count();
    let risk = if voters - most < quorum(voters) {
        "the loss of one node would cost the quorum"
    } else {
        "the loss of one node would take several voters at once"
    };
    let shared: Vec<String> =
        nodes.iter().map(|(node, names)| format!("{} on {node}", names.join(", "))).collect();
    let message = format!(
        "voters share a node ({}), and {risk}; make room on another node and delete the pod of one \
            of them (a volume that is tied to its node keeps it there), or set \
            scheduling.antiAffinity: Required",
        shared.join("; ")
    );
    finding(type_, true, "VotersShareNode", message)
}

fn member_names(draft: &Draft<'_>, which: impl Fn(&MemberStatus) -> bool) -> String {
    let names: Vec<&str> = draft
        .memory
        .members
        .values()
        .filter(|member| which(member))
        .map(|m| m.name.as_str())
        .collect();
    names.join(", ")
}

/// The findings as conditions; a condition whose status stays keeps its lastTransitionTime.
pub(crate) fn conditions(
    old: &[Condition],
    findings: &[Finding],
    generation: i64,
    now: Timestamp,
) -> Vec<Condition> {
    for Finding { type_, holds, reason, .. } in findings {
        debug_assert!(
            knows(*type_, *holds, reason),
            "{type_:?}: {reason} is not in the vocabulary"
        );
    }
    let mut conditions: Vec<Condition> = findings
        .iter()
        .map(|finding| {
            let status = status_word(finding.holds);
            let before =
                old.iter().find(|c| c.type_ == finding.type_.as_str() && c.status == status);
            Condition {
                type_: finding.type_.as_str().to_owned(),
                status: status.to_owned(),
                reason: finding.reason.to_owned(),
                message: finding.message.clone(),
                observed_generation: Some(generation),
                last_transition_time: before.map_or(Time(now), |c| c.last_transition_time.clone()),
            }
        })
        .collect();
    // What this plan has no finding about (an invalid spec) stays as it was last reported.
    let silent = old.iter().filter(|c| !findings.iter().any(|f| f.type_.as_str() == c.type_));
    conditions.extend(silent.cloned());
    conditions
}
