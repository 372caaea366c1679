//! `/api/auth` and `/api/account`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::IntoResponse;
use cloudserve_identity::SESSION_COOKIE;
use zeroize::Zeroizing;

use super::bodies;
use super::caller::{Address, Caller, LoggedIn};
use super::describe::{BodilessErrors, ChangeErrors, ReadErrors};
use super::fields::Fields;
use super::problem::Problem;
use super::query::Parameters;
use super::views::{AuditView, MeView, QuotaView, SessionView};
use crate::app::App;
use crate::app::accounts::{Login, Registration};

const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 1_000;

/// Begin an account.
#[utoipa::path(
    post, path = "/api/auth/register", tag = "accounts", security(()),
    request_body = bodies::Registration,
    responses((status = 201, body = SessionView, description = "Registered."), ChangeErrors),
)]
pub(super) async fn register(
    State(app): State<Arc<App>>,
    Address(address): Address,
    mut fields: Fields,
) -> Result<impl IntoResponse, Problem> {
    let (full_name, user_name) = (fields.required("fullName"), fields.required("userName"));
    let (email, password) = (fields.required("email"), fields.required("password"));
    let new = (|| {
        let (full_name, user_name) = (full_name?, user_name?);
        let (email, password) = (email?, password?);
        Some(Registration { full_name, user_name, email, password, address })
    })();
    let session = app.register(fields.finish(new)?).await?;
    Ok((StatusCode::CREATED, Json(SessionView::from(session))))
}

/// Begin a session. It is in the answer and in a cookie.
#[utoipa::path(
    post, path = "/api/auth/login", tag = "accounts", security(()),
    request_body = bodies::Login,
    responses((status = 200, body = SessionView, description = "Logged in."), ChangeErrors),
)]
pub(super) async fn login(
    State(app): State<Arc<App>>,
    Address(address): Address,
    mut fields: Fields,
) -> Result<impl IntoResponse, Problem> {
    let email = fields.optional::<String>("email");
    let user_name = fields.optional::<String>("userName");
    let password = fields.required::<String>("password").map(Zeroizing::new);
    let who = email.or(user_name);
    if who.is_none() {
        fields.wrong("email", "is missing (or userName)");
    }
    let login = who.zip(password).map(|(who, password)| Login { who, password, address });
    let session = app.login(fields.finish(login)?).await?;
    let lifetime = app.authenticator.tokens().lifetime();
    let cookie = cookie(&session.token, lifetime.as_secs(), app.options.secure_cookie);
    Ok((cookie, Json(SessionView::from(session))))
}

/// End the session that asks.
#[utoipa::path(
    post, path = "/api/auth/logout", tag = "accounts",
    responses((status = 204, description = "Its token is refused from now on."), BodilessErrors),
)]
pub(super) async fn logout(
    State(app): State<Arc<App>>,
    LoggedIn(principal): LoggedIn,
) -> Result<impl IntoResponse, Problem> {
    app.logout(&principal).await?;
    Ok((StatusCode::NO_CONTENT, cookie("", 0, app.options.secure_cookie)))
}

/// The account that asks.
#[utoipa::path(
    get, path = "/api/auth/me", tag = "accounts",
    responses((status = 200, body = MeView, description = "The account."), ReadErrors),
)]
pub(super) async fn me(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
) -> Result<impl IntoResponse, Problem> {
    Ok(Json(MeView { user: app.me(&principal).await?.into() }))
}

/// What the account may use and has used.
#[utoipa::path(
    get, path = "/api/account/quota", tag = "accounts",
    responses((status = 200, body = QuotaView, description = "Per limit."), ReadErrors),
)]
pub(super) async fn quota(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
) -> Result<Json<QuotaView>, Problem> {
    Ok(Json(app.quota(&principal).await?.into()))
}

/// What was done to the account and what belongs to it, newest first.
#[utoipa::path(
    get, path = "/api/account/audit", tag = "accounts",
    params(
        ("limit" = Option<u32>, Query, description = "Entries of a page.", minimum = 1, maximum = 1000),
        ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before."),
    ),
    responses((status = 200, body = AuditView, description = "A page."), ReadErrors),
)]
pub(super) async fn audit(
    State(app): State<Arc<App>>,
    LoggedIn(principal): LoggedIn,
    parameters: Parameters,
) -> Result<Json<AuditView>, Problem> {
    let limit = parameters.limit(DEFAULT_LIMIT, MAX_LIMIT)?;
    let cursor = parameters.text("cursor").map(str::to_owned);
    Ok(Json(app.audit(&principal, limit, cursor).await?.into()))
}

/// The session cookie. `Strict`: no other site needs to send it along.
fn cookie(token: &str, lifetime_s: u64, is_secure: bool) -> HeaderMap {
    let secure = if is_secure { "; Secure" } else { "" };
    let text = format!(
        "{SESSION_COOKIE}={token}; Path=/; Max-Age={lifetime_s}; HttpOnly; SameSite=Strict{secure}"
    );
    let value = HeaderValue::from_str(&text).expect("a token is base64url and dots");
    HeaderMap::from_iter([(SET_COOKIE, value)])
}
