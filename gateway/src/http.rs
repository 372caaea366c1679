//! The gateway as an axum router, for those who serve it together with something else.
//! [`Gateway::serve`] is the faster way.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::{Request, Response};

use crate::gateway::{Gateway, Peer};
use crate::patience::Patience;

impl Gateway {
    /// `/run/{user}/{function}` and everything below, by any method; `/healthz`, `/readyz` and
    /// `/metrics`. The peer's address is taken from [`ConnectInfo`] where there is one.
    pub fn router(&self) -> Router {
        let gateway = self.clone();
        Router::new().fallback(move |request: Request<Body>| async move {
            let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
            let peer = peer.map_or_else(|| Peer::new(""), |c| c.0.ip().into());
            let response: Response<_> = gateway.handle(request, &peer, &Patience::default()).await;
            response.map(Body::new)
        })
    }
}
