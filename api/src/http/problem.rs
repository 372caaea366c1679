//! The one envelope of errors: `{"error":{"code","message","details"?},"message"}`.

use std::time::Duration;

use axum::Json;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use cloudserve_identity::TooManyUnknown;
use cloudserve_protocol::fault::Chain;
use serde_json::{Value, json};

use crate::app::refusal::{FieldErrors, Refusal};
use crate::json::Unread;

/// Characters of what is said of a field. It may repeat what was sent, which may be megabytes.
const MAX_WRONG_CHARS: usize = 500;

/// An error as callers see it.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    message: String,
    details: Option<Value>,
    retry_after: Option<Duration>,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), details: None, retry_after: None }
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "a valid token or API key is needed: Authorization: Bearer <token or key>",
        )
    }

    pub(crate) fn cross_site() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "cross_site_request",
            "a change with the session cookie must come from the same origin; \
             use Authorization: Bearer <token or key>",
        )
    }

    pub(crate) fn route_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "route_not_found", "there is no such route")
    }

    pub(crate) fn method_not_allowed() -> Self {
        let message = "this route does not know this method";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
    }

    pub(crate) fn invalid_json(error: &Unread) -> Self {
        let details = match error {
            Unread::Syntax(error) => {
                Some(json!({ "line": error.line(), "column": error.column() }))
            }
            Unread::TooMany => None,
        };
        let message = format!("the body {error}");
        Self { details, ..Self::new(StatusCode::BAD_REQUEST, "invalid_json", message) }
    }

    pub(crate) fn not_utf8() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_json", "the body is not JSON: it is not UTF-8")
    }

    pub(crate) fn body_cut_off() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_body", "the body ended early")
    }

    pub(crate) fn body_too_slow() -> Self {
        let message = "the body did not arrive in time";
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", message)
    }

    pub(crate) fn unsupported_media_type(expected: &'static str) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            format!("the content type must be {expected}"),
        )
    }

    pub(crate) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "something went wrong on our side")
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        let new = |status, code| Self::new(status, code, message.clone());
        match refusal {
            Refusal::Invalid(fields) => invalid(&fields),
            Refusal::TooLarge { .. } => new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large"),
            Refusal::InvalidCredentials => new(StatusCode::UNAUTHORIZED, "invalid_credentials"),
            Refusal::TooManyAttempts { retry_after } => Self {
                retry_after: Some(retry_after),
                ..new(StatusCode::TOO_MANY_REQUESTS, "too_many_attempts")
            },
            Refusal::TooManyUnknown(TooManyUnknown { retry_after, .. })
            | Refusal::TooManyRegistrations { retry_after, .. } => Self {
                retry_after: Some(retry_after),
                ..new(StatusCode::TOO_MANY_REQUESTS, "rate_limit")
            },
            Refusal::Forbidden(_) => new(StatusCode::FORBIDDEN, "forbidden"),
            Refusal::UserExists { what } => Self {
                details: Some(json!({ what: "is taken" })),
                ..new(StatusCode::CONFLICT, "user_exists")
            },
            Refusal::FunctionNotFound => new(StatusCode::NOT_FOUND, "function_not_found"),
            Refusal::VersionNotFound => new(StatusCode::NOT_FOUND, "version_not_found"),
            Refusal::VersionNotBuilt => new(StatusCode::CONFLICT, "version_not_built"),
            Refusal::TooManyFollowers { .. } => Self {
                retry_after: Some(Duration::from_secs(1)),
                ..new(StatusCode::TOO_MANY_REQUESTS, "too_many_followers")
            },
            Refusal::NoGateway => new(StatusCode::SERVICE_UNAVAILABLE, "no_gateway"),
            Refusal::AnswerCutOff => new(StatusCode::BAD_GATEWAY, "answer_cut_off"),
            Refusal::ApiKeyNotFound => new(StatusCode::NOT_FOUND, "api_key_not_found"),
            Refusal::TooMany { .. }
            | Refusal::TooManyFunctions { .. }
            | Refusal::TooManyBytes { .. } => new(StatusCode::CONFLICT, "limit_exceeded"),
            Refusal::QueueFull { .. } | Refusal::TooManyInvocations { .. } => Self {
                retry_after: Some(Duration::from_secs(1)),
                ..new(StatusCode::TOO_MANY_REQUESTS, "limit_exceeded")
            },
            Refusal::Conflict => new(StatusCode::CONFLICT, "conflict"),
            Refusal::EnvironmentClosed(cause) => {
                tracing::error!(error = %Chain(&*cause), "an environment cannot be opened");
                new(StatusCode::CONFLICT, "environment_closed")
            }
            Refusal::Busy => Self {
                retry_after: Some(Duration::from_secs(1)),
                ..new(StatusCode::SERVICE_UNAVAILABLE, "unavailable")
            },
            Refusal::Unavailable(cause) => {
                tracing::error!(error = %Chain(&*cause), "a request was turned away");
                Self {
                    retry_after: Some(Duration::from_secs(1)),
                    ..new(StatusCode::SERVICE_UNAVAILABLE, "unavailable")
                }
            }
            Refusal::Internal(cause) => {
                tracing::error!(error = %Chain(&*cause), "a request failed");
                Self::internal()
            }
        }
    }
}

fn invalid(fields: &FieldErrors) -> Problem {
    let shortened = fields.iter().map(|(field, wrong)| {
        (field.clone(), wrong.chars().take(MAX_WRONG_CHARS).collect::<String>())
    });
    let fields: FieldErrors = shortened.collect();
    let list: Vec<_> = fields.iter().map(|(field, wrong)| format!("{field} {wrong}")).collect();
    Problem {
        details: Some(json!(fields)),
        ..Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "validation_error", list.join("; "))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let Some(details) = self.details {
            error["details"] = details;
        }
        let body = json!({ "error": error, "message": self.message });
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(RETRY_AFTER, seconds.max(1).into());
        }
        response
    }
}
