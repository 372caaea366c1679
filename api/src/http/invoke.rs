//! `/api/function/{id}/invoke`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use base64::prelude::{BASE64_STANDARD, Engine};
use serde::Serialize;
use utoipa::ToSchema;

use super::bodies;
use super::caller::{Address, Caller, shown};
use super::describe::InvokeErrors;
use super::fields::Fields;
use super::problem::Problem;
use super::query::OfFunction;
use crate::app::App;
use crate::app::invoke::{Answer, Request};

/// What a function answered, as data.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = InvocationAnswer)]
pub(super) struct AnswerView {
    /// The function's own.
    status: u16,
    /// Pairs of name and value, in their order.
    // As a pair it would be described by `prefixItems`, which not every tool reads.
    #[schema(value_type = Vec<Vec<String>>)]
    headers: Vec<(String, String)>,
    /// Text, or with `bodyEncoding: "base64"` bytes that are none.
    body: String,
    /// `utf8` or `base64`.
    body_encoding: &'static str,
    /// Whether the answer was longer than what is shown.
    truncated: bool,
    duration_ms: f64,
}

impl From<Answer> for AnswerView {
    fn from(answer: Answer) -> Self {
        let (body, body_encoding) = match text_of(&answer.body, answer.truncated) {
            Some(text) => (text.to_owned(), "utf8"),
            None => (BASE64_STANDARD.encode(&answer.body), "base64"),
        };
        Self {
            status: answer.status,
            headers: answer.headers,
            body,
            body_encoding,
            truncated: answer.truncated,
            duration_ms: answer.duration.as_secs_f64() * 1_000.0,
        }
    }
}

/// The text, without a character that was cut in two.
fn text_of(body: &[u8], truncated: bool) -> Option<&str> {
    match std::str::from_utf8(body) {
        Ok(text) => Some(text),
        Err(error) if truncated && error.error_len().is_none() => {
            std::str::from_utf8(&body[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    }
}

/// Call a function with the caller's own credential. Its answer is data, whatever it is.
#[utoipa::path(
    post, path = "/api/function/{id}/invoke", tag = "functions",
    params(("id" = String, Path, description = "The function.")),
    request_body = bodies::Invocation,
    responses(
        (status = 200, body = AnswerView, description = "What the function answered."),
        InvokeErrors,
    ),
)]
pub(super) async fn invoke(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    OfFunction(id): OfFunction,
    headers: HeaderMap,
    Address(from): Address,
    mut fields: Fields,
) -> Result<Json<AnswerView>, Problem> {
    let credential = shown(&app, &headers)?;
    // What is another's is unknown, whatever is said of it.
    let callee = app.callee(&principal, id).await?;
    let method = fields.optional("method").unwrap_or_else(|| "GET".to_owned());
    let path = fields.optional("path").unwrap_or_default();
    let given: BTreeMap<String, String> = fields.optional("headers").unwrap_or_default();
    let body = fields.optional("body");
    let request = fields.finish(Some(Request { method, path, headers: given, body, from }))?;
    Ok(Json(app.invoke(&principal, &credential, &callee, request).await?.into()))
}
