//! What is measured: the server, and the peers beside it.

mod cloudserve;
pub(crate) mod null;
mod peers;
mod process;
pub(crate) mod procfs;

pub(crate) use cloudserve::{Deploy, Home, Server, ServerOptions};
pub(crate) use peers::{Peer, PeerKind, Peers};
pub(crate) use process::{Process, free_address};
