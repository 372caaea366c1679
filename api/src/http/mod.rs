//! HTTP in and out: routes, extractors, views. No rule is decided here, and axum is named nowhere
//! else.

mod accounts;
mod bodies;
mod body;
mod caller;
mod dashboard;
mod describe;
mod fields;
mod functions;
mod intake;
mod invoke;
mod keys;
mod problem;
mod query;
mod schemas;
mod series;
mod telemetry;
mod unread;
mod version_source;
mod views;

use std::any::Any;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::map_request;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use self::dashboard::dashboard;
use self::describe::Description;
use self::problem::Problem;
use crate::app::App;

/// All routes of the control plane.
pub(crate) fn router(app: Arc<App>) -> Router {
    let (router, openapi) = OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(accounts::register))
        .routes(routes!(accounts::login))
        .routes(routes!(accounts::logout))
        .routes(routes!(accounts::me))
        .routes(routes!(accounts::quota))
        .routes(routes!(accounts::audit))
        .routes(routes!(keys::list, keys::create))
        .routes(routes!(keys::delete))
        .routes(routes!(functions::list))
        .routes(routes!(functions::deploy))
        .routes(routes!(functions::redeploy))
        .routes(routes!(functions::show, functions::update, functions::delete))
        .routes(routes!(functions::versions))
        .routes(routes!(version_source::show))
        .routes(routes!(functions::show_deploy))
        .routes(routes!(invoke::invoke))
        .routes(routes!(functions::rollback))
        .routes(routes!(functions::env, functions::change_env))
        .routes(routes!(telemetry::logs))
        .routes(routes!(telemetry::usage))
        .routes(routes!(telemetry::latency))
        .routes(routes!(series::series))
        .routes(routes!(describe::document))
        .routes(routes!(describe::page))
        .split_for_parts();
    describe::publish(&openapi);
    router
        .merge(aliases())
        .route("/healthz", get(|| async { StatusCode::OK }))
        .fallback(dashboard::serve)
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(CatchPanicLayer::custom(panicked))
        // Answers hold tokens, keys and source, and are never pages.
        .layer(SetResponseHeaderLayer::if_not_present(
            CACHE_CONTROL,
            HeaderValue::from_static("no-store"),
        ))
        .layer(SetResponseHeaderLayer::if_not_present(
            X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ))
        .layer(map_request(|request: Request| async move { unread::discarded(request) }))
        .with_state(app)
}

/// Other names of routes, for older clients. Not described a second time.
fn aliases() -> Router<Arc<App>> {
    let functions = Router::new()
        .route("/", get(functions::list))
        .route("/deploy", post(functions::deploy))
        .route("/redeploy/{id}", post(functions::redeploy))
        .route("/{id}", get(functions::show).put(functions::update).delete(functions::delete))
        .route("/{id}/redeploy", post(functions::redeploy))
        .route("/{id}/versions", get(functions::versions))
        .route("/{id}/versions/{version}", get(version_source::show))
        .route("/{id}/versions/{version}/deploy", get(functions::show_deploy))
        .route("/{id}/invoke", post(invoke::invoke))
        .route("/{id}/rollback", post(functions::rollback))
        .route("/{id}/env", get(functions::env).patch(functions::change_env));
    Router::new()
        .route("/api/auth/signup", post(accounts::register))
        .route("/api/function/{id}/redeploy", post(functions::redeploy))
        .nest("/api/functions", functions)
}

/// The panic itself is in the log already, with its place.
fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    Problem::internal().into_response()
}
