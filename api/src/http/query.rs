//! Query strings and ids in paths.

use std::collections::HashMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::Uri;
use axum::http::request::Parts;
use cloudserve_protocol::ids::{ApiKeyId, FunctionId};
use cloudserve_store::Timestamp;

use super::problem::Problem;
use crate::app::refusal::{FieldErrors, Refusal};

/// Wrong parameters that are told of one query string, and characters of their names.
const MAX_WRONG: usize = 20;
const MAX_NAME_CHARS: usize = 64;

/// The parameters of a query string. Ones nobody reads are ignored, as usual on the web.
pub(crate) struct Parameters(HashMap<String, String>);

impl Parameters {
    pub(super) fn of(uri: &Uri) -> Result<Self, Problem> {
        let Query(parameters) = Query::try_from_uri(uri)
            .map_err(|_| Problem::from(Refusal::field("query", "is not a query string")))?;
        Ok(Self(parameters))
    }

    /// Refuses all but these, for the reason that is given.
    pub(super) fn only(&self, known: &[&str], otherwise: &str) -> Result<(), Problem> {
        let others = self.0.keys().filter(|name| !known.contains(&name.as_str()));
        let wrong: FieldErrors = others
            .take(MAX_WRONG)
            .map(|name| (name.chars().take(MAX_NAME_CHARS).collect(), otherwise.to_owned()))
            .collect();
        if wrong.is_empty() { Ok(()) } else { Err(Refusal::Invalid(wrong).into()) }
    }

    /// A parameter as it is.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A parameter that must have the form of a `T` if it is there.
    pub(crate) fn parsed<T>(&self, name: &str) -> Result<Option<T>, Problem>
    where
        T: FromStr<Err: Display>,
    {
        let parse = |text: &str| {
            text.parse().map_err(|error: T::Err| Refusal::field(name, error.to_string()).into())
        };
        self.text(name).map(parse).transpose()
    }

    /// `true` or `false`; false if it is not there.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.text(name) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1" | "") => Ok(true),
            Some(_) => Err(Refusal::field(name, "must be true or false").into()),
        }
    }

    /// How many entries a page is to have.
    pub(crate) fn limit(&self, default: u32, max: u32) -> Result<u32, Problem> {
        self.count("limit", default, max)
    }

    /// How many of something there are to be: at least one.
    pub(crate) fn count(&self, name: &str, default: u32, max: u32) -> Result<u32, Problem> {
        match self.text(name).map(str::parse) {
            None => Ok(default),
            Some(Ok(count)) if (1..=max).contains(&count) => Ok(count),
            Some(_) => {
                let wrong = format!("must be a number between 1 and {max}");
                Err(Refusal::field(name, wrong).into())
            }
        }
    }

    /// Whole seconds, at most `max`; 0 if it is not there.
    pub(crate) fn seconds(&self, name: &str, max: u32) -> Result<Duration, Problem> {
        match self.text(name).map(str::parse::<u32>) {
            None => Ok(Duration::ZERO),
            Some(Ok(seconds)) if seconds <= max => Ok(Duration::from_secs(seconds.into())),
            Some(_) => {
                let wrong = format!("must be a number of seconds between 0 and {max}");
                Err(Refusal::field(name, wrong).into())
            }
        }
    }

    /// An instant, or a day for its first instant (UTC).
    pub(crate) fn time(&self, name: &str) -> Result<Option<Timestamp>, Problem> {
        // The `+` of a zone that was not escaped has arrived as a blank.
        let with_plus = |text: &str| {
            let (time, zone) = text.rsplit_once(' ')?;
            Timestamp::parse(&format!("{time}+{zone}"))
        };
        let parse = |text: &str| {
            Timestamp::parse(text)
                .or_else(|| Timestamp::parse(&format!("{text}T00:00:00Z")))
                .or_else(|| with_plus(text))
                .ok_or_else(|| Refusal::field(name, "must be an RFC 3339 time or a date").into())
        };
        self.text(name).map(parse).transpose()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::of(&parts.uri)
    }
}

async fn id_in_path<T, S>(
    parts: &mut Parts,
    state: &S,
    otherwise: fn() -> Refusal,
) -> Result<T, Problem>
where
    T: FromStr,
    S: Send + Sync,
{
    // What is no id names nothing, just as an id nobody has.
    let text = Path::<String>::from_request_parts(parts, state).await.ok();
    text.and_then(|Path(text)| text.parse().ok()).ok_or_else(|| otherwise().into())
}

/// The function a path names.
pub(crate) struct OfFunction(pub(crate) FunctionId);

impl<S: Send + Sync> FromRequestParts<S> for OfFunction {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        id_in_path(parts, state, || Refusal::FunctionNotFound).await.map(Self)
    }
}

/// The version of a function that a path names.
pub(crate) struct OfVersion(pub(crate) FunctionId, pub(crate) u32);

impl<S: Send + Sync> FromRequestParts<S> for OfVersion {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let named = Path::<(String, String)>::from_request_parts(parts, state).await;
        let Path((id, version)) = named.map_err(|_| Refusal::FunctionNotFound)?;
        let id = id.parse().map_err(|_| Refusal::FunctionNotFound)?;
        Ok(Self(id, version.parse().map_err(|_| Refusal::VersionNotFound)?))
    }
}

/// The API key a path names.
pub(crate) struct OfApiKey(pub(crate) ApiKeyId);

impl<S: Send + Sync> FromRequestParts<S> for OfApiKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        id_in_path(parts, state, || Refusal::ApiKeyNotFound).await.map(Self)
    }
}
