//! Alarms: what the members report about the store as a whole, read from `Maintenance.Status`.

use crate::action::Alarm;
use crate::observed::Observed;
use std::collections::BTreeSet;

impl Observed {
    /// The alarms that stand, with the member that each accuses; 0 for nobody in particular. They are
    /// replicated, so the leader's word is the newest; without one every member's counts.
    #[must_use]
    pub fn alarms(&self) -> BTreeSet<(u64, Alarm)> {
        let answers: Vec<_> = match self.leader().and_then(|leader| self.answer(leader)) {
            Some(answer) => vec![answer],
            None => self.members.keys().filter_map(|id| self.answer(*id)).collect(),
        };
        let errors = answers.into_iter().flat_map(|answer| &answer.errors);
        errors.filter_map(|text| parse(text)).collect()
    }

    /// Whether CORRUPT stands: writes are refused and no member is ready (`docs/contract.md`).
    pub(crate) fn is_corrupt(&self) -> bool {
        self.alarms().iter().any(|(_id, alarm)| *alarm == Alarm::Corrupt)
    }
}

/// etcd's words for an alarm: `memberID:42 alarm:CORRUPT`.
fn parse(text: &str) -> Option<(u64, Alarm)> {
    let mut words = text.split_whitespace();
    let id = words.next()?.strip_prefix("memberID:")?.parse().ok()?;
    let name = words.next()?.strip_prefix("alarm:")?;
    let alarm = Alarm::ALL.into_iter().find(|it| it.as_str() == name)?;
    Some((id, alarm))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Stage;

    #[test]
    fn an_alarm_counts_once_for_each_member_that_raised_it() {
        let mut stage = Stage::at_rest(3);
        for (ordinal, raised) in [(0, 2), (1, 2), (2, 1)] {
            let errors = (1..=raised).map(|id| format!("memberID:{id} alarm:NOSPACE "));
            stage.answer(ordinal).errors = errors.collect();
            stage.answer(ordinal).leader = None;
        }
        let both = BTreeSet::from([(1, Alarm::NoSpace), (2, Alarm::NoSpace)]);
        assert_eq!(stage.observed.alarms(), both);
        stage.lead(2);
        assert_eq!(stage.observed.alarms().len(), 1, "the leader's word is the newest");
    }

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
