//! `/healthz`, `/readyz` and `/metrics` of what is not a gateway, which has its own: it shows the
//! calls, the others what is behind them. Of all roles in one process, the API's listener shows
//! both, so that whoever asks it alone misses nothing.

use std::fmt::Write;
use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use cloudserve_gateway::Gateway;
use cloudserve_remote::Sandboxes;
use cloudserve_sandbox::{Sandbox, SandboxMetrics};
use cloudserve_store::AccountStore;
use tokio_util::sync::CancellationToken;

/// Of all roles in one process, beside the API's routes.
pub(crate) fn router(gateway: Gateway, sandbox: Sandbox) -> Router {
    of_workers(Some(gateway), sandbox)
}

/// Of a sandbox.
pub(crate) fn of_sandbox(sandbox: Sandbox) -> Router {
    of_workers(None, sandbox).route("/healthz", get(|| async { StatusCode::OK }))
}

fn of_workers(gateway: Option<Gateway>, sandbox: Sandbox) -> Router {
    let (calls, workers) = (gateway.clone(), sandbox.clone());
    Router::new()
        .route("/readyz", get(move || readiness(gateway.clone(), sandbox.clone())))
        .route("/metrics", get(move || async move { metrics(calls.as_ref(), &workers.metrics()) }))
}

/// Of an API, beside its routes. Whoever gets the token says by it that the API is leaving.
pub(crate) fn of_api(
    accounts: Arc<dyn AccountStore>,
    sandboxes: Sandboxes,
) -> (Router, CancellationToken) {
    let (router, leaving) = until_leaving(move || {
        let accounts = accounts.clone();
        async move { accounts.answers().await.err().map(|_| "storage does not answer") }
    });
    let shown = move || async move { prometheus(sandboxes.metrics().to_string()) };
    (router.route("/metrics", get(shown)), leaving)
}

/// Of a frontend, beside its files. Whoever gets the token says by it that it is leaving.
pub(crate) fn of_frontend() -> (Router, CancellationToken) {
    let (router, leaving) = until_leaving(|| async { None });
    let router = router
        .route("/healthz", get(|| async { StatusCode::OK }))
        // It counts nothing; whoever asks all roles alike gets an answer.
        .route("/metrics", get(|| async { prometheus(String::new()) }));
    (router, leaving)
}

/// `/readyz` of a process that is ready unless something is in the way, until it leaves.
fn until_leaving<F>(
    in_the_way: impl Fn() -> F + Clone + Send + Sync + 'static,
) -> (Router, CancellationToken)
where
    F: Future<Output = Option<&'static str>> + Send,
{
    let leaving = CancellationToken::new();
    let is_leaving = leaving.clone();
    let ready = move || {
        let (is_leaving, in_the_way) = (is_leaving.clone(), in_the_way.clone());
        async move {
            if is_leaving.is_cancelled() {
                return not_ready("shutting down");
            }
            match in_the_way().await {
                Some(reason) => not_ready(reason),
                None => (StatusCode::OK, "ready\n".to_owned()),
            }
        }
    };
    (Router::new().route("/readyz", get(ready)), leaving)
}

fn not_ready(reason: &str) -> (StatusCode, String) {
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n"))
}

async fn readiness(gateway: Option<Gateway>, sandbox: Sandbox) -> (StatusCode, String) {
    if let Some(gateway) = gateway
        && let Err(reason) = gateway.readiness().await
    {
        return not_ready(&reason.to_string());
    }
    let workers = sandbox.readiness();
    if !workers.is_ready {
        let reason = workers.last_failure.unwrap_or_else(|| "starting or shutting down".to_owned());
        return not_ready(&reason);
    }
    let missing = workers.jail.missing();
    let jail = if missing.is_empty() {
        "full".to_owned()
    } else {
        format!("without {}", missing.join(", "))
    };
    let memory = if workers.jail.control_groups { "bounded by the kernel" } else { "watched" };
    (StatusCode::OK, format!("ready\njail: {jail}\nmemory: {memory}\n"))
}

fn metrics(gateway: Option<&Gateway>, sandbox: &SandboxMetrics) -> impl IntoResponse + use<> {
    let calls = gateway.map(|gateway| gateway.metrics().to_string()).unwrap_or_default();
    prometheus(calls + &render(sandbox).unwrap_or_default())
}

fn prometheus(text: String) -> impl IntoResponse + use<> {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

/// Prometheus text.
fn render(sandbox: &SandboxMetrics) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    writeln!(out, "# TYPE cloudserve_sandbox_workers gauge")?;
    for (state, count) in [
        ("starting", sandbox.workers_starting),
        ("ready", sandbox.workers_ready),
        ("loading", sandbox.workers_loading),
        ("idle", sandbox.workers_idle),
        ("busy", sandbox.workers_busy),
    ] {
        writeln!(out, "cloudserve_sandbox_workers{{state=\"{state}\"}} {count}")?;
    }
    for (name, kind, value) in [
        ("processes", "gauge", sandbox.processes as u64),
        ("queue_length", "gauge", sandbox.queue_length as u64),
        ("calls_total", "counter", sandbox.calls),
        ("cold_starts_total", "counter", sandbox.cold_starts),
        ("refused_total", "counter", sandbox.refused),
        ("egress_refused_total", "counter", sandbox.egress_refused),
    ] {
        writeln!(out, "# TYPE cloudserve_sandbox_{name} {kind}")?;
        writeln!(out, "cloudserve_sandbox_{name} {value}")?;
    }
    writeln!(out, "# TYPE cloudserve_sandbox_worker_deaths_total counter")?;
    for (cause, count) in &sandbox.deaths {
        writeln!(out, "cloudserve_sandbox_worker_deaths_total{{cause=\"{cause}\"}} {count}")?;
    }
    Ok(out)
}
