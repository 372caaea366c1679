//! `/api/logs` and `/api/usage`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use cloudserve_store::telemetry::UsageQuery;
use serde_json::{Value, json};

use super::caller::Caller;
use super::problem::Problem;
use super::query::{OfFunction, Parameters};
use super::views::LogRowView;
use crate::app::App;
use crate::app::refusal::Refusal;

const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 1_000;

pub(super) async fn logs(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    OfFunction(id): OfFunction,
    parameters: Parameters,
) -> Result<impl IntoResponse, Problem> {
    let limit = parameters.limit(DEFAULT_LIMIT, MAX_LIMIT)?;
    let after = parameters.text("after").map(str::to_owned);
    let execution_id = parameters.parsed("executionId")?;
    let page = app.logs(&principal, id, limit, after, execution_id).await?;
    let rows: Vec<_> = page.rows.into_iter().map(LogRowView::from).collect();
    Ok(Json(json!({ "logs": rows, "next": page.next })))
}

pub(super) async fn usage(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    parameters: Parameters,
) -> Result<impl IntoResponse, Problem> {
    let query = UsageQuery {
        user_id: principal.user_id,
        function_id: parameters.parsed("functionId")?,
        from: parameters.time("from")?,
        to: parameters.time("to")?,
    };
    let answer: Value = match parameters.text("groupBy") {
        None => json!({ "totals": app.usage_totals(&principal, query).await? }),
        Some("day") => json!({ "days": app.usage_by_day(&principal, query).await? }),
        Some("none") => {
            let limit = parameters.limit(DEFAULT_LIMIT, MAX_LIMIT)?;
            let cursor = parameters.text("cursor").map(str::to_owned);
            let page = app.usage_rows(&principal, query, limit, cursor).await?;
            json!({ "usage": page.items, "nextCursor": page.next })
        }
        Some(_) => return Err(Refusal::field("groupBy", "must be day or none").into()),
    };
    Ok(Json(answer))
}
