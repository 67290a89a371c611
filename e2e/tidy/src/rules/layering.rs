//! Who may import whom.
//!
//! The table of the design (§2), made complete: every package of the workspace has a row. Where a row
//! says more than the design does, the reason stands beside it.

use std::collections::BTreeMap;

use crate::{
    finding::Finding,
    manifest::{Kind, Workspace},
};

/// What the crates of others may be.
#[derive(Clone, Copy, Debug)]
pub enum Foreign {
    /// These and no others.
    Only(&'static [&'static str]),
    /// Any, except these.
    AllBut(&'static [&'static str]),
}

/// One package and whom it may know.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Its package.
    pub package: &'static str,
    /// Where it lies.
    pub directory: &'static str,
    /// Packages of this workspace that it may import.
    pub knows: &'static [&'static str],
    /// The crates of others that it may import.
    pub foreign: Foreign,
    /// Packages of this workspace that its tests may import beyond `knows`.
    pub tests_know: &'static [&'static str],
}

/// Kubernetes is nothing that the store knows of.
const NO_KUBERNETES: Foreign = Foreign::AllBut(&["kube", "k8s-openapi", "schemars"]);

/// The whole house.
pub const ROOMS: &[Room] = &[
    Room {
        package: "quorate-consensus",
        directory: "node/crates/consensus",
        knows: &[],
        foreign: Foreign::Only(&["bytes"]),
        tests_know: &[],
    },
    Room {
        package: "quorate-machine",
        directory: "node/crates/machine",
        knows: &[],
        foreign: Foreign::Only(&["bytes"]),
        tests_know: &[],
    },
    Room {
        package: "quorate-replica",
        directory: "node/crates/replica",
        knows: &["quorate-consensus", "quorate-machine"],
        // A payload is `Bytes` from the socket to the WAL, so the type passes through here too.
        foreign: Foreign::Only(&["bytes"]),
        tests_know: &[],
    },
    Room {
        package: "quorate-storage",
        directory: "node/crates/storage",
        // Data types only: entries and hard state are consensus', the `Store` trait is the machine's.
        knows: &["quorate-consensus", "quorate-machine"],
        // No async runtime and no wire format: steps are synchronous, formats are its own.
        foreign: Foreign::Only(&["bytes", "crc32c", "parking_lot", "rustix", "sha1", "thiserror"]),
        tests_know: &[],
    },
    Room {
        package: "quorate-proto",
        directory: "node/crates/proto",
        knows: &[],
        foreign: Foreign::Only(&["bytes", "prost", "tonic", "tonic-prost"]),
        tests_know: &[],
    },
    Room {
        package: "quorate-sim",
        directory: "node/crates/sim",
        // The design names replica, machine and storage; consensus comes with its ids and entries, which are the types of
        // what the simulated network carries and the simulated disk holds.
        knows: &["quorate-consensus", "quorate-machine", "quorate-replica", "quorate-storage"],
        // No runtime, no clock, no source of randomness but the seed.
        foreign: Foreign::Only(&["bytes"]),
        tests_know: &[],
    },
    Room {
        package: "quorate",
        directory: "node",
        knows: &[
            "quorate-consensus",
            "quorate-machine",
            "quorate-proto",
            "quorate-replica",
            "quorate-storage",
        ],
        foreign: NO_KUBERNETES,
        tests_know: &[],
    },
    Room {
        package: "quorate-crds",
        directory: "crds",
        knows: &[],
        // serde_json and serde_yaml_ng write the generated YAML and the schema's exceptions.
        foreign: Foreign::Only(&[
            "k8s-openapi",
            "kube",
            "schemars",
            "serde",
            "serde_json",
            "serde_yaml_ng",
        ]),
        tests_know: &[],
    },
    Room {
        package: "quorate-planner",
        directory: "operator/crates/planner",
        knows: &["quorate-crds"],
        foreign: Foreign::Only(&["k8s-openapi"]),
        tests_know: &[],
    },
    Room {
        package: "quorate-operator",
        directory: "operator",
        // Of the node's crates only the wire contract: the operator speaks etcd's API plus docs/contract.md.
        knows: &["quorate-crds", "quorate-planner", "quorate-proto"],
        foreign: Foreign::AllBut(&[]),
        tests_know: &[],
    },
    Room {
        package: "quorate-tidy",
        directory: "e2e/tidy",
        knows: &[],
        foreign: Foreign::Only(&["cargo_metadata"]),
        tests_know: &[],
    },
    Room {
        package: "quorate-kubernetes",
        directory: "e2e/kubernetes",
        // It builds a Kubernetes; it knows neither stores nor operators, nor a client library of what it builds.
        knows: &[],
        foreign: Foreign::Only(&["anyhow", "rustix"]),
        tests_know: &[],
    },
    Room {
        package: "quorate-e2e-store",
        directory: "e2e/store",
        // The simulator for its model and checkers; the test bed for etcd's tools, which it builds and caches.
        knows: &["quorate-kubernetes", "quorate-proto", "quorate-sim"],
        foreign: NO_KUBERNETES,
        tests_know: &[],
    },
    Room {
        package: "quorate-e2e-cluster",
        directory: "e2e/cluster",
        // The operator is looked at from outside: its types and its bed, the wire and the checkers, never its planner. How the files
        // of a member are damaged is known where that is tested without Kubernetes.
        knows: &[
            "quorate-crds",
            "quorate-e2e-store",
            "quorate-kubernetes",
            "quorate-proto",
            "quorate-sim",
        ],
        foreign: Foreign::AllBut(&[]),
        tests_know: &[],
    },
    Room {
        package: "quorate-bench",
        directory: "e2e/bench",
        // The test bed builds etcd and its benchmark tool.
        knows: &["quorate-kubernetes", "quorate-proto"],
        foreign: NO_KUBERNETES,
        tests_know: &[],
    },
    Room {
        package: "quorate-xtask",
        directory: "e2e/xtask",
        // `cluster up|down|status` is the bed's own library. Nothing else may make the first chore of a fresh clone slow.
        knows: &["quorate-kubernetes"],
        foreign: Foreign::Only(&["anyhow", "clap"]),
        tests_know: &[],
    },
];

/// Holds the table over the manifests.
#[must_use]
pub fn check(rooms: &[Room], workspace: &Workspace) -> Vec<Finding> {
    let mut findings = Vec::new();
    let by_name: BTreeMap<&str, &Room> = rooms.iter().map(|room| (room.package, room)).collect();
    for (package, directory) in &workspace.packages {
        match by_name.get(package.as_str()) {
            Some(room) if room.directory == directory => {}
            Some(room) => findings.push(Finding::about(
                directory,
                format!("`{package}` lies here and not in `{}`; correct ROOMS", room.directory),
            )),
            None => findings.push(Finding::about(
                directory,
                format!("`{package}` is in no row of ROOMS: say there whom it may import, and why"),
            )),
        }
    }
    let exists = |name: &str| workspace.packages.iter().any(|(package, _)| package == name);
    for room in rooms.iter().filter(|room| !exists(room.package)) {
        findings
            .push(Finding::about(room.directory, "a row of ROOMS without a package; delete it"));
    }
    for dependency in &workspace.dependencies {
        let Some(room) = by_name.get(dependency.from.as_str()) else { continue };
        let to = dependency.to.as_str();
        let is_ours = exists(to);
        let allowed = match (dependency.kind, is_ours) {
            (Kind::Normal, true) => room.knows.contains(&to),
            (Kind::Dev, true) => room.knows.contains(&to) || room.tests_know.contains(&to),
            (Kind::Normal, false) => room.foreign.allows(to),
            (Kind::Dev | Kind::Build, false) => true,
            (Kind::Build, true) => false,
        };
        if !allowed {
            let advice = format!(
                "`{}` may not import `{to}` ({:?}): the line belongs in another room (design §2, \
                 \"Where does my line go?\"), or the row in ROOMS (e2e/tidy/src/rules/layering.rs) \
                 needs it with a reason",
                room.package, dependency.kind
            );
            findings.push(Finding::about(&format!("{}/Cargo.toml", room.directory), advice));
        }
    }
    findings
}

impl Foreign {
    fn allows(self, name: &str) -> bool {
        match self {
            Foreign::Only(names) => names.contains(&name),
            Foreign::AllBut(names) => !names.contains(&name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Dependency;

    const SAMPLE: &[Room] = &[
        Room {
            package: "mind",
            directory: "mind",
            knows: &[],
            foreign: Foreign::Only(&["bytes"]),
            tests_know: &["shell"],
        },
        Room {
            package: "shell",
            directory: "shell",
            knows: &["mind"],
            foreign: Foreign::AllBut(&["kube"]),
            tests_know: &[],
        },
    ];

    fn findings(dependencies: &[(&str, &str, Kind)]) -> usize {
        let packages = [("mind", "mind"), ("shell", "shell")];
        let workspace = Workspace {
            packages: packages.map(|(name, place)| (name.into(), place.into())).to_vec(),
            dependencies: dependencies
                .iter()
                .map(|(from, to, kind)| Dependency {
                    from: (*from).into(),
                    to: (*to).into(),
                    kind: *kind,
                })
                .collect(),
        };
        check(SAMPLE, &workspace).len()
    }

    #[test]
    fn rooms_know_whom_they_may_know() {
        assert_eq!(
            findings(&[("shell", "mind", Kind::Normal), ("mind", "bytes", Kind::Normal)]),
            0
        );
        assert_eq!(findings(&[("mind", "shell", Kind::Normal)]), 1);
        assert_eq!(findings(&[("mind", "tokio", Kind::Normal)]), 1);
        assert_eq!(findings(&[("shell", "tokio", Kind::Normal)]), 0);
        assert_eq!(findings(&[("shell", "kube", Kind::Normal)]), 1);
    }

    #[test]
    fn tests_may_know_more() {
        assert_eq!(findings(&[("mind", "shell", Kind::Dev), ("mind", "proptest", Kind::Dev)]), 0);
        assert_eq!(findings(&[("shell", "mind", Kind::Build)]), 1);
    }

    #[test]
    fn a_package_without_a_row_is_found_and_a_row_without_a_package() {
        let workspace =
            Workspace { packages: vec![("new".into(), "new".into())], dependencies: Vec::new() };
        assert_eq!(check(SAMPLE, &workspace).len(), 3);
    }
}
