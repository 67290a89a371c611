//! The operator on a real Kubernetes: one file per fear.
