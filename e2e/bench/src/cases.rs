//! The cases under load: what the tool does, and by how many clients at once.

use std::fmt;

/// The name of the case that is not one of the tool: a member killed and started again.
pub(crate) const RESTART: &str = "restart";

/// The name of the case that fills the store.
pub(crate) const FILL: &str = "fill";

/// The name of the rows that hold for a whole round.
pub(crate) const MEMORY: &str = "memory";

/// What each client does, again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Overwrites a random key of the filled store.
    Put,
    /// Reads one key as of now: the member asks the leader for its commit index first.
    Linearizable,
    /// Reads one key as of whatever the member has applied.
    Serializable,
}

/// One row group of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Case {
    /// What is done.
    pub(crate) work: Work,
    /// By how many clients, each with one operation in flight.
    pub(crate) clients: usize,
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Work::Put => "put",
            Work::Linearizable => "linearizable",
            Work::Serializable => "serializable",
        })
    }
}

impl Case {
    /// As it stands in the table and as `--only` picks it.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.work, self.clients)
    }
}

/// Every case, in the order in which they are played: writes first, so that reads meet a store that was written to.
pub(crate) fn all() -> Vec<Case> {
    let works = [Work::Put, Work::Linearizable, Work::Serializable];
    let with_clients = |work| [1, 100, 1000].map(|clients| Case { work, clients });
    works.into_iter().flat_map(with_clients).collect()
}
