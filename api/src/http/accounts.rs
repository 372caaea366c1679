//! `/api/auth`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::IntoResponse;
use cloudserve_identity::SESSION_COOKIE;
use serde_json::json;
use zeroize::Zeroizing;

use super::caller::{Address, Caller, LoggedIn};
use super::fields::Fields;
use super::problem::Problem;
use super::views::UserView;
use crate::app::App;
use crate::app::accounts::{Login, Registration, Session};

pub(super) async fn register(
    State(app): State<Arc<App>>,
    mut fields: Fields,
) -> Result<impl IntoResponse, Problem> {
    let (full_name, user_name) = (fields.required("fullName"), fields.required("userName"));
    let (email, password) = (fields.required("email"), fields.required("password"));
    let new = (|| {
        let (full_name, user_name) = (full_name?, user_name?);
        Some(Registration { full_name, user_name, email: email?, password: password? })
    })();
    let session = app.register(fields.finish(new)?).await?;
    Ok((StatusCode::CREATED, Json(session_view(session))))
}

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
    Ok((cookie, Json(session_view(session))))
}

pub(super) async fn logout(
    State(app): State<Arc<App>>,
    LoggedIn(principal): LoggedIn,
) -> Result<impl IntoResponse, Problem> {
    app.logout(&principal).await?;
    Ok((StatusCode::NO_CONTENT, cookie("", 0, app.options.secure_cookie)))
}

pub(super) async fn me(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
) -> Result<impl IntoResponse, Problem> {
    let user = UserView::from(app.me(&principal).await?);
    Ok(Json(json!({ "user": user })))
}

fn session_view(session: Session) -> serde_json::Value {
    json!({ "token": session.token, "user": UserView::from(session.user) })
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
