//! The page of metrics lists what the store's source writes, and nothing else.
//!
//! The operator's half of the page is held by a test of the operator, which has its registry at hand.

use std::collections::BTreeMap;

use crate::{finding::Finding, source::Tree};

/// The page.
const PAGE: &str = "docs/metrics.md";

/// The heading of the store's half.
const SECTION: &str = "## The store";

/// Where the store writes its page.
const SOURCE: &str = "node/src/metrics.rs";

/// How the names of the store's metrics begin.
const FAMILIES: [&str; 5] = ["etcd_", "quorate_", "grpc_server_", "process_", "os_fd_"];

/// Both directions.
#[must_use]
pub fn check(tree: &Tree) -> Vec<Finding> {
    let Some(text) = tree.text(PAGE) else {
        return vec![Finding::about(PAGE, "is missing: it lists every metric")];
    };
    let mut listed = BTreeMap::new();
    let lines = text.lines().enumerate().skip_while(|(_, line)| *line != SECTION);
    for (index, line) in lines {
        if let Some((name, _)) = line.strip_prefix("| `").and_then(|rest| rest.split_once('`')) {
            listed.insert(name, index + 1);
        }
    }
    let mut written = BTreeMap::new();
    for file in tree.rust.iter().filter(|file| file.path == SOURCE) {
        for literal in &file.literals {
            let for_tests = file.for_tests.get(literal.line.saturating_sub(1)) == Some(&true);
            if !for_tests && is_name(&literal.text) {
                written.entry(literal.text.as_str()).or_insert(literal.line);
            }
        }
    }
    let mut findings = Vec::new();
    if written.is_empty() {
        findings.push(Finding::about(SOURCE, "names no metric: has the page moved?"));
    }
    for (name, line) in written.iter().filter(|(name, _)| !listed.contains_key(*name)) {
        findings.push(Finding::at(SOURCE, *line, format!("`{name}` has no row in {PAGE}")));
    }
    for (name, line) in listed.iter().filter(|(name, _)| !written.contains_key(*name)) {
        findings.push(Finding::at(PAGE, *line, format!("{SOURCE} shows no `{name}`")));
    }
    findings
}

fn is_name(text: &str) -> bool {
    FAMILIES.iter().any(|family| text.starts_with(family))
        && text
            .chars()
            .all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(page: &str, code: &str) -> Vec<usize> {
        let findings = check(&Tree::of([(PAGE, page), (SOURCE, code)]));
        findings.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn written_and_listed_are_the_same() {
        let page = "| `etcd_elsewhere` | gauge |\n## The store\n| `etcd_a` | gauge | it |\n";
        let code = "fn f() { row(\"etcd_a\"); row(\"etcd a sentence\"); }\n";
        assert_eq!(found(page, code), [0_usize; 0]);
        assert_eq!(found(page, &format!("{code}const B: &str = \"quorate_b\";")), [2]);
        let tested = format!("{code}#[cfg(test)]\nmod tests {{ const B: &str = \"etcd_b\"; }}");
        assert_eq!(found(page, &tested), [0_usize; 0]);
        assert_eq!(found(&format!("{page}| `etcd_gone` | gauge | it |\n"), code), [4]);
        assert_eq!(found("## The store\n", "fn f() {}"), [0], "nothing to look at");
    }
}
