//! `/api/apikeys`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::json;

use super::caller::LoggedIn;
use super::fields::Fields;
use super::problem::Problem;
use super::query::OfApiKey;
use super::views::ApiKeyView;
use crate::app::App;
use crate::app::keys::NewApiKey;

pub(super) async fn list(
    State(app): State<Arc<App>>,
    LoggedIn(principal): LoggedIn,
) -> Result<impl IntoResponse, Problem> {
    let keys = app.api_keys(&principal).await?;
    let keys: Vec<_> = keys.into_iter().map(|key| ApiKeyView::new(key, None)).collect();
    Ok(Json(json!({ "apiKeys": keys })))
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    LoggedIn(principal): LoggedIn,
    mut fields: Fields,
) -> Result<impl IntoResponse, Problem> {
    let name = fields.required("name");
    let scopes = fields.optional("scopes").unwrap_or_default();
    let expires_at = fields.optional("expiresAt");
    let new = name.map(|name| NewApiKey { name, scopes, expires_at });
    let (key, secret) = app.create_api_key(&principal, fields.finish(new)?).await?;
    Ok((StatusCode::CREATED, Json(ApiKeyView::new(key, Some(&secret)))))
}

pub(super) async fn delete(
    State(app): State<Arc<App>>,
    LoggedIn(principal): LoggedIn,
    OfApiKey(id): OfApiKey,
) -> Result<impl IntoResponse, Problem> {
    app.delete_api_key(&principal, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
