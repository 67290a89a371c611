//! Vocabulary: every reason that a condition may have, by type and status. The user guide's tables
//! are held equal to it, both ways.

use crate::conditions::ConditionType;
use crate::reason::Reason;

/// Every type and status (`None` is Unknown) with its reasons. Progressing is True for any [`Reason`] too.
pub const VOCABULARY: &[(ConditionType, Option<bool>, &[&str])] = &[
    (ConditionType::Available, Some(true), &["Serving"]),
    (
        ConditionType::Available,
        Some(false),
        &[
            "Forming",
            "Starting",
            "Hibernated",
            "Deleting",
            "NoLeader",
            "QuorumLost",
            "CorruptAlarm",
        ],
    ),
    (ConditionType::Available, None, &["MembersUnseen"]),
    (ConditionType::Progressing, Some(true), &["Scaling", "MembersStarting", "Hibernating"]),
    (
        ConditionType::Progressing,
        Some(false),
        &[
            "Reconciled",
            "Paused",
            "Hibernated",
            "EarlierVolumesFound",
            "InvalidSpec",
            "MemoryUnreadable",
        ],
    ),
    (
        ConditionType::Degraded,
        Some(true),
        &[
            "MembersUnseen",
            "AllMembersLost",
            "QuorumLost",
            "CorruptAlarm",
            "VolumeLost",
            "MemberRefuses",
            "NodeLost",
            "NoSpaceAlarm",
            "MemberDown",
            "JoinerStuck",
            "NodesUnreadable",
            "RolloutFailed",
            "FormationFailed",
            "NameTaken",
            "ForeignCluster",
            "ForeignMember",
            "MemoryUnreadable",
            "InvalidSpec",
            "VersionRefused",
        ],
    ),
    (ConditionType::Degraded, Some(false), &["AsExpected"]),
    (ConditionType::QuorumHealthy, Some(true), &["QuorumReachable"]),
    (
        ConditionType::QuorumHealthy,
        Some(false),
        &["QuorumLost", "AllMembersLost", "Forming", "Hibernated", "Deleting"],
    ),
    (ConditionType::QuorumHealthy, None, &["MembersUnseen"]),
    (ConditionType::RestartPending, Some(true), &["SettingsChanged"]),
    (ConditionType::RestartPending, Some(false), &["UpToDate"]),
    (
        ConditionType::ResizePending,
        Some(true),
        &["VolumesGrowing", "ClassCannotExpand", "GrowthRefused", "GrowthFailed"],
    ),
    (ConditionType::ResizePending, Some(false), &["UpToDate"]),
    (ConditionType::EarlierVolumesFound, Some(true), &["EarlierVolumesFound"]),
    (ConditionType::EarlierVolumesFound, Some(false), &["NoneFound"]),
    (ConditionType::SizeWarning, Some(true), &["EvenSize", "ManyVoters"]),
    (ConditionType::SizeWarning, Some(false), &["OddSize"]),
    (ConditionType::PlacementWarning, Some(true), &["VotersShareNode"]),
    (ConditionType::PlacementWarning, Some(false), &["VotersApart"]),
];

/// Whether a condition may say this.
#[must_use]
pub(crate) fn knows(type_: ConditionType, holds: Option<bool>, reason: &str) -> bool {
    let listed = VOCABULARY
        .iter()
        .any(|(t, h, reasons)| *t == type_ && *h == holds && reasons.contains(&reason));
    let waits = type_ == ConditionType::Progressing
        && holds == Some(true)
        && Reason::ALL.iter().any(|known| known.as_str() == reason);
    listed || waits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditions::status_word;
    use std::collections::{BTreeMap, BTreeSet};

    const GUIDE: &str = include_str!("../../../../docs/user-guide.md");

    /// The rows of the table under a heading, head and rule left out.
    fn table(heading: &str) -> Vec<Vec<&'static str>> {
        let section =
            GUIDE.split(&format!("### {heading}\n")).nth(1).expect("the heading is there");
        let section = section.split("\n### ").next().unwrap_or_default();
        let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
        rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
    }

    /// The CamelCase words of a cell; what has spaces is prose.
    fn words(cell: &str) -> impl Iterator<Item = String> {
        let words = cell.split([',', ';']).map(str::trim);
        words.filter(|word| !word.is_empty() && !word.contains(' ')).map(str::to_owned)
    }

    #[test]
    fn the_guide_tells_every_condition_and_no_other() {
        let mut told = BTreeSet::new();
        let (mut type_, mut status) = ("", "");
        for row in table("Conditions") {
            type_ = if row[0].is_empty() { type_ } else { row[0] };
            status = if row[1].is_empty() { status } else { row[1] };
            for word in words(row[2]) {
                let said = (type_.to_owned(), status.to_owned(), word);
                assert!(told.insert(said.clone()), "the guide tells {said:?} twice");
            }
            assert!(row[3].len() > 10, "{row:?} has no meaning");
        }
        let mut known = BTreeSet::new();
        for (type_, holds, reasons) in VOCABULARY {
            let status = status_word(*holds);
            for reason in *reasons {
                known.insert((type_.as_str().to_owned(), status.to_owned(), (*reason).to_owned()));
            }
        }
        assert!(known.len() > 40);
        let missing: Vec<_> = known.difference(&told).collect();
        let stale: Vec<_> = told.difference(&known).collect();
        assert!(missing.is_empty() && stale.is_empty(), "not told: {missing:?}; not so: {stale:?}");
    }

    #[test]
    fn the_guide_tells_every_reason_and_whether_it_passes() {
        let mut told = BTreeMap::new();
        for row in table("Reasons") {
            for word in words(row[0]) {
                assert!(told.insert(word.clone(), row[1]).is_none(), "{word} is told twice");
            }
            assert!(row[2].len() > 3, "{row:?} does not say what to do");
        }
        for reason in Reason::ALL {
            let passes = told.remove(reason.as_str());
            let passes = passes.unwrap_or_else(|| panic!("the guide does not tell {reason}"));
            assert_eq!(passes.starts_with("no"), reason.waits_for_a_person(), "{reason}: {passes}");
        }
        assert!(told.is_empty(), "no reasons of the planner: {told:?}");
    }

    #[test]
    fn all_reasons_are_all() {
        let source = include_str!("reason.rs");
        let mut words = source.lines().filter_map(|line| {
            let (variant, word) = line.trim().strip_prefix("Self::")?.split_once(" => \"")?;
            Some((variant, word.trim_end_matches("\",")))
        });
        let named: BTreeSet<_> = words.by_ref().map(|(_variant, word)| word).collect();
        let all: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert!(named.len() > 20, "the source reads otherwise: {named:?}");
        assert_eq!(named, all, "Reason::ALL is not all of them");
    }

    #[test]
    fn every_word_of_the_vocabulary_is_said_somewhere() {
        let code = [
            include_str!("conditions.rs"),
            include_str!("growth.rs"),
            include_str!("plan.rs"),
            include_str!("reason.rs"),
        ];
        for word in VOCABULARY.iter().flat_map(|(.., reasons)| reasons.iter()) {
            let quoted = format!("\"{word}\"");
            assert!(code.iter().any(|text| text.contains(&quoted)), "nobody says {word}");
        }
        assert!(!knows(ConditionType::Degraded, Some(true), "Made up"));
        assert!(knows(ConditionType::Progressing, Some(true), Reason::JoinerStarting.as_str()));
        assert!(!knows(ConditionType::Progressing, Some(false), Reason::JoinerStarting.as_str()));
    }
}
