//! The simulator.
pub mod judge;
pub mod world;
