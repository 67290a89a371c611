//! Crates inherit versions and lints from the workspace and add nothing of their own.

use crate::{
    finding::Finding,
    manifest::{Workspace, entries},
    source::Tree,
};

/// The root's manifest.
const ROOT: &str = "Cargo.toml";

/// What the packages take from `[workspace.package]`.
const INHERITED: &[&str] =
    &["version", "edition", "rust-version", "license", "repository", "publish"];

/// Lints, versions and package fields are the workspace's.
#[must_use]
pub fn inheritance(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let manifests = tree.texts.iter().filter(|file| file.path.ends_with("/Cargo.toml"));
    for manifest in manifests {
        let entries = entries(&manifest.text);
        let has = |section: &str, key: &str| {
            entries
                .iter()
                .any(|(at, _, name, value)| at == section && name == key && value == "true")
        };
        if !has("lints", "workspace") {
            let advice = "has no `[lints] workspace = true`";
            findings.push(Finding::about(&manifest.path, advice));
        }
        for field in INHERITED {
            if !has("package", &format!("{field}.workspace")) {
                let advice = format!("`{field}.workspace = true` is missing in [package]");
                findings.push(Finding::about(&manifest.path, advice));
            }
        }
        for (section, line, key, value) in &entries {
            let is_dependency = section.ends_with("dependencies");
            let inherits = (key.ends_with(".workspace") && value == "true")
                || value.contains("workspace = true");
            if is_dependency && !inherits {
                let advice = format!(
                    "`{key}`: versions and paths stand in [workspace.dependencies] only; \
                     `{key}.workspace = true`"
                );
                findings.push(Finding::at(&manifest.path, *line, advice));
            }
            if section.starts_with("profile") || section.starts_with("patch") {
                let advice = format!("[{section}] belongs in the root's Cargo.toml");
                findings.push(Finding::at(&manifest.path, *line, advice));
            }
        }
    }
    findings
}

/// The crates of others that the workspace names: (line, name).
#[must_use]
pub fn foreign_dependencies(tree: &Tree) -> Vec<(usize, String)> {
    let entries = entries(tree.text(ROOT).unwrap_or_default());
    let ours = |value: &str| value.contains("path =");
    entries
        .into_iter()
        .filter(|(section, _, _, value)| section == "workspace.dependencies" && !ours(value))
        .map(|(_, line, name, _)| (line, name))
        .collect()
}

/// Every dependency of the workspace has a user.
#[must_use]
pub fn used(tree: &Tree, workspace: &Workspace) -> Vec<Finding> {
    let is_used = |name: &str| workspace.dependencies.iter().any(|line| line.to == name);
    foreign_dependencies(tree)
        .into_iter()
        .filter(|(_, name)| !is_used(name))
        .map(|(line, name)| {
            Finding::at(ROOT, line, format!("nobody imports `{name}`; delete the line"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Dependency, Kind};

    const GOOD: &str = "[package]\nname = \"a\"\nversion.workspace = true\nedition.workspace = true\n\
        rust-version.workspace = true\nlicense.workspace = true\nrepository.workspace = true\n\
        publish.workspace = true\n[lints]\nworkspace = true\n[dependencies]\nbytes.workspace = true\n\
        [dev-dependencies]\ntokio = { workspace = true, features = [\"test-util\"] }\n";

    fn found(text: &str) -> Vec<usize> {
        let tree = Tree::of([("a/Cargo.toml", text)]);
        inheritance(&tree).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_manifest_inherits() {
        assert_eq!(found(GOOD), [0_usize; 0]);
        assert_eq!(found(&format!("{GOOD}serde = \"1\"\n")), [15]);
        assert_eq!(found(&format!("{GOOD}x = {{ path = \"../x\" }}\n")), [15]);
        assert_eq!(found(&format!("{GOOD}[profile.dev]\ndebug = true\n")), [16]);
        assert_eq!(found(&GOOD.replace("[lints]\nworkspace = true\n", "")), [0]);
        assert_eq!(found(&GOOD.replace("edition.workspace = true", "edition = \"2024\"")), [0]);
    }

    #[test]
    fn a_dependency_without_a_user_is_found() {
        let tree = Tree::of([(
            "Cargo.toml",
            "[workspace.dependencies]\n# Ours.\nours = { path = \"a\" }\nbytes = \"1\"\nserde = \"1\"\n",
        )]);
        let bytes = Dependency { from: "a".into(), to: "bytes".into(), kind: Kind::Dev };
        let workspace = Workspace { packages: Vec::new(), dependencies: vec![bytes] };
        let findings = used(&tree, &workspace);
        assert_eq!(findings.iter().map(|finding| finding.line).collect::<Vec<_>>(), [5]);
    }
}
