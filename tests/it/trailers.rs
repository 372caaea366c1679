//! Trailers of Node servers: what comes after a body, both ways, as on Node.

use std::process::Command;

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{PATIENCE, deploy, server, spawn, wait_for};

const SERVER: &str = include_str!("../functions/trailers.cjs");

/// Posts a body in chunks with these headers and trailers; gives the chunks and what comes after
/// them, line by line.
async fn post(url: &str, headers: &str, trailers: &str) -> Vec<String> {
    let url: reqwest::Url = url.parse().unwrap();
    let mut stream = TcpStream::connect(url.socket_addrs(|| None).unwrap()[0]).await.unwrap();
    let request = format!(
        "POST {} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\
         {headers}\r\n5\r\nhello\r\n0\r\n{trailers}\r\n",
        url.path(),
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an end").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    body.lines().map(str::to_ascii_lowercase).collect()
}

#[tokio::test]
async fn what_comes_after_a_body_passes_if_it_was_announced_and_is_wanted() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::fs::write(dir.path().join("server.cjs"), SERVER).unwrap();
    let mut node = Command::new("node");
    node.arg("server.cjs").current_dir(dir.path()).env("PORT", "0");
    let log = dir.path().join("log");
    let mut node = spawn(node, &log);
    let port: u16 = wait_for("Node to listen", || async {
        let output = std::fs::read_to_string(&log).ok()?;
        output.lines().find_map(|line| line.strip_prefix("port=")?.parse().ok())
    })
    .await;
    let oracle = format!("http://127.0.0.1:{port}/");

    let owner = server().await.register().await;
    owner
        .deploy(&deploy("trailers", "trailers.cjs", SERVER).with("visibility", json!("public")))
        .await;
    let ours = owner.run(Method::POST, "trailers").build().unwrap().url().to_string();

    let takes = "te: trailers\r\n";
    let announced = "te: trailers\r\ntrailer: x-sum, x-more, content-length\r\n";
    let both = "x-sum: 1\r\nX-More: 2\r\n";
    for (headers, trailers) in [(announced, both), (announced, ""), (takes, "")] {
        let got = post(&ours, headers, trailers).await;
        assert_eq!(got, post(&oracle, headers, trailers).await, "{headers}{trailers}");
        assert!(got.iter().any(|line| line == "x-length: 5"), "{got:?}");
    }
    // More than HTTP lets a proxy pass, and a caller that does not take any.
    for (headers, trailers, heard) in [
        (announced, "x-sum: 1\r\nx-other: 3\r\ncontent-length: 9\r\n", Some(r#"{"x-sum":"1"}"#)),
        (takes, both, Some("{}")),
        ("trailer: x-sum\r\n", both, None),
    ] {
        let got = post(&ours, headers, trailers).await;
        let line = got.iter().find_map(|line| line.strip_prefix("x-heard: "));
        assert_eq!(line, heard, "{headers}{trailers}: {got:?}");
        assert!(got.starts_with(&["5".to_owned(), "hello".to_owned()]), "{got:?}");
    }
    node.kill().unwrap();
    node.wait().unwrap();
}
