//! A listener of its own for `/healthz`, `/readyz` and `/metrics`. Those who call functions may take all
//! places of the other listeners, for as long as a WebSocket stays: whoever watches the process there
//! would wait with the rest, and take it for dead.

use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use cloudserve_gateway::serve_router;
use tokio::net::TcpListener;

use crate::config::Config;
use crate::parts;
use crate::process::{ServeError, listen};

const PATHS: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// The listener, if the settings name one.
pub(crate) struct Ops(Option<(TcpListener, SocketAddr)>);

impl Ops {
    /// Listens, and answers nobody yet.
    pub(crate) async fn listen(config: &Config) -> Result<Self, ServeError> {
        let Some(address) = config.ops.listen else { return Ok(Self(None)) };
        Ok(Self(Some(listen(address, "CLOUDSERVE_OPS_LISTEN").await?)))
    }

    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.0.as_ref().map(|(_, address)| *address)
    }

    /// Answers as the router does that serves everything. It goes on while the process drains, to the
    /// end of it.
    pub(crate) fn serve(self, config: &Config, router: Router) {
        let Some((listener, _)) = self.0 else { return };
        let router = router.layer(middleware::from_fn(only_operations));
        let connections = parts::connections(config);
        tokio::spawn(async move {
            serve_router(listener, router, &connections, Duration::ZERO, pending()).await;
        });
    }
}

async fn only_operations(request: Request, next: Next) -> Response {
    if PATHS.contains(&request.uri().path()) {
        next.run(request).await
    } else {
        StatusCode::NOT_FOUND.into_response()
    }
}
