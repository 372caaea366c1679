//! Bounds of connections: callers who do not read, and heads that do not come.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use cloudserve_gateway::{ConnectionOptions, GatewayOptions, serve_router};
use cloudserve_protocol::limits::Limits;
use cloudserve_store::function::Visibility;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;

use crate::fixture::World;
use crate::wire::{Served, read_answer, serve};

const PIECE_BYTES: u32 = 64 * 1024;

/// A gateway, and a caller of a function whose answer has no end. It has read that it begins.
async fn flooded(write_timeout_ms: u32) -> (World, Served, TcpStream) {
    let connections = ConnectionOptions { write_timeout_ms, ..ConnectionOptions::default() };
    let options = GatewayOptions { connections, ..GatewayOptions::default() };
    let w = World::with(options, |stores| stores).await;
    let limits = Limits { timeout_ms: 60_000, ..Limits::default() };
    w.deploy_limited(&w.alice, "flood", Visibility::Public, limits).await;
    let served = serve(&w).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(PIECE_BYTES).unwrap();
    let mut stream = socket.connect(served.address).await.unwrap();
    stream.write_all(b"GET /run/alice/flood HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    (w, served, stream)
}

/// Reads until the connection ends, one way or the other.
async fn closed(stream: &mut TcpStream) {
    let mut buffer = vec![0; PIECE_BYTES as usize];
    let read = async { while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {} };
    tokio::time::timeout(Duration::from_secs(5), read).await.expect("the connection is open");
}

#[tokio::test]
async fn a_caller_who_does_not_read_is_given_up() {
    let (w, _served, mut stream) = flooded(300).await;
    let rows = w.usage(&w.alice, 1).await;
    assert_eq!(rows[0].code, "cancelled");
    closed(&mut stream).await;
    let metrics = w.gateway.metrics();
    assert_eq!((metrics.in_flight, metrics.connections), (0, 0));
}

/// Less in a second than the kernel wants to be free before it says that there is room again.
#[tokio::test]
async fn a_caller_who_reads_slowly_is_waited_for() {
    let (w, _served, mut stream) = flooded(1_000).await;
    let mut piece = vec![0; PIECE_BYTES as usize];
    for _ in 0..30 {
        stream.read_exact(&mut piece).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(w.gateway.metrics().in_flight, 1);
}

#[tokio::test]
async fn routers_have_the_same_bounds() {
    let options =
        ConnectionOptions { max_connections: 1, head_timeout_ms: 2_000, ..Default::default() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let peer = |ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() };
    let router = Router::new().route("/", get(peer));
    let (stop, stopped) = oneshot::channel::<()>();
    let drain = Duration::from_secs(5);
    let serving = tokio::spawn(async move {
        serve_router(listener, router, &options, drain, async { drop(stopped.await) }).await;
    });

    // It holds the only place, until its time is over.
    let mut half = TcpStream::connect(address).await.unwrap();
    half.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    let mut whole = TcpStream::connect(address).await.unwrap();
    whole.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(100), whole.readable()).await;
    assert!(early.is_err(), "there was a place");
    closed(&mut half).await;
    let answer = read_answer(&mut whole).await;
    assert!(answer.ends_with(&whole.local_addr().unwrap().to_string()), "{answer}");

    stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(3), serving).await.unwrap().unwrap();
    closed(&mut whole).await;
}
