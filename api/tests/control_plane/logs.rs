//! Logs that are followed.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use cloudserve_protocol::ids::ExecutionId;
use cloudserve_store::Timestamp;
use cloudserve_store::telemetry::{CallStatus, LogRow};
use futures::StreamExt;
use serde_json::json;
use tower::ServiceExt;

use crate::support::Plane;

#[tokio::test]
async fn as_many_earlier_rows_come_first_as_were_asked_for() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    let body = json!({ "name": "f", "filename": "f.mjs", "code": "export default 1" });
    let view = plane.deploy(&token, &body).await;
    let id = view["id"].as_str().unwrap();
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
    let body = json!({ "name": "f", "filename": "f.mjs", "code": "export default 1" });
    let view = plane.deploy(&token, &body).await;
    let request = Request::builder()
        .uri(format!("/api/logs/{}?follow=true", view["id"].as_str().unwrap()))
        .header("authorization", format!("Bearer {token}"))
        .body(Body::empty())
        .unwrap();
    let answer = plane.api.router().oneshot(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    plane.stop_deployer().await;
    let all = axum::body::to_bytes(answer.into_body(), 1 << 20);
    tokio::time::timeout(Duration::from_secs(30), all).await.expect("it ends").unwrap();
}
