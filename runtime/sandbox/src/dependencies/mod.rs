//! Builds dependency trees: the only place where npm runs.
//!
//! A specification is resolved to exact versions (or what it was resolved to is known), these give
//! the `depHash`, and a tree of that hash is installed, packed and stored unless it is there.
//! Written in this order: archive, metadata, resolution. A crash in between leaves something to
//! do again, never a hit to something half-written.
//!
//! npm is a child with a clean environment, a private home and no children of its own. No script of a
//! package runs, and nothing is fetched but packages of the registry.

mod alone;
mod builder;
mod directory;
mod lockfile;
mod lost;
mod npm;
mod spec;
mod tree_hash;
mod turns;

pub use builder::{NpmBuilder, NpmOptions};
