//! What the manifests declare: who depends on whom, as cargo understands it.

use cargo_metadata::{DependencyKind, MetadataCommand};

use crate::source::Tree;

/// When a dependency counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// In what is shipped.
    Normal,
    /// In tests.
    Dev,
    /// In build scripts.
    Build,
}

/// One line of one manifest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dependency {
    /// The package that has it.
    pub from: String,
    /// The package that is named.
    pub to: String,
    /// When it counts.
    pub kind: Kind,
}

/// The packages of the workspace and their declared dependencies.
#[derive(Clone, Debug, Default)]
pub struct Workspace {
    /// Name and directory, by name.
    pub packages: Vec<(String, String)>,
    /// All of all packages.
    pub dependencies: Vec<Dependency>,
}

impl Workspace {
    /// Asks cargo; resolves nothing, so neither network nor lock file is touched.
    ///
    /// # Errors
    /// What cargo says.
    pub fn load(tree: &Tree) -> Result<Self, cargo_metadata::Error> {
        let metadata =
            MetadataCommand::new().manifest_path(tree.root.join("Cargo.toml")).no_deps().exec()?;
        let mut workspace = Self::default();
        for package in &metadata.packages {
            let from = package.name.to_string();
            let directory = package.manifest_path.parent().expect("a manifest lies somewhere");
            let directory = directory.strip_prefix(&tree.root).unwrap_or(directory);
            workspace.packages.push((from.clone(), directory.to_string()));
            for dependency in &package.dependencies {
                let kind = match dependency.kind {
                    DependencyKind::Development => Kind::Dev,
                    DependencyKind::Build => Kind::Build,
                    _ => Kind::Normal,
                };
                let to = dependency.name.clone();
                workspace.dependencies.push(Dependency { from: from.clone(), to, kind });
            }
        }
        workspace.packages.sort();
        workspace.dependencies.sort();
        Ok(workspace)
    }
}

/// Section by section, the lines of a manifest that say something: (section, line number, key, value).
#[must_use]
pub fn entries(text: &str) -> Vec<(String, usize, String, String)> {
    let mut section = String::new();
    let mut entries = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split(" #").next().unwrap_or_default().trim();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.trim_matches(['[', ']']).clone_into(&mut section);
        } else if let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
            entries.push((section.clone(), index + 1, key.trim().into(), value.trim().into()));
        }
    }
    entries
}
