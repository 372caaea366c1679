//! `expect: 100-continue`: callers hear that they may go on, Node servers may say otherwise.

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{Account, PATIENCE, deploy, server};

const SERVER: &str = include_str!("../functions/expect.cjs");
const GO_ON: &str = "HTTP/1.1 100 Continue\r\n\r\n";

/// Asks for leave to send a body and sends it when told to; gives all that was answered.
async fn post(owner: &Account, name: &str, body: &[u8]) -> String {
    let request = owner.run(Method::POST, name).build().unwrap();
    let (url, key) = (request.url(), request.headers()["authorization"].to_str().unwrap());
    let address = url.socket_addrs(|| None).unwrap()[0];
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: {address}\r\nauthorization: {key}\r\nconnection: close\r\n\
         content-length: {}\r\nexpect: 100-continue\r\n\r\n",
        url.path(),
        body.len(),
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answered = String::new();
    let all = async {
        let mut is_sent = false;
        let mut buffer = [0; 4096];
        loop {
            let length = stream.read(&mut buffer).await.unwrap();
            if length == 0 {
                break;
            }
            answered.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
            if !is_sent && answered.starts_with(GO_ON) {
                is_sent = true;
                stream.write_all(body).await.unwrap();
            }
        }
    };
    timeout(PATIENCE, all).await.expect("an answer");
    answered
}

#[tokio::test]
async fn callers_are_told_to_go_on_and_servers_may_refuse() {
    let owner = server().await.register().await;
    owner.deploy(&deploy("plain", "expect.cjs", SERVER)).await;
    let asks = deploy("asks", "expect.cjs", SERVER).with("env", json!({ "ASKS": "1" }));
    owner.deploy(&asks).await;
    for (name, body, status, text) in [
        ("plain", &b"hello"[..], "200 OK", "100-continue: 5"),
        ("asks", b"hello", "200 OK", "100-continue: 5"),
        ("asks", &[b'x'; 11], "417 Expectation Failed", "too much"),
    ] {
        let answered = post(&owner, name, body).await;
        let last = answered.strip_prefix(GO_ON).unwrap_or(&answered);
        assert!(last.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{name}: {answered}");
        assert!(last.ends_with(text), "{name}: {answered}");
        assert!(status != "200 OK" || answered.starts_with(GO_ON), "{name}: {answered}");
    }
}
