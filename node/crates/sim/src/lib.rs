//! The simulator.
pub mod judge;
