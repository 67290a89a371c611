//! The comparison with etcd: both servers on one host, in turn, under the same load, as a table of ratios.
//!
//! # What this room is
//!
//! `cargo xtask bench` builds etcd, etcd's own load generator and our release, then runs this program. It plays rounds.
//! In a round each server gets three members with fresh directories and the same flags, is filled with a million keys,
//! is loaded by etcd's `benchmark` tool case by case, and at last has one member killed and started again:
//!
//! ```text
//!   round 1: etcd    start ─ fill ─ put 1, 100, 1000 ─ linearizable … ─ serializable … ─ kill -9, restart ─ stop
//!            quorate start ─ fill ─ …
//!   round 2: etcd …  quorate …            a ratio is taken inside a round; the table shows the median of the rounds
//! ```
//!
//! Only one of the two runs at a time, and the rounds interleave them, so that what the host does beside us (a neighbour,
//! a slow hour of the disk) falls on both. A ratio of throughput is good above 1, every other ratio below 1; the program
//! fails when one is on the wrong side by more than the tolerance (`limits::TOLERANCE`).
//!
//! # What it measures, and from where
//!
//! * **Throughput, p50, p99**: as the tool prints them. The tool is a Go program on the same two cores, so throughput
//!   at many clients is as much the tool's as the server's.
//! * **CPU per operation**: the members' utime + stime from `/proc/PID/stat`, summed over the three, divided by the
//!   operations. This is the honest figure on a shared host. The count begins when the servers are idle and ends when
//!   they are idle again, so work that a server put off is charged to the operations that caused it.
//! * **Bytes to disk**: sectors written by the device under the data (`/proc/diskstats`), everything synced before and
//!   after, over the same window. It has journal and metadata in it, and whatever else the host writes meanwhile; it is
//!   told and not judged.
//! * **Memory**: the greatest RssAnon and VmRSS of any member at any time after the fill, sampled twice a second. RssAnon
//!   is what the process holds for itself; VmRSS has mapped files in it, which the kernel may take back.
//! * **Restart**: from the start of the killed member's process to the first linearizable read that it answers. It must
//!   then count at least the keys that were filled in, or the run fails.
//! * **Rooms**: our threads are named after what they do, so CPU per thread (`/proc/PID/task/*/schedstat`) says where
//!   the CPU of an operation goes.
//!
//! # What is equal for both, and what is not
//!
//! The keys are those of the tool (`--key-size 64 --key-space-size N`): a number in the first bytes, zeros behind. The
//! fill writes each of them once, in random order, in transactions of 128; so every measured put overwrites a random key
//! of the filled store. Ranges read one key, as the tool does. With one client the tool talks to the leader, with more
//! it spreads its connections over the members. Both servers run with their defaults; etcd syncs, and so do we.
//!
//! # What it does not know
//!
//! Nothing of how either server is made: it starts a program by etcd's flags and reads `/proc`. It keeps no state between
//! runs, and no figure of an earlier run is ever compared with one of this.
//!
//! # Left out
//!
//! TLS, watches, leases, large values, large ranges, data beyond the page cache, several hosts. Each needs a case of its
//! own, and none is what the two servers differ in most.
//!
//! Every child is started by `setpriv --pdeathsig KILL`: whatever ends this program (an error, a panic, Ctrl-C, kill -9),
//! the kernel ends its servers and its load generator with it, by pid and not by name.

mod accounting;
mod arguments;
mod cases;
mod client;
mod fill;
mod limits;
mod load;
mod round;
mod servers;
mod table;

use anyhow::{Context, Result};
use clap::Parser;

/// Plays what the command line asks for, prints the table, and says whether every ratio is on the right side.
///
/// # Errors
/// Arguments that name nothing, a program that is missing, a table that cannot be written. What goes wrong with a server
/// or its load is a line of the table instead.
pub fn run() -> Result<bool> {
    let plan = arguments::Arguments::parse().plan()?;
    // One thread for everything: a child's death signal hangs on the thread that started it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(round::play(&plan))
}
