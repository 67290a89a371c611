//! Side by side against etcd.

fn main() {}
