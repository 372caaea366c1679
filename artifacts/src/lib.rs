//! Artifacts on local disk.
