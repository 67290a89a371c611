//! Loss: what proves that a member will not do its part again with the data that it had.
//!
//! Four kinds of evidence and no other (architecture §5): its claim is gone, its server says so, the
//! store accuses it of corruption, its node is lost. Being unreachable is none, nor is crashing.

use crate::action::Alarm;
use crate::memory::member_id;
use crate::observed::{NodeView, Nodes};
use crate::reason::Reason;
use crate::world::{World, is_terminating};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use quorate_crds::MemberStatus;

/// Why a member is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Its claim is not the one that it had: what became of it.
    Claim(&'static str),
    /// Its server's verdict.
    Verdict(String),
    /// The store's CORRUPT alarm names it.
    Alarm,
    /// What became of its node.
    Node(String),
}

impl Loss {
    /// The stable word.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Claim(_) => Reason::VolumeLost,
            Self::Verdict(_) => Reason::MemberRefuses,
            Self::Alarm => Reason::CorruptAlarm,
            Self::Node(_) => Reason::NodeLost,
        }
    }

    /// What happened to a member, as the end of a sentence that begins with its name.
    pub(crate) fn words(&self, member: &MemberStatus) -> String {
        match self {
            Self::Claim(how) => format!("has lost its volume (the claim {} {how})", member.claim),
            Self::Verdict(verdict) => {
                format!("does not start on its data (its server says {verdict})")
            }
            Self::Alarm => "holds other data than the others (the alarm CORRUPT)".to_owned(),
            Self::Node(how) => format!("has lost its node ({how})"),
        }
    }
}

/// What a node's state means for a member on it that does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NodeFate {
    /// Nothing.
    Fine,
    /// It may be lost, but nobody has said that this shall count.
    Suspect(String),
    /// It is lost.
    Lost(String),
}

/// The evidence that a listed member is lost, if there is any. A member that answers is only lost if
/// its claim goes or the store accuses it.
pub(crate) fn of(world: &World<'_>, member: &MemberStatus) -> Option<Loss> {
    let id = member_id(member).filter(|_id| member.role.is_listed())?;
    if world.observed.alarms().contains(&(id, Alarm::Corrupt)) {
        return Some(Loss::Alarm);
    }
    if let Some(how) = claim(world, member) {
        return Some(Loss::Claim(how));
    }
    if world.observed.answer(id).is_some() {
        return None;
    }
    if let Some(verdict) = member.verdict.as_ref().filter(|verdict| is_final(verdict)) {
        return Some(Loss::Verdict(verdict.clone()));
    }
    match node(world, member) {
        NodeFate::Lost(how) => Some(Loss::Node(how)),
        NodeFate::Fine | NodeFate::Suspect(_) => None,
    }
}

/// Whether a verdict says that the member cannot go on with what it has (`docs/contract.md`). Another
/// cluster's data and a newer format are whole, and a person's to judge.
fn is_final(verdict: &str) -> bool {
    ["Empty", "Corrupt", "Removed"].contains(&verdict)
}

/// What became of the claim that a member had; `None` while it is there.
fn claim(world: &World<'_>, member: &MemberStatus) -> Option<&'static str> {
    let Some(found) = world.claim(&member.claim) else { return Some("is gone") };
    let phase = found.status.as_ref().and_then(|status| status.phase.as_deref());
    if member.claim_uid.is_some() && found.metadata.uid != member.claim_uid {
        Some("is another one now")
    } else if is_terminating(&found.metadata) {
        Some("is being deleted")
    } else if phase == Some("Lost") {
        Some("is Lost: its volume was deleted")
    } else {
        None
    }
}

/// What the node says about a member that does not answer: the node of its pod, or, while that finds
/// none, the one that it ran on last.
pub(crate) fn node(world: &World<'_>, member: &MemberStatus) -> NodeFate {
    let Some(id) = member_id(member) else { return NodeFate::Fine };
    let Nodes::Seen(nodes) = &world.observed.nodes else { return NodeFate::Fine };
    let bound = world.pod(member.ordinal).and_then(node_of);
    let Some(name) = bound.or(member.node.as_deref()) else { return NodeFate::Fine };
    if world.observed.answer(id).is_some() {
        return NodeFate::Fine;
    }
    // A pod that was drained is on its way to another node; nobody is lost for that.
    let gone = world.long_unreachable(id);
    match nodes.get(name) {
        None if gone => NodeFate::Lost(format!("{name} was deleted")),
        Some(NodeView { out_of_service: true, .. }) if bound.is_some() || gone => {
            NodeFate::Lost(format!("{name} carries the taint node.kubernetes.io/out-of-service"))
        }
        Some(NodeView { unready_since: Some(since), .. }) if gone => {
            let unready = world.age(&Time(*since));
            match world.desired.replace_after {
                Some(limit) if unready >= limit => NodeFate::Lost(format!(
                    "{name} has been not ready for longer than spec.recovery.replaceAfter"
                )),
                Some(_) => NodeFate::Suspect(format!(
                    "its node {name} is not ready; it is replaced after \
                     spec.recovery.replaceAfter"
                )),
                None => NodeFate::Suspect(format!(
                    "its node {name} is not ready; if the node does not come back, set \
                     spec.recovery.replaceAfter, delete the Node, or give it the taint \
                     node.kubernetes.io/out-of-service, and the member is replaced"
                )),
            }
        }
        None | Some(_) => NodeFate::Fine,
    }
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}
