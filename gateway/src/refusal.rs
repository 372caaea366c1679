//! Answers to requests that reach no function. They leave no usage row: what is refused uses
//! nothing, and a flood of it must not fill the store.

use std::borrow::Cow;

use cloudserve_identity::TooManyUnknown;
use cloudserve_protocol::fault::{Chain, FaultClass};
use cloudserve_protocol::ids::ExecutionId;
use cloudserve_store::{StoreError, Timestamp};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, Response, StatusCode};
use serde::Serialize;

use crate::answer::{AnswerBody, EXECUTION_ID};
use crate::quota::{Bound, Exceeded};

/// The codes, each with what it is called: one list, so that metrics count all there are.
macro_rules! codes {
    ($($code:ident = $name:expr,)*) => {
        /// What a refusal is called in answers and metrics; stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Code {
            $($code,)*
        }

        impl Code {
            /// What each is called, at the place that its number is.
            pub(crate) const NAMES: [&str; [$($name),*].len()] = [$($name),*];
        }
    };
}

codes! {
    NoSuchPath = "not_found",
    Unauthorized = "unauthorized",
    Forbidden = "forbidden",
    FunctionNotFound = "function_not_found",
    VersionNotFound = "version_not_found",
    NotActive = "not_active",
    RateLimit = FaultClass::RateLimit.code(),
    QuotaExceeded = FaultClass::QuotaExceeded.code(),
    ConcurrencyLimit = FaultClass::ConcurrencyLimit.code(),
    Unavailable = "unavailable",
}

impl Code {
    fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

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
    /// A key for other functions.
    OtherFunction,
    /// A version named by somebody who is not the owner.
    VersionChosen,
    /// A version that is not there or was never built.
    VersionNotFound,
    /// Too many calls per second with one credential.
    TooOften {
        /// How many there may be.
        per_second: u32,
    },
    /// Too many credentials that nobody has come from the caller's address.
    TooManyUnknown(TooManyUnknown),
    /// The owner's account has used up what it may.
    QuotaExceeded(Exceeded),
    /// Callers are still to read what the functions of the owner's account have answered.
    TooMuchUnread {
        /// How many bytes of it there may be.
        limit_bytes: u64,
    },
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

    pub(crate) fn code(&self) -> Code {
        match self {
            Self::NoSuchPath => Code::NoSuchPath,
            Self::Unauthorized => Code::Unauthorized,
            Self::Forbidden | Self::MissingScope | Self::OtherFunction | Self::VersionChosen => {
                Code::Forbidden
            }
            Self::NotFound => Code::FunctionNotFound,
            Self::VersionNotFound => Code::VersionNotFound,
            Self::TooOften { .. } | Self::TooManyUnknown(_) => Code::RateLimit,
            Self::QuotaExceeded(_) => Code::QuotaExceeded,
            Self::TooMuchUnread { .. } => Code::ConcurrencyLimit,
            Self::NotActive { .. } => Code::NotActive,
            Self::Unavailable => Code::Unavailable,
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::NoSuchPath | Self::NotFound | Self::VersionNotFound => StatusCode::NOT_FOUND,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden | Self::MissingScope | Self::OtherFunction | Self::VersionChosen => {
                StatusCode::FORBIDDEN
            }
            Self::TooOften { .. }
            | Self::TooManyUnknown(_)
            | Self::QuotaExceeded(_)
            | Self::TooMuchUnread { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::NotActive { .. } | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn message(&self) -> Cow<'static, str> {
        let text = match self {
            Self::NoSuchPath => "no such path; functions are at /run/{userName}/{functionName}",
            Self::Unauthorized => {
                "a valid token or API key is needed: Authorization: Bearer <token or key>"
            }
            Self::Forbidden => "this name belongs to another account and is not public",
            Self::MissingScope => "this API key does not have the scope invoke",
            Self::OtherFunction => "this API key is for other functions",
            Self::VersionChosen => {
                "only the owner chooses a version; leave x-cloudserve-version out"
            }
            Self::VersionNotFound => "the function has no such version, or it was never built",
            Self::TooOften { per_second } => {
                return format!(
                    "more than {per_second} calls per second with this credential or, without one, \
                     from this address; slow down"
                )
                .into();
            }
            Self::TooManyUnknown(unknown) => return unknown.to_string().into(),
            Self::QuotaExceeded(exceeded) => return told(exceeded).into(),
            Self::TooMuchUnread { limit_bytes } => {
                return format!(
                    "callers have not read more than {limit_bytes} bytes of what functions of this \
                     account have answered; try again soon"
                )
                .into();
            }
            Self::NotFound => "you have no function with this name",
            Self::NotActive { failed: false } => "the function is being deployed; try again soon",
            Self::NotActive { failed: true } => {
                "the function's first deploy failed; its deployError says why; deploy it again"
            }
            Self::Unavailable => "the service cannot take the call now; try again soon",
        };
        text.into()
    }

    pub(crate) fn into_response(self) -> Response<AnswerBody> {
        #[derive(Serialize)]
        struct Refused<'a> {
            error: Described<'a>,
            message: &'a str,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Described<'a> {
            code: &'static str,
            message: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            execution_id: Option<ExecutionId>,
        }
        let (code, message) = (self.code().name(), self.message());
        // Names the refusal, so that caller and operator can speak of it: there is no row of it.
        let execution_id = (self.status() == StatusCode::TOO_MANY_REQUESTS).then(ExecutionId::new);
        if let Some(id) = execution_id {
            tracing::debug!(execution = %id, code, reason = %message, "a call was refused");
        }
        let error = Described { code, message: &message, execution_id };
        let body = Refused { error, message: &message };
        let mut response = json(self.status(), &body);
        let headers = response.headers_mut();
        if let Some(id) = execution_id {
            let id = HeaderValue::try_from(id.to_string()).expect("digits and hyphens");
            headers.insert(EXECUTION_ID.clone(), id);
        }
        match self {
            Self::Unauthorized => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::NotActive { .. } | Self::TooMuchUnread { .. } | Self::Unavailable => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::TooOften { per_second } => limited(headers, &per_second.to_string(), 1),
            Self::TooManyUnknown(TooManyUnknown { per_second, retry_after }) => {
                let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
                limited(headers, &per_second.to_string(), seconds.max(1));
            }
            Self::QuotaExceeded(Exceeded { limit, resets_at, .. }) => {
                let ms = resets_at.0.saturating_sub(Timestamp::now().0).max(0);
                limited(headers, &limit.to_string(), ms.unsigned_abs().div_ceil(1_000).max(1));
            }
            _ => {}
        }
        response
    }
}

fn told(Exceeded { what, limit, resets_at }: &Exceeded) -> String {
    let what = match what {
        Bound::CallsPerDay => "calls per day",
        Bound::GbSecondsPerMonth => "GB-seconds per month",
    };
    format!("the owner's account has used up its {limit} {what}; it may go on at {resets_at}")
}

/// What is allowed, that nothing of it is left, and in how many seconds there is again.
pub(crate) fn limited(headers: &mut HeaderMap, limit: &str, reset_s: u64) {
    let reset = HeaderValue::from(reset_s);
    if let Ok(limit) = HeaderValue::from_str(limit) {
        headers.insert("ratelimit-limit", limit);
    }
    headers.insert("ratelimit-remaining", HeaderValue::from_static("0"));
    headers.insert("ratelimit-reset", reset.clone());
    headers.insert(RETRY_AFTER, reset);
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
