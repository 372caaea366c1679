//! Who may call what.
//!
//! An owner sees all of their functions; everyone else sees the public ones and cannot tell a
//! private one from none. The two views are cached apart, so that not even the time an answer
//! takes depends on whether the owner has just used a private function.

use std::sync::Arc;

use cloudserve_identity::{Presented, Principal};
use cloudserve_protocol::call::Target;
use cloudserve_store::account::Scope;
use http::request::Parts;

use crate::authenticate::{Caller, may_be_cross_origin};
use crate::path::RunPath;
use crate::refusal::{Chain, Refusal};
use crate::route::{Entry, LoadError, Routes, View};

/// A call that may be made.
pub(crate) struct Permitted {
    /// What is served.
    pub(crate) target: Arc<Target>,
    /// Whether the caller may see the function's logs in the answer.
    pub(crate) by_owner: bool,
}

pub(crate) async fn authorise(
    routes: &Routes,
    caller: &Caller,
    path: &RunPath<'_>,
    request: &Parts,
) -> Result<Permitted, Refusal> {
    let standing = Standing::of(caller, path, request);
    let view = if matches!(standing, Standing::Owner) { View::Owner } else { View::Stranger };
    match routes.find(view, path).await {
        Ok(Entry::Active(target)) => Ok(Permitted { target, by_owner: view == View::Owner }),
        Ok(Entry::Inactive { failed, .. }) => Err(Refusal::NotActive { failed }),
        Ok(Entry::Absent) => Err(match standing {
            Standing::Owner => Refusal::NotFound,
            Standing::Refused(refusal) => refusal,
        }),
        Err(LoadError::Store(error)) => Err(Refusal::storage(&error)),
        Err(error @ LoadError::Env(_)) => {
            tracing::error!(function = path.key(), error = %Chain(&error), "cannot serve");
            Err(Refusal::Unavailable)
        }
    }
}

enum Standing {
    /// May call everything under this user's name.
    Owner,
    /// May call what is public; anything else is refused like this.
    Refused(Refusal),
}

impl Standing {
    fn of(caller: &Caller, path: &RunPath<'_>, request: &Parts) -> Self {
        match caller {
            Caller::Anonymous | Caller::Unrecognised => Self::Refused(Refusal::Unauthorized),
            Caller::Unchecked(error) => Self::Refused(Refusal::storage(error)),
            Caller::Known { principal, presented } => {
                Self::of_account(principal, *presented, path, request)
            }
        }
    }

    fn of_account(
        principal: &Principal,
        presented: Presented,
        path: &RunPath<'_>,
        request: &Parts,
    ) -> Self {
        if principal.user_name.as_str() != path.user() {
            Self::Refused(Refusal::Forbidden)
        } else if !principal.may(Scope::Invoke) {
            Self::Refused(Refusal::MissingScope)
        } else if presented == Presented::Cookie
            && may_be_cross_origin(&request.method, &request.uri, &request.headers)
        {
            Self::Refused(Refusal::CrossOrigin)
        } else {
            Self::Owner
        }
    }
}
