//! One usage row per call, whatever happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use cloudserve_gateway::{GatewayOptions, NotReady};
use cloudserve_protocol::ids::FunctionId;
use cloudserve_protocol::limits::Limits;
use cloudserve_store::function::{Page, Visibility};
use cloudserve_store::telemetry::{
    CallStatus, FunctionStats, LatencyDay, LogPage, LogQuery, LogRow, LogTail, TelemetryStore,
    UsageDay, UsageOfFunction, UsageQuery, UsageRow, UsageTotals,
};
use cloudserve_store::{StoreError, Timestamp};
use http::Request;
use http_body_util::BodyExt;
use tower::ServiceExt;

use crate::fixture::World;

#[tokio::test]
async fn a_row_says_what_the_call_used() {
    let w = World::new().await;
    let id = w.deploy(&w.alice, "logs", Visibility::Public).await;
    let silent = w.deploy(&w.alice, "version", Visibility::Public).await;
    let answer = w.get("/run/alice/logs", &w.bob).await;
    w.get("/run/alice/version", &w.alice).await;
    let rows = w.usage(&w.alice, 2).await;
    let row = rows.iter().find(|row| row.function_id == id).unwrap();
    assert_eq!(row.execution_id.to_string(), answer.header("x-cloudserve-execution-id"));
    assert_eq!((row.version, row.status, &*row.code), (1, CallStatus::Success, "ok"));
    assert!(row.duration_ms > 0.0 && row.duration_ms < 5_000.0);
    assert!((row.cpu_ms - 1.5).abs() < 1e-9 && (row.memory_mb - 2.0).abs() < 1e-9);
    let logs = w.logs(id).await;
    assert_eq!(logs.len(), 1);
    assert_eq!(logs[0].lines[0].message, "line");
    assert_eq!(w.logs(silent).await.len(), 0);
}

#[tokio::test]
async fn an_account_has_so_much_log_text_stored_in_a_day() {
    // A line of four letters counts as 16 bytes.
    let options = GatewayOptions { log_bytes_per_day: 20, ..GatewayOptions::default() };
    let w = World::with(options, |stores| stores).await;
    let first = w.deploy(&w.alice, "logs", Visibility::Public).await;
    let of_bob = w.deploy(&w.bob, "logs", Visibility::Public).await;
    let failing = w.deploy(&w.alice, "throw", Visibility::Public).await;
    for _ in 0..2 {
        w.get("/run/alice/logs", &w.alice).await;
    }
    w.get("/run/alice/throw", &w.alice).await;
    w.get("/run/bob/logs", &w.alice).await;
    w.usage(&w.alice, 3).await;
    w.usage(&w.bob, 1).await;
    for (id, rows) in [(first, 2), (of_bob, 1)] {
        let logs = w.logs(id).await;
        assert_eq!(logs.len(), rows);
        assert!(logs.iter().all(|log| log.lines[0].message == "line" && !log.truncated));
    }
    let log = w.logs(failing).await.remove(0);
    assert!(log.truncated && log.lines.len() == 1, "{log:?}");
    let told = &log.lines[0].message;
    assert!(told.contains("20 bytes") && told.contains("log_bytes_per_user_per_day"), "{told}");
}

#[tokio::test]
async fn log_text_that_is_dropped_is_none_of_what_is_stored_in_a_day() {
    let options =
        GatewayOptions { log_bytes_per_day: 16, log_queue_bytes: 20, ..GatewayOptions::default() };
    let w = World::with(options, |stores| stores).await;
    let large = w.deploy(&w.alice, "throw", Visibility::Public).await;
    let small = w.deploy(&w.alice, "logs", Visibility::Public).await;
    w.get("/run/alice/throw", &w.alice).await;
    w.usage(&w.alice, 1).await;
    w.get("/run/alice/logs", &w.alice).await;
    w.usage(&w.alice, 2).await;
    let log = w.logs(large).await.remove(0);
    assert!(log.truncated && log.lines.is_empty(), "{log:?}");
    let log = w.logs(small).await.remove(0);
    assert!(!log.truncated && log.lines[0].message == "line", "{log:?}");
}

#[tokio::test]
async fn faults_leave_a_row_and_a_log_with_the_stack() {
    let w = World::new().await;
    let id = w.deploy(&w.alice, "throw", Visibility::Private).await;
    let late = w.deploy(&w.alice, "late", Visibility::Private).await;
    w.get("/run/alice/throw", &w.alice).await;
    assert_eq!(w.get("/run/alice/late", &w.alice).await.status, 200);
    let rows = w.usage(&w.alice, 2).await;
    assert!(rows.iter().all(|r| r.code == "handler_error" && r.status == CallStatus::Error));
    let log = w.logs(id).await.remove(0);
    assert_eq!(log.lines[0].message, "before");
    assert_eq!(log.lines[1].message, "handler_error: boom\nat secret.js:1");
    assert_eq!(w.logs(late).await.len(), 1);
}

#[tokio::test]
async fn callers_who_hang_up_are_recorded_once() {
    let w = World::new().await;
    let hang = w.deploy(&w.alice, "hang", Visibility::Public).await;
    for name in ["drip", "break", "stall"] {
        w.deploy(&w.alice, name, Visibility::Public).await;
    }
    let request = |name| Request::get(format!("/run/alice/{name}")).body(Body::empty()).unwrap();
    // Before the answer.
    let call = w.gateway.router().oneshot(request("hang"));
    tokio::time::timeout(Duration::from_secs(1), call).await.unwrap_err();
    // In the middle of it.
    let mut answer = w.raw(request("drip")).await;
    answer.body_mut().frame().await.unwrap().unwrap();
    drop(answer);
    // And the other way round: the function breaks off.
    let mut answer = w.raw(request("break")).await;
    assert_eq!(answer.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), "begin");
    assert!(answer.body_mut().frame().await.unwrap().is_err());
    drop(answer);
    // Of an answer that was asked for in one document.
    let mut in_one = request("stall");
    let envelope = "application/vnd.cloudserve.invocation+json".parse().unwrap();
    in_one.headers_mut().insert("accept", envelope);
    let call = w.gateway.router().oneshot(in_one);
    tokio::time::timeout(Duration::from_secs(1), call).await.unwrap_err();

    w.gateway.drain().await;
    let mut rows = w.usage(&w.alice, 4).await;
    rows.sort_by_key(|row| row.execution_id);
    let codes: Vec<_> = rows.iter().map(|row| &*row.code).collect();
    assert_eq!(codes, ["cancelled", "cancelled", "crashed", "cancelled"]);
    // What the sandbox had to say about what was abandoned is in its row, and in its log.
    assert!(rows.iter().all(|row| row.cpu_ms > 0.0), "{rows:?}");
    assert_eq!(w.logs(hang).await[0].lines[0].message, "begun");
    assert_eq!(w.gateway.metrics().in_flight, 0);
}

#[tokio::test]
async fn nobody_pays_for_the_time_that_a_caller_takes_to_read() {
    let options = GatewayOptions { deadline_grace_ms: 100, ..GatewayOptions::default() };
    let w = World::with(options, |stores| stores).await;
    let limits = Limits { timeout_ms: 100, ..Limits::default() };
    w.deploy_limited(&w.alice, "flood", Visibility::Public, limits).await;
    let mut answer = w.raw(Request::get("/run/alice/flood").body(Body::empty()).unwrap()).await;
    answer.body_mut().frame().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    answer.body_mut().frame().await.unwrap().unwrap();
    drop(answer);
    let row = w.usage(&w.alice, 1).await.remove(0);
    assert!((100.0..=200.0).contains(&row.duration_ms), "{row:?}");
}

#[tokio::test]
async fn nobody_pays_for_the_time_that_an_answer_waits_for_room() {
    let w = World::new().await;
    w.deploy(&w.alice, "unread", Visibility::Public).await;
    let answer = w.get("/run/alice/unread", &w.alice).await;
    assert_eq!(answer.fault(), (429, "concurrency_limit".to_owned()));
    // How many calls there may be is of no concern.
    assert_eq!((answer.header("retry-after"), answer.header("ratelimit-limit")), ("1", ""));
    let row = w.usage(&w.alice, 1).await.remove(0);
    assert!((row.duration_ms - 0.003).abs() < 1e-9, "{row:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_loses_nothing_even_when_storage_fails() {
    let options = GatewayOptions {
        telemetry_batch_rows: 40,
        usage_queue_rows: 100,
        ..GatewayOptions::default()
    };
    let w = World::with(options, |mut stores| {
        let (inner, failures) = (stores.telemetry, Arc::new(AtomicU32::new(2)));
        stores.telemetry = Arc::new(Failing { inner, failures, panics: false });
        stores
    });
    let w = Arc::new(w.await);
    w.deploy(&w.alice, "version", Visibility::Public).await;
    w.deploy(&w.alice, "slow", Visibility::Public).await;
    let calls: Vec<_> = (0..400)
        .map(|n| {
            let w = w.clone();
            let name = if n % 10 == 0 { "slow" } else { "version" };
            tokio::spawn(async move { w.get(&format!("/run/alice/{name}"), &w.alice).await.status })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), 200);
    }
    w.gateway.drain().await;
    assert_eq!(w.usage(&w.alice, 400).await.len(), 400);
    let metrics = w.gateway.metrics();
    assert_eq!(metrics.usage_stored, 400);
    assert_eq!(metrics.store_failures, 2);
    assert_eq!(metrics.unstored_rows, 0);
    // Nothing is taken that could not be recorded.
    let answer = w.get("/run/alice/version", &w.alice).await;
    assert_eq!(answer.fault(), (503, "unavailable".to_owned()));
    assert_eq!(w.gateway.readiness().await, Err(NotReady::Draining));
}

#[tokio::test]
async fn calls_wait_while_usage_cannot_be_stored() {
    let options = GatewayOptions { usage_queue_rows: 1, ..GatewayOptions::default() };
    let w = World::with(options, |mut stores| {
        let (inner, failures) = (stores.telemetry, Arc::new(AtomicU32::new(1)));
        stores.telemetry = Arc::new(Failing { inner, failures, panics: false });
        stores
    })
    .await;
    let limits = Limits { timeout_ms: 60, ..Limits::default() };
    w.deploy_limited(&w.alice, "hang", Visibility::Public, limits).await;
    w.deploy(&w.alice, "version", Visibility::Public).await;
    let call = w.gateway.router();
    let hanging =
        tokio::spawn(call.oneshot(Request::get("/run/alice/hang").body(Body::empty()).unwrap()));
    w.call_begun().await;
    // The one place is taken: a short deadline passes, a longer one is met.
    assert_eq!(w.get("/run/alice/hang", &w.alice).await.fault().1, "unavailable");
    assert_eq!(w.get("/run/alice/version", &w.alice).await.status, 200);
    assert_eq!(hanging.await.unwrap().unwrap().status(), 504);
    assert_eq!(w.usage(&w.alice, 2).await.len(), 2);
}

#[tokio::test]
async fn a_panic_costs_the_rows_that_are_stored_and_no_call() {
    let failures = Arc::new(AtomicU32::new(1));
    let left = failures.clone();
    let w = World::with(GatewayOptions::default(), |mut stores| {
        stores.telemetry = Arc::new(Failing { inner: stores.telemetry, failures, panics: true });
        stores
    })
    .await;
    w.deploy(&w.alice, "version", Visibility::Public).await;
    assert_eq!(w.get("/run/alice/version", &w.alice).await.status, 200);
    while left.load(Ordering::SeqCst) > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(w.get("/run/alice/version", &w.alice).await.status, 200);
    assert_eq!(w.usage(&w.alice, 1).await.len(), 1);
}

/// Storage that is out of reach at first.
struct Failing {
    inner: Arc<dyn TelemetryStore>,
    failures: Arc<AtomicU32>,
    panics: bool,
}

#[async_trait]
impl TelemetryStore for Failing {
    async fn record(&self, usage: Vec<UsageRow>, logs: Vec<LogRow>) -> Result<(), StoreError> {
        let left =
            self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        match left {
            Ok(_) if self.panics => panic!("as it should here"),
            Ok(_) => Err(StoreError::unavailable("not yet")),
            Err(_) => self.inner.record(usage, logs).await,
        }
    }

    async fn logs(&self, query: LogQuery) -> Result<LogPage, StoreError> {
        self.inner.logs(query).await
    }

    async fn usage_totals(&self, query: UsageQuery) -> Result<UsageTotals, StoreError> {
        self.inner.usage_totals(query).await
    }

    async fn usage_by_day(&self, query: UsageQuery) -> Result<Vec<UsageDay>, StoreError> {
        self.inner.usage_by_day(query).await
    }

    async fn log_tail(
        &self,
        function_id: FunctionId,
        position: Option<&str>,
        limit: u32,
    ) -> Result<LogTail, StoreError> {
        self.inner.log_tail(function_id, position, limit).await
    }

    async fn usage_by_function(
        &self,
        query: UsageQuery,
    ) -> Result<Vec<UsageOfFunction>, StoreError> {
        self.inner.usage_by_function(query).await
    }

    async fn latency_by_day(&self, query: UsageQuery) -> Result<Vec<LatencyDay>, StoreError> {
        self.inner.latency_by_day(query).await
    }

    async fn usage_rows(
        &self,
        query: UsageQuery,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<Page<UsageRow>, StoreError> {
        self.inner.usage_rows(query, limit, cursor).await
    }

    async fn function_stats(
        &self,
        functions: &[FunctionId],
    ) -> Result<Vec<(FunctionId, FunctionStats)>, StoreError> {
        self.inner.function_stats(functions).await
    }

    async fn delete_logs(&self, function_id: FunctionId) -> Result<(), StoreError> {
        self.inner.delete_logs(function_id).await
    }

    async fn expire_logs(&self, older_than: Timestamp) -> Result<u64, StoreError> {
        self.inner.expire_logs(older_than).await
    }

    async fn expire_usage(&self, older_than: Timestamp) -> Result<u64, StoreError> {
        self.inner.expire_usage(older_than).await
    }
}
