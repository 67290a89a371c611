//! The page of failures: all forty rows are there, and every test that a row names exists.

use std::collections::BTreeSet;

use crate::{
    finding::Finding,
    lexer::is_word,
    source::{SourceFile, Tree},
};

/// The page.
const PAGE: &str = "docs/failures.md";

/// How many failures there are.
const ROWS: usize = 40;

/// What a row may say in place of a test, or beside one.
const NOT_YET: [&str; 2] = ["test to come", "comes with "];

/// Each row in its place, told in full, with tests that exist.
#[must_use]
pub fn check(tree: &Tree) -> Vec<Finding> {
    let Some(text) = tree.text(PAGE) else {
        return vec![Finding::about(PAGE, "is missing: it says what is done about each failure")];
    };
    let tests = test_functions(tree);
    let mut findings = Vec::new();
    let mut next = 1;
    for (index, line) in text.lines().enumerate() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let Some(number) = cells.first().and_then(|cell| cell.parse::<usize>().ok()) else {
            continue;
        };
        let mut find = |advice: String| findings.push(Finding::at(PAGE, index + 1, advice));
        if number != next {
            find(format!("row {number} stands where row {next} should"));
        }
        next = number + 1;
        let [_, what, does, shows] = cells[..] else {
            find("a row has four cells: number, failure, what is done, test".to_owned());
            continue;
        };
        if what.is_empty() || does.is_empty() {
            find("says nothing of the failure, or of what is done".to_owned());
        }
        let named: Vec<&str> = shows.split('`').skip(1).step_by(2).collect();
        if named.is_empty() && !NOT_YET.iter().any(|words| shows.contains(words)) {
            find(format!("names no test, nor says {NOT_YET:?}"));
        }
        for name in named.into_iter().filter(|name| !name.starts_with(char::is_uppercase)) {
            let exists = if name.contains('/') { tree.has(name) } else { tests.contains(name) };
            if !exists {
                find(format!("there is no test `{name}`"));
            }
        }
    }
    if next != ROWS + 1 {
        findings.push(Finding::about(PAGE, format!("has {} rows and not {ROWS}", next - 1)));
    }
    findings
}

/// Names of the functions that are compiled for tests.
fn test_functions(tree: &Tree) -> BTreeSet<String> {
    let lines = tree.rust.iter().flat_map(SourceFile::code);
    let names = lines.filter(|(_, _, for_tests)| *for_tests).filter_map(|(_, code, _)| {
        let after = code.split("fn ").nth(1)?;
        let name: String = after.chars().take_while(|char| is_word(*char)).collect();
        (!name.is_empty()).then_some(name)
    });
    names.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(last: &str) -> String {
        let rows =
            (1..ROWS).map(|row| format!("| {row} | it breaks | it is mended | `it_holds` |\n"));
        let rows: String = rows.collect();
        format!("| # | what | does | test |\n| --- | --- | --- | --- |\n{rows}{last}\n")
    }

    fn found(last: &str) -> usize {
        let code =
            "fn not_a_test() {}\n#[cfg(test)]\nmod tests {\n  #[test]\n  fn it_holds() {}\n}\n";
        check(&Tree::of([(PAGE, page(last)), ("a/src/lib.rs", code.to_owned())])).len()
    }

    #[test]
    fn every_row_is_there_and_names_what_exists() {
        assert_eq!(found("| 40 | a | b | `it_holds`, `a/src/lib.rs` |"), 0);
        assert_eq!(found("| 40 | a | b | `it_holds`; replacement: test to come |"), 0);
        assert_eq!(found("| 40 | a | b | comes with restore |"), 0);
        assert_eq!(found("| 40 | a | b | `AllMembersLost`: test to come |"), 0);
        assert_eq!(found("| 40 | a | b | `it_is_gone` |"), 1);
        assert_eq!(found("| 40 | a | b | `not_a_test` |"), 1);
        assert_eq!(found("| 40 | a | b | `a/src/gone.rs` |"), 1);
        assert_eq!(found("| 40 | a | b | later |"), 1);
        assert_eq!(found("| 40 | a | | `it_holds` |"), 1);
        assert_eq!(found("| 41 | a | b | `it_holds` |"), 2, "out of place, and one too many");
        assert_eq!(found(""), 1, "a row is missing");
    }

    #[test]
    fn without_the_page_nothing_is_told() {
        assert_eq!(check(&Tree::of([("a", "")])).len(), 1);
    }
}
