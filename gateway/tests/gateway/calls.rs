//! What a call brings back.

use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use cloudserve_gateway::GatewayOptions;
use cloudserve_protocol::limits::Limits;
use cloudserve_store::account::Scope;
use cloudserve_store::function::Visibility;
use http::{Method, Request};
use http_body_util::BodyExt;

use crate::fixture::World;

const ENVELOPE: &str = "application/vnd.cloudserve.invocation+json";

#[tokio::test]
async fn the_answer_is_the_functions_and_says_which_call_it_was() {
    let w = World::new().await;
    w.deploy(&w.alice, "echo", Visibility::Private).await;
    let request = Request::put("/run/alice/echo/a%2Fb/c?d=%20e")
        .header("host", "gw.test")
        .header("authorization", w.alice.bearer())
        .header("x-own", "kept")
        .body(Body::empty())
        .unwrap();
    let answer = w.send(request).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("x-cloudserve-cold"), "0");
    assert_eq!(answer.header("server-timing"), "queue;dur=0.001, boot;dur=0.000, exec;dur=2.500");
    let seen = answer.json();
    assert_eq!(seen["method"], "PUT");
    assert_eq!(seen["target"], "/a%2Fb/c?d=%20e");
    let headers = seen["headers"].as_array().unwrap();
    for (name, value) in [
        ("host", "gw.test"),
        ("x-own", "kept"),
        ("x-forwarded-prefix", "/run/alice/echo"),
        ("x-cloudserve-execution-id", answer.header("x-cloudserve-execution-id")),
    ] {
        assert!(headers.iter().any(|h| h[0] == name && h[1] == value), "{name}: {headers:?}");
    }
}

#[tokio::test]
async fn heads_and_empty_answers_have_no_body() {
    let w = World::new().await;
    w.deploy(&w.alice, "version", Visibility::Public).await;
    w.deploy(&w.alice, "nothing", Visibility::Public).await;
    w.deploy(&w.alice, "cookies", Visibility::Public).await;
    let request = Request::head("/run/alice/version").body(Body::empty()).unwrap();
    let answer = w.send(request).await;
    assert_eq!((answer.header("content-length"), answer.body.len()), ("9", 0));
    let answer = w.get("/run/alice/nothing", &w.alice).await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0));
    let answer = w.get("/run/alice/cookies", &w.alice).await;
    let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
}

#[tokio::test]
async fn faults_say_their_code_and_keep_the_stack() {
    let w = World::new().await;
    for name in ["throw", "busy", "crowded", "lost"] {
        w.deploy(&w.alice, name, Visibility::Private).await;
    }
    let answer = w.get("/run/alice/throw", &w.alice).await;
    assert_eq!(answer.fault(), (500, "handler_error".to_owned()));
    let id = answer.header("x-cloudserve-execution-id").to_owned();
    assert_eq!(answer.json()["error"]["executionId"], id);
    assert!(!answer.text().contains("secret.js"), "{}", answer.text());

    let answer = w.get("/run/alice/busy", &w.alice).await;
    assert_eq!(answer.fault(), (429, "concurrency_limit".to_owned()));
    for (name, value) in [
        ("retry-after", "1"),
        ("ratelimit-limit", "10"),
        ("ratelimit-remaining", "0"),
        ("ratelimit-reset", "1"),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    // The account's bound, not the function's.
    assert_eq!(w.get("/run/alice/crowded", &w.alice).await.header("ratelimit-limit"), "50");
    // The answer was complete before the worker was lost.
    assert_eq!(w.get("/run/alice/lost", &w.alice).await.text(), "x");
    let codes: Vec<_> = w.usage(&w.alice, 4).await.into_iter().map(|row| row.code).collect();
    let expected = ["crashed", "concurrency_limit", "concurrency_limit", "handler_error"];
    assert_eq!(codes, expected);
}

#[tokio::test]
async fn a_hanging_sandbox_is_not_waited_for() {
    let w = World::new().await;
    let limits = Limits { timeout_ms: 100, ..Limits::default() };
    let id = w.deploy_limited(&w.alice, "hang", Visibility::Private, limits).await;
    w.deploy_limited(&w.alice, "stall", Visibility::Private, limits).await;
    let began = Instant::now();
    let answer = w.get("/run/alice/hang", &w.alice).await;
    assert_eq!(answer.fault(), (504, "timeout".to_owned()));
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(100) && took < Duration::from_secs(2), "{took:?}");

    let request = Request::get("/run/alice/stall").header("authorization", w.alice.bearer());
    let answer = w.raw(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status(), 200);
    assert!(answer.into_body().collect().await.is_err());
    assert!(began.elapsed() < Duration::from_secs(4));

    // Also of the answer that was cut off, whose reader the sandbox takes for gone.
    let codes: Vec<_> = w.usage(&w.alice, 2).await.into_iter().map(|row| row.code).collect();
    assert_eq!(codes, ["timeout", "timeout"]);
    assert_eq!(w.logs(id).await.len(), 1);
}

#[tokio::test]
async fn bodies_pass_whole_or_in_pieces_but_not_over_their_limit() {
    let w = World::new().await;
    let limits = Limits { request_body_bytes: 200_000, ..Limits::default() };
    w.deploy_limited(&w.alice, "count", Visibility::Public, limits).await;
    let post = |body: Body, length: Option<usize>| {
        let mut request = Request::post("/run/alice/count");
        if let Some(length) = length {
            request = request.header("content-length", length);
        }
        w.send(request.body(body).unwrap())
    };
    let chunks = |n: usize| {
        let chunk = || Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 1_000]));
        Body::from_stream(futures::stream::iter((0..n).map(move |_| chunk())))
    };
    assert_eq!(post(Body::empty(), None).await.text(), "empty 0");
    assert_eq!(post(Body::from("hello"), None).await.text(), "full 5");
    assert_eq!(post(Body::from(vec![0; 100_000]), None).await.text(), "stream 100000");
    assert_eq!(post(chunks(200), None).await.text(), "stream 200000");
    for body in [Body::from(vec![0; 200_001]), chunks(201), chunks(50_000)] {
        let answer = post(body, None).await;
        assert_eq!(answer.fault(), (413, "payload_too_large".to_owned()));
    }
    let rows = w.usage(&w.alice, 7).await;
    assert_eq!(rows.iter().filter(|row| row.code == "payload_too_large").count(), 3);
}

#[tokio::test]
async fn the_envelope_tells_all_to_the_owner_and_no_logs_to_strangers() {
    let w = World::new().await;
    for name in ["logs", "throw", "drip"] {
        let limits = Limits { response_body_bytes: 20, ..Limits::default() };
        w.deploy_limited(&w.alice, name, Visibility::Public, limits).await;
    }
    let call = |name: &str, bearer: Option<String>| {
        let mut request = Request::builder().method(Method::POST).uri(format!("/run/alice/{name}"));
        request = request.header("accept", format!("{ENVELOPE}, */*"));
        if let Some(bearer) = bearer {
            request = request.header("authorization", bearer);
        }
        w.send(request.body(Body::empty()).unwrap())
    };
    let answer = call("logs", Some(w.alice.bearer())).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), ENVELOPE);
    let json = answer.json();
    assert_eq!(json["success"], true);
    assert_eq!(json["result"], "hi");
    assert_eq!(json["memoryUsage"], 2.0);
    assert!(json["duration"].as_f64().unwrap() > 0.0);
    assert_eq!(json["executionId"], answer.header("x-cloudserve-execution-id"));
    let line = serde_json::json!(
        {"level": "warn", "message": "line", "timestamp": "1970-01-01T00:00:00.007Z"}
    );
    assert_eq!(json["logs"], serde_json::json!([line]));
    assert!(json.get("error").is_none());
    assert_eq!(call("logs", None).await.json()["logs"], serde_json::json!([]));
    assert_eq!(call("logs", Some(w.bob.bearer())).await.json()["logs"], serde_json::json!([]));
    let invoke_key = Some(format!("Bearer {}", w.key_with(&w.alice, &[Scope::Invoke]).await));
    assert_eq!(call("logs", invoke_key).await.json()["logs"], serde_json::json!([]));

    let answer = call("throw", Some(w.alice.bearer())).await;
    assert_eq!(answer.status, 500);
    let json = answer.json();
    assert_eq!(json["success"], false);
    assert_eq!(json["result"], serde_json::Value::Null);
    assert_eq!(json["error"]["code"], "handler_error");
    assert_eq!(json["logs"].as_array().unwrap().len(), 2);
    assert!(!call("throw", None).await.text().contains("secret.js"));

    assert_eq!(call("drip", None).await.json()["error"]["code"], "response_too_large");
    w.usage(&w.alice, 7).await;
}

#[tokio::test]
async fn the_rate_of_a_credential_is_bounded() {
    let options = GatewayOptions { rate_per_second: 3, ..GatewayOptions::default() };
    let w = World::with(options, |stores| stores).await;
    w.deploy(&w.alice, "version", Visibility::Public).await;
    for _ in 0..3 {
        assert_eq!(w.get("/run/alice/version", &w.alice).await.status, 200);
    }
    let answer = w.get("/run/alice/version", &w.alice).await;
    assert_eq!(answer.fault(), (429, "rate_limit".to_owned()));
    assert_eq!(answer.header("ratelimit-limit"), "3");
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(answer.json()["error"]["executionId"], answer.header("x-cloudserve-execution-id"));
    assert_eq!(w.get("/run/alice/version", &w.bob).await.status, 200);
}

#[tokio::test]
async fn calls_that_are_refused_count_towards_the_rate() {
    let options = GatewayOptions { rate_per_second: 2, ..GatewayOptions::default() };
    let w = World::with(options, |stores| stores).await;
    w.deploy(&w.alice, "version", Visibility::Private).await;
    for (path, bearer, codes) in [
        ("unknown", Some(w.alice.bearer()), ["function_not_found", "function_not_found"]),
        ("version", Some(w.bob.bearer()), ["forbidden", "forbidden"]),
        ("version", Some("Bearer made-up".to_owned()), ["unauthorized", "unauthorized"]),
        // From the same address.
        ("unknown", None, ["rate_limit", "rate_limit"]),
    ] {
        for code in codes.into_iter().chain(["rate_limit"]) {
            let mut request = Request::get(format!("/run/alice/{path}"));
            if let Some(bearer) = &bearer {
                request = request.header("authorization", bearer);
            }
            let answer = w.send(request.body(Body::empty()).unwrap()).await;
            assert_eq!(answer.fault().1, code, "{path} {bearer:?}");
            // Who shows no credential is not told of one.
            let told = answer.json()["message"].to_string();
            assert_eq!(told.contains("from this address"), code == "rate_limit", "{told}");
        }
    }
    w.gateway.drain().await;
    assert_eq!(w.usage(&w.alice, 0).await.len(), 0);
}

#[tokio::test]
async fn callers_behind_a_proxy_have_rates_of_their_own() {
    let [first, second] = ["203.0.113.1", "203.0.113.2"];
    let both = format!("{first}, {second}");
    // Of IPv6 everybody has a network of addresses.
    let [third, same, other] = ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"];
    for (trust_forwarded, expected) in
        [(true, [401, 429, 401, 429, 401, 429, 401]), (false, [401, 429, 429, 429, 429, 429, 429])]
    {
        let options =
            GatewayOptions { rate_per_second: 1, trust_forwarded, ..GatewayOptions::default() };
        let w = World::with(options, |stores| stores).await;
        let mut got = Vec::new();
        for lines in [
            vec![first],
            vec![second, first],
            vec![both.as_str()],
            vec![first, second],
            vec![third],
            vec![same],
            vec![other],
        ] {
            let mut request = Request::get("/run/alice/unknown");
            for line in lines {
                request = request.header("x-forwarded-for", line);
            }
            got.push(w.send(request.body(Body::empty()).unwrap()).await.status.as_u16());
        }
        assert_eq!(got, expected, "trusted: {trust_forwarded}");
    }
}
