//! What every role does as a process: listens, says where, serves, and ends on a signal.

use std::future::Future;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use axum::Router;
use axum::serve::ListenerExt;
use cloudserve_artifacts::CacheError;
use cloudserve_gateway::{ConnectionOptions, TraceError, serve_router};
use cloudserve_sandbox::StartError;
use cloudserve_store::OpenError;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::ops::Ops;
use crate::programs::ProgramError;
use crate::secrets::SecretsError;
use crate::storage::StorageError;

/// Exit code after a second signal.
const INTERRUPTED: u8 = 130;

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error("a program is missing")]
    Program(#[from] ProgramError),
    #[error("the storage is not chosen completely")]
    Storage(#[from] StorageError),
    #[error("the storage cannot be used")]
    Open(#[from] OpenError),
    #[error("the secrets cannot be used")]
    Secrets(#[from] SecretsError),
    #[error("the artifact cache cannot be used")]
    Cache(#[from] CacheError),
    #[error("calls cannot be traced")]
    Trace(#[from] TraceError),
    #[error("the sandbox does not start")]
    Sandbox(#[from] StartError),
    #[error("npm's work directory cannot be used")]
    Npm(#[source] io::Error),
    #[error("cannot listen on {address} ({variable})")]
    Listen {
        address: SocketAddr,
        variable: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("CLOUDSERVE_SANDBOX_URLS is not set; this role runs no functions itself and needs it")]
    NoSandboxes,
    #[error(
        "CLOUDSERVE_INVOKE_URL is an https address; the API speaks no TLS to the gateway, which it \
         reaches within the installation: set http://HOST:PORT"
    )]
    InvokeUrl,
    #[error("signals cannot be received")]
    Signals(#[source] io::Error),
    #[error("the {part} has ended by itself")]
    Ended { part: &'static str },
}

/// Listens on an address that a setting names.
pub(crate) async fn listen(
    address: SocketAddr,
    variable: &'static str,
) -> Result<(TcpListener, SocketAddr), ServeError> {
    let failed = |source| ServeError::Listen { address, variable, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Tells people and scripts where the process is; the line is stable.
pub(crate) fn announce(parts: &[(&str, SocketAddr)], ops: &Ops) {
    let parts = parts.iter().copied().chain(ops.address().map(|address| ("ops", address)));
    let parts: Vec<_> = parts.map(|(name, at)| format!("{name}=http://{at}")).collect();
    // Nobody may be reading standard output.
    let _ = writeln!(io::stdout(), "listening {}", parts.join(" "));
}

/// Serves whoever comes until `stop`, then lets requests that have begun finish.
pub(crate) async fn serve_public(
    listener: TcpListener,
    router: Router,
    connections: ConnectionOptions,
    drain_ms: u32,
    stop: CancellationToken,
) {
    let stop = stop.cancelled_owned();
    serve_router(listener, router, &connections, millis(drain_ms), stop).await;
}

/// After so long without a packet the kernel asks whether the other host is still there, and ends the
/// connection when so many questions in a row are not answered.
const ASK_AFTER: Duration = Duration::from_secs(30);
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(10);
const QUESTIONS: u32 = 3;

/// Serves roles of ours until `stop`, then lets requests that have begun finish. Their connections
/// have no bounds here: they keep what is idle for as long as they like, and how long an answer may
/// wait for its caller is decided where the caller is. Only those of hosts that are gone end.
pub(crate) async fn serve_roles(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
) -> io::Result<()> {
    let listener = listener.tap_io(|connection| {
        // Without it small answers may wait for a while; with it they cost more packets.
        let _ = connection.set_nodelay(true);
        if let Err(error) = notice_loss(connection) {
            warn!(%error, "it will not be noticed when the host of a connection is gone");
        }
    });
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// Lets the kernel find out when the other host is gone without a word: a connection that only waits
/// would stay for good, with what it holds.
fn notice_loss(connection: &TcpStream) -> io::Result<()> {
    let asks = TcpKeepalive::new().with_time(ASK_AFTER).with_interval(ASK_AGAIN_AFTER);
    SockRef::from(connection).set_tcp_keepalive(&asks.with_retries(QUESTIONS))
}

/// Drains, unless another signal comes.
pub(crate) async fn end(
    signals: &mut Signals,
    drain: impl Future<Output = ()>,
) -> Result<ExitCode, ServeError> {
    tokio::select! {
        () = drain => {
            info!("stopped");
            Ok(ExitCode::SUCCESS)
        }
        () = signals.next() => {
            warn!("stopped at once; calls were cut off");
            Ok(ExitCode::from(INTERRUPTED))
        }
    }
}

/// Waits for a task until a moment; then ends it.
pub(crate) async fn finish<T>(mut task: tokio::task::JoinHandle<T>, deadline: Instant) {
    if tokio::time::timeout_at(deadline.into(), &mut task).await.is_err() {
        task.abort();
    }
}

/// Milliseconds of a setting.
pub(crate) fn millis(value: u32) -> Duration {
    Duration::from_millis(value.into())
}

/// Every connection takes a descriptor and every worker four; the usual soft limit of 1 024 is for
/// programs that use `select`.
pub(crate) fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        warn!(%error, "the limit of open files could not be raised");
    }
}

/// Where callers reach a gateway that listens here.
pub(crate) fn url_of(mut gateway: SocketAddr) -> String {
    if gateway.ip().is_unspecified() {
        gateway.set_ip(match gateway {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("http://{gateway}")
}

/// The signals that end a server.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn new() -> Result<Self, ServeError> {
        let on = |kind| signal(kind).map_err(ServeError::Signals);
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
        })
    }

    /// Waits for the first of them while `part` serves, which does not end before.
    pub(crate) async fn first<T>(
        &mut self,
        serving: &mut tokio::task::JoinHandle<T>,
        part: &'static str,
    ) -> Result<(), ServeError> {
        tokio::select! {
            () = self.next() => Ok(()),
            _ = serving => Err(ServeError::Ended { part }),
        }
    }

    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_asks_whether_the_other_host_is_there() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _caller = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (connection, _) = listener.accept().await.unwrap();
        notice_loss(&connection).unwrap();
        let socket = SockRef::from(&connection);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), ASK_AFTER);
    }
}
