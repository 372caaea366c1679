//! `/api/function`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use cloudserve_identity::Principal;
use serde_json::json;

use super::caller::{Caller, Deploying};
use super::intake::{Deployment, Update};
use super::problem::Problem;
use super::query::{OfFunction, Parameters};
use super::views::{FunctionView, VersionView};
use crate::app::App;
use crate::app::deployments::{Accepted, Changed};
use crate::app::functions::Shown;

const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 100;

fn view(app: &App, principal: &Principal, shown: Shown) -> FunctionView {
    FunctionView::new(shown, &principal.user_name, app.options.gateway_url.as_deref())
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    parameters: Parameters,
) -> Result<impl IntoResponse, Problem> {
    let limit = parameters.limit(DEFAULT_LIMIT, MAX_LIMIT)?;
    let cursor = parameters.text("cursor").map(str::to_owned);
    let page = app.list(&principal, limit, cursor).await?;
    let functions: Vec<_> =
        page.items.into_iter().map(|shown| view(&app, &principal, shown)).collect();
    Ok(Json(json!({ "functions": functions, "nextCursor": page.next })))
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    OfFunction(id): OfFunction,
) -> Result<impl IntoResponse, Problem> {
    let (shown, files) = app.show(&principal, id).await?;
    let entry = shown.record.latest.source.entry.clone();
    Ok(Json(view(&app, &principal, shown).with_source(entry, &files)))
}

pub(super) async fn versions(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    OfFunction(id): OfFunction,
) -> Result<impl IntoResponse, Problem> {
    let (record, versions) = app.versions(&principal, id).await?;
    let active = record.function.active_version;
    let views = versions.into_iter().map(|version| VersionView::new(version, active));
    Ok(Json(views.collect::<Vec<_>>()))
}

pub(super) async fn deploy(
    State(app): State<Arc<App>>,
    Deploying(principal): Deploying,
    parameters: Parameters,
    Deployment { name, deploy }: Deployment,
) -> Result<Response, Problem> {
    let accepted = app.clone().deploy(principal.clone(), name, deploy).await?;
    accepted_or_ended(&app, &principal, accepted, &parameters).await
}

pub(super) async fn update(
    State(app): State<Arc<App>>,
    Deploying(principal): Deploying,
    OfFunction(id): OfFunction,
    parameters: Parameters,
    Update(deploy): Update,
) -> Result<Response, Problem> {
    match app.clone().update(principal.clone(), id, deploy).await? {
        Changed::Done(shown) => Ok(Json(view(&app, &principal, *shown)).into_response()),
        Changed::Queued(accepted) => {
            accepted_or_ended(&app, &principal, *accepted, &parameters).await
        }
    }
}

pub(super) async fn redeploy(
    State(app): State<Arc<App>>,
    Deploying(principal): Deploying,
    OfFunction(id): OfFunction,
    parameters: Parameters,
) -> Result<Response, Problem> {
    let refresh = parameters.flag("refreshDependencies")?;
    let accepted = app.clone().redeploy(principal.clone(), id, refresh).await?;
    accepted_or_ended(&app, &principal, accepted, &parameters).await
}

pub(super) async fn delete(
    State(app): State<Arc<App>>,
    Deploying(principal): Deploying,
    OfFunction(id): OfFunction,
) -> Result<impl IntoResponse, Problem> {
    app.delete(&principal, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// 202 with the function as it is, or with `?wait=true` 200 when the deploy has ended.
async fn accepted_or_ended(
    app: &App,
    principal: &Principal,
    accepted: Accepted,
    parameters: &Parameters,
) -> Result<Response, Problem> {
    let (shown, has_ended) = if parameters.flag("wait")? {
        app.wait(principal, accepted).await?
    } else {
        (app.shown(accepted).await?, false)
    };
    let status = if has_ended { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(view(app, principal, shown))).into_response())
}
