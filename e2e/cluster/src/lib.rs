//! The operator on a real Kubernetes: one file per fear.
//!
//! # What this room is
//!
//! Everything below it is tested in parts: the planner by scripts and random worlds, the store by its
//! simulator and as real processes. This room puts the two programs together as a user would, by
//! their images and the chart, on the test bed (`quorate-kubernetes`), and looks at the whole from
//! outside. Each file of `tests/fears/` is named after something that a person who runs a store is
//! afraid of.
//!
//! ```text
//!   fixture::turn ─► installation: bed ─► programs ─► images ─► CRDs, chart       once a run
//!   store::Store  ─► one namespace, one StoreCluster, pods, members               once a test
//!   load::Load    ─► eight stock clients that write, and etcdctl; afterwards every acknowledged write is looked for
//!   witness, audit ─► what the members say forty times a second, what the API server was asked
//!   story         ─► `cargo xtask demo`
//! ```
//!
//! # What it does not know
//!
//! How the operator decides. What it believes is asked of nobody but the API server, the members and
//! the clients; the operator's own status is a claim that is compared with those.
//!
//! # What holds
//!
//! * A test of a fault first asserts that the fault took effect: the pod's UID is another one, the
//!   directory is empty, the process's restart is counted.
//! * A test waits for conditions with deadlines ([`limits`]), never for a time. The waits print what
//!   they wait for.
//! * One test at a time has the bed ([`fixture::Turn`]): two cores carry one cluster under load, and
//!   a drained node is drained for all.
//! * Each test has a namespace of its own, under the restricted pod security standard. It is deleted
//!   when the test has passed, and shown and kept when it has failed.
//! * INV-O1 and INV-O2 are checked from outside: the witness sees no two voters come, go or fall
//!   silent at once, the audit log no member stopped before the last one was gone. INV-O3: no claim
//!   is deleted while its member is listed. INV-O5: a wiped directory never forms a cluster.
//! * The programs are built by the test itself, with its own profile: a run never meets the program
//!   of yesterday. `$QUORATE_BIN` and `$QUORATE_OPERATOR_BIN` name others.
//!
//! # The load
//!
//! Eight clients of etcd's own Go library, four with the client Service and four with members, with up to sixteen writes
//! in flight each, 640 writes a second in all. Every write is a key of its own and is later found with
//! its value *and at the revision that was acknowledged*, or the test fails. What was not
//! acknowledged may be there or not, and nothing else may be there.
//!
//! Beside them stock etcdctl is run once a second, through the Service and through the list of members in turn: put, both kinds of
//! get, txn, leases, health. Its writes are looked for in the same way, and its reads must find them at once.
//!
//! # Left out
//!
//! Snapshots and certificates: their issues bring their files. A history
//! checked for linearizability: `quorate-e2e-store` does that on real processes, where faults are
//! cheaper; here the question is whether the operator loses anything.

pub mod addresses;
pub mod audit;
pub mod drill;
pub(crate) mod etcdctl;
pub mod fixture;
pub mod images;
pub mod installation;
pub mod limits;
pub mod load;
pub mod member;
pub mod programs;
pub mod rival;
pub mod store;
pub mod story;
pub mod wait;
pub mod witness;
