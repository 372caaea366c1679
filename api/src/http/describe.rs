//! The description of all routes: `OpenAPI` 3.1, put together from the handlers themselves.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use axum::http::HeaderValue;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{Html, IntoResponse};
use serde::Serialize;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    ContentBuilder, HeaderBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder,
};
use utoipa::{IntoResponses, Modify, ToSchema};

/// What is said of the interface as a whole.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "CloudServe",
        description = "Deploy functions, manage keys, read logs and usage. Functions themselves \
                       are called at the gateway, under /run/{userName}/{functionName}.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
        contact(name = "CloudServe"),
    ),
    modifiers(&Security),
    components(schemas(ErrorBody)),
    tags(
        (name = "accounts", description = "Accounts and sessions."),
        (name = "keys", description = "API keys."),
        (name = "functions", description = "Functions, versions and environments."),
        (name = "telemetry", description = "Logs, usage and latencies."),
        (name = "meta", description = "This description."),
    ),
    security(("token" = []), ("key" = []), ("cookie" = [])),
)]
pub(super) struct Description;

struct Security;

impl Modify for Security {
    fn modify(&self, openapi: &mut OpenApi) {
        let Some(components) = openapi.components.as_mut() else { return };
        let token = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A session token or an API key."))
            .build();
        components.add_security_scheme("token", SecurityScheme::Http(token));
        let key = ApiKeyValue::with_description("x-api-key", "An API key.");
        components.add_security_scheme("key", SecurityScheme::ApiKey(ApiKey::Header(key)));
        let cookie = ApiKeyValue::with_description(
            "token",
            "A session token. Requests that change something must come from the same origin.",
        );
        components.add_security_scheme("cookie", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    }
}

/// An error.
#[derive(Serialize, ToSchema)]
#[schema(
    as = Error,
    example = json!({
        "error": { "code": "function_not_found", "message": "you have no such function" },
        "message": "you have no such function"
    })
)]
pub(super) struct ErrorBody {
    error: ErrorDetail,
    /// The same message, for older clients.
    message: String,
}

/// What was wrong.
#[derive(Serialize, ToSchema)]
#[schema(as = ErrorDetail)]
struct ErrorDetail {
    /// Stable.
    code: String,
    /// What was wrong and what to do.
    message: String,
    /// By field, where fields are wrong; line and column, where JSON is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    details: Option<serde_json::Value>,
}

fn error(description: &str) -> ResponseBuilder {
    let schema = Ref::from_schema_name("Error");
    let content = ContentBuilder::new().schema(Some(schema)).build();
    ResponseBuilder::new().description(description).content("application/json", content)
}

fn errors(statuses: &[u16]) -> BTreeMap<String, RefOr<Response>> {
    let described = |status: u16| {
        let described = match status {
            400 => error("The body is not JSON, or not all of it came."),
            401 => error("No valid credential.").header(
                "www-authenticate",
                HeaderBuilder::new().description(Some("`Bearer`")).build(),
            ),
            403 => error("The credential does not allow this, or another site may be behind it."),
            404 => error("There is none, or it belongs to another account."),
            408 => error("The body did not come in time."),
            409 => error("What is there stands against it; see the code."),
            413 => error("The body is too large."),
            415 => error("The body has another content type."),
            422 => error("Fields or parameters are wrong; `details` says which."),
            429 => error("Too often; wait as `Retry-After` says.")
                .header("retry-after", HeaderBuilder::new().description(Some("Seconds.")).build()),
            500 => error("A defect of ours, which the server's log tells more of."),
            502 => error("The function's answer was cut off."),
            _ => error("The service cannot do this now; try again soon.").header(
                "retry-after",
                HeaderBuilder::new().description(Some("Seconds, if that helps.")).build(),
            ),
        };
        (status.to_string(), RefOr::T(described.build()))
    };
    statuses.iter().copied().map(described).collect()
}

/// How requests fail that read.
pub(super) struct ReadErrors;

impl IntoResponses for ReadErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        errors(&[401, 403, 404, 422, 429, 500, 503])
    }
}

/// How requests fail that change something by their path alone: a body is not looked at.
pub(super) struct BodilessErrors;

impl IntoResponses for BodilessErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        errors(&[401, 403, 404, 409, 422, 429, 500, 503])
    }
}

/// How requests fail that change something.
pub(super) struct ChangeErrors;

impl IntoResponses for ChangeErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        errors(&[400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 500, 503])
    }
}

/// How calls of a function through the API fail.
pub(super) struct InvokeErrors;

impl IntoResponses for InvokeErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        errors(&[400, 401, 403, 404, 408, 413, 415, 422, 429, 500, 502, 503])
    }
}

/// The finished description, as it is sent.
static DOCUMENT: OnceLock<Arc<str>> = OnceLock::new();

/// Keeps the description of the routes that were put together. It is the same for every router of
/// a process.
pub(super) fn publish(openapi: &OpenApi) {
    DOCUMENT.get_or_init(|| {
        let text = openapi.to_pretty_json().unwrap_or_default();
        text.into()
    });
}

/// The description of this interface.
#[utoipa::path(
    get, path = "/api/openapi.json", tag = "meta", security(()),
    responses((status = 200, body = Object, description = "OpenAPI 3.1.")),
)]
pub(super) async fn document() -> impl IntoResponse {
    let text = DOCUMENT.get().map(ToString::to_string).unwrap_or_default();
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], text)
}

/// The same, to be read by people.
#[utoipa::path(
    get, path = "/api/docs", tag = "meta", security(()),
    responses((status = 200, body = String, content_type = "text/html", description = "A page.")),
)]
pub(super) async fn page() -> impl IntoResponse {
    // The one script is in the page and nothing else is loaded but the description.
    let policy = "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; \
                  script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
                  frame-ancestors 'none'";
    ([(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy))], Html(PAGE))
}

const PAGE: &str = include_str!("describe.html");
