//! The control plane as its callers see it.
#![allow(clippy::unwrap_used, missing_docs)]

mod accounts;
mod bundles;
mod deploys;
mod given_up;
mod holdings;
mod input;
mod leftovers;
mod logs;
mod manifests;
mod queue;
mod refusals;
mod series;
mod support;
mod trees;
mod unread;
mod updates;
mod versions;
