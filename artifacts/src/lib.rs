//! Immutable artifacts on local disk: deterministic packing, safe unpacking, and the verified,
//! bounded cache from which esbuild reads trees and workers read bundles.
//!
//! Invariant: what is under a key in the cache is what the key's hash says, complete.

mod cache;
mod entries;
mod pack;
mod unpack;

pub use cache::{Cache, CacheError, CacheOptions, TreeLease, VersionLease};
pub use entries::{Entries, Named, entries};
pub use pack::{PackError, Packed, pack};
pub use unpack::{UnpackBounds, UnpackError, unpack};
