//! `/api/logs` and `/api/usage`.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use cloudserve_identity::Principal;
use cloudserve_protocol::call::LogLevel;
use cloudserve_protocol::ids::{ExecutionId, FunctionId};
use cloudserve_store::telemetry::{LogFilter, LogQuery, UsageQuery};
use futures::stream::{self, Stream};

use super::caller::{Caller, shown};
use super::describe::ReadErrors;
use super::problem::Problem;
use super::query::{OfFunction, Parameters};
use super::views::{LatencyView, LogRowView, LogsView, UsageView};
use crate::app::App;
use crate::app::follow::{Follower, Start};
use crate::app::refusal::Refusal;

const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 1_000;
/// Rows of one page of a download.
const DOWNLOAD_PAGE: u32 = 500;
/// Characters of a text that is searched for.
const MAX_TEXT_CHARS: usize = 200;

/// The logs of a function.
///
/// With `follow=true` a stream of server-sent events: one for each call, as it ends, whose data is
/// what an entry of `logs` is otherwise. `limit` then asks for that many earlier ones first. The id
/// of an event, sent as `Last-Event-ID`, goes on after it.
#[utoipa::path(
    get, path = "/api/logs/{functionId}", tag = "telemetry",
    params(
        ("functionId" = String, Path, description = "The function."),
        ("limit" = Option<u32>, Query, description = "Entries of a page.", minimum = 1, maximum = 1000),
        ("after" = Option<String>, Query, description = "`next` of the page before."),
        ("executionId" = Option<String>, Query, format = Uuid, description = "Only this call."),
        ("q" = Option<String>, Query, max_length = 200,
            description = "Only lines that contain this, whatever the case."),
        ("level" = Option<String>, Query,
            description = "Only lines of these levels: `debug`, `info`, `warn`, `error`, \
                           several with commas."),
        ("follow" = Option<bool>, Query, description = "Stream what comes from now on."),
        ("last-event-id" = Option<String>, Header,
            description = "With `follow`: go on after this event, instead of `limit`."),
        ("format" = Option<String>, Query,
            description = "`json`, or `ndjson` to download all entries, newest first."),
    ),
    responses(
        (status = 200, description = "A page, newest first; or a stream.", content(
            (LogsView = "application/json"),
            (String = "text/event-stream"),
            (String = "application/x-ndjson"),
        )),
        ReadErrors,
    ),
)]
pub(super) async fn logs(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    OfFunction(function_id): OfFunction,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let filter = filter(&parameters)?;
    let after = parameters.text("after").map(str::to_owned);
    let execution_id = parameters.parsed::<ExecutionId>("executionId")?;
    if parameters.flag("follow")? {
        let history = parameters.limit(0, MAX_LIMIT)?;
        let start = match headers.get("last-event-id").map(HeaderValue::to_str) {
            Some(Ok(position)) if !position.is_empty() => Start::After(position.to_owned()),
            _ => Start::Now { history },
        };
        let whose = (function_id, execution_id);
        return follow(app, &principal, whose, filter, start, &headers).await;
    }
    let is_download = match parameters.text("format") {
        None | Some("json") => false,
        Some("ndjson") => true,
        Some(_) => return Err(Refusal::field("format", "must be json or ndjson").into()),
    };
    let limit = parameters.limit(DEFAULT_LIMIT, MAX_LIMIT)?;
    let limit = if is_download { DOWNLOAD_PAGE } else { limit };
    let query = LogQuery { function_id, limit, after, execution_id, filter };
    let first = app.logs(&principal, query.clone()).await?;
    if !is_download {
        return Ok(Json(LogsView::from(first)).into_response());
    }
    let name = format!("attachment; filename=\"{function_id}.ndjson\"");
    let disposition = HeaderValue::from_str(&name).map_err(Refusal::internal)?;
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson")),
        (CONTENT_DISPOSITION, disposition),
    ];
    Ok((headers, Body::from_stream(download(app, query, first))).into_response())
}

fn filter(parameters: &Parameters) -> Result<LogFilter, Problem> {
    let text = parameters.text("q");
    if text.is_some_and(|text| text.chars().count() > MAX_TEXT_CHARS) {
        let wrong = format!("must have at most {MAX_TEXT_CHARS} characters");
        return Err(Refusal::field("q", wrong).into());
    }
    let mut levels = Vec::new();
    for name in parameters.text("level").into_iter().flat_map(|names| names.split(',')) {
        levels.push(match name.trim().to_ascii_lowercase().as_str() {
            "debug" => LogLevel::Debug,
            "info" => LogLevel::Info,
            "warn" => LogLevel::Warn,
            "error" => LogLevel::Error,
            _ => {
                let wrong = "must be debug, info, warn or error, or several of them with commas";
                return Err(Refusal::field("level", wrong).into());
            }
        });
    }
    Ok(LogFilter::new(levels, text))
}

async fn follow(
    app: Arc<App>,
    principal: &Principal,
    (function_id, execution_id): (FunctionId, Option<ExecutionId>),
    filter: LogFilter,
    start: Start,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let credential = shown(&app, headers)?;
    let follower =
        app.follow(principal, credential, function_id, execution_id, filter, start).await?;
    let events = stream::unfold(follower, |mut follower: Follower| async move {
        let (row, position) = follower.next().await?;
        let event = Event::default().json_data(LogRowView::from(row));
        let event = match (event, position) {
            (Ok(event), Some(position)) => Ok(event.id(position)),
            (event, _) => event,
        };
        Some((event, follower))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}

/// All entries from a first page on, a page at a time: the next is read when the one before was
/// sent.
fn download(
    app: Arc<App>,
    query: LogQuery,
    first: cloudserve_store::telemetry::LogPage,
) -> impl Stream<Item = Result<Bytes, serde_json::Error>> {
    stream::unfold(Some((query, Some(first))), move |state| {
        let app = app.clone();
        async move {
            let (mut query, page) = state?;
            let page = match page {
                Some(page) => page,
                // The headers are sent: all that is left is to end early, which is seen.
                None => match app.more_logs(query.clone()).await {
                    Ok(page) => page,
                    Err(error) => {
                        let error = <serde_json::Error as serde::ser::Error>::custom(error);
                        return Some((Err(error), None));
                    }
                },
            };
            let mut text = Vec::new();
            for row in page.rows {
                if let Err(error) = serde_json::to_writer(&mut text, &LogRowView::from(row)) {
                    return Some((Err(error), None));
                }
                text.push(b'\n');
            }
            let next = page.next.map(|next| {
                query.after = Some(next);
                (query, None)
            });
            Some((Ok(Bytes::from(text)), next))
        }
    })
}

fn usage_query(principal: &Principal, parameters: &Parameters) -> Result<UsageQuery, Problem> {
    Ok(UsageQuery {
        user_id: principal.user_id,
        function_id: parameters.parsed::<FunctionId>("functionId")?,
        from: parameters.time("from")?,
        to: parameters.time("to")?,
    })
}

/// What calls have used: in all, by day, by function, or call by call.
#[utoipa::path(
    get, path = "/api/usage", tag = "telemetry",
    params(
        ("functionId" = Option<String>, Query, format = Uuid, description = "Only this function."),
        ("from" = Option<String>, Query, description = "A time or a date (UTC), inclusive."),
        ("to" = Option<String>, Query, description = "A time or a date (UTC), exclusive."),
        ("groupBy" = Option<String>, Query, description = "`day`, `function` or `none`."),
        ("limit" = Option<u32>, Query, description = "Rows, with `groupBy=none`.", minimum = 1, maximum = 1000),
        ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before."),
    ),
    responses((status = 200, body = UsageView, description = "Usage."), ReadErrors),
)]
pub(super) async fn usage(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    parameters: Parameters,
) -> Result<Json<UsageView>, Problem> {
    let query = usage_query(&principal, &parameters)?;
    let view = match parameters.text("groupBy") {
        None => app.usage_totals(&principal, query).await?.into(),
        Some("day") => app.usage_by_day(&principal, query).await?.into(),
        Some("function") => app.usage_by_function(&principal, query).await?.into(),
        Some("none") => {
            let limit = parameters.limit(DEFAULT_LIMIT, MAX_LIMIT)?;
            let cursor = parameters.text("cursor").map(str::to_owned);
            app.usage_rows(&principal, query, limit, cursor).await?.into()
        }
        Some(_) => {
            return Err(Refusal::field("groupBy", "must be day, function or none").into());
        }
    };
    Ok(Json(view))
}

/// How long calls took, by day.
#[utoipa::path(
    get, path = "/api/usage/latency", tag = "telemetry",
    params(
        ("functionId" = Option<String>, Query, format = Uuid, description = "Only this function."),
        ("from" = Option<String>, Query, description = "A time or a date (UTC): that day and later."),
        ("to" = Option<String>, Query, description = "A time or a date (UTC), exclusive; days are taken whole."),
    ),
    responses((status = 200, body = LatencyView, description = "Latencies."), ReadErrors),
)]
pub(super) async fn latency(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    parameters: Parameters,
) -> Result<Json<LatencyView>, Problem> {
    let query = usage_query(&principal, &parameters)?;
    Ok(Json(app.latency(&principal, query).await?.into()))
}
