//! Copies that must be equal: the chart carries the resource definitions, since helm installs them from its own directory.
//!
//! That `crds/*.yaml` is what the types say is held by the test `the_committed_yaml_is_what_the_types_say` of quorate-crds.

use crate::{finding::Finding, source::Tree};

const DEFINITIONS: &str = "crds/";
const CHART: &str = "charts/quorate-operator/crds/";

/// Each definition is in the chart, byte for byte, and the chart has no other.
#[must_use]
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut compared = 0;
    for path in tree.texts.iter().map(|file| file.path.as_str()) {
        let (other, name) = match (path.strip_prefix(DEFINITIONS), path.strip_prefix(CHART)) {
            (Some(name), _) => (CHART, name),
            (_, Some(name)) => (DEFINITIONS, name),
            _ => continue,
        };
        if name.contains('/') || !name.ends_with(".yaml") {
            continue;
        }
        compared += 1;
        if tree.text(path) != tree.text(&format!("{other}{name}")) {
            let line = first_difference(tree, path, &format!("{other}{name}"));
            let advice = format!("differs from {other}{name}: `cp {DEFINITIONS}*.yaml {CHART}`");
            findings.push(Finding::at(path, line, advice));
        }
    }
    if compared == 0 {
        findings.push(Finding::about(DEFINITIONS, "no resource definition was found"));
    }
    findings
}

fn first_difference(tree: &Tree, left: &str, right: &str) -> usize {
    let (left, right) = (tree.text(left).unwrap_or_default(), tree.text(right).unwrap_or_default());
    let same = left.lines().zip(right.lines()).take_while(|(one, other)| one == other);
    same.count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chart_has_the_same_definitions() {
        let of = |chart: &[(&str, &str)]| {
            let mut files = vec![("crds/a.yaml", "one\ntwo\n"), ("crds/src/x.yaml", "")];
            files.extend_from_slice(chart);
            check(&Tree::of(files)).into_iter().map(|finding| finding.line).collect::<Vec<_>>()
        };
        assert_eq!(of(&[("charts/quorate-operator/crds/a.yaml", "one\ntwo\n")]), [0_usize; 0]);
        assert_eq!(of(&[("charts/quorate-operator/crds/a.yaml", "one\n2\n")]), [2, 2]);
        assert_eq!(of(&[]), [1]);
        assert_eq!(check(&Tree::of([("a", "")])).len(), 1);
    }
}
