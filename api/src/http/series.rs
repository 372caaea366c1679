//! `/api/usage/series`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use cloudserve_store::Timestamp;
use cloudserve_store::telemetry::UsageQuery;
use serde::Serialize;
use utoipa::ToSchema;

use super::caller::Caller;
use super::describe::ReadErrors;
use super::problem::Problem;
use super::query::Parameters;
use crate::app::refusal::Refusal;
use crate::app::series::{Series, Step};
use crate::app::{App, access};

const DEFAULT_POINTS: u32 = 60;
const MAX_POINTS: u32 = 500;

/// Usage over time.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = UsageSeries)]
pub(super) struct SeriesView {
    step_ms: i64,
    /// Calls before this were too many to be counted; `null` if all were.
    #[schema(value_type = Option<String>, format = DateTime)]
    complete_from: Option<Timestamp>,
    overall: Percentiles,
    /// Oldest first, one for each step.
    points: Vec<PointView>,
}

/// In ms; `null` without a call.
#[derive(Serialize, ToSchema)]
struct Percentiles {
    p50: Option<f64>,
    p99: Option<f64>,
}

/// The calls of one step.
#[derive(Serialize, ToSchema)]
#[schema(as = UsagePoint)]
struct PointView {
    /// When the step begins.
    #[schema(value_type = String, format = DateTime)]
    timestamp: Timestamp,
    executed: u64,
    errors: u64,
    cold: u64,
    #[serde(flatten)]
    latency: Percentiles,
    /// The most that one call used, in MB.
    memory: Option<f64>,
}

impl From<Series> for SeriesView {
    fn from(series: Series) -> Self {
        let starts = (0_i64..).map(|n| Timestamp(series.from.0 + n * series.step_ms));
        let point = |(timestamp, step): (Timestamp, Step)| PointView {
            timestamp,
            executed: step.executed,
            errors: step.errors,
            cold: step.cold,
            latency: Percentiles { p50: step.p50_ms, p99: step.p99_ms },
            memory: step.peak_memory_mb,
        };
        Self {
            step_ms: series.step_ms,
            complete_from: series.complete_from,
            overall: Percentiles { p50: series.p50_ms, p99: series.p99_ms },
            points: starts.zip(series.steps).map(point).collect(),
        }
    }
}

/// Usage over time, in equal steps.
#[utoipa::path(
    get, path = "/api/usage/series", tag = "telemetry",
    params(
        ("from" = String, Query, description = "Where it begins: a time or a date (UTC), inclusive."),
        ("to" = String, Query, description = "Where it ends: a time or a date (UTC), exclusive."),
        ("functionId" = Option<String>, Query, description = "Only this function."),
        ("points" = Option<u32>, Query, description = "Steps; 60 if it is missing.",
            minimum = 1, maximum = 500),
    ),
    responses((status = 200, body = SeriesView, description = "One point for each step."), ReadErrors),
)]
pub(super) async fn series(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    parameters: Parameters,
) -> Result<Json<SeriesView>, Problem> {
    // Before what is asked is looked at.
    access::may_read(&principal)?;
    let needed = |name: &str| {
        let time = parameters.time(name)?;
        time.ok_or_else(|| Problem::from(Refusal::field(name, "is missing")))
    };
    let span = (needed("from")?, needed("to")?);
    let n_steps = parameters.count("points", DEFAULT_POINTS, MAX_POINTS)?;
    let query = UsageQuery {
        user_id: principal.user_id,
        function_id: parameters.parsed("functionId")?,
        from: None,
        to: None,
    };
    Ok(Json(app.series(&principal, query, span, n_steps).await?.into()))
}
