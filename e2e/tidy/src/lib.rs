//! Reads the source: layering, generated files, habits.
//!
//! # What this room is
//!
//! A house keeps its habits only if somebody looks. The compiler and clippy look at one crate at a
//! time and at what has a type; this room looks at the tree as a reader does: who imports whom,
//! whether a pure crate has learnt what time it is, whether a file still says what its one job is,
//! whether an invariant that is promised in ARCHITECTURE.md is asserted anywhere, whether a
//! generated copy has gone stale. It needs no cluster, no server and no network and takes a second.
//!
//! ```text
//!   files of the tree ──► lexer ──► source::Tree ─┐
//!   cargo metadata    ──► manifest::Dependency  ──┼─► rules::* ──► Vec<Finding> ──► one #[test] each
//! ```
//!
//! A rule is a plain function from a [`Tree`] (or from the list of dependencies) to [`Finding`]s.
//! `tests/house.rs` runs each of them on this tree; the unit tests beside each rule run it on a few
//! lines made for the purpose, one kept and one broken, so that a rule which has gone blind is red
//! as well. A finding is a line that a person can act on: file and line, the rule, what to do.
//!
//! # What it does not know
//!
//! What the code does. It sees words, comments, string literals and braces, and knows which lines
//! are for tests; it has no syntax tree and no types. So it may be fooled by a renamed import or a
//! macro; it is a reader with sharp eyes, not a wall. Where the compiler can hold a rule
//! (`missing_docs`, `unwrap_used`, too long functions, banned methods) the compiler holds it, in
//! `[workspace.lints]` and `clippy.toml`, and it is not repeated here.
//!
//! # What holds
//!
//! * Every exception is a line in a table here with its reason, and a line that is no longer needed
//!   is a finding too: the tables can only describe the tree as it is.
//! * A rule that found nothing to look at fails. An empty tree is not a tidy one.
//! * The tables of `layering` name every crate of the workspace: a new room is red until somebody
//!   has said whom it may know.
//!
//! # What is held elsewhere
//!
//! `crds/*.yaml` against the types: a test in `crds/src/yaml.rs`, which has the types. Chart renders:
//! `operator/tests/chart.rs`, which has helm. Licences and bans: cargo-deny, by `cargo xtask check`.
//! The purity of what a pure crate *calls*: clippy, by `.config/clippy-pure.toml`; this room only
//! sees that the link to it is there.
//!
//! # What was left out
//!
//! A parser (`syn`): it would see more and cost a dependency and a second of compilation; nothing
//! here has needed it. Judging names and prose: that is a reader's work.

pub mod finding;
pub mod lexer;
pub mod manifest;
pub mod rules;
pub mod source;

pub use finding::Finding;
pub use source::{SourceFile, Tree};
