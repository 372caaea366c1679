//! axum's routers: the gateway as one, for those who serve it together with something else
//! ([`Gateway::serve`] is the faster way), and those of others, served as the gateway is.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::{TowerToHyperService, TowerToHyperServiceFuture};
use tokio::net::TcpListener;
use tokio::sync::OwnedSemaphorePermit;

use crate::connections::{self, Opened};
use crate::gateway::{Gateway, Peer};
use crate::link::Link;
use crate::options::ConnectionOptions;
use crate::patience::Patience;

impl Gateway {
    /// `/run/{user}/{function}` and everything below, by any method; `/healthz`, `/readyz` and
    /// `/metrics`. The peer's address is taken from [`ConnectInfo`] where there is one.
    pub fn router(&self) -> Router {
        let gateway = self.clone();
        Router::new().fallback(move |request: Request<Body>| async move {
            let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
            let peer = peer.map(|peer| Peer::from(peer.0.ip())).unwrap_or_default();
            let link = Link::new(peer, Patience::default());
            let response: Response<_> = gateway.handle(request, &link).await;
            response.map(Body::new)
        })
    }
}

/// Serves a router whose connections have the bounds of a gateway's. Requests have their
/// [`ConnectInfo`]. When `shutdown` resolves, those in flight have `drain` to end.
pub async fn serve_router(
    listener: TcpListener,
    router: Router,
    options: &ConnectionOptions,
    drain: Duration,
    shutdown: impl Future<Output = ()>,
) {
    let router: Router = router.with_state(());
    let service_of = move |opened: Opened| Routed {
        router: TowerToHyperService::new(router.clone()),
        peer: opened.peer,
        _place: opened.place,
    };
    connections::serve(listener, options, drain, shutdown, service_of).await;
}

/// A router, for one connection.
struct Routed {
    router: TowerToHyperService<Router>,
    peer: SocketAddr,
    _place: OwnedSemaphorePermit,
}

impl Service<Request<Incoming>> for Routed {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = TowerToHyperServiceFuture<Router, Request<Incoming>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(ConnectInfo(self.peer));
        self.router.call(request)
    }
}
