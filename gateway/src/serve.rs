//! The gateway on a socket: HTTP/1.1 straight on hyper, without layers on the path of a call.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::gateway::{Gateway, Peer};

/// After a failed accept, which is most often for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// hyper takes no smaller buffer.
const MIN_HEAD_BYTES: usize = 8 * 1024;

impl Gateway {
    /// Serves until `shutdown` resolves; then takes no new connection, lets calls in flight end
    /// and returns, after [`GatewayOptions::drain_ms`](crate::GatewayOptions::drain_ms) at the
    /// latest. [`Gateway::drain`] comes next.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let http = self.http1();
        let graceful = GracefulShutdown::new();
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
            let gateway = self.clone();
            let service = service_fn(move |request| {
                let (gateway, peer) = (gateway.clone(), peer.clone());
                async move { Ok::<_, Infallible>(gateway.handle(request, &peer).await) }
            });
            let connection = http.serve_connection(TokioIo::new(stream), service);
            let connection = graceful.watch(connection);
            let gateway = self.clone();
            tokio::spawn(async move {
                gateway.counters().connections.fetch_add(1, Relaxed);
                // A broken connection is the peer's affair; its call has been recorded.
                let _ = connection.await;
                gateway.counters().connections.fetch_sub(1, Relaxed);
                drop(place);
            });
        }
        drop(listener);
        self.stop_being_ready();
        if tokio::time::timeout(self.options().drain(), graceful.shutdown()).await.is_err() {
            tracing::warn!("calls in flight were cut off");
        }
    }

    fn http1(&self) -> http1::Builder {
        let options = self.options();
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(Duration::from_millis(options.head_timeout_ms.into()))
            .max_buf_size(options.max_head_bytes.max(MIN_HEAD_BYTES));
        http
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, Peer, tokio::sync::OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, address.ip().into(), place))
}
