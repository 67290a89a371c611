//! How a file begins, how long it is, what it is called, and marks that may not be left in it.

use crate::{
    finding::Finding,
    lexer::is_word,
    source::{SourceFile, Tree, has_word},
};

/// Lines of the essay that a lib.rs opens with.
const ESSAY_LINES_MIN: usize = 30;

/// Lines of a file that are not for tests.
const FILE_LINES_MAX: usize = 800;

/// Lines of a main.rs: parse, start tracing, call `run`, map the error to an exit code. The list of modules is not counted:
/// in a binary it is the table of contents.
const MAIN_LINES_MAX: usize = 60;

/// Lines within which the first sentence of a file must end.
const SENTENCE_LINES_MAX: usize = 3;

/// Lines within which an attribute about lints ends.
const LINT_LINES_MAX: usize = 12;

/// Where a test may be left to the soak: what the batch "the fears that the gate leaves out" runs.
const SOAKED: &str = "e2e/cluster/tests/fears/";

/// How the reason of such a test ends.
const SOAK: &str = ": cargo xtask soak";

/// Generated code is allowed what it does; the essay above it says that it is generated. The derive of the resources makes
/// private copies of public types; a comment says so.
const WITHOUT_REASON: &[&str] = &["node/crates/proto/src/lib.rs", "crds/src/lib.rs"];

/// Names that say nothing about what a module holds.
const EMPTY_NAMES: &[&str] = &[
    "util", "utils", "common", "helper", "helpers", "misc", "type", "types", "manager", "managers",
];

/// Every file opens with `//!` and one sentence: its one job.
#[must_use]
pub fn headers(tree: &Tree) -> Vec<Finding> {
    tree.rust.iter().filter_map(header).collect()
}

fn header(file: &SourceFile) -> Option<Finding> {
    let paragraph: Vec<&str> = file
        .text
        .lines()
        .map_while(|line| line.strip_prefix("//!"))
        .take_while(|line| !line.trim().is_empty())
        .collect();
    if paragraph.is_empty() {
        let advice = "the first line must be `//!` and a sentence that names the file's one job";
        return Some(Finding::at(&file.path, 1, advice));
    }
    let ends = |line: &str| {
        let line = line.trim_end();
        line.ends_with(['.', ':', '?']) || line.contains(". ") || line.contains(": ")
    };
    if paragraph.iter().take(SENTENCE_LINES_MAX).any(|line| ends(line)) {
        return None;
    }
    let advice = format!("the opening sentence must end within {SENTENCE_LINES_MAX} lines");
    Some(Finding::at(&file.path, 1, advice))
}

/// Every lib.rs opens with an essay: what the room is, what it does not know, its invariants, what was left out.
#[must_use]
pub fn essays(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust.iter().filter(|file| file.path.ends_with("/src/lib.rs")) {
        let lines = file.text.lines().take_while(|line| line.starts_with("//!")).count();
        if lines < ESSAY_LINES_MIN {
            let advice = format!(
                "the essay has {lines} lines and needs {ESSAY_LINES_MIN}: what this room is, what \
                 it does not know, its invariants by id, what was left out and why"
            );
            findings.push(Finding::at(&file.path, 1, advice));
        }
    }
    findings
}

/// No file is longer than a person reads in one go.
#[must_use]
pub fn lengths(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.rust {
        let is_main = file.path.ends_with("/src/main.rs");
        let max = if is_main { MAIN_LINES_MAX } else { FILE_LINES_MAX };
        let modules = if is_main { modules_declared(file) } else { 0 };
        let length = file.length() - modules;
        if length > max {
            let how = if is_main {
                "parse, start tracing, call `run`, map the error; the rest has rooms of its own"
            } else {
                "split it by noun or by direction of data, never into `part2`"
            };
            let advice = format!("{length} lines beside tests, at most {max}: {how}");
            findings.push(Finding::about(&file.path, advice));
        }
    }
    findings
}

fn modules_declared(file: &SourceFile) -> usize {
    let declares = |code: &str| code.starts_with("mod ") && code.trim_end().ends_with(';');
    file.code().filter(|(_, code, for_tests)| !for_tests && declares(code)).count()
}

/// No module is called what a drawer is called.
#[must_use]
pub fn module_names(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.rust {
        for part in file.path.trim_end_matches(".rs").split('/') {
            if EMPTY_NAMES.contains(&part) {
                let advice = format!("`{part}` says nothing: name it after what it holds");
                findings.push(Finding::about(&file.path, advice));
            }
        }
        for (line, code, _) in file.code() {
            let Some((_, rest)) = code.split_once("mod ") else { continue };
            let name: String = rest.chars().take_while(|char| is_word(*char)).collect();
            if EMPTY_NAMES.contains(&name.as_str()) {
                let advice = format!("`{name}` says nothing: name it after what it holds");
                findings.push(Finding::at(&file.path, line, advice));
            }
        }
    }
    findings
}

/// Lints are set aside with a reason, which the compiler then shows.
#[must_use]
pub fn lint_exceptions(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let files = tree.rust.iter().filter(|file| !WITHOUT_REASON.contains(&file.path.as_str()));
    for file in files {
        for (index, line) in file.lines.iter().enumerate() {
            let begin = ["[allow(", "[expect("].iter().find_map(|word| line.code.find(word));
            let Some(begin) = begin.filter(|at| line.code[..*at].trim_end().ends_with(['#', '!']))
            else {
                continue;
            };
            let rest = file.lines[index + 1..].iter().map(|line| line.code.as_str());
            let text: String =
                std::iter::once(&line.code[begin..]).chain(rest).take(LINT_LINES_MAX).collect();
            let attribute = text.split(']').next().unwrap_or_default();
            if !has_word(attribute, "reason") {
                let advice = "say why: `#[expect(lint, reason = \"…\")]`";
                findings.push(Finding::at(&file.path, index + 1, advice));
            }
        }
    }
    findings
}

/// Whether what is left out on a line of a file, counted from 1, is a fear of the test bed that the soak runs, and says so: its batch
/// runs all that is ignored there, and nowhere else.
fn is_soaked(file: &SourceFile, line: usize) -> bool {
    let mut reasons = file.literals.iter().filter(|literal| literal.line == line);
    file.path.starts_with(SOAKED) && reasons.any(|reason| reason.text.ends_with(SOAK))
}

/// No test is left out, no code left open.
#[must_use]
pub fn marks(tree: &Tree) -> Vec<Finding> {
    // Put together here, or this file would find itself.
    let open = ["TO", "DO"].concat();
    let others = [["FIX", "ME"].concat(), ["XX", "X"].concat()];
    let mut findings = Vec::new();
    for file in &tree.rust {
        for (index, line) in file.lines.iter().enumerate() {
            let mut find = |advice: &str| findings.push(Finding::at(&file.path, index + 1, advice));
            if line.code.contains("#[ignore") && !is_soaked(file, index + 1) {
                find("a test that does not run is no test: make it run, or delete it");
            }
            for call in ["todo!", "unimplemented!"] {
                if line.code.contains(call) && has_word(&line.code, call.trim_end_matches('!')) {
                    find("a stub: write it, or leave it out and say so in the crate's essay");
                }
            }
            let numbered = format!("{open}(#");
            if has_word(&line.comment, &open) && !line.comment.contains(&numbered) {
                find("an open end needs an issue: `(#123)` behind the word");
            }
            if others.iter().any(|word| has_word(&line.comment, word)) {
                find("say what is wrong, with an issue's number, or put it right");
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(path: &str, text: &str) -> Tree {
        Tree::of([(path, text)])
    }

    #[test]
    fn a_header_is_a_sentence_on_the_first_lines() {
        for (text, count) in [
            ("//! The log: entries in order.\n", 0),
            ("//! A sentence that goes\n//! on and ends.\n//!\n//! More.\n", 0),
            ("use a;\n//! Late.\n", 1),
            ("\n//! Late.\n", 1),
            ("//!\n//! Empty first.\n", 1),
            ("//! No end\n", 1),
        ] {
            assert_eq!(headers(&tree("a/src/b.rs", text)).len(), count, "{text:?}");
        }
    }

    #[test]
    fn an_essay_is_thirty_lines() {
        let line = "//! A.\n";
        assert_eq!(essays(&tree("a/src/lib.rs", &line.repeat(29))).len(), 1);
        assert_eq!(essays(&tree("a/src/lib.rs", &line.repeat(30))).len(), 0);
        assert_eq!(essays(&tree("a/src/other.rs", line)).len(), 0);
    }

    #[test]
    fn tests_do_not_count_as_length() {
        let code = "fn f() {}\n".repeat(799);
        let tests = format!("{code}#[cfg(test)]\nmod tests {{\n{code}}}\n");
        assert_eq!(lengths(&tree("a/src/b.rs", &tests)).len(), 0);
        assert_eq!(lengths(&tree("a/src/b.rs", &format!("{code}{code}"))).len(), 1);
        assert_eq!(lengths(&tree("a/src/main.rs", &"fn f() {}\n".repeat(61))).len(), 1);
        let main = "mod a;\n".repeat(20) + &"fn f() {}\n".repeat(59);
        assert_eq!(lengths(&tree("a/src/main.rs", &main)).len(), 0);
    }

    #[test]
    fn drawers_are_found_as_files_and_as_modules() {
        assert_eq!(module_names(&tree("a/src/utils.rs", "")).len(), 1);
        assert_eq!(module_names(&tree("a/src/helpers/log.rs", "")).len(), 1);
        assert_eq!(module_names(&tree("a/src/b.rs", "pub(crate) mod common {\n}")).len(), 1);
        assert_eq!(module_names(&tree("a/src/commonplace.rs", "mod prototypes;")).len(), 0);
    }

    #[test]
    fn a_lint_is_set_aside_with_a_reason() {
        for (text, count) in [
            ("#[allow(dead_code)]\nfn f() {}", 1),
            ("#![expect(\n    dead_code,\n    reason = \"why\"\n)]", 0),
            ("#[expect(dead_code, reason = \"why\")]", 0),
            ("foreign.allow(reason)", 0),
        ] {
            assert_eq!(lint_exceptions(&tree("a/src/b.rs", text)).len(), count, "{text:?}");
        }
    }

    #[test]
    fn marks_are_found_where_they_count() {
        let open = ["TO", "DO"].concat();
        for (text, count) in [
            (format!("// {open}: later"), 1),
            (format!("// {open}(#12): later"), 0),
            ("#[ignore]\nfn f() {}".to_owned(), 1),
            ("#[ignore = \"of minutes: cargo xtask soak\"]\nfn f() {}".to_owned(), 1),
            (["to", "do!()"].concat(), 1),
            (format!("let a = \"{open}\";"), 0),
        ] {
            assert_eq!(marks(&tree("a/src/b.rs", &text)).len(), count, "{text:?}");
        }
    }

    #[test]
    fn a_fear_may_be_left_to_the_soak_if_it_says_so() {
        for (text, count) in [
            ("#[ignore = \"of minutes: cargo xtask soak\"]\nfn f() {}", 0),
            ("#[ignore = \"of minutes\"]\nfn f() {}", 1),
            ("#[ignore]\nfn f() {}", 1),
        ] {
            let tree = tree("e2e/cluster/tests/fears/b.rs", text);
            assert_eq!(marks(&tree).len(), count, "{text:?}");
        }
    }
}
