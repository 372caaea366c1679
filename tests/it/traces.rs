//! Calls are traced: from the caller's span, to the collector, and on to the function.

use std::fmt::Write;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use prost::Message;
use reqwest::Method;
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use crate::support::{Account, TestServer, deploy, send, wait_for};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

const CODE: &str = "
    export default async (event) => {
        if (event.query.fail) throw new Error('failed');
        return event.headers.traceparent ?? 'none';
    };
";

/// A collector, and what it was sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

impl Collector {
    /// Starts it; gives its address, too.
    async fn start() -> (Self, String) {
        let this = Self::default();
        let sent = this.clone();
        let take = move |body: Bytes| async move {
            let request = ExportTraceServiceRequest::decode(body).unwrap();
            let scopes = request.resource_spans.into_iter().flat_map(|of| of.scope_spans);
            sent.0.lock().await.extend(scopes.flat_map(|scope| scope.spans));
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().route("/v1/traces", post(take));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (this, address)
    }

    /// The span of a call, and those of its parts.
    async fn spans_of(&self, execution: &str) -> (Span, Vec<Span>) {
        wait_for("the span", || async {
            let sent = self.0.lock().await;
            let call = sent.iter().find(|span| text(span, "faas.invocation_id") == execution)?;
            let parts = sent.iter().filter(|span| span.parent_span_id == call.span_id);
            Some((call.clone(), parts.cloned().collect()))
        })
        .await
    }
}

/// An attribute as text; empty if it is not there.
fn text(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.clone()?.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(is)) => is.to_string(),
        _ => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Calls the function; gives its answer and the call's id.
async fn call(owner: &Account, path: &str, traceparent: &str) -> (String, String) {
    let mut request = owner.run(Method::GET, path);
    if !traceparent.is_empty() {
        request = request.header("traceparent", traceparent);
    }
    let answer = send(request).await;
    (answer.text(), answer.header("x-cloudserve-execution-id").to_owned())
}

#[tokio::test]
async fn a_call_is_traced_from_its_caller_to_its_function() {
    let (collector, address) = Collector::start().await;
    let server = TestServer::start_with(&[("CLOUDSERVE_TRACE_ENDPOINT", &address)]).await;
    let owner = server.register().await;
    owner.deploy(&deploy("traced", "traced.mjs", CODE)).await;

    // The caller has decided that this one is traced.
    let (told, execution) =
        call(&owner, "traced?secret=1", &format!("00-{TRACE}-{PARENT}-01")).await;
    let (span, parts) = collector.spans_of(&execution).await;
    assert_eq!(hex(&span.trace_id), TRACE);
    assert_eq!(hex(&span.parent_span_id), PARENT);
    assert_eq!(told, format!("00-{TRACE}-{}-01", hex(&span.span_id)));
    assert_eq!(span.kind, SpanKind::Server as i32);
    assert_eq!(span.name, "GET /run/:username/:functionName");
    for (key, value) in [
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("faas.name", &format!("{}/traced", owner.user_name)),
        ("faas.version", "1"),
        ("faas.coldstart", "false"),
        ("error.type", ""),
    ] {
        assert_eq!(text(&span, key), value, "{key}");
    }
    let handler = parts.iter().find(|part| part.name == "handler").expect("it has run");
    assert_eq!(handler.trace_id, span.trace_id);
    assert!(span.start_time_unix_nano <= handler.start_time_unix_nano);
    assert!(handler.end_time_unix_nano <= span.end_time_unix_nano, "{handler:?} {span:?}");

    // And that this one is not. The function hears so.
    let untraced = format!("00-{TRACE}-{PARENT}-00");
    let (told, not_traced) = call(&owner, "traced", &untraced).await;
    assert_eq!(told, untraced);

    // What nobody has decided, and what is no decision, the gateway decides.
    for undecided in ["", "nonsense", "00-00000000000000000000000000000000-b7ad6b7169203331-01"] {
        let (told, execution) = call(&owner, "traced", undecided).await;
        let (span, _) = collector.spans_of(&execution).await;
        assert_eq!(told, format!("00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id)));
        assert_eq!((hex(&span.parent_span_id).as_str(), span.trace_id.len()), ("", 16));
        assert_ne!(hex(&span.trace_id), TRACE);
    }

    let (_, failed) = call(&owner, "traced?fail=1", "").await;
    let (span, _) = collector.spans_of(&failed).await;
    assert_eq!(text(&span, "error.type"), "handler_error");
    assert_eq!(text(&span, "http.response.status_code"), "500");

    // All spans of before are there by now.
    let sent = format!("{:?}", collector.0.lock().await);
    assert!(!sent.contains(&not_traced));
    assert!(!sent.contains(&owner.credential) && !sent.contains("secret"), "{sent}");
}

#[tokio::test]
async fn a_collector_that_is_not_there_holds_nothing_up() {
    let settings =
        [("CLOUDSERVE_TRACE_ENDPOINT", "http://127.0.0.1:9"), ("CLOUDSERVE_TRACE_ONE_IN", "2")];
    let server = TestServer::start_with(&settings).await;
    let owner = server.register().await;
    owner.deploy(&deploy("traced", "traced.mjs", CODE)).await;
    let mut traced = 0;
    for _ in 0..10 {
        traced += i32::from(call(&owner, "traced", "").await.0 != "none");
    }
    assert_eq!(traced, 5, "one in two");
    let refused = TestServer::start_refused(&[("CLOUDSERVE_TRACE_ENDPOINT", "not a url")]).await;
    assert!(refused.contains("trace collector is not a URL"), "{refused}");
    wait_for("the usage of all calls", || async {
        let usage = owner.get("/api/usage").await.expect(200).json();
        (usage["totals"]["executed"] == 10).then_some(())
    })
    .await;
}
