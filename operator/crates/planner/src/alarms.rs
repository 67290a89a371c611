//! Alarms: what the members report about the store as a whole, read from `Maintenance.Status`.

use crate::action::Alarm;
use crate::world::World;
use std::collections::BTreeSet;

/// The alarms that stand, with the member that each accuses; 0 for nobody in particular. They are
/// replicated, so the leader's word is the newest; without one every member's counts.
pub(crate) fn standing(world: &World<'_>) -> BTreeSet<(u64, Alarm)> {
    let leader = world.leader().and_then(|leader| world.observed.answer(leader));
    let answers: Vec<_> = match leader {
        Some(answer) => vec![answer],
        None => world.observed.members.keys().filter_map(|id| world.observed.answer(*id)).collect(),
    };
    answers.into_iter().flat_map(|answer| &answer.errors).filter_map(|text| parse(text)).collect()
}

/// Whether CORRUPT stands: writes are refused and no member is ready (`docs/contract.md`).
pub(crate) fn corrupt(world: &World<'_>) -> bool {
    standing(world).iter().any(|(_id, alarm)| *alarm == Alarm::Corrupt)
}

/// etcd's words for an alarm: `memberID:42 alarm:CORRUPT`.
fn parse(text: &str) -> Option<(u64, Alarm)> {
    let mut words = text.split_whitespace();
    let id = words.next()?.strip_prefix("memberID:")?.parse().ok()?;
    let name = words.next()?.strip_prefix("alarm:")?;
    let alarm = [Alarm::NoSpace, Alarm::Corrupt].into_iter().find(|it| it.as_str() == name)?;
    Some((id, alarm))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_are_told_from_other_errors() {
        assert_eq!(parse("memberID:42 alarm:CORRUPT"), Some((42, Alarm::Corrupt)));
        assert_eq!(parse("memberID:7 alarm:NOSPACE "), Some((7, Alarm::NoSpace)));
        for other in ["etcdserver: no leader", "memberID:x alarm:CORRUPT", "memberID:7 alarm:NONE"]
        {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
