//! What the parts of CloudServe say to each other: identifiers, limits, faults, the traits the
//! roles meet behind, and the frames between supervisor and worker.
//!
//! Types only. Nothing here opens a file, a socket or a process, and nothing here knows axum, SQL
//! or V8, so every other crate may depend on it.

pub mod alarm;
pub mod artifact;
pub mod assignment;
pub mod build;
pub mod call;
pub mod claims;
pub mod egress;
pub mod fault;
pub mod headers;
pub mod ids;
pub mod limits;
pub mod pieces;
pub mod wire;
pub mod zygote;
