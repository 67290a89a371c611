//! Version: which versions of the server may follow one another, and what a cluster runs.
//!
//! Neighbouring minor versions understand each other; others were never tried together. So nobody
//! skips a minor version, and nobody goes back across one: rows that only the newer version writes
//! may be in the data by then. Both are judged by what voters really ran, not by what was asked for.

use crate::draft::Draft;
use crate::world::annotation;
use quorate_crds::{MemberStatus, names};
use std::fmt;

/// Major, minor and patch number of a version; a pre-release counts as its release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    major: u64,
    minor: u64,
    patch: u64,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Reads a version; `None` for a text that is none.
pub(crate) fn parse(text: &str) -> Option<Version> {
    let release = text.split(['-', '+']).next()?;
    let mut numbers = release.split('.').map(|part| part.parse::<u64>().ok());
    let (major, minor, patch) = (numbers.next()??, numbers.next()??, numbers.next()??);
    numbers.next().is_none().then_some(Version { major, minor, patch })
}

/// What the voters of a cluster run, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The lowest that a voter ran when its pod was ready last, however it is now: it would be
    /// started with the wanted version on the data of that one.
    pub(crate) oldest: Version,
    /// The lowest that a well voter runs: newer rows are not in the data before all run the newer
    /// version. If nobody is well, what was remembered.
    pub(crate) lowest: Version,
}

/// What the voters run; `None` while no voter was ever ready.
pub(crate) fn run(draft: &Draft<'_>) -> Option<Run> {
    let remembered = |member: &MemberStatus| member.version.as_deref().and_then(parse);
    let oldest = draft.memory.voters().filter_map(remembered).min();
    let running = |member: &MemberStatus| {
        let pod = draft.world.pod(member.ordinal)?;
        let well = crate::memory::member_id(member)
            .is_some_and(|id| draft.world.is_well(id, member.ordinal));
        well.then(|| annotation(&pod.metadata, names::ANNOTATION_VERSION).and_then(parse))?
    };
    let lowest = draft.memory.voters().filter_map(running).min().or(oldest)?;
    Some(Run { oldest: oldest.unwrap_or(lowest).min(lowest), lowest })
}

/// Why a cluster that runs this may not be brought to that version, and what to do instead.
pub(crate) fn refusal(wanted: Version, run: Run) -> Option<String> {
    let Run { oldest, lowest } = run;
    if wanted.major != oldest.major {
        return Some(format!(
            "version {wanted} is another major version than {oldest}, which a member runs; make a \
             new cluster of it and move the data"
        ));
    }
    if wanted.minor > oldest.minor + 1 {
        return Some(format!(
            "version {wanted} skips a minor version, because a member runs {oldest}; go to {}.{} \
             first, and on when every member runs it",
            oldest.major,
            oldest.minor + 1
        ));
    }
    if wanted.minor < lowest.minor {
        return Some(format!(
            "version {wanted} is older than {lowest}, which every member runs: the data may hold \
             what it does not know; set spec.version to {}.{} or newer",
            lowest.major, lowest.minor
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        parse(text).expect("a version")
    }

    #[test]
    fn versions_are_numbers_and_not_texts() {
        assert!(version("0.10.0") > version("0.9.12"));
        assert_eq!(version("1.2.3-rc.1"), version("1.2.3"));
        for text in ["", "1.2", "1.2.x", "1.2.3.4", "latest"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn one_minor_version_at_a_time_and_none_back() {
        let verdict = |wanted: &str, oldest: &str, lowest: &str| {
            refusal(version(wanted), Run { oldest: version(oldest), lowest: version(lowest) })
        };
        for wanted in ["0.1.0", "0.1.9", "0.2.0", "0.2.7"] {
            assert_eq!(verdict(wanted, "0.1.3", "0.1.3"), None, "{wanted}");
        }
        let skips = verdict("0.3.0", "0.1.3", "0.1.3").expect("refused");
        assert!(skips.contains("go to 0.2 first"), "{skips}");
        let back = verdict("0.1.9", "0.2.0", "0.2.0").expect("refused");
        assert!(back.contains("set spec.version to 0.2 or newer"), "{back}");
        assert!(verdict("1.0.0", "0.9.0", "0.9.0").expect("refused").contains("new cluster"));
        // A voter that has long been down would skip what the others have been through.
        assert!(verdict("0.3.0", "0.1.0", "0.2.0").expect("refused").contains("skips"));
        // And it does not make a way back for those that have gone on.
        assert!(verdict("0.1.0", "0.1.0", "0.2.0").expect("refused").contains("older"));
    }
}
