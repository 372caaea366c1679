//! Who may call what.
//!
//! An owner sees all of their functions; everyone else sees the public ones and cannot tell a
//! private one from none. The two views are cached apart, so that not even the time an answer
//! takes depends on whether the owner has just used a private function.
//!
//! An owner may name the version to call; others get what is served.

use std::sync::Arc;
use std::time::Instant;

use cloudserve_identity::Principal;
use cloudserve_protocol::call::Target;
use cloudserve_protocol::fault::Chain;
use cloudserve_store::StoreError;
use cloudserve_store::account::Scope;
use http::header::{HeaderName, HeaderValue};
use http::request::Parts;

use crate::authenticate::Caller;
use crate::path::RunPath;
use crate::quota::Allowance;
use crate::refusal::Refusal;
use crate::route::{Entry, FoundLast, LoadError, Routes, View};

static VERSION: HeaderName = HeaderName::from_static("x-cloudserve-version");

/// A call that may be made.
pub(crate) struct Permitted {
    /// What is served.
    pub(crate) target: Arc<Target>,
    /// What its owner may use.
    pub(crate) allowance: Arc<Allowance>,
    /// Whether the caller may see the function's logs in the answer.
    pub(crate) may_read_logs: bool,
}

pub(crate) async fn authorise(
    routes: &Routes,
    caller: &Caller,
    path: &RunPath<'_>,
    request: &Parts,
    last: &FoundLast,
    arrived: Instant,
) -> Result<Permitted, Refusal> {
    let mut standing = Standing::of(caller, path);
    let mut view =
        if matches!(standing, Standing::Owner(_)) { View::Owner } else { View::Stranger };
    let mut found = routes.find(view, path, last, arrived).await;
    let is_of_other_keys = match (&standing, &found) {
        (Standing::Owner(principal), Ok(entry)) => {
            entry.function_id().is_some_and(|id| !principal.may_use(id))
        }
        _ => false,
    };
    if is_of_other_keys {
        // What is public is for everyone, whatever they show.
        (standing, view) = (Standing::Refused(Refusal::OtherFunction), View::Stranger);
        found = routes.find(view, path, last, arrived).await;
    }
    match found {
        Ok(Entry::Active(target, allowance)) => {
            let target = match request.headers.get(&VERSION) {
                None => target,
                Some(_) if view != View::Owner => return Err(Refusal::VersionChosen),
                Some(version) => chosen(routes, path, &target, version).await?,
            };
            // A key that is for calls alone may be in the hands of those who call.
            let may_read_logs =
                matches!(standing, Standing::Owner(principal) if principal.may(Scope::Read));
            Ok(Permitted { target, allowance, may_read_logs })
        }
        Ok(Entry::Inactive { failed, .. }) => Err(Refusal::NotActive { failed }),
        Ok(Entry::Absent) => Err(match standing {
            Standing::Owner(_) => Refusal::NotFound,
            Standing::Refused(refusal) => refusal,
            Standing::Unchecked(error) => Refusal::storage(error),
        }),
        Err(error) => Err(not_loaded(path, &error)),
    }
}

fn not_loaded(path: &RunPath<'_>, error: &LoadError) -> Refusal {
    match error {
        LoadError::Store(error) => Refusal::storage(error),
        LoadError::Env(_) => {
            tracing::error!(function = path.key(), error = %Chain(error), "cannot serve");
            Refusal::Unavailable
        }
    }
}

/// The version the owner names in place of the one that is served.
async fn chosen(
    routes: &Routes,
    path: &RunPath<'_>,
    served: &Arc<Target>,
    version: &HeaderValue,
) -> Result<Arc<Target>, Refusal> {
    let number = version.to_str().ok().and_then(|text| text.trim().parse().ok());
    let number: u32 = number.ok_or(Refusal::VersionNotFound)?;
    if number == served.version {
        return Ok(served.clone());
    }
    match routes.version(served, number).await {
        Ok(Some(target)) => Ok(target),
        Ok(None) => Err(Refusal::VersionNotFound),
        Err(error) => Err(not_loaded(path, &error)),
    }
}

enum Standing<'a> {
    /// May call everything under this user's name, as far as its key is for it.
    Owner(&'a Principal),
    /// May call what is public; anything else is refused like this.
    Refused(Refusal),
    /// May call what is public; whether anything else as well could not be found out.
    Unchecked(&'a StoreError),
}

impl<'a> Standing<'a> {
    fn of(caller: &'a Caller, path: &RunPath<'_>) -> Self {
        match caller {
            Caller::Anonymous | Caller::Unrecognised => Self::Refused(Refusal::Unauthorized),
            Caller::Unchecked(error) => Self::Unchecked(error),
            Caller::Known(principal) => Self::of_account(principal, path),
        }
    }

    fn of_account(principal: &'a Principal, path: &RunPath<'_>) -> Self {
        if principal.user_name.as_str() != path.user() {
            Self::Refused(Refusal::Forbidden)
        } else if !principal.may(Scope::Invoke) {
            Self::Refused(Refusal::MissingScope)
        } else {
            Self::Owner(principal)
        }
    }
}
