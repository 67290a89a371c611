//! The pages tell of the tree as it is: dependencies with their reason, paths that exist, no registry's address.

use crate::{finding::Finding, rules::manifests::foreign_dependencies, source::Tree};

/// The page that says of each dependency what it replaces writing.
const DEPENDENCIES: &str = "docs/dependencies.md";

/// Directories of the tree: a word in backquotes that begins with one is a path.
const ROOTS: &[&str] =
    &["node/", "operator/", "crds/", "charts/", "e2e/", "docs/", ".ci/", ".config/"];

/// Each dependency has a row with what it replaces writing, and each row a dependency.
#[must_use]
pub fn dependencies(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let text = tree.text(DEPENDENCIES).unwrap_or_default();
    let rows: Vec<(usize, &str, &str)> = text
        .lines()
        .enumerate()
        .filter_map(|(index, line)| {
            let mut cells = line.strip_prefix("| `")?.split('|');
            let name = cells.next()?.trim().trim_end_matches('`');
            Some((index + 1, name, cells.next().unwrap_or_default().trim()))
        })
        .collect();
    let foreign = foreign_dependencies(tree);
    for (line, name) in &foreign {
        if !rows.iter().any(|(_, row, replaces)| row == name && !replaces.is_empty()) {
            let advice =
                format!("`{name}` has no row in {DEPENDENCIES} that says what it replaces writing");
            findings.push(Finding::at("Cargo.toml", *line, advice));
        }
    }
    for (line, row, _) in rows {
        if !foreign.iter().any(|(_, name)| name == row) {
            let advice = format!("`{row}` is no dependency of the workspace; delete the row");
            findings.push(Finding::at(DEPENDENCIES, line, advice));
        }
    }
    findings
}

/// Every path that a page names exists. Records of decisions tell of their own time and are left alone.
#[must_use]
pub fn paths(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let pages = tree.texts.iter().filter(|file| {
        file.path.ends_with(".md")
            && !file.path.starts_with("docs/adr/")
            && !file.path.starts_with("e2e/")
    });
    for page in pages {
        for (index, line) in page.text.lines().enumerate() {
            for target in links(line) {
                let path = resolve(&page.path, target);
                if !tree.has(&path) {
                    let advice = format!("the link leads to `{path}`, which does not exist");
                    findings.push(Finding::at(&page.path, index + 1, advice));
                }
            }
            for word in line.split('`').skip(1).step_by(2) {
                let path = word.split([' ', ':', '#']).next().unwrap_or_default();
                let is_path = ROOTS.iter().any(|root| path.starts_with(root))
                    && !path.contains(['*', '<', '{', '…', '$']);
                if is_path && !tree.has(path) {
                    let advice = format!("`{path}` does not exist; correct the page");
                    findings.push(Finding::at(&page.path, index + 1, advice));
                }
            }
        }
    }
    findings
}

/// Where the links of a line lead, those to other sites and within the page left out.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    targets.filter(|target| !target.is_empty() && !target.contains("://"))
}

/// A link's target, from the root of the tree.
fn resolve(page: &str, target: &str) -> String {
    let mut path: Vec<&str> = page.split('/').collect();
    path.pop();
    for part in target.split('/') {
        match part {
            ".." => drop(path.pop()),
            "." | "" => {}
            part => path.push(part),
        }
    }
    path.join("/")
}

/// No file names a package registry's host: which one is used is the business of the machine that builds.
#[must_use]
pub fn registries(tree: &Tree) -> Vec<Finding> {
    // Put together here, or this file would find itself.
    let hosts: Vec<String> = [
        &["crates", "io"][..],
        &["proxy", "golang", "org"],
        &["sum", "golang", "org"],
        &["goproxy", "io"],
        &["pypi", "org"],
        &["pythonhosted", "org"],
        &["registry", "npmjs", "org"],
        &["rubygems", "org"],
    ]
    .iter()
    .map(|parts| parts.join("."))
    .collect();
    let mut findings = Vec::new();
    let rust = tree.rust.iter().map(|file| (file.path.as_str(), file.text.as_str()));
    let texts = tree.texts.iter().map(|file| (file.path.as_str(), file.text.as_str()));
    // The lock file is cargo's own writing.
    for (path, text) in rust.chain(texts).filter(|(path, _)| !path.ends_with("Cargo.lock")) {
        for (index, line) in text.lines().enumerate() {
            if hosts.iter().any(|host| line.contains(host.as_str())) {
                let advice = "names a package registry's host: the clients know theirs; say \"the registry\"";
                findings.push(Finding::at(path, index + 1, advice));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_dependency_has_its_row() {
        let root = ("Cargo.toml", "[workspace.dependencies]\nbytes = \"1\"\nserde = \"1\"\n");
        let page = "| dependency | replaces |\n| --- | --- |\n| `bytes` | a counted buffer |\n";
        let found = |page: &str| {
            let tree = Tree::of([root, ("docs/dependencies.md", page)]);
            dependencies(&tree)
                .into_iter()
                .map(|finding| (finding.path, finding.line))
                .collect::<Vec<_>>()
        };
        assert_eq!(found(page), [("Cargo.toml".into(), 3)]);
        assert_eq!(found(&format!("{page}| `serde` | |\n")), [("Cargo.toml".into(), 3)]);
        assert_eq!(found(&format!("{page}| `serde` | parsers |\n")), []);
        let stale = format!("{page}| `serde` | parsers |\n| `gone` | much |\n");
        assert_eq!(found(&stale), [("docs/dependencies.md".into(), 5)]);
    }

    #[test]
    fn a_path_on_a_page_exists() {
        let found = |page: &str| {
            paths(&Tree::of([("README.md", page), ("node/src/run.rs", ""), ("e2e/bed/x.rs", "")]))
                .len()
        };
        assert_eq!(found("see `node/src/run.rs` and `node/src/` and `e2e/bed/x.rs:12`"), 0);
        assert_eq!(found("see `node/src/gone.rs`"), 1);
        assert_eq!(found("see `node/src/{a,b}.rs`, `a/b` and node/src/gone.rs"), 0);
    }

    #[test]
    fn a_link_leads_somewhere() {
        let found = |link: &str| {
            let page = format!("see [it]({link}).");
            paths(&Tree::of([("docs/a.md", page.as_str()), ("LICENSE", ""), ("docs/adr/b.md", "")]))
                .len()
        };
        for good in ["../LICENSE", "adr/b.md", "adr", "./a.md#part", "#part", "https://x.y/z"] {
            assert_eq!(found(good), 0, "{good}");
        }
        assert_eq!(found("LICENSE"), 1);
        assert_eq!(found("adr/c.md"), 1);
    }

    #[test]
    fn a_registry_is_not_named() {
        let host = ["pypi", "org"].join(".");
        assert_eq!(registries(&Tree::of([("a.md", format!("from {host}"))])).len(), 1);
        assert_eq!(registries(&Tree::of([("a.rs", format!("// {host}"))])).len(), 1);
        assert_eq!(registries(&Tree::of([("Cargo.lock", host)])).len(), 0);
    }
}
