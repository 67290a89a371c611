//! What a pure crate may not contain outside its tests.

use crate::{
    finding::Finding,
    source::{SourceFile, Tree, has_word, is_below},
};

/// The crates that are functions: no async, no clock, no randomness of their own, no files, no sockets, no threads, no
/// behaviour that hangs on hash order.
pub const PURE: &[&str] = &[
    "node/crates/consensus",
    "node/crates/machine",
    "node/crates/replica",
    "operator/crates/planner",
];

/// What their clippy.toml is a link to.
const CLIPPY: &str = ".config/clippy-pure.toml";

/// Words and why they may not stand there.
const WORDS: &[(&str, &str)] = &[
    ("async", "pure: nothing waits here; what is waited for is an input"),
    ("await", "pure: nothing waits here; what is waited for is an input"),
    ("tokio", "pure: the shell has the runtime"),
    ("Instant", "pure: time is an input"),
    ("SystemTime", "pure: time is an input"),
    ("rand", "pure: randomness is a seed among the inputs"),
    ("HashMap", "iteration order is behaviour: BTreeMap"),
    ("HashSet", "iteration order is behaviour: BTreeSet"),
    ("RandomState", "hash order may decide nothing"),
];

/// Modules of std and why they may not be used.
const MODULES: &[(&str, &str)] = &[
    ("fs", "pure: files are storage's"),
    ("net", "pure: sockets are the shell's"),
    ("thread", "pure: threads are the shell's"),
    ("process", "pure: processes are the shell's"),
    ("env", "pure: configuration is an input"),
];

/// Looks at every line of the pure crates that is not for tests.
#[must_use]
pub fn words(tree: &Tree) -> Vec<Finding> {
    pure_files(tree).flat_map(in_file).collect()
}

/// Each pure crate is linted by the pure rules: its clippy.toml is a link to them.
///
/// # Errors
/// A link that exists cannot be read.
pub fn links(tree: &Tree) -> std::io::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for directory in PURE {
        let path = format!("{directory}/clippy.toml");
        let full = tree.root.join(&path);
        let wanted = "../".repeat(directory.split('/').count()) + CLIPPY;
        if !full.is_symlink() || full.read_link()?.to_string_lossy() != wanted {
            findings
                .push(Finding::about(&path, format!("must be a link: `ln -sf {wanted} {path}`")));
        }
    }
    Ok(findings)
}

/// The files of the pure crates.
pub fn pure_files(tree: &Tree) -> impl Iterator<Item = &SourceFile> {
    tree.rust.iter().filter(|file| PURE.iter().any(|directory| is_below(&file.path, directory)))
}

fn in_file(file: &SourceFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    // Whether a `use std::{…}` goes on from an earlier line.
    let mut in_std = false;
    for (line, code, for_tests) in file.code() {
        let begins = code.trim_start().trim_start_matches("pub ").starts_with("use std::");
        in_std |= begins;
        if !for_tests {
            for (word, why) in WORDS {
                if has_word(code, word) {
                    findings.push(Finding::at(&file.path, line, format!("`{word}`: {why}")));
                }
            }
            for (module, why) in MODULES {
                let spelt = has_word(code, &format!("std::{module}"));
                if spelt || (in_std && has_word(code, module)) {
                    findings.push(Finding::at(&file.path, line, format!("`std::{module}`: {why}")));
                }
            }
        }
        in_std &= !code.contains(';');
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<usize> {
        let tree = Tree::of([("node/crates/machine/src/lib.rs", text)]);
        words(&tree).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn every_impurity_is_found() {
        for line in [
            "async fn f() {}",
            "let now = Instant::now();",
            "std::time::SystemTime::now()",
            "let m: HashMap<u8, u8>;",
            "use std::{collections::BTreeMap, fs};",
            "use std::net::IpAddr;",
            "std::thread::spawn(f)",
            "let x: u8 = rand::random();",
        ] {
            assert_eq!(found(&format!("//! A.\n{line}\n")), [2], "{line}");
        }
        assert_eq!(found("use std::{\n    sync::Arc,\n    thread,\n};\nfn f(env: u8) {}"), [3]);
    }

    #[test]
    fn comments_strings_and_tests_may_name_it() {
        assert_eq!(
            found("// HashMap\nlet a = \"HashMap\";\n#[cfg(test)]\nuse std::fs;\n"),
            [0_usize; 0]
        );
        assert_eq!(found("fn f(env: u8) { thread(env) }"), [0_usize; 0]);
    }

    #[test]
    fn other_crates_are_left_alone() {
        let tree = Tree::of([
            ("node/src/run.rs", "use std::fs;"),
            ("node/crates/machinery/src/a.rs", "async"),
        ]);
        assert_eq!(words(&tree), []);
    }
}
