//! The gateway on a socket: HTTP/1.1 straight on hyper, without layers on the path of a call.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::Request;
use http::header::UPGRADE;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::gateway::{Gateway, Peer};
use crate::patience::Patience;

/// After a failed accept, which is most often for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// hyper takes no smaller buffer.
const MIN_HEAD_BYTES: usize = 8 * 1024;

impl Gateway {
    /// Serves until `shutdown` resolves; then takes no new connection, lets calls in flight end
    /// and returns, after [`GatewayOptions::drain_ms`](crate::GatewayOptions::drain_ms) at the
    /// latest. [`Gateway::drain`] comes next.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let (ending, told) = watch::channel(());
        let places = Arc::new(Semaphore::new(self.options().max_connections));
        tokio::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut shutdown => break,
                accepted = accept(&listener, &places) => accepted,
            };
            let (stream, peer, place) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            self.counters().connections.fetch_add(1, Relaxed);
            let seat = Arc::new(Seat { gateway: self.clone(), _place: place });
            let patience = Patience::default();
            let http = self.http1(patience.clone());
            let service = service_fn(move |mut request: Request<Incoming>| {
                let (seat, peer, patience) = (seat.clone(), peer.clone(), patience.clone());
                async move {
                    // What becomes of the connection may outlive its HTTP.
                    if request.headers().contains_key(UPGRADE) {
                        request.extensions_mut().insert(seat.clone());
                    }
                    Ok::<_, Infallible>(seat.gateway.handle(request, &peer, &patience).await)
                }
            });
            let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
            let mut told = told.clone();
            tokio::spawn(async move {
                let mut connection = pin!(connection);
                // A broken connection is the peer's affair; its call has been recorded.
                tokio::select! {
                    _ = connection.as_mut() => return,
                    _ = told.changed() => {}
                }
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            });
        }
        drop((listener, told));
        self.begin_to_drain();
        ending.send_replace(());
        // Closed when the last connection has dropped its end.
        if tokio::time::timeout(self.options().drain(), ending.closed()).await.is_err() {
            tracing::warn!("calls in flight were cut off");
        }
    }

    fn http1(&self, patience: Patience) -> http1::Builder {
        let options = self.options();
        let mut http = http1::Builder::new();
        http.timer(patience)
            .header_read_timeout(Duration::from_millis(options.head_timeout_ms.into()))
            .max_buf_size(options.max_head_bytes.max(MIN_HEAD_BYTES));
        http
    }
}

/// An open connection. Its place is free when the last user of the connection is gone.
pub(crate) struct Seat {
    gateway: Gateway,
    _place: OwnedSemaphorePermit,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.gateway.counters().connections.fetch_sub(1, Relaxed);
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, Peer, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, address.ip().into(), place))
}
