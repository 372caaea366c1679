//! Requests that are refused before their body is read, on a real socket.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::Plane;

/// More than the buffers of a connection take.
const LONG: usize = 32 << 20;

async fn serve(plane: &Plane) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = plane.api.router();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

fn head(method: &str, path: &str, kind: &str, token: &str, length: usize) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: a\r\ncontent-type: {kind}\r\n\
         authorization: Bearer {token}\r\ncontent-length: {length}\r\n"
    )
}

/// The status line of the next answer.
async fn status(stream: &mut TcpStream) -> String {
    let mut begin = [0; 12];
    tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut begin))
        .await
        .expect("no answer")
        .expect("the answer is lost");
    String::from_utf8(begin.to_vec()).unwrap()
}

#[tokio::test]
async fn who_sends_all_before_reading_sees_the_refusal() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    let address = serve(&plane).await;
    let body = vec![b' '; LONG];
    let (json, text, deploy) = ("application/json", "text/plain", "/api/function/deploy");
    for (method, path, kind, token, expected) in [
        ("POST", deploy, json, "revoked", 401),
        ("POST", deploy, text, token.as_str(), 415),
        ("POST", "/api/apikeys", text, token.as_str(), 415),
        ("POST", "/api/elsewhere", json, token.as_str(), 404),
        ("PUT", "/api/auth/login", json, token.as_str(), 405),
        ("POST", "/api/apikeys", json, token.as_str(), 413),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = head(method, path, kind, token, LONG);
        stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
        stream.write_all(&body).await.expect("what is sent is taken");
        let status = status(&mut stream).await;
        assert_eq!(status, format!("HTTP/1.1 {expected}"), "{method} {path} {kind}");
    }
}

#[tokio::test]
async fn nobody_is_asked_for_a_body_that_is_refused() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    let address = serve(&plane).await;
    for (token, expected) in [("revoked", 401), (token.as_str(), 413)] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = head("POST", "/api/apikeys", "application/json", token, 1 << 30);
        stream.write_all(format!("{head}expect: 100-continue\r\n\r\n").as_bytes()).await.unwrap();
        assert_eq!(status(&mut stream).await, format!("HTTP/1.1 {expected}"));
    }
}
