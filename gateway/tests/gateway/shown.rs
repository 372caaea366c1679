//! Credentials that come one after the other over one connection.

use std::time::Duration;

use cloudserve_gateway::GatewayOptions;
use cloudserve_store::function::Visibility;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::fixture::World;
use crate::watched::Watch;
use crate::wire::{read_answer, serve};

/// The status of a call.
async fn call(stream: &mut TcpStream, credential: &str) -> String {
    let request = format!("GET /run/alice/version HTTP/1.1\r\nhost: a\r\n{credential}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = read_answer(stream).await;
    answer.strip_prefix("HTTP/1.1 ").unwrap()[..3].to_owned()
}

#[tokio::test]
async fn nobody_is_taken_for_whoever_came_before() {
    let watch = Watch::default();
    let w = World::with(GatewayOptions::default(), |stores| watch.over(stores)).await;
    w.deploy(&w.alice, "version", Visibility::Private).await;
    let served = serve(&w).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let key = |key: &str| format!("x-api-key: {key}");
    let session = |token: &str| format!("authorization: Bearer {token}");
    let (alice, bob) = (&w.alice, &w.bob);
    for (n, (credential, status)) in [
        (key(&alice.key), "200"),
        (key(&alice.key), "200"),
        (key(&bob.key), "403"),
        (key(&alice.read_key), "403"),
        (key(&alice.key[..alice.key.len() - 1]), "401"),
        (session(&alice.token), "200"),
        (session(&bob.token), "403"),
        ("x-none: 1".to_owned(), "401"),
        (session(&alice.token), "200"),
        (key(&alice.key), "200"),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(call(&mut stream, &credential).await, status, "{n}");
    }
    assert_eq!(watch.lookups(), 3, "each key once");

    for key in w.stores.accounts.api_keys(alice.id).await.unwrap() {
        assert!(w.stores.accounts.delete_api_key(alice.id, key.id).await.unwrap());
    }
    let refused = async {
        while call(&mut stream, &key(&alice.key)).await != "401" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(2), refused).await.expect("it is refused");
}
