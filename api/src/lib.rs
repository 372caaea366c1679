//! The control plane: accounts, keys, and the way of a deploy from a request to a served version.
//!
//! Three layers, each knowing only the one below: `http` (routes, extractors, views; the only
//! place that names axum), `app` (the rules: who may, what is kept, what is refused) and `build`
//! (source intake, esbuild, the deployer). Invariants: user code is never executed here and npm
//! never runs here; what a 2xx acknowledged is durable; a failed or half-done deploy changes
//! nothing that is served.

mod api;
mod app;
mod build;
mod http;
mod json;
mod options;

pub use crate::api::Api;
pub use crate::http::dashboard;
pub use crate::options::ApiOptions;
