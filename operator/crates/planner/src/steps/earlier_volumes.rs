//! Earlier volumes: claims of an earlier cluster of this name, found before anything was formed.
//!
//! Forming beside them would leave data that looks current and is not; using them unasked could
//! serve data that somebody thought deleted. So a person decides, by the annotation
//! `quorate.dev/earlier-volumes: adopt | discard`.

use crate::action::Action;
use crate::draft::Draft;
use crate::memory::Memory;
use crate::naming::parse_hex;
use crate::reason::Reason;
use crate::world::{annotation, exactly, is_terminating, label};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use quorate_crds::{FormationStatus, MemberRole, names};
use std::collections::BTreeMap;

/// Returns whether the way is free to go on with what the memory now says.
pub(crate) fn step(draft: &mut Draft<'_>) -> bool {
    let observed = draft.world.observed;
    if !draft.memory.is_empty() || observed.claims.is_empty() {
        return true;
    }
    let claims: Vec<_> =
        observed.claims.iter().filter(|claim| !is_terminating(&claim.metadata)).collect();
    if claims.is_empty() {
        draft.wait(
            Reason::ClaimTerminating,
            "volumes of an earlier cluster of this name are being deleted; the cluster forms \
                when they are gone",
        );
        return false;
    }
    match observed.cluster.annotations.get(names::ANNOTATION_EARLIER_VOLUMES).map(String::as_str) {
        Some("discard") => {
            for claim in claims {
                draft.act(Action::DeleteClaim(exactly(&claim.metadata)));
            }
            draft.wait(
                Reason::ClaimTerminating,
                "volumes of an earlier cluster are discarded as asked",
            );
            false
        }
        Some("adopt") => match adopt(draft, &claims) {
            Ok(memory) => take_over(draft, memory, &claims),
            Err(problem) => {
                draft.wait(
                    Reason::EarlierVolumesFound,
                    format!(
                        "the volumes of an earlier cluster cannot be adopted: {problem}; \
                        discard them with kubectl annotate storecluster NAME {}=discard \
                        --overwrite, or put them right",
                        names::ANNOTATION_EARLIER_VOLUMES
                    ),
                );
                false
            }
        },
        Some(_) | None => {
            let found: Vec<_> =
                claims.iter().map(|c| c.metadata.name.as_deref().unwrap_or_default()).collect();
            draft.wait(
                Reason::EarlierVolumesFound,
                format!(
                    "claims of an earlier cluster of this name exist: {}; keep its data with \
                        kubectl annotate storecluster NAME {key}=adopt, or delete them with \
                        {key}=discard",
                    found.join(", "),
                    key = names::ANNOTATION_EARLIER_VOLUMES
                ),
            );
            false
        }
    }
}

/// Marks the claims as ours, and remembers their members once all marks are seen. The marks are
/// writes with preconditions, so that claims which only a stale cache still shows are not adopted.
fn take_over(draft: &mut Draft<'_>, memory: Memory, claims: &[&PersistentVolumeClaim]) -> bool {
    let uid = &draft.world.observed.cluster.uid;
    for claim in claims {
        let adopted = memory.members.values().any(|member| member.claim_uid == claim.metadata.uid);
        let marked = annotation(&claim.metadata, names::ANNOTATION_CLUSTER_UID) == Some(uid);
        if adopted && !marked {
            draft.actions.push(Action::AnnotateClaim {
                claim: exactly(&claim.metadata),
                annotations: BTreeMap::from([(
                    names::ANNOTATION_CLUSTER_UID.to_owned(),
                    uid.clone(),
                )]),
            });
        }
    }
    if !draft.actions.is_empty() {
        draft.wait(Reason::Forming, "the volumes of an earlier cluster are being adopted as asked");
        return false;
    }
    let adopted = memory.members.len();
    draft.tell(false, "VolumesAdopted", format!("adopted {adopted} volumes of an earlier cluster"));
    draft.memory = memory;
    true
}

/// Rebuilds the memory from what was mirrored in the claims (see [`crate::steps::mirror`]).
fn adopt(draft: &Draft<'_>, claims: &[&PersistentVolumeClaim]) -> Result<Memory, String> {
    let name = &draft.world.desired.name;
    let number = |claim: &PersistentVolumeClaim, key: &str| {
        label(&claim.metadata, key).and_then(|text| text.parse::<i64>().ok())
    };
    let incarnation = claims
        .iter()
        .filter_map(|claim| number(claim, names::LABEL_INCARNATION))
        .max()
        .ok_or("no claim carries an incarnation label")?;
    let mut memory = Memory { incarnation, ..Memory::empty() };
    for claim in claims {
        let title = claim.metadata.name.as_deref().unwrap_or_default();
        let ordinal = number(claim, names::LABEL_ORDINAL)
            .and_then(|ordinal| i32::try_from(ordinal).ok())
            .filter(|ordinal| *ordinal >= 0)
            .ok_or_else(|| format!("{title} has no ordinal label"))?;
        let next = annotation(&claim.metadata, names::ANNOTATION_NEXT_ORDINAL)
            .and_then(|text| text.parse::<i32>().ok())
            .unwrap_or(0);
        memory.next_ordinal = memory.next_ordinal.max(next).max(ordinal.saturating_add(1));
        let retired = annotation(&claim.metadata, names::ANNOTATION_RETIRED).is_some();
        if retired || number(claim, names::LABEL_INCARNATION) != Some(incarnation) {
            continue;
        }
        let cluster_id =
            annotation(&claim.metadata, names::ANNOTATION_CLUSTER_ID).and_then(parse_hex);
        let member_id =
            annotation(&claim.metadata, names::ANNOTATION_MEMBER_ID).and_then(parse_hex);
        // A claim without ids belonged to a joiner that the store never listed: nothing is in it.
        let (Some(cluster_id), Some(member_id)) = (cluster_id, member_id) else {
            continue;
        };
        if memory.cluster_id.is_some_and(|other| other != cluster_id) {
            return Err(format!("{title} holds data of another cluster id than the others"));
        }
        memory.cluster_id = Some(cluster_id);
        if name.claim(ordinal, incarnation) != title {
            return Err(format!("{title} is not named after its labels"));
        }
        memory.insert(name, ordinal, draft.world.observed.now);
        let member = memory.members.get_mut(&ordinal).ok_or("the member was just inserted")?;
        member.id = Some(crate::naming::hex(member_id));
        member.claim_uid = claim.metadata.uid.clone();
        // Voter or learner, or removed while another was to vote in its place: the store says so once
        // it runs. A voter at worst, so that nothing is risked meanwhile.
        member.role = MemberRole::Voter;
        member.voted = true;
        if let Some(token) = annotation(&claim.metadata, names::ANNOTATION_TOKEN)
            && memory.formation.is_none()
        {
            memory.formation = Some(FormationStatus { token: token.to_owned(), ordinal });
        }
    }
    if memory.cluster_id.is_none() {
        return Err("none of them names the cluster and member whose data it holds".to_owned());
    }
    Ok(memory)
}
