//! The rules, one file for each thing that is looked at.

pub mod concurrency;
pub mod copies;
pub mod documents;
pub mod failures;
pub mod habits;
pub mod invariants;
pub mod layering;
pub mod manifests;
pub mod metrics;
pub mod purity;
