//! The fields of a JSON object, read one by one so that everything that is wrong with a request is
//! said at once, by the name of the field.

use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::body;
use super::problem::Problem;
use crate::app::App;
use crate::app::refusal::{FieldErrors, Refusal};
use crate::json;

/// Bodies above this are parsed off the async threads.
const LONG_BODY_BYTES: usize = 64 * 1024;

/// Values of a body, as [`json::read`] counts them: more than any environment has. Anybody may send one,
/// and many at the same time.
const MAX_VALUES: usize = 70_000;

/// Fields that were not read yet, and what was wrong with those that were.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    left: Map<String, Value>,
    errors: FieldErrors,
}

impl Fields {
    /// A field that must be there. `None`: it is noted what is wrong.
    pub(crate) fn required<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        if matches!(self.left.get(name), None | Some(Value::Null)) {
            self.left.remove(name);
            self.wrong(name, "is missing");
            return None;
        }
        self.optional(name)
    }

    /// A field that may be left out or null.
    pub(crate) fn optional<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        match serde_json::from_value(self.value(name)?) {
            Ok(value) => Some(value),
            Err(error) => {
                self.wrong(name, error.to_string());
                None
            }
        }
    }

    /// The value of a field that may be left out or null.
    pub(crate) fn value(&mut self, name: &str) -> Option<Value> {
        self.left.remove(name).filter(|value| !value.is_null())
    }

    /// Whether the field is there and not yet read.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.left.get(name).is_some_and(|value| !value.is_null())
    }

    /// A field that must not be there.
    pub(crate) fn refuse(&mut self, name: &str, message: &str) {
        if self.left.remove(name).is_some() {
            self.wrong(name, message);
        }
    }

    /// Notes what is wrong with a field.
    pub(crate) fn wrong(&mut self, name: impl Into<String>, message: impl Into<String>) {
        self.errors.entry(name.into()).or_insert_with(|| message.into());
    }

    /// Takes a value of which parts were read apart; `None` only if something was noted.
    pub(crate) fn finish<T>(mut self, value: Option<T>) -> Result<T, Problem> {
        for name in std::mem::take(&mut self.left).into_iter().map(|(name, _)| name).take(20) {
            // A name of 1 MB is no help in a message.
            let name: String = name.chars().take(64).collect();
            self.wrong(name, "is no field of this request");
        }
        match value {
            Some(value) if self.errors.is_empty() => Ok(value),
            _ => Err(Refusal::Invalid(self.errors).into()),
        }
    }

    /// Reads a body that must be a JSON object, of so many values.
    pub(super) async fn parse(
        bytes: axum::body::Bytes,
        max_values: usize,
    ) -> Result<Self, Problem> {
        if bytes.len() > LONG_BODY_BYTES {
            tokio::task::spawn_blocking(move || Self::parse_now(&bytes, max_values))
                .await
                .map_err(|error| Problem::from(Refusal::internal(error)))?
        } else {
            Self::parse_now(&bytes, max_values)
        }
    }

    fn parse_now(bytes: &[u8], max_values: usize) -> Result<Self, Problem> {
        let text = std::str::from_utf8(bytes).map_err(|_| Problem::not_utf8())?;
        match json::read(text, max_values) {
            Ok(Value::Object(left)) => Ok(Self { left, errors: FieldErrors::new() }),
            Ok(_) => Err(Refusal::field("body", "must be a JSON object").into()),
            Err(error) => Err(Problem::invalid_json(&error)),
        }
    }
}

impl FromRequest<Arc<App>> for Fields {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        require_json(&parts.headers)?;
        let options = &app.options;
        let read = body::read(body, options.limits.api_body_bytes, options.body_read());
        Self::parse(read.await?, MAX_VALUES).await
    }
}

/// JSON, by any of its names. Other types are refused, and with them what a form on another site
/// can send.
pub(super) fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    match body::media_type(headers) {
        Some(kind) if kind == "application/json" || kind.ends_with("+json") => Ok(()),
        _ => Err(Problem::unsupported_media_type("application/json")),
    }
}
