//! The product, from outside: the real server with real workers, esbuild and npm.
//!
//! Each module holds one promise of `docs/SPECIFICATION.md`. Most tests share one server; those
//! that stop, kill or restart one have their own. A test makes its own accounts, so tests do not
//! see each other and run in parallel. Nothing sleeps: [`support::wait_for`] is the one place
//! that waits.

#![allow(clippy::unwrap_used)]

mod access;
mod attacks;
mod bad_input;
mod between_calls;
mod client;
mod client_dev;
mod client_options;
mod client_terminal;
mod client_versions;
mod cluster;
mod concurrency;
mod crypto;
mod dependencies;
mod durability;
mod expect;
mod export;
mod faults;
mod handler_forms;
mod handler_servers;
mod handlers;
mod host;
mod invoke;
mod isolation;
mod killed;
mod lifecycle;
mod live;
mod logs;
mod main_job;
mod neighbours;
mod openapi;
mod packages;
mod production;
mod projects;
mod proxy;
mod quota;
mod redeploy;
mod secrets;
mod series;
// One mongod and one S3 server for all: those of the store's own tests.
#[allow(dead_code, clippy::large_futures, reason = "shared with the tests of the store")]
#[path = "../../store/tests/servers/mod.rs"]
mod servers;
mod settings;
mod streaming;
mod support;
mod traces;
mod trailers;
mod versions;
mod websocket;
