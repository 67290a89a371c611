//! The simulator: production code on a simulated network, disk and clock.

fn main() {}
