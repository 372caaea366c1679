//! SQLite back ends.
//!
//! Two files, so that a burst of logs never delays a deploy: `meta.db` for what people and
//! deploys write, `telemetry.db` for what calls leave behind. Each has one writer thread, which
//! commits all writes that wait in one transaction, and a few readers.
//!
//! Both run in WAL mode with `synchronous=FULL`: what was acknowledged survives power loss, not
//! only `kill -9`. Telemetry could do with less, but usage is what accounts are billed by, it
//! comes in batches, and one fsync (about 4 ms) per batch is off every request path.

mod accounts;
mod audit;
mod columns;
mod database;
mod functions;
mod holdings;
mod logs;
mod queue;
mod records;
mod remains;
mod schema;
mod statements;
mod sweeps;
mod telemetry;
mod transfer;
mod trees;
mod usage;
mod versions;

pub(crate) use accounts::SqliteAccounts;
pub(crate) use database::Database;
pub(crate) use functions::SqliteFunctions;
pub(crate) use schema::{open_meta, open_telemetry};
pub(crate) use telemetry::SqliteTelemetry;
pub(crate) use transfer::SqliteTransfer;
pub(crate) use trees::SqliteTrees;

#[cfg(test)]
mod plans;
