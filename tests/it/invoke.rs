//! Calls through the API for somebody who looks at the answer: the function's own answer as data,
//! with the caller's own credential, and never anybody else's function.

use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use reqwest::header::COOKIE;
use serde_json::{Value, json};

use crate::support::{Account, Answer, TestServer, deploy, send, server};

const CODE: &str = "export default async (request) => ({
    statusCode: 201,
    headers: { 'content-type': 'text/html', 'set-cookie': 'token=mine', 'x-own': 'yes' },
    body: '<script>' + JSON.stringify({
        method: request.method, path: request.path, query: request.query, body: request.body,
        seen: Object.keys(request.headers),
    }) + '</script>',
})";

async fn invoke(account: &Account, id: &str, body: &Value) -> Answer {
    account.post(&format!("/api/function/{id}/invoke"), body).await
}

#[tokio::test]
async fn the_answer_is_data_and_the_function_sees_no_credential() {
    let account = server().await.register().await;
    let id = account.deploy(&deploy("looked-at", "f.mjs", CODE)).await.id;
    let request = json!({
        "method": "POST", "path": "/deep/er?a=1", "body": "{\"n\":2}",
        "headers": { "content-type": "application/json", "x-mine": "1" },
    });
    let answer = invoke(&account, &id, &request).await.expect(200);
    // A page of the function would be a page of the dashboard's origin.
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("set-cookie"), "");
    let told = answer.json();
    assert_eq!((&told["status"], &told["bodyEncoding"]), (&json!(201), &json!("utf8")));
    assert_eq!(told["truncated"], false);
    let header = |name: &str| {
        let headers = told["headers"].as_array().unwrap();
        headers.iter().find(|pair| pair[0] == name).map(|pair| pair[1].as_str().unwrap())
    };
    assert_eq!(header("x-own"), Some("yes"));
    assert!(header("x-cloudserve-execution-id").is_some());
    let body = told["body"].as_str().unwrap();
    let seen = body.strip_prefix("<script>").unwrap().strip_suffix("</script>").unwrap();
    let seen: Value = serde_json::from_str(seen).unwrap();
    assert_eq!((&seen["method"], &seen["path"]), (&json!("POST"), &json!("/deep/er")));
    assert_eq!((&seen["query"], &seen["body"]), (&json!({ "a": "1" }), &json!({ "n": 2 })));
    let names: Vec<_> = seen["seen"].as_array().unwrap().iter().map(Value::as_str).collect();
    assert!(names.contains(&Some("x-mine")), "{names:?}");
    assert!(!names.contains(&Some("authorization")), "{names:?}");
}

#[tokio::test]
async fn long_answers_are_cut_and_bytes_are_encoded() {
    const LONG: &str =
        "export default (e) => e.query.bytes ? new Response(new Uint8Array([255, 0]))
        : 'é'.repeat(1024 * 1024)";
    let account = server().await.register().await;
    let id = account.deploy(&deploy("long", "f.mjs", LONG)).await.id;
    let long = invoke(&account, &id, &json!({})).await.expect(200).json();
    assert_eq!((&long["truncated"], &long["bodyEncoding"]), (&json!(true), &json!("utf8")));
    assert_eq!(long["body"].as_str().unwrap().len(), 1024 * 1024);
    let bytes = invoke(&account, &id, &json!({ "path": "/?bytes=1" })).await.expect(200).json();
    assert_eq!((&bytes["body"], &bytes["bodyEncoding"]), (&json!("/wA="), &json!("base64")));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_no_answer() {
    let account = server().await.register().await;
    let code = include_str!("../functions/streams.mjs");
    let id = account.deploy(&deploy("breaks", "streams.mjs", code)).await.id;
    let cut = invoke(&account, &id, &json!({ "path": "/broken" })).await.expect(502);
    assert_eq!(cut.code(), "answer_cut_off");
    assert!(!cut.text().contains("before") && !cut.text().contains("secret"), "{}", cut.text());
    let whole = invoke(&account, &id, &json!({ "path": "/ignore" })).await.expect(200).json();
    assert_eq!(whole["body"], "ignored");
}

#[tokio::test]
async fn a_call_has_the_time_of_the_version_that_is_called() {
    // Longer than is waited for an answer beyond the time of the newest version.
    const SLOW: &str =
        "export default () => new Promise((done) => setTimeout(() => done('slow'), 23_000))";
    let account = server().await.register().await;
    let first = deploy("f", "f.mjs", SLOW).with("limits", json!({ "timeoutMs": 60_000 }));
    let id = account.deploy(&first).await.id;
    let second = "export default () => 'fast'";
    let second = deploy("f", "f.mjs", second).with("limits", json!({ "timeoutMs": 1_000 }));
    account.deploy(&second).await;
    let named = json!({ "headers": { "x-cloudserve-version": "1" } });
    let named = invoke(&account, &id, &named);
    let back = async {
        let rollback = format!("/api/function/{id}/rollback");
        account.post(&rollback, &json!({ "version": 1 })).await.expect(200);
        invoke(&account, &id, &json!({})).await
    };
    let (named, back) = tokio::join!(named, back);
    for answer in [named, back] {
        assert_eq!(answer.expect(200).json()["body"], "slow");
    }
}

#[tokio::test]
async fn who_may_call_is_decided_as_for_any_call() {
    let account = server().await.register().await;
    let id = account.deploy(&deploy("mine", "f.mjs", "export default () => 'mine'")).await.id;
    let other = server().await.register().await;
    let foreign =
        other.deploy(&deploy("theirs", "f.mjs", "export default () => 'theirs'")).await.id;
    let body = json!({});

    invoke(&account, &foreign, &body).await.expect(404);
    invoke(&account.showing(""), &id, &body).await.expect(401);
    let reader = account.showing(&account.key(&["read"]).await);
    assert_eq!(invoke(&reader, &id, &body).await.expect(403).code(), "forbidden");
    let caller = account.showing(&account.key(&["invoke"]).await);
    let told = invoke(&caller, &id, &body).await.expect(200).json();
    assert_eq!((&told["status"], &told["body"]), (&json!(200), &json!("mine")));

    // With the cookie, as the dashboard asks; another site may not.
    let path = format!("/api/function/{id}/invoke");
    let with_cookie = |site: &str| {
        let request = account.showing("").api(Method::POST, &path).json(&body);
        let cookie = format!("token={}", account.credential);
        send(request.header(COOKIE, cookie).header("sec-fetch-site", site))
    };
    assert_eq!(with_cookie("same-origin").await.expect(200).json()["body"], "mine");
    assert_eq!(with_cookie("cross-site").await.expect(403).code(), "cross_site_request");
}

#[tokio::test]
async fn a_call_leads_nowhere_else() {
    let account = server().await.register().await;
    let id = account.deploy(&deploy("here", "f.mjs", "export default () => 'here'")).await.id;
    account.deploy(&deploy("there", "f.mjs", "export default () => 'there'")).await;
    let key = format!("Bearer {}", account.key(&["invoke"]).await);
    for (field, value) in [
        ("path", json!("/../there")),
        ("path", json!("/%2e%2e/there")),
        ("path", json!("//../../../healthz")),
        ("path", json!("@example.org/")),
        ("path", json!(7)),
        ("method", json!("NO METHOD")),
        ("headers", json!({ "host": "example.org" })),
        ("headers", json!({ "cookie": "token=x" })),
        ("headers", json!({ "X-Forwarded-For": "203.0.113.1" })),
        ("headers", json!({ "authorization": &key })),
        ("headers", json!({ "a b": "x" })),
        ("headers", json!([])),
        ("nonsense", json!(1)),
    ] {
        let answer = invoke(&account, &id, &json!({ field: value })).await;
        assert_eq!(answer.status, 422, "{field} {value}: {}", answer.text());
    }
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_gateway_learns_who_calls() {
    let server = TestServer::start_with(&[("CLOUDSERVE_TRUST_FORWARDED", "true")]).await;
    let account = server.register().await;
    let code = "export default (event) => event.headers['x-forwarded-for']";
    let id = account.deploy(&deploy("told", "f.mjs", code)).await.id;
    let request = account.api(Method::POST, &format!("/api/function/{id}/invoke"));
    let request = request.header("x-forwarded-for", "198.51.100.7, 203.0.113.1").json(&json!({}));
    let told = send(request).await.expect(200).json();
    assert_eq!(told["body"], "203.0.113.1, 127.0.0.1");
}

#[tokio::test]
async fn no_account_takes_the_places_of_all() {
    const SLOW: &str =
        "export default () => new Promise((done) => setTimeout(() => done('slow'), 3000))";
    let (account, other) = (server().await.register().await, server().await.register().await);
    let id = account.deploy(&deploy("slow", "f.mjs", SLOW)).await.id;
    let others = other.deploy(&deploy("fast", "f.mjs", "export default () => 'fast'")).await.id;
    let body = json!({});
    // As many as there are places for all accounts together.
    let slow = join_all((0..16).map(|_| invoke(&account, &id, &body)));
    let meanwhile = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        invoke(&other, &others, &body).await.expect(200).json()
    };
    let (slow, told) = tokio::join!(slow, meanwhile);
    assert_eq!(told["body"], "fast");
    let (served, refused): (Vec<_>, Vec<_>) =
        slow.into_iter().partition(|answer| answer.status == 200);
    assert_eq!((served.len(), refused.len()), (4, 12));
    for answer in refused {
        let answer = answer.expect(429);
        assert_eq!((answer.code().as_str(), answer.header("retry-after")), ("limit_exceeded", "1"));
    }
}
