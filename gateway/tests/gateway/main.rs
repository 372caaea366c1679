//! The gateway over the real `SQLite` store. In place of the sandbox stands an invoker that can do
//! what a sandbox should not: hang, break off, and answer nonsense.

#![allow(clippy::unwrap_used, missing_docs)]

mod access;
mod calls;
mod connections;
mod fixture;
mod found;
mod metering;
mod quota;
mod revoked;
mod shown;
mod stale;
mod strangers;
mod unchecked;
mod watched;
mod wire;
