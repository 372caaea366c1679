//! Answers that are under way: they arrive as they are made, end when nobody listens, and are kept
//! by nobody on their way.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use reqwest::{Body, Method};
use serde_json::json;

use crate::support::{
    Account, Deploy, TestServer, deploy, peak_growth, peak_memory, send, server, wait_for,
};

const MB: usize = 1024 * 1024;

async fn deploy_live(owner: &Account, file: &str, code: &str) {
    let limits = json!({
        "concurrency": 1, "timeoutMs": 120_000, "requestBodyBytes": 100 * MB,
        "streamedResponseBytes": 101 * MB,
    });
    owner.deploy(&Deploy(deploy("live", file, code).with("limits", limits).0)).await;
}

#[tokio::test]
async fn ten_thousand_events_arrive_one_by_one() {
    const EVENTS: usize = 10_000;
    let owner = server().await.register().await;
    deploy_live(&owner, "live.mjs", include_str!("../functions/live.mjs")).await;
    let (acks, body) = tokio::sync::mpsc::channel::<Bytes>(1);
    let body = stream::unfold(body, |mut body| async move {
        Some((Ok::<_, std::io::Error>(body.recv().await?), body))
    });
    // What says that an event was read is what makes the next one leave: an event that anything on
    // the way held back would be waited for without end.
    let request = owner.run(Method::POST, "live/events").body(Body::wrap_stream(body));
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut pieces = response.bytes_stream();
    let mut text = String::new();
    for n in 0..EVENTS {
        let event = format!("data: {n}\n\n");
        while text.len() < event.len() {
            let piece = tokio::time::timeout(crate::support::PATIENCE, pieces.next()).await;
            text += std::str::from_utf8(&piece.expect("an event").unwrap().unwrap()).unwrap();
        }
        assert_eq!(text, event);
        text.clear();
        if n + 1 < EVENTS {
            acks.send(Bytes::from_static(b"ack\n")).await.unwrap();
        }
    }
    drop(acks);
    assert!(pieces.next().await.is_none());
}

async fn heard(owner: &Account, what: &str) -> u64 {
    owner.call("live/heard").await.expect(200).json()[what].as_u64().unwrap()
}

#[tokio::test]
async fn a_caller_that_hangs_up_is_heard_of() {
    let owner = server().await.register().await;
    deploy_live(&owner, "live.mjs", include_str!("../functions/live.mjs")).await;
    let hang_up = |path: &'static str| {
        let owner = owner.clone();
        async move {
            let mut answer = owner.run(Method::GET, path).send().await.unwrap().bytes_stream();
            assert_eq!(answer.next().await.unwrap().unwrap(), "begin");
        }
    };
    hang_up("live/stream").await;
    wait_for("the signal", || async { (heard(&owner, "fetch").await == 1).then_some(()) }).await;
    assert_eq!(heard(&owner, "cancel").await, 1, "the stream is told, too");

    // Before there is an answer.
    let waiting = tokio::spawn(owner.run(Method::GET, "live/hang").send());
    let calls = || async {
        // Longer than the machine may take for one that is answered.
        let probe = tokio::time::timeout(Duration::from_secs(2), owner.call("live/heard"));
        // While the call hangs, the only worker is taken.
        probe.await.is_err().then_some(())
    };
    wait_for("the call to hang", calls).await;
    waiting.abort();
    wait_for("the signal", || async { (heard(&owner, "fetch").await == 2).then_some(()) }).await;

    deploy_live(&owner, "pump.cjs", include_str!("../functions/pump.cjs")).await;
    hang_up("live/wait").await;
    wait_for("the response to close", || async {
        (heard(&owner, "closed").await == 1).then_some(())
    })
    .await;
    assert_eq!(heard(&owner, "aborted").await, 1, "the request, too");
}

#[tokio::test]
async fn a_hundred_megabytes_pass_through_without_being_kept() {
    const TOTAL: usize = 100 * MB;
    let server = TestServer::start().await;
    let owner = server.register().await;
    for (file, code) in [
        ("pump.cjs", include_str!("../functions/pump.cjs")),
        ("streams.mjs", include_str!("../functions/streams.mjs")),
    ] {
        deploy_live(&owner, file, code).await;
        let is_node = file == "pump.cjs";
        let before = peak_memory(server.pid());
        let piece = Bytes::from(vec![b'x'; 64 * 1024]);
        let pieces = (0..TOTAL / piece.len()).map(move |_| Ok::<_, std::io::Error>(piece.clone()));
        let body = Body::wrap_stream(stream::iter(pieces));
        let path = if is_node { "live/up" } else { "live/digest" };
        let up = send(owner.run(Method::POST, path).body(body)).await.expect(200);
        if is_node {
            assert_eq!(up.text(), TOTAL.to_string());
        }
        let path = if is_node { "live/down?mb=100" } else { "live/large?mb=100" };
        let mut down = owner.run(Method::GET, path).send().await.unwrap().bytes_stream();
        let mut length = 0;
        while let Some(piece) = down.next().await {
            length += piece.unwrap().len();
        }
        assert_eq!(length, TOTAL);
        let grown = peak_growth(server.pid(), before);
        assert!(grown < 24 * MB, "{file}: the service grew by {grown} bytes");
    }
}
