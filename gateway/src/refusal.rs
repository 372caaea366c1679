//! Answers to requests that reach no function: no execution id, no usage row.

use std::fmt;

use cloudserve_store::StoreError;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use serde::Serialize;

use crate::answer::AnswerBody;

/// Why a request is not dispatched.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Not a path we know.
    NoSuchPath,
    /// Nobody, or nobody we recognise.
    Unauthorized,
    /// Someone else's name, public or not there at all.
    Forbidden,
    /// A key without the scope.
    MissingScope,
    /// A cookie sent along by another site.
    CrossOrigin,
    /// The owner has no such function.
    NotFound,
    /// Nothing is served under this name yet.
    NotActive {
        /// Its first deploy failed.
        failed: bool,
    },
    /// Something the decision needs is out of reach.
    Unavailable,
}

impl Refusal {
    /// Storage failed: said to the operator here, to the caller without detail.
    pub(crate) fn storage(error: &StoreError) -> Self {
        tracing::error!(error = %Chain(error), "a call was refused: storage is not available");
        Self::Unavailable
    }

    /// Stable code in answers and metrics.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::NoSuchPath => "not_found",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden | Self::MissingScope | Self::CrossOrigin => "forbidden",
            Self::NotFound => "function_not_found",
            Self::NotActive { .. } => "not_active",
            Self::Unavailable => "unavailable",
        }
    }

    /// All codes a refusal can have, for metrics.
    pub(crate) const CODES: [&str; 6] = [
        "not_found",
        "unauthorized",
        "forbidden",
        "function_not_found",
        "not_active",
        "unavailable",
    ];

    fn status(&self) -> StatusCode {
        match self {
            Self::NoSuchPath | Self::NotFound => StatusCode::NOT_FOUND,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden | Self::MissingScope | Self::CrossOrigin => StatusCode::FORBIDDEN,
            Self::NotActive { .. } | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn message(&self) -> &'static str {
        match self {
            Self::NoSuchPath => "no such path; functions are at /run/{userName}/{functionName}",
            Self::Unauthorized => {
                "a valid token or API key is needed: Authorization: Bearer <token or key>"
            }
            Self::Forbidden => "this name belongs to another account and is not public",
            Self::MissingScope => "this API key does not have the scope invoke",
            Self::CrossOrigin => {
                "a call with the session cookie must come from the same origin; \
                 use Authorization: Bearer <token or key>"
            }
            Self::NotFound => "you have no function with this name",
            Self::NotActive { failed: false } => "the function is being deployed; try again soon",
            Self::NotActive { failed: true } => {
                "the function's first deploy failed; its deployError says why; deploy it again"
            }
            Self::Unavailable => "the service cannot take the call now; try again soon",
        }
    }

    pub(crate) fn into_response(self) -> Response<AnswerBody> {
        #[derive(Serialize)]
        struct Refused {
            error: Code,
            message: &'static str,
        }
        #[derive(Serialize)]
        struct Code {
            code: &'static str,
            message: &'static str,
        }
        let (code, message) = (self.code(), self.message());
        let body = Refused { error: Code { code, message }, message };
        let mut response = json(self.status(), &body);
        let headers = response.headers_mut();
        match self {
            Self::Unauthorized => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::NotActive { .. } | Self::Unavailable => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}

/// A JSON answer of the gateway's own; no cache may keep it.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response<AnswerBody> {
    let body = serde_json::to_vec(body).expect("string keys and plain values serialise");
    let mut response = Response::new(AnswerBody::whole(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// An error with its causes on one line.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
