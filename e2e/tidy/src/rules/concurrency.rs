//! Who may sleep, start something that runs by itself, wait for several things at once, or queue without a bound.
//!
//! Each table names the files that may, with the reason. A file that no longer does is a finding as well.

use crate::{
    finding::Finding,
    source::{Tree, has_word},
};

/// A file that may do what the rule forbids elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Exception {
    /// Which file.
    pub path: &'static str,
    /// Why it may.
    pub reason: &'static str,
}

const fn may(path: &'static str, reason: &'static str) -> Exception {
    Exception { path, reason }
}

/// Sleeps. A test may never: it waits for a condition with a deadline, and polls through one of the files below.
pub const SLEEPS: &[Exception] = &[
    may("e2e/bench/src/servers.rs", "the window over which idle CPU is measured"),
    may("node/src/boot.rs", "a joiner asks its peers again after a pause"),
    may(
        "node/src/http/connections.rs",
        "an accept that failed for want of descriptors is retried after a pause",
    ),
    may("node/src/run.rs", "the drain delay between being unready and stopping"),
    may("operator/src/late_watches.rs", "a drill: what a watch tells is held back for a time"),
    may("operator/src/lease.rs", "the retry period of leader election"),
    may("operator/src/run.rs", "the grace of a shutdown"),
    may(
        "e2e/kubernetes/src/wait.rs",
        "the one poll of the test bed: a condition, a deadline, a reason",
    ),
];

/// Starts a task or a thread. Handles are kept and awaited there; an unexpected end ends the process.
pub const SPAWNS: &[Exception] = &[
    may("node/src/run.rs", "wiring: every thread and every long-lived task of the member"),
    may("node/src/clock.rs", "the ticker's thread"),
    may("node/src/handle.rs", "a hash of the whole store, off the runtime's workers"),
    may("node/src/http/connections.rs", "a task for each connection"),
    may("node/src/http/mod.rs", "a task that ends streams when the leader is lost"),
    may("node/src/peers/mod.rs", "a sender for each peer"),
    may("node/src/peers/receiver.rs", "a task for each connection of a peer"),
    may("node/src/peers/snapshot.rs", "reads rows for a snapshot, off the runtime's workers"),
    may(
        "node/src/scrub.rs",
        "leaves the mark of a Corrupt end, off the thread that ends the process",
    ),
    may("node/src/snapshots.rs", "writes a received snapshot, off the runtime's workers"),
    may("node/src/watch_stream.rs", "reads rows for a watch that lags, off the runtime's workers"),
    may("operator/src/run.rs", "wiring: controller, lease, pages"),
];

/// Waits for several things at once.
pub const SELECTS: &[Exception] = &[
    may("node/src/run.rs", "the end of the process: a signal, a failure, a removal"),
    may("node/src/grpc/mod.rs", "a call and its deadline"),
    may("node/src/grpc/watch.rs", "one watch stream: the client's requests and what it is told"),
    may("node/src/http/connections.rs", "a connection and the order to close"),
    may("node/src/peers/sender.rs", "the next message and the end of the connection"),
    may("node/src/watch_stream.rs", "a delivery and the news that a watch lags"),
];

/// Queues without a bound of their own; what bounds them instead.
pub const UNBOUNDED: &[Exception] = &[
    may(
        "node/src/run.rs",
        "between the loops: consensus bounds what is unpersisted and unapplied (consensus_loop.rs)",
    ),
    may(
        "node/src/apply_loop.rs",
        "the way into apply: consensus, watch streams and calls bound it (ApplySender::channel)",
    ),
];

/// Pauses by the clock: never in tests, elsewhere by the table.
#[must_use]
pub fn sleeps(tree: &Tree, exceptions: &[Exception]) -> Vec<Finding> {
    let sleeps = |code: &str| {
        has_word(code, "sleep") && (code.contains("sleep(") || code.contains("::sleep"))
            || has_word(code, "sleep_until")
    };
    let mut findings = Vec::new();
    let mut used = Vec::new();
    for file in &tree.rust {
        for (line, _, for_tests) in file.code().filter(|(_, code, _)| sleeps(code)) {
            let excepted = exceptions.iter().any(|exception| exception.path == file.path);
            if for_tests {
                let advice = "a test sleeps: wait for the condition with a deadline instead";
                findings.push(Finding::at(&file.path, line, advice));
            } else if excepted {
                used.push(file.path.as_str());
            } else {
                let advice = "a sleep: wait for the event; if there is none, add the file with its \
                              reason to SLEEPS (e2e/tidy/src/rules/concurrency.rs)";
                findings.push(Finding::at(&file.path, line, advice));
            }
        }
    }
    findings.extend(unused(exceptions, &used, "SLEEPS"));
    findings
}

/// Tasks and threads, outside tests.
#[must_use]
pub fn spawns(tree: &Tree, exceptions: &[Exception]) -> Vec<Finding> {
    let starts = |code: &str| {
        let method = code.match_indices(".spawn(").any(|(at, call)| {
            // A process is started by `spawn()`; a task and a thread take what they run.
            !code[at + call.len()..].starts_with(')')
        });
        method
            || ["tokio::spawn", "task::spawn", "thread::spawn", "spawn_blocking", "spawn_local"]
                .iter()
                .any(|call| has_word(code, call))
    };
    listed(
        tree,
        exceptions,
        "SPAWNS",
        starts,
        "starts a task or a thread: wiring does that (run.rs)",
    )
}

/// `select!`, outside tests.
#[must_use]
pub fn selects(tree: &Tree, exceptions: &[Exception]) -> Vec<Finding> {
    let selects = |code: &str| code.contains("select!");
    listed(
        tree,
        exceptions,
        "SELECTS",
        selects,
        "waits for several things: what wakes a loop is one enum on one queue",
    )
}

/// Queues without a bound, outside tests.
#[must_use]
pub fn unbounded(tree: &Tree, exceptions: &[Exception]) -> Vec<Finding> {
    let unbounded = |code: &str| {
        code.contains("mpsc::channel()")
            || code.contains("mpsc::channel::<") && code.contains(">()")
            || code.contains("unbounded_channel")
    };
    listed(
        tree,
        exceptions,
        "UNBOUNDED",
        unbounded,
        "a queue without a bound: give it one, with a const in limits.rs",
    )
}

fn listed(
    tree: &Tree,
    exceptions: &[Exception],
    table: &str,
    does: impl Fn(&str) -> bool,
    advice: &str,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut used = Vec::new();
    // What looks at us from outside is all test: its threads are its clients.
    let ours = tree.rust.iter().filter(|file| !file.path.starts_with("e2e/"));
    for file in ours {
        for (line, code, for_tests) in file.code() {
            if for_tests || !does(code) {
                continue;
            }
            if exceptions.iter().any(|exception| exception.path == file.path) {
                used.push(file.path.as_str());
            } else {
                let advice = format!(
                    "{advice}; or add the file with its reason to {table} \
                     (e2e/tidy/src/rules/concurrency.rs)"
                );
                findings.push(Finding::at(&file.path, line, advice));
            }
        }
    }
    findings.extend(unused(exceptions, &used, table));
    findings
}

fn unused<'a>(
    exceptions: &'a [Exception],
    used: &'a [&str],
    table: &'a str,
) -> impl Iterator<Item = Finding> + 'a {
    exceptions.iter().filter(|exception| !used.contains(&exception.path)).map(move |exception| {
        let advice =
            format!("no longer needs its line in {table} (\"{}\"); delete it", exception.reason);
        Finding::about(exception.path, advice)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(
        rule: fn(&Tree, &[Exception]) -> Vec<Finding>,
        path: &str,
        text: &str,
        listed: &[Exception],
    ) -> usize {
        rule(&Tree::of([("a/Cargo.toml", ""), (path, text)]), listed).len()
    }

    #[test]
    fn a_test_never_sleeps_not_even_in_a_listed_file() {
        let text = "#[cfg(test)]\nmod tests {\n    fn f() { thread::sleep(A); }\n}\nfn g() { sleep(A); }\n";
        assert_eq!(found(sleeps, "a/src/b.rs", text, &[may("a/src/b.rs", "why")]), 1);
        assert_eq!(found(sleeps, "a/src/b.rs", text, &[]), 2);
        assert_eq!(found(sleeps, "a/tests/b.rs", "tokio::time::sleep(A).await;", &[]), 1);
        assert_eq!(found(sleeps, "a/src/b.rs", "let sleep = 1; // sleep(A)", &[]), 0);
    }

    #[test]
    fn starting_something_needs_a_line() {
        for (text, count) in [
            ("tasks.spawn(run());", 1),
            ("tokio::spawn(run());", 1),
            ("tokio::task::spawn_blocking(f)", 1),
            ("Command::new(\"a\").spawn()", 0),
            ("#[cfg(test)]\nfn f() { tokio::spawn(g()); }", 0),
        ] {
            assert_eq!(found(spawns, "a/src/b.rs", text, &[]), count, "{text}");
        }
        assert_eq!(found(spawns, "e2e/a/src/b.rs", "thread::spawn(f)", &[]), 0);
        assert_eq!(found(spawns, "a/src/b.rs", "thread::spawn(f)", &[may("a/src/b.rs", "why")]), 0);
    }

    #[test]
    fn an_exception_that_nobody_needs_is_found() {
        for rule in [sleeps, spawns, selects, unbounded] {
            assert_eq!(found(rule, "a/src/b.rs", "fn f() {}", &[may("a/src/b.rs", "why")]), 1);
        }
    }

    #[test]
    fn waiting_for_several_and_queueing_without_bound_are_found() {
        assert_eq!(found(selects, "a/src/b.rs", "tokio::select! {", &[]), 1);
        assert_eq!(found(unbounded, "a/src/b.rs", "let (a, b) = std_mpsc::channel();", &[]), 1);
        assert_eq!(found(unbounded, "a/src/b.rs", "let (a, b) = mpsc::channel::<u8>();", &[]), 1);
        assert_eq!(found(unbounded, "a/src/b.rs", "let (a, b) = mpsc::channel(8);", &[]), 0);
    }
}
