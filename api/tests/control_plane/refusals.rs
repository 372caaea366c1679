//! Requests that are refused for what is around them: bodies that do not come, and gateways that are
//! not there.

use std::io;

use axum::body::{Body, Bytes};
use axum::http::Request;
use futures::{StreamExt, stream};
use serde_json::json;

use crate::support::{Answer, Plane};

/// Sends the beginning of a body, whose rest breaks off or never comes.
async fn send_half(plane: &Plane, token: &str, path: &str, breaks_off: bool) -> Answer {
    let begin = stream::iter([Ok::<_, io::Error>(Bytes::from_static(b"{\"name\":"))]);
    let body = if breaks_off {
        let error = io::Error::from(io::ErrorKind::ConnectionReset);
        Body::from_stream(begin.chain(stream::iter([Err(error)])))
    } else {
        Body::from_stream(begin.chain(stream::pending::<io::Result<Bytes>>()))
    };
    let request = Request::post(path)
        .header("content-type", "application/json")
        .header("authorization", format!("Bearer {token}"))
        .body(body)
        .unwrap();
    plane.send(request).await
}

#[tokio::test]
async fn a_body_that_breaks_off_or_does_not_come_is_told_and_takes_no_room() {
    let plane = Plane::start_with(|options| {
        options.body_read_ms = 300;
        options.uploads_in_parallel = 1;
        options.upload_wait_ms = 10;
    });
    let token = plane.register("ada").await;
    for path in ["/api/apikeys", "/api/function/deploy", "/api/function/deploy"] {
        let cut_off = send_half(&plane, &token, path, true).await.expect(400);
        assert_eq!(cut_off.code(), "invalid_body", "{path}");
        let late = send_half(&plane, &token, path, false).await.expect(408);
        assert_eq!(late.code(), "request_timeout", "{path}");
    }
    let body = json!({ "name": "f", "filename": "f.mjs", "code": "export default 1" });
    plane.call(&token, "POST", "/api/function/deploy", &body).await.expect(202);
}

#[tokio::test]
async fn a_gateway_that_is_not_there_is_told() {
    for (url, code) in [(None, "no_gateway"), (Some("http://127.0.0.1:1"), "unavailable")] {
        let plane = Plane::start_with(|options| options.invoke_url = url.map(str::to_owned));
        let token = plane.register("ada").await;
        let body = json!({ "name": "f", "filename": "f.mjs", "code": "export default 1" });
        let view = plane.deploy(&token, &body).await;
        let path = format!("/api/function/{}/invoke", view["id"].as_str().unwrap());
        let refused = plane.call(&token, "POST", &path, &json!({})).await.expect(503);
        assert_eq!(refused.code(), code);
        // What is another's is unknown all the same.
        let other = plane.register("bob").await;
        let unknown = plane.call(&other, "POST", &path, &json!({})).await.expect(404);
        assert_eq!(unknown.code(), "function_not_found");
    }
}
