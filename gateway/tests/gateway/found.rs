//! Functions that are called one after the other over one connection.

use cloudserve_protocol::limits::Limits;
use cloudserve_store::function::Visibility;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::fixture::World;
use crate::wire::{read_answer, serve};

async fn call(stream: &mut TcpStream, path: &str, token: Option<&str>) -> String {
    let credential = token.map(|token| format!("authorization: Bearer {token}\r\n"));
    let credential = credential.unwrap_or_default();
    let request = format!("GET /run/{path} HTTP/1.1\r\nhost: a\r\n{credential}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    read_answer(stream).await
}

#[tokio::test]
async fn a_change_is_seen_by_the_next_call() {
    let w = World::new().await;
    let id = w.deploy(&w.alice, "version", Visibility::Public).await;
    let served = serve(&w).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    for version in 1..=3 {
        for _ in 0..3 {
            let answer = call(&mut stream, "alice/version", None).await;
            assert!(answer.ends_with(&format!("{version} hello {version}")), "{answer}");
        }
        let next = version + 1;
        w.accept_version(&w.alice, "version", id, next, Visibility::Public, Limits::default())
            .await;
        w.activate(id, next).await;
    }
}

#[tokio::test]
async fn each_caller_sees_what_it_may() {
    let w = World::new().await;
    w.deploy(&w.alice, "version", Visibility::Private).await;
    w.deploy(&w.alice, "slow", Visibility::Public).await;
    let served = serve(&w).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    for _ in 0..2 {
        for (path, token, status) in [
            ("alice/version", Some(&w.alice.token), 200),
            ("alice/version", None, 401),
            ("alice/version", Some(&w.bob.token), 403),
            ("alice/slow", Some(&w.bob.token), 200),
            ("alice/nothing", Some(&w.alice.token), 404),
            ("alice/version", Some(&w.alice.token), 200),
        ] {
            let answer = call(&mut stream, path, token.map(String::as_str)).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        }
    }
}
