//! The bounds of this room that are no tuning, each with its reason and what happens when it is reached.

/// Pages of committed entries (each of `committed_bytes_max`) that may be handed out and not yet applied. Reached:
/// nothing more is handed out until the machine reports [`crate::Input::Applied`], so that a slow machine costs
/// memory for four pages and not for the whole log.
pub(crate) const APPLYING_PAGES_MAX: usize = 4;

/// Read rounds that may wait for their quorum of heartbeat answers at once. Reached: reads go on waiting and share
/// the next round, which costs them one round trip more and nothing else.
pub(crate) const READ_ROUNDS_MAX: usize = 64;

/// Reads that may wait for a round on the leader, and reads that a follower may have sent on. Reached: the leader
/// drops the newest, a follower forgets its oldest question (its answer was probably lost), in silence, as
/// [`crate::Input::ReadIndex`] allows; the asker asks again.
pub(crate) const READS_WAITING_MAX: usize = 65_536;

/// Election timeouts that a receiver may take to install a snapshot which reached it whole, before the leader
/// probes it as if it had never got one. An install is bounded by the disk, not by the network, hence generous.
pub(crate) const INSTALL_ELECTIONS_MAX: u32 = 60;
