//! The connections of one listener: HTTP/1.1 straight on hyper, each within bounds.

use std::convert::Infallible;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::coop::unconstrained;

use crate::options::ConnectionOptions;
use crate::patience::Patience;
use crate::socket::Socket;

/// After a failed accept, which is most often for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// hyper takes no smaller buffer.
const MIN_HEAD_BYTES: usize = 8 * 1024;

/// What connections are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    /// They end with the requests that have begun.
    Draining,
    /// They end now.
    CutOff,
}

/// A connection that was accepted.
pub(crate) struct Opened {
    /// Who is at its other end.
    pub(crate) peer: SocketAddr,
    /// Its alarm, which hyper has, too.
    pub(crate) patience: Patience,
    /// For another connection when it is dropped.
    pub(crate) place: OwnedSemaphorePermit,
}

/// Serves until `shutdown` resolves; then takes no new connection, lets requests in flight end and
/// returns, after `drain` at the latest. `service_of` says who answers a connection's requests.
pub(crate) async fn serve<S, B>(
    listener: TcpListener,
    options: &ConnectionOptions,
    drain: Duration,
    shutdown: impl Future<Output = ()>,
    service_of: impl Fn(Opened) -> S,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let (ending, told) = watch::channel(Phase::Serving);
    let n_places = options.max_connections.clamp(1, Semaphore::MAX_PERMITS);
    let places = Arc::new(Semaphore::new(n_places));
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
        let patience = Patience::default();
        let http = http1(options, patience.clone());
        let service = service_of(Opened { peer, patience, place });
        let socket = Socket::new(stream, options.write_timeout());
        let connection = http.serve_connection(TokioIo::new(socket), service).with_upgrades();
        let mut told = told.clone();
        tokio::spawn(async move {
            let mut connection = pin!(connection);
            // A broken connection is the peer's affair; its call has been recorded.
            if before(connection.as_mut(), &mut told, Phase::Draining).await.is_some() {
                return;
            }
            connection.as_mut().graceful_shutdown();
            // Its call is recorded when it is dropped.
            let _ = before(connection, &mut told, Phase::CutOff).await;
        });
    }
    drop((listener, told));
    ending.send_replace(Phase::Draining);
    // Closed when the last connection has dropped its end.
    if tokio::time::timeout(drain, ending.closed()).await.is_err() {
        tracing::warn!("requests in flight are cut off");
        ending.send_replace(Phase::CutOff);
        ending.closed().await;
    }
}

/// What the connection comes to, if it does before this phase.
///
/// Its task is woken several times for each request, and when it is told. Only then it asks what it is
/// told: else it looks at a number, and stays where it waits.
async fn before<F: Future>(
    mut connection: Pin<&mut F>,
    told: &mut watch::Receiver<Phase>,
    phase: Phase,
) -> Option<F::Output> {
    let news = told.clone();
    // It must know the task, even one that has used up its turn: it is not asked again.
    let mut told = pin!(unconstrained(reached(told, phase)));
    let mut waiting: Option<Waker> = None;
    let end = poll_fn(|cx| {
        if let Poll::Ready(end) = connection.as_mut().poll(cx) {
            return Poll::Ready(Some(end));
        }
        let is_waiting = waiting.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if is_waiting && matches!(news.has_changed(), Ok(false)) {
            return Poll::Pending;
        }
        waiting = Some(cx.waker().clone());
        told.as_mut().poll(cx).map(|()| None)
    });
    end.await
}

/// Resolves in this phase or a later one, or when nobody tells any more.
async fn reached(told: &mut watch::Receiver<Phase>, phase: Phase) {
    let _ = told.wait_for(|now| *now >= phase).await;
}

fn http1(options: &ConnectionOptions, patience: Patience) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(patience)
        .header_read_timeout(options.head_timeout())
        .max_buf_size(options.max_head_bytes.max(MIN_HEAD_BYTES));
    http
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, peer, place))
}

#[cfg(test)]
mod tests {
    use tokio::task::coop::consume_budget;

    use super::*;

    #[tokio::test]
    async fn a_connection_that_has_used_up_its_turn_is_told_all_the_same() {
        let (ending, mut told) = watch::channel(Phase::Serving);
        let serving = tokio::spawn(async move {
            let mut is_first = true;
            let busy_once = poll_fn(move |cx| {
                if std::mem::take(&mut is_first) {
                    while pin!(consume_budget()).poll(cx).is_ready() {}
                }
                Poll::<()>::Pending
            });
            let connection = pin!(busy_once);
            before(connection, &mut told, Phase::Draining).await
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        ending.send_replace(Phase::Draining);
        let ended = tokio::time::timeout(Duration::from_secs(5), serving).await;
        assert!(ended.expect("it is told").unwrap().is_none());
    }
}
