//! Latency harness.
fn main() {}
