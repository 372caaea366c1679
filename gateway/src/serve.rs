//! The gateway on a socket, without layers on the path of a call.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use http::Request;
use http::header::UPGRADE;
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::net::TcpListener;
use tokio::sync::OwnedSemaphorePermit;

use crate::connections::{self, Opened};
use crate::gateway::{Gateway, Peer};
use crate::link::Link;

impl Gateway {
    /// Serves until `shutdown` resolves; then takes no new connection, lets calls in flight end
    /// and returns, after [`GatewayOptions::drain_ms`](crate::GatewayOptions::drain_ms) at the
    /// latest. [`Gateway::drain`] comes next.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let shutdown = async {
            shutdown.await;
            self.begin_to_drain();
        };
        let service_of = |opened: Opened| {
            self.counters().connections.fetch_add(1, Relaxed);
            let link = Link::new(Peer::from(opened.peer.ip()), opened.patience);
            let seat = Arc::new(Seat { gateway: self.clone(), link, _place: opened.place });
            service_fn(move |mut request: Request<Incoming>| {
                let seat = seat.clone();
                async move {
                    // What becomes of the connection may outlive its HTTP.
                    if request.headers().contains_key(UPGRADE) {
                        request.extensions_mut().insert(seat.clone());
                    }
                    Ok::<_, Infallible>(seat.gateway.handle(request, &seat.link).await)
                }
            })
        };
        let options = self.options();
        connections::serve(listener, &options.connections, options.drain(), shutdown, service_of)
            .await;
    }
}

/// An open connection. Its place is free when the last user of the connection is gone.
pub(crate) struct Seat {
    gateway: Gateway,
    link: Link,
    _place: OwnedSemaphorePermit,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.gateway.counters().connections.fetch_sub(1, Relaxed);
    }
}
