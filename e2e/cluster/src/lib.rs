//! The operator on a real Kubernetes.

pub mod images;
pub mod installation;
pub mod limits;
pub mod programs;
pub mod story;
