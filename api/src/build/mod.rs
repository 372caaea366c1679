//! From files somebody sent to a version that is served: source intake, dependencies, esbuild, the
//! deployer. Knows no HTTP and runs no user code.

mod archive;
mod assets;
pub(crate) mod dependencies;
pub(crate) mod deployer;
mod esbuild;
pub(crate) mod leftovers;
mod native;
mod pipeline;
pub(crate) mod since;
pub(crate) mod source;
mod trees;
mod unreferenced;
