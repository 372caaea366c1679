//! HTTP in and out: routes, extractors, views. No rule is decided here, and axum is named nowhere
//! else.

mod accounts;
mod body;
mod caller;
mod fields;
mod functions;
mod intake;
mod keys;
mod problem;
mod query;
mod telemetry;
mod views;

use std::any::Any;
use std::sync::Arc;

use axum::Router;
use axum::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::set_header::SetResponseHeaderLayer;

use self::problem::Problem;
use crate::app::App;

/// All routes of the control plane.
pub(crate) fn router(app: Arc<App>) -> Router {
    let functions = Router::new()
        .route("/", get(functions::list))
        .route("/deploy", post(functions::deploy))
        .route("/redeploy/{id}", post(functions::redeploy))
        .route("/{id}", get(functions::show).put(functions::update).delete(functions::delete))
        .route("/{id}/redeploy", post(functions::redeploy))
        .route("/{id}/versions", get(functions::versions));
    Router::new()
        .route("/healthz", get(|| async { StatusCode::OK }))
        .route("/api/auth/register", post(accounts::register))
        .route("/api/auth/signup", post(accounts::register))
        .route("/api/auth/login", post(accounts::login))
        .route("/api/auth/logout", post(accounts::logout))
        .route("/api/auth/me", get(accounts::me))
        .route("/api/apikeys", get(keys::list).post(keys::create))
        .route("/api/apikeys/{id}", delete(keys::delete))
        .nest("/api/function", functions.clone())
        .nest("/api/functions", functions)
        .route("/api/logs/{id}", get(telemetry::logs))
        .route("/api/usage", get(telemetry::usage))
        .fallback(|| async { Problem::route_not_found() })
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
        .with_state(app)
}

/// The panic itself is in the log already, with its place.
fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    Problem::internal().into_response()
}
