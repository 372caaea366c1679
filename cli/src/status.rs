//! `/readyz` and `/metrics` of the API listener. The gateway has its own; it shows the calls, this
//! one the workers behind them.

use std::fmt::Write;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use cloudserve_gateway::Gateway;
use cloudserve_sandbox::{Sandbox, SandboxMetrics};

/// The routes.
pub(crate) fn router(gateway: Gateway, sandbox: Sandbox) -> Router {
    let workers = sandbox.clone();
    Router::new()
        .route("/readyz", get(move || readiness(gateway.clone(), sandbox.clone())))
        .route("/metrics", get(move || async move { metrics(&workers.metrics()) }))
}

async fn readiness(gateway: Gateway, sandbox: Sandbox) -> impl IntoResponse {
    let workers = sandbox.readiness();
    if workers.is_ready && gateway.is_ready().await {
        let missing = workers.jail.missing();
        let jail = if missing.is_empty() {
            "full".to_owned()
        } else {
            format!("without {}", missing.join(", "))
        };
        return (StatusCode::OK, format!("ready\njail: {jail}\n"));
    }
    let reason = workers.last_failure.unwrap_or_else(|| "starting or shutting down".to_owned());
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n"))
}

fn metrics(sandbox: &SandboxMetrics) -> impl IntoResponse + use<> {
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (content_type, render(sandbox).unwrap_or_default())
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
