//! Builds dependency trees: the only place where npm runs.
//!
//! A specification is resolved to exact versions (or what it was resolved to is known), these give
//! the `depHash`, and a tree of that hash is installed, packed and stored unless it is there.
//! Written in this order: archive, metadata, resolution. A crash in between leaves something to
//! do again, never a hit to something half-written.
//!
//! npm is a child with a clean environment and a private home. No script of a package runs.

mod builder;
mod lockfile;
mod npm;
mod spec;

pub use builder::{NpmBuilder, NpmOptions};
