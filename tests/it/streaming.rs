//! Bodies flow in pieces, in both directions, with bounds.

use bytes::Bytes;
use futures::{StreamExt, stream};
use reqwest::{Body, Method};
use serde_json::json;

use crate::support::{Account, deploy, send, server, try_send, wait_for};

const STREAMS: &str = include_str!("../functions/streams.mjs");
const MB: usize = 1024 * 1024;

async fn owner() -> (Account, String) {
    let owner = server().await.register().await;
    let limits = json!({ "timeoutMs": 60_000, "streamedResponseBytes": 30 * MB });
    let deploy = deploy("streams", "streams.mjs", STREAMS).with("limits", limits);
    let id = owner.deploy(&deploy).await.id;
    (owner, id)
}

/// Bytes in which a piece that is lost, doubled or moved shows.
fn pattern(len: usize) -> Bytes {
    (0..len).map(|n| u8::try_from((n / 4_099 + n) % 251).expect("below 251")).collect()
}

fn pieces(all: &Bytes, len: usize) -> Body {
    let pieces: Vec<_> = all.chunks(len).map(|piece| Ok(all.slice_ref(piece))).collect();
    Body::wrap_stream(stream::iter::<Vec<Result<Bytes, std::io::Error>>>(pieces))
}

#[tokio::test]
async fn an_answer_arrives_piece_by_piece() {
    let (owner, _) = owner().await;
    let response = owner.run(Method::GET, "streams/events").send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let pieces: Vec<Bytes> = response.bytes_stream().map(Result::unwrap).collect().await;
    assert!(pieces.len() >= 3, "the function waits between its events: {pieces:?}");
    assert_eq!(pieces.concat(), b"data: 1\n\ndata: 2\n\ndata: 3\n\n");
}

#[tokio::test]
async fn a_large_body_streams_in_and_out_unchanged() {
    let (owner, _) = owner().await;
    for len in [0, 1, 64 * 1024, 5 * MB] {
        let sent = pattern(len);
        for body in [Body::from(sent.clone()), pieces(&sent, 10_007)] {
            let echoed = send(owner.run(Method::POST, "streams/echo").body(body)).await.expect(200);
            assert!(echoed.body == sent, "{len} bytes: {} came back", echoed.body.len());
        }
    }
    let digest =
        send(owner.run(Method::POST, "streams/digest").body(pattern(5 * MB))).await.expect(200);
    assert!(digest.json()["pieces"].as_u64().unwrap() > 1, "{}", digest.text());
}

#[tokio::test]
async fn the_answer_may_begin_before_the_request_ends() {
    let (owner, _) = owner().await;
    let (pieces, body) = tokio::sync::mpsc::channel::<Bytes>(1);
    let body = stream::unfold(body, |mut body| async move {
        Some((Ok::<_, std::io::Error>(body.recv().await?), body))
    });
    pieces.send(Bytes::from_static(b"one")).await.unwrap();
    let request = owner.run(Method::POST, "streams/echo").body(Body::wrap_stream(body));
    let mut echoed = request.send().await.unwrap().bytes_stream();
    assert_eq!(echoed.next().await.unwrap().unwrap(), "one");
    pieces.send(Bytes::from_static(b"two")).await.unwrap();
    assert_eq!(echoed.next().await.unwrap().unwrap(), "two");
    drop(pieces);
    assert!(echoed.next().await.is_none());
}

#[tokio::test]
async fn a_body_the_function_does_not_read_is_no_obstacle() {
    let (owner, _) = owner().await;
    for _ in 0..3 {
        let ignored = owner.run(Method::POST, "streams/ignore").body(pattern(5 * MB));
        assert_eq!(send(ignored).await.expect(200).text(), "ignored");
    }
}

#[tokio::test]
async fn a_request_body_over_the_limit_is_refused() {
    let (owner, _) = owner().await;
    let too_large = pattern(7 * MB);
    let whole = send(owner.run(Method::POST, "streams/digest").body(too_large.clone())).await;
    assert_eq!((whole.status, whole.code().as_str()), (413, "payload_too_large"));
    let streamed = owner.run(Method::POST, "streams/digest").body(pieces(&too_large, MB));
    match try_send(streamed).await {
        Ok(answer) => assert_eq!(answer.code(), "payload_too_large", "{}", answer.text()),
        // The server stopped reading.
        Err(error) => assert!(error.is_request() || error.is_body(), "{error:?}"),
    }
    owner.call("streams/events").await.expect(200);
}

#[tokio::test]
async fn a_streamed_answer_has_its_own_limit() {
    let (owner, id) = owner().await;
    let large = owner.call("streams/large?mb=20").await.expect(200);
    assert_eq!(large.body.len(), 20 * MB, "more than a buffered answer may have");

    let response = owner.run(Method::GET, "streams/large?mb=40").send().await.unwrap();
    assert_eq!(response.status(), 200);
    let execution = response.headers()["x-cloudserve-execution-id"].to_str().unwrap().to_owned();
    assert!(response.bytes().await.is_err(), "a cut answer must not look whole");
    assert_eq!(owner.usage_of(&id, &execution).await[0]["code"], "response_too_large");
}

#[tokio::test]
async fn an_answer_that_breaks_off_does_not_look_whole() {
    let (owner, id) = owner().await;
    let response = owner.run(Method::GET, "streams/broken").send().await.unwrap();
    assert_eq!(response.status(), 200);
    let execution = response.headers()["x-cloudserve-execution-id"].to_str().unwrap().to_owned();
    assert!(response.bytes().await.is_err());
    assert_eq!(owner.usage_of(&id, &execution).await[0]["code"], "handler_error");
    assert!(owner.logs_of(&id, &execution).await[0].to_string().contains("secret detail"));
}

#[tokio::test]
async fn a_caller_that_stops_reading_holds_nobody_up() {
    let (owner, id) = owner().await;
    let response = owner.run(Method::GET, "streams/large?mb=29").send().await.unwrap();
    let execution = response.headers()["x-cloudserve-execution-id"].to_str().unwrap().to_owned();
    let mut body = response.bytes_stream();
    body.next().await.unwrap().unwrap();
    owner.call("streams/events").await.expect(200);
    drop(body);
    let usage = wait_for("the row", || async { Some(owner.usage_of(&id, &execution).await) }).await;
    assert_eq!(usage.len(), 1);
    owner.call("streams/events").await.expect(200);
}

#[tokio::test]
async fn a_stream_that_is_not_sent_to_its_end_is_cancelled() {
    let owner = server().await.register().await;
    let limits = json!({ "concurrency": 1 });
    owner.deploy(&deploy("streams", "streams.mjs", STREAMS).with("limits", limits)).await;
    let cancelled = || async { owner.call("streams/cancelled").await.expect(200).json() };
    for (n, path) in [(1, "streams/web"), (2, "streams/node")] {
        let answer = send(owner.run(Method::HEAD, path)).await.expect(200);
        assert!(answer.body.is_empty());
        assert_eq!(cancelled().await, n, "{path}");
    }
    let response = owner.run(Method::GET, "streams/unusable").send().await.unwrap();
    assert!(response.bytes().await.is_err(), "a function is no piece of an answer");
    assert_eq!(cancelled().await, 3);
}
