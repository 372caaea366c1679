//! The supervisor: runs functions in worker processes that it does not trust.
//!
//! [`Sandbox`] implements the two traits under which the rest of the platform knows it,
//! [`cloudserve_protocol::call::Invoker`] and [`cloudserve_protocol::call::VersionLoader`].
//!
//! [`NpmBuilder`] builds dependency sets.
//!
//! A call takes a worker (`state`, `pool`), talks to it (`exchange`) and gives it back; or waits in
//! one that is busy (`lanes`, `behind`) and takes it over.
//! Workers are made by the `launcher`, become a function's in `boot`, and have a `keeper`
//! that sees them to their end, which has one cause (`death`).
//!
//! Invariants: a worker is assigned one function version, once. Its socket has one reader at a
//! time, whoever owns the `worker::Worker`. Nothing a worker sends is believed: what it may not
//! send gets it killed. No lock is held while anything is waited for. No V8 here, no database.

mod asked;
mod attend;
mod backlog;
mod behind;
mod boot;
mod call;
mod claims;
mod code_cache;
mod cores;
mod cpu;
mod death;
mod dependencies;
mod exchange;
mod jail;
mod keeper;
mod lanes;
mod launcher;
mod line;
mod logs;
mod metrics;
mod options;
mod outgoing;
mod pidfd;
mod pipes;
mod pool;
mod room;
mod sandbox;
mod start;
mod state;
mod turns;
mod upload;
mod version;
mod worker;

pub use dependencies::{NpmBuilder, NpmOptions};
pub use jail::Platform;
pub use launcher::LaunchMode;
pub use metrics::SandboxMetrics;
pub use options::SandboxOptions;
pub use sandbox::{Readiness, Sandbox, StartError};
