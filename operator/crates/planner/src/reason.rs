//! Reason: why something was not done, in stable words.

use std::fmt;

/// Why an action is not taken now. The names are stable: they are the reasons of conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// `spec.paused` is set.
    Paused,
    /// `spec.hibernated` is set.
    Hibernated,
    /// The spec asks for something that admission could not refuse.
    InvalidSpec,
    /// Claims of an earlier cluster of this name exist.
    EarlierVolumesFound,
    /// An object of a name that we need belongs to somebody else.
    NameTaken,
    /// The formation Job has not finished.
    Forming,
    /// The formation Job failed.
    FormationFailed,
    /// Nobody confirmed the list of members.
    MembershipUnknown,
    /// The members belong to another cluster than the one that was formed.
    ForeignCluster,
    /// The store lists a member that the operator did not make.
    ForeignMember,
    /// A joiner has not started yet.
    JoinerStarting,
    /// A joiner has not caught up yet.
    LearnerCatchingUp,
    /// The act would leave the reachable voters without a quorum.
    QuorumAtRisk,
    /// Another voter is down; one disruption at a time.
    MemberDown,
    /// No member leads, or the members do not agree on who does.
    NoLeader,
    /// The budget must be in place first.
    BudgetPending,
    /// Leadership was asked to move and has not moved yet.
    LeadershipMoving,
    /// A pod of a removed member, or of a stopped one, is still there.
    PodStopping,
    /// The claim of a member is gone.
    VolumeLost,
    /// A member's server says that it cannot go on with its data.
    MemberRefuses,
    /// A member's node is gone, or not ready for so long that it counts as gone.
    NodeLost,
    /// `spec.recovery.replaceAfter` is set, and nodes cannot be read.
    NodesUnreadable,
    /// A member's data differ from those of the others.
    CorruptAlarm,
    /// A member has no room left under its quota.
    NoSpaceAlarm,
    /// A member's pod has ended for good.
    PodEnded,
    /// Too few voters can be reached.
    QuorumLost,
    /// Every voter is lost.
    AllMembersLost,
    /// Joiners were given up one after the other.
    JoinerStuck,
    /// A claim is being deleted; its name cannot be used yet.
    ClaimTerminating,
    /// The StoreCluster is being deleted.
    Deleting,
    /// A set's controller has not seen the wanted template yet; a pod would come back with the old one.
    TemplatePending,
    /// A member is being restarted, or comes up after a restart.
    MemberRestarting,
    /// A voter serves but has not caught up, answers no reads, or reports an alarm.
    NotRecovered,
    /// With fewer than three voters a restart interrupts the service.
    DowntimeExpected,
    /// A member that was started with the wanted settings does not become well; nobody else is
    /// restarted.
    RolloutFailed,
    /// `spec.updateStrategy.paused` is set and members run older settings.
    RolloutPaused,
    /// Volumes are on their way to the wanted size.
    VolumesGrowing,
    /// The wanted version must not meet the versions that members run.
    VersionRefused,
    /// The memory in status cannot be read.
    MemoryUnreadable,
}

impl Reason {
    /// Every reason, in the order of their declaration.
    pub const ALL: &[Self] = &[
        Self::Paused,
        Self::Hibernated,
        Self::InvalidSpec,
        Self::EarlierVolumesFound,
        Self::NameTaken,
        Self::Forming,
        Self::FormationFailed,
        Self::MembershipUnknown,
        Self::ForeignCluster,
        Self::ForeignMember,
        Self::JoinerStarting,
        Self::LearnerCatchingUp,
        Self::QuorumAtRisk,
        Self::MemberDown,
        Self::NoLeader,
        Self::BudgetPending,
        Self::LeadershipMoving,
        Self::PodStopping,
        Self::VolumeLost,
        Self::MemberRefuses,
        Self::NodeLost,
        Self::NodesUnreadable,
        Self::CorruptAlarm,
        Self::NoSpaceAlarm,
        Self::PodEnded,
        Self::QuorumLost,
        Self::AllMembersLost,
        Self::JoinerStuck,
        Self::ClaimTerminating,
        Self::Deleting,
        Self::TemplatePending,
        Self::MemberRestarting,
        Self::NotRecovered,
        Self::DowntimeExpected,
        Self::RolloutFailed,
        Self::RolloutPaused,
        Self::VolumesGrowing,
        Self::VersionRefused,
        Self::MemoryUnreadable,
    ];

    /// Whether nothing changes until a person does something, so that there is no hurry to look
    /// again.
    #[must_use]
    pub fn waits_for_a_person(self) -> bool {
        match self {
            Self::Paused
            | Self::Hibernated
            | Self::InvalidSpec
            | Self::EarlierVolumesFound
            | Self::NameTaken
            | Self::FormationFailed
            | Self::ForeignCluster
            | Self::ForeignMember
            | Self::MemoryUnreadable
            | Self::RolloutFailed
            | Self::RolloutPaused
            | Self::VersionRefused
            | Self::NodesUnreadable => true,
            Self::Forming
            | Self::MembershipUnknown
            | Self::JoinerStarting
            | Self::LearnerCatchingUp
            | Self::QuorumAtRisk
            | Self::MemberDown
            | Self::NoLeader
            | Self::BudgetPending
            | Self::LeadershipMoving
            | Self::PodStopping
            | Self::PodEnded
            | Self::VolumeLost
            | Self::MemberRefuses
            | Self::NodeLost
            | Self::CorruptAlarm
            | Self::NoSpaceAlarm
            | Self::QuorumLost
            | Self::AllMembersLost
            | Self::JoinerStuck
            | Self::ClaimTerminating
            | Self::TemplatePending
            | Self::MemberRestarting
            | Self::NotRecovered
            | Self::DowntimeExpected
            | Self::VolumesGrowing
            | Self::Deleting => false,
        }
    }

    /// The stable CamelCase word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Paused => "Paused",
            Self::Hibernated => "Hibernated",
            Self::InvalidSpec => "InvalidSpec",
            Self::EarlierVolumesFound => "EarlierVolumesFound",
            Self::NameTaken => "NameTaken",
            Self::Forming => "Forming",
            Self::FormationFailed => "FormationFailed",
            Self::MembershipUnknown => "MembershipUnknown",
            Self::ForeignCluster => "ForeignCluster",
            Self::ForeignMember => "ForeignMember",
            Self::JoinerStarting => "JoinerStarting",
            Self::LearnerCatchingUp => "LearnerCatchingUp",
            Self::QuorumAtRisk => "QuorumAtRisk",
            Self::MemberDown => "MemberDown",
            Self::NoLeader => "NoLeader",
            Self::BudgetPending => "BudgetPending",
            Self::LeadershipMoving => "LeadershipMoving",
            Self::PodStopping => "PodStopping",
            Self::VolumeLost => "VolumeLost",
            Self::MemberRefuses => "MemberRefuses",
            Self::NodeLost => "NodeLost",
            Self::NodesUnreadable => "NodesUnreadable",
            Self::CorruptAlarm => "CorruptAlarm",
            Self::NoSpaceAlarm => "NoSpaceAlarm",
            Self::PodEnded => "PodEnded",
            Self::QuorumLost => "QuorumLost",
            Self::AllMembersLost => "AllMembersLost",
            Self::JoinerStuck => "JoinerStuck",
            Self::ClaimTerminating => "ClaimTerminating",
            Self::Deleting => "Deleting",
            Self::TemplatePending => "TemplatePending",
            Self::MemberRestarting => "MemberRestarting",
            Self::NotRecovered => "NotRecovered",
            Self::DowntimeExpected => "DowntimeExpected",
            Self::RolloutFailed => "RolloutFailed",
            Self::RolloutPaused => "RolloutPaused",
            Self::VolumesGrowing => "VolumesGrowing",
            Self::VersionRefused => "VersionRefused",
            Self::MemoryUnreadable => "MemoryUnreadable",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something that was not done, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Why.
    pub reason: Reason,
    /// One sentence for people: what happened, what it means, what to do. No times, no ports: it
    /// goes into a condition.
    pub message: String,
}

/// A text from outside, cut to what a condition may carry, on one line.
pub(crate) fn short(text: &str) -> String {
    let line = text.lines().last().unwrap_or_default();
    line.chars().take(crate::limits::FOREIGN_TEXT_MAX).collect()
}
