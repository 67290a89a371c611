//! Skew: refuses a version that must not meet what the members run. Sets that exist are then left as
//! they are and nobody is restarted; everything else goes on.

use crate::draft::Draft;
use crate::reason::Reason;
use crate::version::{self, parse};

/// Notes a refusal, for the steps that write templates or restart members.
pub(crate) fn step(draft: &mut Draft<'_>) {
    let Some(run) = version::run(draft) else { return };
    // Admission lets no other text pass; one that is no version is told nothing about.
    let Some(wanted) = parse(&draft.world.desired.version) else { return };
    if let Some(message) = version::refusal(wanted, run) {
        draft.version_refused = true;
        draft.wait(Reason::VersionRefused, message);
    }
}
