//! The gateway on a real socket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cloudserve_gateway::{Downstream, GatewayOptions};
use cloudserve_protocol::limits::Limits;
use cloudserve_store::function::Visibility;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::fixture::World;

pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    done: JoinHandle<()>,
}

pub(crate) async fn serve(w: &World) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let gateway = w.gateway.clone();
    let done = tokio::spawn(async move {
        gateway.serve(listener, async { drop(stopped.await) }).await;
        gateway.drain().await;
    });
    Served { address, stop, done }
}

/// Reads one answer with `content-length`.
pub(crate) async fn read_answer(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4_096];
    loop {
        let n = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut buffer))
            .await
            .expect("no answer")
            .unwrap();
        text.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            assert!(n > 0, "cut off: {text}");
            continue;
        };
        let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).unwrap_or("0");
        if body.len() >= length.parse().unwrap() {
            return text;
        }
        assert!(n > 0, "cut off: {text}");
    }
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let w = World::new().await;
    w.deploy(&w.alice, "version", Visibility::Public).await;
    let served = serve(&w).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    for _ in 0..3 {
        stream.write_all(b"GET /run/alice/version HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert!(read_answer(&mut stream).await.ends_with("1 hello 1"));
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes())
            .await
            .unwrap();
        assert!(read_answer(&mut stream).await.starts_with("HTTP/1.1 200 "), "{path}");
    }
    // A refused body that was sent all the same does not cost the connection.
    let body = vec![b'x'; 1024 * 1024];
    for (path, status) in [("/run/bob/x", 401), ("/elsewhere", 404), ("/healthz", 404)] {
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
        let answer = read_answer(&mut stream).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        stream.write_all(b"GET /run/alice/version HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert!(read_answer(&mut stream).await.ends_with("1 hello 1"), "{path}");
    }
}

#[tokio::test]
async fn what_is_in_the_way_of_calls_is_said() {
    struct Found(AtomicBool);
    impl Downstream for Found {
        fn is_ready(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }
        fn metrics(&self) -> String {
            String::new()
        }
    }
    let w = World::new().await;
    let found = Arc::new(Found(AtomicBool::new(false)));
    let w = w.behind(GatewayOptions::default(), Some(found.clone()));
    let ask = async || {
        let answer = w.get("/readyz", &w.alice).await;
        (answer.status.as_u16(), answer.text().to_owned())
    };
    assert_eq!(ask().await, (503, "not ready: no sandbox was found\n".to_owned()));
    found.0.store(true, Ordering::Relaxed);
    assert_eq!(ask().await, (200, "ready\n".to_owned()));
    w.gateway.stop_being_ready();
    assert_eq!(ask().await, (503, "not ready: shutting down\n".to_owned()));
}

#[tokio::test]
async fn a_huge_body_is_refused_unread() {
    const HUGE: usize = 100 * 1024 * 1024;
    let w = World::new().await;
    w.deploy(&w.alice, "count", Visibility::Public).await;
    let served = serve(&w).await;
    let head = format!("POST /run/alice/count HTTP/1.1\r\nhost: a\r\ncontent-length: {HUGE}\r\n");

    // A caller that asks first is told at once and sends nothing.
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(format!("{head}expect: 100-continue\r\n\r\n").as_bytes()).await.unwrap();
    let answer = read_answer(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");

    // One that sends without asking sees the answer as well, and is not read to the end.
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
    let piece = vec![b'x'; 256 * 1024];
    let mut sent = 0;
    while sent < HUGE && stream.write_all(&piece).await.is_ok() {
        sent += piece.len();
    }
    assert!(sent < HUGE / 2, "{sent} bytes were read");
    assert!(read_answer(&mut stream).await.starts_with("HTTP/1.1 413 "));
}

#[tokio::test]
async fn a_caller_who_waits_is_asked_by_the_function_that_wants_the_body() {
    let w = World::new().await;
    w.deploy(&w.alice, "count", Visibility::Public).await;
    w.deploy(&w.alice, "version", Visibility::Public).await;
    let served = serve(&w).await;
    let waiting = |name: &str| {
        format!(
            "POST /run/alice/{name} HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\
             expect: 100-continue\r\n\r\n"
        )
    };

    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(waiting("count").as_bytes()).await.unwrap();
    let mut asked = [0; 25];
    stream.read_exact(&mut asked).await.unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.unwrap();
    assert!(read_answer(&mut stream).await.ends_with("stream 5"));

    // One that reads no body answers without having asked for it.
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(waiting("version").as_bytes()).await.unwrap();
    let answer = read_answer(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.ends_with("1 hello 1"), "{answer}");
}

#[tokio::test]
async fn a_closed_connection_ends_its_call() {
    let w = World::new().await;
    w.deploy(&w.alice, "hang", Visibility::Public).await;
    let served = serve(&w).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(b"GET /run/alice/hang HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    w.call_begun().await;
    let began = Instant::now();
    drop(stream);
    let rows = w.usage(&w.alice, 1).await;
    assert_eq!(rows[0].code, "cancelled");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_function_is_not_blamed_for_a_body_that_does_not_come() {
    let w = World::new().await;
    let limits = Limits { timeout_ms: 200, ..Limits::default() };
    let id = w.deploy_limited(&w.alice, "count", Visibility::Public, limits).await;
    let served = serve(&w).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let request = "POST /run/alice/count HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhel";
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = read_answer(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 499 "), "{answer}");
    assert!(answer.contains("\"code\":\"cancelled\""), "{answer}");
    assert_eq!(w.usage(&w.alice, 1).await[0].code, "cancelled");
    let log = w.logs(id).await.remove(0);
    assert!(log.lines[0].message.contains("body did not arrive"), "{log:?}");
}

/// HTTP knows by the length that all of it is there, before the function has said that it is done.
#[tokio::test]
async fn an_answer_of_a_known_length_is_complete_with_its_last_byte() {
    let w = World::new().await;
    w.deploy(&w.alice, "measured", Visibility::Public).await;
    let served = serve(&w).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    for _ in 0..2 {
        stream.write_all(b"GET /run/alice/measured HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert!(read_answer(&mut stream).await.ends_with("1234512345"));
    }
    let rows = w.usage(&w.alice, 2).await;
    assert!(rows.iter().all(|row| row.code == "ok" && row.cpu_ms > 0.0), "{rows:?}");
}

#[tokio::test]
async fn shutdown_lets_calls_end_and_stores_their_rows() {
    let w = World::new().await;
    w.deploy_limited(&w.alice, "slow", Visibility::Public, Limits::default()).await;
    let served = serve(&w).await;
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(b"GET /run/alice/slow HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    w.call_begun().await;
    served.stop.send(()).unwrap();
    assert!(read_answer(&mut stream).await.ends_with("slow"));
    tokio::time::timeout(Duration::from_secs(3), served.done).await.unwrap().unwrap();
    assert_eq!(w.usage(&w.alice, 1).await[0].code, "ok");
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0);
    assert!(TcpStream::connect(served.address).await.is_err());
}

#[tokio::test]
async fn oversized_heads_are_refused() {
    let w = World::new().await;
    let served = serve(&w).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let request = format!("GET /run/a/b HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(300_000));
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = read_answer(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}
