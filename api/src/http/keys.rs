//! `/api/apikeys`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;

use super::bodies;
use super::caller::LoggedIn;
use super::describe::{BodilessErrors, ChangeErrors, ReadErrors};
use super::fields::Fields;
use super::problem::Problem;
use super::query::OfApiKey;
use super::views::{ApiKeyView, ApiKeysView};
use crate::app::App;
use crate::app::keys::NewApiKey;

/// The account's keys.
#[utoipa::path(
    get, path = "/api/apikeys", operation_id = "list_keys", tag = "keys",
    responses((status = 200, body = ApiKeysView, description = "Newest first."), ReadErrors),
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    LoggedIn(principal): LoggedIn,
) -> Result<impl IntoResponse, Problem> {
    let keys = app.api_keys(&principal).await?;
    let api_keys = keys.into_iter().map(|key| ApiKeyView::new(key, None)).collect();
    Ok(Json(ApiKeysView { api_keys }))
}

/// Make a key. It is shown once, here.
#[utoipa::path(
    post, path = "/api/apikeys", operation_id = "create_key", tag = "keys", request_body = bodies::NewApiKey,
    responses((status = 201, body = ApiKeyView, description = "The key."), ChangeErrors),
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    LoggedIn(principal): LoggedIn,
    mut fields: Fields,
) -> Result<impl IntoResponse, Problem> {
    let name = fields.required("name");
    let scopes = fields.optional("scopes").unwrap_or_default();
    let functions = fields.optional("functions").unwrap_or_default();
    let expires_at = fields.optional("expiresAt");
    let new = name.map(|name| NewApiKey { name, scopes, functions, expires_at });
    let (key, secret) = app.create_api_key(principal, fields.finish(new)?).await?;
    Ok((StatusCode::CREATED, Json(ApiKeyView::new(key, Some(&secret)))))
}

/// Revoke a key.
#[utoipa::path(
    delete, path = "/api/apikeys/{id}", operation_id = "revoke_key", tag = "keys",
    params(("id" = String, Path, description = "The key.")),
    responses((status = 204, description = "It is refused from now on."), BodilessErrors),
)]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    LoggedIn(principal): LoggedIn,
    OfApiKey(id): OfApiKey,
) -> Result<impl IntoResponse, Problem> {
    app.delete_api_key(principal, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
