//! `/api/function`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use cloudserve_identity::Principal;

use super::bodies;
use super::caller::{Caller, Deploying};
use super::describe::{BodilessErrors, ChangeErrors, ReadErrors};
use super::fields::Fields;
use super::intake::{Deployment, Update, read_variables};
use super::problem::Problem;
use super::query::{OfFunction, OfVersion, Parameters};
use super::views::{EnvView, FunctionView, FunctionsView, VersionView};
use crate::app::App;
use crate::app::deployments::{Accepted, Changed};
use crate::app::functions::Shown;
use crate::app::versions::EnvPatch;

const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 100;
/// Variables removed by one request.
const MAX_UNSET: usize = 1_000;
/// Longest wait that is asked for in seconds: shorter than what proxies have patience for.
const MAX_WAIT_S: u32 = 30;

fn view(app: &App, principal: &Principal, shown: Shown) -> FunctionView {
    FunctionView::new(shown, &principal.user_name, app.options.gateway_url.as_deref())
}

/// The account's functions.
#[utoipa::path(
    get, path = "/api/function", operation_id = "list_functions", tag = "functions",
    params(
        ("limit" = Option<u32>, Query, description = "Entries of a page.", minimum = 1, maximum = 100),
        ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before."),
    ),
    responses((status = 200, body = FunctionsView, description = "Newest first."), ReadErrors),
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    parameters: Parameters,
) -> Result<impl IntoResponse, Problem> {
    let limit = parameters.limit(DEFAULT_LIMIT, MAX_LIMIT)?;
    let cursor = parameters.text("cursor").map(str::to_owned);
    let page = app.list(&principal, limit, cursor).await?;
    let functions = page.items.into_iter().map(|shown| view(&app, &principal, shown)).collect();
    Ok(Json(FunctionsView { functions, next_cursor: page.next }))
}

/// A function with its source.
#[utoipa::path(
    get, path = "/api/function/{id}", operation_id = "show_function", tag = "functions",
    params(("id" = String, Path, description = "The function.")),
    responses((status = 200, body = FunctionView, description = "The function."), ReadErrors),
)]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    OfFunction(id): OfFunction,
) -> Result<impl IntoResponse, Problem> {
    let (shown, entry, files) = app.show(&principal, id).await?;
    Ok(Json(view(&app, &principal, shown).with_source(entry, &files)))
}

/// The versions of a function.
#[utoipa::path(
    get, path = "/api/function/{id}/versions", tag = "functions",
    params(("id" = String, Path, description = "The function.")),
    responses((status = 200, body = Vec<VersionView>, description = "Newest first."), ReadErrors),
)]
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

/// Serve a version that was built before. Nothing is built.
#[utoipa::path(
    post, path = "/api/function/{id}/rollback", tag = "functions",
    params(("id" = String, Path, description = "The function.")),
    request_body = bodies::Rollback,
    responses((status = 200, body = FunctionView, description = "It is served."), ChangeErrors),
)]
pub(super) async fn rollback(
    State(app): State<Arc<App>>,
    Deploying(principal): Deploying,
    OfFunction(id): OfFunction,
    mut fields: Fields,
) -> Result<Json<FunctionView>, Problem> {
    let version = fields.required::<u32>("version");
    let version = fields.finish(version)?;
    let shown = app.clone().rollback(principal.clone(), id, version).await?;
    Ok(Json(view(&app, &principal, shown)))
}

/// The names of a function's variables. Values are never shown.
#[utoipa::path(
    get, path = "/api/function/{id}/env", tag = "functions",
    params(("id" = String, Path, description = "The function.")),
    responses((status = 200, body = EnvView, description = "The names."), ReadErrors),
)]
pub(super) async fn env(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    OfFunction(id): OfFunction,
) -> Result<Json<EnvView>, Problem> {
    Ok(Json(app.variables(&principal, id).await?.into()))
}

/// Set and remove variables. Makes a version, which is loaded and served; nothing is built.
#[utoipa::path(
    patch, path = "/api/function/{id}/env", tag = "functions",
    params(
        ("id" = String, Path, description = "The function."),
        ("wait" = Option<bool>, Query, description = "`false`: answer before it is served."),
    ),
    request_body = bodies::EnvPatch,
    responses(
        (status = 200, body = EnvView, description = "`active`, or `failed` and not served."),
        (status = 202, body = EnvView, description = "Not served yet."),
        ChangeErrors,
    ),
)]
pub(super) async fn change_env(
    State(app): State<Arc<App>>,
    Deploying(principal): Deploying,
    OfFunction(id): OfFunction,
    parameters: Parameters,
    mut fields: Fields,
) -> Result<Response, Problem> {
    let waits = parameters.text("wait").is_none() || parameters.flag("wait")?;
    let set = read_variables(&mut fields, "set", app.options.limits.env_bytes).unwrap_or_default();
    let unset = fields.optional::<Vec<String>>("unset").unwrap_or_default();
    if unset.len() > MAX_UNSET {
        fields.wrong("unset", format!("must name at most {MAX_UNSET} variables"));
    }
    let patch = fields.finish(Some(EnvPatch { set, unset }))?;
    let accepted = app.clone().change_env(principal.clone(), id, patch).await?;
    let (variables, has_ended) = if waits {
        app.wait_for_env(&principal, accepted).await?
    } else {
        (app.env_accepted(&accepted)?, false)
    };
    let status = if has_ended { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(EnvView::from(variables))).into_response())
}

/// Deploy under a name: a new function, or a new version of the one that is there.
#[utoipa::path(
    post, path = "/api/function/deploy", tag = "functions",
    params(
        ("wait" = Option<bool>, Query, description = "Answer when it is `active` or `failed`."),
        ("name" = Option<String>, Query, description = "The name, for an archive."),
    ),
    request_body(content(
        (bodies::NewDeploy = "application/json"),
        (Vec<u8> = "application/gzip"),
    )),
    responses(
        (status = 200, body = FunctionView, description = "`active` or `failed`."),
        (status = 202, body = FunctionView, description = "Accepted."),
        ChangeErrors,
    ),
)]
pub(super) async fn deploy(
    State(app): State<Arc<App>>,
    Deploying(principal): Deploying,
    parameters: Parameters,
    request: Request,
) -> Result<Response, Problem> {
    let waits = parameters.flag("wait")?;
    let sent = Deployment::receive(request, &app, principal.user_id).await?;
    let Deployment { name, deploy } = sent;
    let accepted = app.clone().deploy(principal.clone(), name, deploy).await?;
    accepted_or_ended(&app, &principal, accepted, waits).await
}

/// Where the deploy of a version stands.
#[utoipa::path(
    get, path = "/api/function/{id}/versions/{version}/deploy", operation_id = "show_deploy",
    tag = "functions",
    params(
        ("id" = String, Path, description = "The function."),
        ("version" = u32, Path, description = "Its version."),
        (
            "wait" = Option<u32>, Query, description = "Seconds to wait for its end.",
            minimum = 0, maximum = 30
        ),
    ),
    responses(
        (status = 200, body = FunctionView, description = "`active` or `failed`."),
        (status = 202, body = FunctionView, description = "It has not ended."),
        ReadErrors,
    ),
)]
pub(super) async fn show_deploy(
    State(app): State<Arc<App>>,
    Deploying(principal): Deploying,
    OfVersion(id, version): OfVersion,
    parameters: Parameters,
) -> Result<Response, Problem> {
    let patience = parameters.seconds("wait", MAX_WAIT_S)?;
    let (shown, has_ended) = app.deploy_of(&principal, id, version, patience).await?;
    Ok(answer(&app, &principal, shown, has_ended))
}

/// Change a function: a new version, unless only `visibility` changes.
#[utoipa::path(
    put, path = "/api/function/{id}", tag = "functions",
    params(
        ("id" = String, Path, description = "The function."),
        ("wait" = Option<bool>, Query, description = "Answer when it is `active` or `failed`."),
    ),
    request_body(content(
        (bodies::FunctionUpdate = "application/json"),
        (Vec<u8> = "application/gzip"),
    )),
    responses(
        (status = 200, body = FunctionView, description = "Changed."),
        (status = 202, body = FunctionView, description = "Accepted."),
        ChangeErrors,
    ),
)]
pub(super) async fn update(
    State(app): State<Arc<App>>,
    Deploying(principal): Deploying,
    OfFunction(id): OfFunction,
    parameters: Parameters,
    request: Request,
) -> Result<Response, Problem> {
    let waits = parameters.flag("wait")?;
    let Update(deploy) = Update::receive(request, &app, principal.user_id).await?;
    match app.clone().update(principal.clone(), id, deploy).await? {
        Changed::Done(shown) => Ok(Json(view(&app, &principal, *shown)).into_response()),
        Changed::Queued(accepted) => accepted_or_ended(&app, &principal, *accepted, waits).await,
    }
}

/// Build the newest source again.
#[utoipa::path(
    post, path = "/api/function/redeploy/{id}", tag = "functions",
    params(
        ("id" = String, Path, description = "The function."),
        ("wait" = Option<bool>, Query, description = "Answer when it is `active` or `failed`."),
        ("refreshDependencies" = Option<bool>, Query, description = "Resolve versions again."),
    ),
    responses(
        (status = 200, body = FunctionView, description = "`active` or `failed`."),
        (status = 202, body = FunctionView, description = "Accepted."),
        BodilessErrors,
    ),
)]
pub(super) async fn redeploy(
    State(app): State<Arc<App>>,
    Deploying(principal): Deploying,
    OfFunction(id): OfFunction,
    parameters: Parameters,
) -> Result<Response, Problem> {
    let (refresh, waits) = (parameters.flag("refreshDependencies")?, parameters.flag("wait")?);
    let accepted = app.clone().redeploy(principal.clone(), id, refresh).await?;
    accepted_or_ended(&app, &principal, accepted, waits).await
}

/// Delete a function, its versions and its logs. Usage stays.
#[utoipa::path(
    delete, path = "/api/function/{id}", operation_id = "delete_function", tag = "functions",
    params(("id" = String, Path, description = "The function.")),
    responses((status = 204, description = "Deleted."), BodilessErrors),
)]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    Deploying(principal): Deploying,
    OfFunction(id): OfFunction,
) -> Result<impl IntoResponse, Problem> {
    app.delete(principal, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// 202 with the function as it is, or with `?wait=true` 200 when the deploy has ended. That parameter
/// is read before anything is accepted: what is refused has changed nothing.
async fn accepted_or_ended(
    app: &App,
    principal: &Principal,
    accepted: Accepted,
    waits: bool,
) -> Result<Response, Problem> {
    let (shown, has_ended) = if waits {
        app.wait(principal, accepted).await?
    } else {
        (app.shown(accepted).await?, false)
    };
    Ok(answer(app, principal, shown, has_ended))
}

fn answer(app: &App, principal: &Principal, shown: Shown, has_ended: bool) -> Response {
    let status = if has_ended { StatusCode::OK } else { StatusCode::ACCEPTED };
    (status, Json(view(app, principal, shown))).into_response()
}
