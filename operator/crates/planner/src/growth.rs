//! Growth: how far the volumes of members are from the wanted size, told from their claims.
//!
//! A volume grows in three parts, by three parties (Kubernetes' KEP-1790 and KEP-556): the claim asks
//! for more, which is ours; the storage gives it (external-resizer); the node lets the file system
//! have it. The claim's request says the first, its conditions the second, `status.capacity` the last.
//! Nothing of it is remembered here: whatever has happened in between, the next look tells where each
//! claim stands.

use crate::limits::REFUSAL_STANDS;
use crate::memory::Memory;
use crate::observed::{GrowthRefusal, StorageClasses};
use crate::quantity;
use crate::reason::short;
use crate::world::{World, is_terminating};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use quorate_crds::{MemberRole, MemberStatus};
use std::collections::BTreeMap;

/// The name of the one resource of a claim.
const STORAGE: &str = "storage";

/// Where a member's volume stands. What a person must put right comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Growth {
    /// It has asked, and the storage or the node says no.
    Failed {
        /// Their words.
        words: String,
    },
    /// Its StorageClass does not allow expansion.
    ClassCannotExpand {
        /// Name of the class.
        class: String,
    },
    /// The API server does not let it ask.
    Refused {
        /// The API server's words.
        words: String,
    },
    /// It has asked, and the storage has not given it yet.
    Growing,
    /// The storage has given it, and the file system has not taken it yet.
    FileSystem,
    /// It is to be asked for.
    Due,
    /// It has no volume yet, and until then nobody may change what it asks for.
    Unbound,
    /// It is as large as wanted, or larger.
    Done,
}

impl Growth {
    /// The reason of the condition ResizePending.
    fn reason(&self) -> &'static str {
        match self {
            Self::Failed { .. } => "GrowthFailed",
            Self::ClassCannotExpand { .. } => "ClassCannotExpand",
            Self::Refused { .. } => "GrowthRefused",
            Self::Growing | Self::FileSystem | Self::Due | Self::Unbound => "VolumesGrowing",
            Self::Done => "UpToDate",
        }
    }

    /// What is to be said of members whose volumes stand here.
    fn sentence(&self, names: &str, back: &str) -> String {
        let volumes = format!("the volumes of {names}");
        match self {
            Self::Failed { words } => {
                format!("the storage does not grow {volumes} and tries again by itself ({words})")
            }
            Self::ClassCannotExpand { class } => format!(
                "{volumes} stay smaller than storage.size, because StorageClass {class} has no \
                    allowVolumeExpansion: set it there, or set storage.size back to {back}"
            ),
            Self::Refused { words } => format!(
                "the API server does not let {volumes} grow ({words}); it is asked again every {} \
                    minutes, and at once for another size",
                REFUSAL_STANDS.as_secs() / 60
            ),
            Self::Growing => format!("{volumes} are growing"),
            Self::FileSystem => format!(
                "{volumes} have grown and their file systems follow, while the pods run or when they \
                    start anew"
            ),
            Self::Due => format!("{volumes} are to grow, one after the other"),
            Self::Unbound => format!("{volumes} are not made yet and grow when they are"),
            Self::Done => format!("{volumes} have the wanted size"),
        }
    }
}

/// Each current member with a claim of ours that is to stay, and where that stands.
pub(crate) fn of_members<'a>(
    world: &World<'a>,
    memory: &'a Memory,
) -> Vec<(&'a MemberStatus, &'a PersistentVolumeClaim, Growth)> {
    let current = memory.members.values().filter(|member| member.role != MemberRole::Removed);
    let claims = current.filter_map(|member| Some((member, world.claim(&member.claim)?)));
    let ours = claims.filter(|(member, claim)| {
        world.owns_claim(claim, Some(member)) && !is_terminating(&claim.metadata)
    });
    ours.map(|(member, claim)| (member, claim, growth(world, claim))).collect()
}

fn growth(world: &World<'_>, claim: &PersistentVolumeClaim) -> Growth {
    let value = |size: Option<&Quantity>| size.and_then(|size| quantity::parse(&size.0));
    let asked = value(request(claim));
    let (Some(asked), Some(wanted)) = (asked, value(Some(&world.desired.storage_size))) else {
        return Growth::Done;
    };
    if asked < wanted {
        return before(world, claim);
    }
    let status = claim.status.as_ref().filter(|_status| is_bound(claim));
    let capacity = status.and_then(|status| status.capacity.as_ref()?.get(STORAGE));
    match (status, value(capacity)) {
        (Some(status), Some(has)) if has < asked => under_way(status),
        (Some(_) | None, _) => Growth::Done,
    }
}

/// What a claim asks for.
pub(crate) fn request(claim: &PersistentVolumeClaim) -> Option<&Quantity> {
    claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get(STORAGE)
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
}

/// What stands between a claim that is too small and its asking for more.
fn before(world: &World<'_>, claim: &PersistentVolumeClaim) -> Growth {
    let observed = world.observed;
    let class = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref());
    if let (Some(class), StorageClasses::Known(classes)) = (class, &observed.storage_classes)
        && classes.get(class) == Some(&false)
    {
        return Growth::ClassCannotExpand { class: class.clone() };
    }
    if let Some(refusal) = refusal(world, claim) {
        // The object is named already, and the reason is the same for all.
        let words = [" is forbidden: ", " is invalid: "]
            .into_iter()
            .find_map(|verdict| refusal.words.split_once(verdict).map(|(_object, reason)| reason));
        return Growth::Refused { words: short(words.unwrap_or(&refusal.words)) };
    }
    if is_bound(claim) { Growth::Due } else { Growth::Unbound }
}

/// What the API server last said to a claim that asked for the wanted size.
fn refusal<'a>(world: &World<'a>, claim: &PersistentVolumeClaim) -> Option<&'a GrowthRefusal> {
    let refusal = world.observed.refused_growths.get(claim.metadata.uid.as_ref()?)?;
    (refusal.size == world.desired.storage_size).then_some(refusal)
}

/// Whether a claim that was refused is to ask again. Until there is another answer the old one stands.
pub(crate) fn asks_again(world: &World<'_>, claim: &PersistentVolumeClaim) -> bool {
    refusal(world, claim).is_some_and(|it| world.age(&Time(it.at)) >= REFUSAL_STANDS)
}

/// Where a claim stands that has asked for more than it has (core/v1: ClaimResourceStatus and
/// PersistentVolumeClaimConditionType).
fn under_way(status: &PersistentVolumeClaimStatus) -> Growth {
    let holds = |type_: &str| {
        let mut conditions = status.conditions.iter().flatten();
        conditions.find(|condition| condition.type_ == type_ && condition.status == "True")
    };
    let stage = status.allocated_resource_statuses.as_ref().and_then(|all| all.get(STORAGE));
    let stage = stage.map(String::as_str).unwrap_or_default();
    let error = holds("ControllerResizeError").or_else(|| holds("NodeResizeError"));
    if error.is_some() || stage.ends_with("Infeasible") {
        let words = error.and_then(|condition| condition.message.as_deref());
        return Growth::Failed { words: short(words.unwrap_or("it cannot be done")) };
    }
    if holds("FileSystemResizePending").is_some() || stage.starts_with("NodeResize") {
        Growth::FileSystem
    } else {
        Growth::Growing
    }
}

/// The largest size that a member's volume has been asked to be.
pub(crate) fn largest(world: &World<'_>, memory: &Memory) -> Option<String> {
    let members = of_members(world, memory);
    let sizes = members.into_iter().filter_map(|(_member, claim, _growth)| request(claim));
    sizes.max_by_key(|size| quantity::parse(&size.0)).map(|size| size.0.clone())
}

/// Reason and message of the condition ResizePending, if there is anything to say.
pub(crate) fn told(world: &World<'_>, memory: &Memory) -> Option<(&'static str, String)> {
    let mut groups: BTreeMap<Growth, Vec<&str>> = BTreeMap::new();
    for (member, _claim, growth) in of_members(world, memory) {
        groups.entry(growth).or_default().push(&member.name);
    }
    groups.remove(&Growth::Done);
    let (worst, _names) = groups.first_key_value()?;
    let back = largest(world, memory).unwrap_or_default();
    let sentences = groups.iter().map(|(growth, names)| growth.sentence(&names.join(", "), &back));
    Some((worst.reason(), sentences.collect::<Vec<_>>().join("; ")))
}
