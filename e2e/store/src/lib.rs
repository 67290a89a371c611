//! Real server processes under stock clients and faults.
//!
//! # What this room is
//!
//! The last word on the store alone, without Kubernetes: the program that people run, as processes on the loopback
//! interface, under clients that know nothing of us. Whatever the simulator cannot show is shown here: that flags reach what
//! they name, that sockets, threads, signals and files behave, that etcd's own clients and tests take our server for etcd.
//!
//! ```text
//!   tests/suite.rs            etcd's own cross-process suite, our binary in etcd's place
//!   tests/conformance.rs      one etcdctl script against three of ours and three of etcd's, transcripts compared
//!   tests/hash_kv.rs          one random history against ours and etcd: equal answers, equal HashKV
//!   tests/kill9.rs            kill -9 under full load; the judge of the simulator reads the history
//!   tests/data_directory.rs   the contract of docs/contract.md: verdicts, exit codes, shutdown
//!          │
//!          ▼
//!   cluster ─► member ─► a process, its log, its ports      etcdctl, http: what asks it
//!   load, observer ─► operations and watches for quorate_sim::judge
//! ```
//!
//! # What it does not know
//!
//! Nothing of the inside: no crate of `node/` but the wire types of `proto`, and `sim` for its judge, which imports nothing of
//! the machine either. The tests of the data directory damage files by what ARCHITECTURE.md says of their layout (the
//! front of a frame and of a sealed file), so a change of the layout without a new format number fails here.
//!
//! # What holds
//!
//! * A member is found by its process id, never by a name. A fault first asserts that it took effect: a killed process is
//!   gone, a damaged file differs.
//! * Every wait is for a condition, has a deadline with a reason ([`limits`]), and says what it waited for.
//! * A test fails on a log line of level WARN or ERROR that it did not allow by name, and on any line that is no log line.
//! * Whatever way a test ends, its processes are gone: by drop, and if the test itself is killed, by a signal of the kernel.
//! * Ports lie below the kernel's range for outgoing connections, so a restarted member always gets its own again.
//!
//! # Two yardsticks
//!
//! Where etcd is the specification, etcd 3.7.3 itself runs the same script, so that no expectation here is an opinion. Where
//! a law is (no acknowledged write lost, watches in order, leases to the second), the judge is the simulator's, which has
//! been tried on far more histories than real processes can make.
//!
//! # Left out
//!
//! Disk faults below the file system (issue 5), TLS and auth (later issues), comparisons of speed (`e2e/bench`).

pub mod binary;
pub mod cluster;
pub mod damage;
pub mod etcdctl;
pub mod http;
pub mod limits;
pub mod load;
pub mod log;
pub mod member;
pub mod observer;
pub mod ports;
pub mod session;
pub mod suite;
pub mod transcript;
