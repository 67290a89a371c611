//! Pure builders of the children, one file for each object.

pub mod budget;
pub mod claim;
pub mod formation_job;
pub mod labels;
pub mod pod;
pub mod services;
pub mod stateful_set;
