//! The data plane: from an HTTP request under `/run` to a call in a sandbox and back.
//!
//! One module per step, in this order: [`authenticate`], [`admit`], [`authorise`], [`route`],
//! [`quota`], [`dispatch`], [`meter`]. A warm call makes no database round trip; usage and logs leave in
//! batches, off the request path.
//!
//! Invariants: every call that reached a function leaves exactly one usage row, however it ended;
//! every request is answered by its deadline plus [`GatewayOptions::deadline_grace_ms`]; what the
//! gateway knows of a function is at most [`MAX_STALENESS`] old; the caller's credentials stay
//! here.

mod admit;
mod answer;
mod authenticate;
mod authorise;
mod body;
mod connections;
mod dispatch;
mod downstream;
mod envelope;
mod frames;
mod gateway;
mod head;
mod http;
mod link;
mod mask;
mod meter;
mod metrics;
mod options;
mod path;
mod patience;
mod quota;
mod refusal;
mod route;
mod serve;
mod socket;
mod timing;
mod trace;
mod trailers;
mod unread;
mod upgrade;

pub use crate::downstream::Downstream;
pub use crate::gateway::{Gateway, NotReady, Peer};
pub use crate::http::serve_router;
pub use crate::metrics::MetricsSnapshot;
pub use crate::options::{ConnectionOptions, GatewayOptions};
pub use crate::route::MAX_STALENESS;
pub use crate::trace::{TraceError, TraceOptions, Tracer};
