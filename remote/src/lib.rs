//! The sandbox behind a socket: what gateway and API ask of it, when it is another process.
//!
//! [`Sandboxes`] implements the three traits under which the other roles know the sandbox
//! ([`Invoker`], [`VersionLoader`], [`DependencyBuilder`]) over any number of nodes; [`Server`]
//! offers a node's own implementations to it. HTTP/1.1, one request per call, the paths versioned,
//! every request authenticated by the internal token.
//!
//! Invariant: a call is made at most once. A node says that it has taken a call, by the head of its
//! HTTP answer, before it gives the call to the sandbox: without that head the call was never
//! started, and another node may have it. A node that was asked and stays silent is the exception: it
//! may begin the call yet, so the call has failed.
//!
//! [`Invoker`]: cloudserve_protocol::call::Invoker
//! [`VersionLoader`]: cloudserve_protocol::call::VersionLoader
//! [`DependencyBuilder`]: cloudserve_protocol::build::DependencyBuilder

mod client;
mod frame;
mod http;
mod message;
mod metrics;
mod nodes;
mod options;
mod token;

pub use crate::client::Sandboxes;
pub use crate::http::{Offered, Server};
pub use crate::metrics::RemoteMetrics;
pub use crate::nodes::url::{SandboxUrl, SandboxUrlError};
pub use crate::options::{RemoteOptions, ServerOptions};
pub use crate::token::{InternalToken, TokenError};
