//! Logs that are followed.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use cloudserve_protocol::ids::ExecutionId;
use cloudserve_store::Timestamp;
use cloudserve_store::telemetry::{CallStatus, LogRow};
use futures::StreamExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::support::Plane;

/// Deploys a function; gives its id.
async fn deploy(plane: &Plane, token: &str) -> String {
    let body = json!({ "name": "f", "filename": "f.mjs", "code": "export default 1" });
    plane.deploy(token, &body).await["id"].as_str().unwrap().to_owned()
}

async fn follow(plane: &Plane, token: &str, id: &str) -> Response {
    let request = Request::builder()
        .uri(format!("/api/logs/{id}?follow=true"))
        .header("authorization", format!("Bearer {token}"))
        .body(Body::empty())
        .unwrap();
    plane.api.router().oneshot(request).await.unwrap()
}

/// Reads to the end, which comes.
async fn read(followed: Response) {
    assert_eq!(followed.status(), 200);
    let all = axum::body::to_bytes(followed.into_body(), 1 << 20);
    tokio::time::timeout(Duration::from_secs(30), all).await.expect("it ends").unwrap();
}

#[tokio::test]
async fn as_many_earlier_rows_come_first_as_were_asked_for() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    let id = deploy(&plane, &token).await;
    let rows = (0..1_000).map(|n| LogRow {
        function_id: id.parse().unwrap(),
        execution_id: ExecutionId::new(),
        lines: Vec::new(),
        duration_ms: 1.0,
        memory_mb: 1.0,
        status: CallStatus::Success,
        truncated: false,
        timestamp: Timestamp(n),
    });
    plane.stores.telemetry.record(Vec::new(), rows.collect()).await.unwrap();
    let request = Request::builder()
        .uri(format!("/api/logs/{id}?follow=true&limit=1000"))
        .header("authorization", format!("Bearer {token}"))
        .body(Body::empty())
        .unwrap();
    let answer = plane.api.router().oneshot(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut pieces = answer.into_body().into_data_stream();
    let mut events = 0;
    while events < 1_000 {
        let piece = tokio::time::timeout(Duration::from_secs(30), pieces.next()).await;
        let piece = piece.expect("all of them come").unwrap().unwrap();
        events += String::from_utf8_lossy(&piece).matches("data:").count();
    }
    assert_eq!(events, 1_000);
}

#[tokio::test]
async fn a_log_that_is_followed_holds_no_shutdown_up() {
    let mut plane = Plane::start();
    let token = plane.register("ada").await;
    let id = deploy(&plane, &token).await;
    let followed = follow(&plane, &token, &id).await;
    plane.stop_deployer().await;
    read(followed).await;
}

#[tokio::test]
async fn a_log_is_followed_for_a_bounded_time_and_not_beyond_its_function() {
    let plane = Plane::start_with(|options| options.log_follow_ms = 500);
    let token = plane.register("ada").await;
    let id = deploy(&plane, &token).await;
    read(follow(&plane, &token, &id).await).await;

    let plane = Plane::start();
    let token = plane.register("ada").await;
    let id = deploy(&plane, &token).await;
    let followed = follow(&plane, &token, &id).await;
    let path = format!("/api/function/{id}");
    plane.call(&token, "DELETE", &path, &Value::Null).await.expect(204);
    read(followed).await;
}

#[tokio::test]
async fn an_account_follows_a_bounded_number_of_logs() {
    let plane = Plane::start_with(|options| {
        options.log_followers_per_user = 2;
        options.log_follow_ms = 60_000;
    });
    let token = plane.register("ada").await;
    let id = deploy(&plane, &token).await;
    let [first, second] = [follow(&plane, &token, &id).await, follow(&plane, &token, &id).await];
    assert_eq!((first.status().as_u16(), second.status().as_u16()), (200, 200));
    let refused = plane.get(&token, &format!("/api/logs/{id}?follow=true")).await.expect(429);
    assert_eq!((refused.code(), refused.header("retry-after")), ("too_many_followers", "1"));
    // Others have places of their own, and a place is free again once nobody follows.
    let other = plane.register("bob").await;
    let others = deploy(&plane, &other).await;
    assert_eq!(follow(&plane, &other, &others).await.status(), 200);
    drop(first);
    assert_eq!(follow(&plane, &token, &id).await.status(), 200);
}
