//! Each invariant that ARCHITECTURE.md promises is asserted, and each that is asserted is promised.
//!
//! An assertion message is a string literal that begins with the id and a colon; the panic, the plan's violation or the
//! simulator's verdict then says which promise was broken.

use std::collections::BTreeMap;

use crate::{
    finding::Finding,
    source::{Tree, is_below},
};

/// Where the ids are promised.
const PROMISES: &str = "ARCHITECTURE.md";

/// This room speaks of ids without asserting them.
const HERE: &str = "e2e/tidy";

/// Both directions.
#[must_use]
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut promised: BTreeMap<String, usize> = BTreeMap::new();
    let Some(text) = tree.text(PROMISES) else {
        return vec![Finding::about(PROMISES, "is missing: it has the invariants with their ids")];
    };
    for (index, line) in text.lines().enumerate() {
        for id in ids(line) {
            promised.entry(id).or_insert(index + 1);
        }
    }
    let asserted = messages(tree);
    for (id, line) in promised.iter().filter(|(id, _)| !asserted.contains_key(*id)) {
        let advice = format!(
            "{id} is promised, and no assertion says \"{id}: …\": assert it, or strike it out"
        );
        findings.push(Finding::at(PROMISES, *line, advice));
    }
    for file in tree.rust.iter().filter(|file| !is_below(&file.path, HERE)) {
        for (index, line) in file.text.lines().enumerate() {
            for id in ids(line).into_iter().filter(|id| !promised.contains_key(id)) {
                let advice = format!("{id} is not in {PROMISES}: add it there, or correct the id");
                findings.push(Finding::at(&file.path, index + 1, advice));
            }
        }
    }
    findings
}

/// Ids at the head of a string literal, with the places.
fn messages(tree: &Tree) -> BTreeMap<String, Vec<String>> {
    let mut messages: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in tree.rust.iter().filter(|file| !is_below(&file.path, HERE)) {
        for literal in &file.literals {
            let heads = literal.text.split(": ").next().unwrap_or_default();
            let is_head = literal.text.starts_with("INV-");
            for id in ids(heads).into_iter().filter(|_| is_head) {
                messages.entry(id).or_default().push(format!("{}:{}", file.path, literal.line));
            }
        }
    }
    messages
}

/// The ids in a text: `INV-`, a capital letter, digits. An id without digits is a family and no id.
fn ids(text: &str) -> Vec<String> {
    let mut ids = Vec::new();
    for (at, _) in text.match_indices("INV-") {
        let rest = &text[at + 4..];
        let letters: String = rest.chars().take_while(char::is_ascii_uppercase).collect();
        let digits: String =
            rest[letters.len()..].chars().take_while(char::is_ascii_digit).collect();
        if letters.len() == 1 && !digits.is_empty() {
            ids.push(format!("INV-{letters}{digits}"));
        }
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(promises: &str, code: &str) -> Vec<Finding> {
        check(&Tree::of([("ARCHITECTURE.md", promises), ("a/src/b.rs", code)]))
    }

    #[test]
    fn promised_and_asserted_are_the_same() {
        let good = "assert!(a <= b, \"INV-R1: a outruns b\");";
        assert_eq!(found("**INV-R1** a ≤ b", good), []);
        assert_eq!(found("**INV-R1** and **INV-R2**", good).len(), 1);
        assert_eq!(found("nothing", good).len(), 1);
        assert_eq!(found("**INV-R1**", "/// Holds INV-R1.").len(), 1);
        assert_eq!(found("**INV-R1**", "panic!(\"broke INV-R1: much\");").len(), 1);
        assert_eq!(found("**INV-R1**", "let law = \"INV-R1\";"), []);
        assert_eq!(found("**INV-R1** **INV-R2**", "let law = \"INV-R1, INV-R2: both\";"), []);
    }

    #[test]
    fn an_unknown_id_is_found_in_comments_too() {
        let findings = found("**INV-R1**", "\"INV-R1: a\";\n// see INV-R12, INV-W\n");
        assert_eq!(findings.iter().map(|finding| finding.line).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn without_the_page_nothing_is_promised() {
        assert_eq!(check(&Tree::of([("a/src/b.rs", "")])).len(), 1);
    }
}
