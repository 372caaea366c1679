//! Who calls. What is not recognised is no error yet: a public function may have bearer tokens,
//! keys and cookies of its own. What has the form of our keys is looked up only so often.
//!
//! The session cookie counts for nothing here, and is kept from functions all the same. Cookies
//! know no ports, so a browser sends the dashboard's to the gateway, and the page of any function
//! shares the gateway's origin: it could call private functions of whoever looks at it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use cloudserve_identity::{
    AuthError, Authenticator, Principal, SESSION_COOKIE, ShownLast, strip_platform_credentials,
};
use cloudserve_store::StoreError;
use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE, HeaderName};

use crate::refusal::Refusal;

/// Headers that keys may come in, beside `authorization`.
static KEYS: [HeaderName; 2] =
    [HeaderName::from_static("x-api-key"), HeaderName::from_static("api-key")];

/// Who calls, as far as we can tell.
#[derive(Debug)]
pub(crate) enum Caller {
    /// No credential of a kind we know.
    Anonymous,
    /// A credential, but none of ours.
    Unrecognised,
    /// A credential that could not be checked.
    Unchecked(StoreError),
    /// An account.
    Known(Arc<Principal>),
}

pub(crate) async fn authenticate(
    authenticator: &Authenticator,
    headers: &HeaderMap,
    last: &ShownLast,
    arrived: Instant,
    address: impl FnOnce() -> Option<IpAddr>,
) -> Result<Caller, Refusal> {
    match authenticator.authenticate_header(headers, last, arrived, address).await {
        Ok(None) => Ok(Caller::Anonymous),
        Ok(Some(principal)) => Ok(Caller::Known(principal)),
        Err(AuthError::Invalid) => Ok(Caller::Unrecognised),
        Err(AuthError::Unavailable(error)) => Ok(Caller::Unchecked(error)),
        Err(AuthError::TooOften(unknown)) => Err(Refusal::TooManyUnknown(unknown)),
    }
}

/// Removes our credentials before the function sees the headers.
pub(crate) fn strip_credentials(
    headers: &mut HeaderMap,
    caller: &Caller,
    authenticator: &Authenticator,
) {
    let keys = KEYS.iter().any(|name| headers.contains_key(name));
    let cookie = headers
        .get_all(COOKIE)
        .iter()
        .any(|value| contains(value.as_bytes(), SESSION_COOKIE.as_bytes()));
    if keys || cookie {
        strip_platform_credentials(headers, authenticator.tokens());
    } else if headers.contains_key(AUTHORIZATION) {
        match caller {
            // It is the only credential there is, and it was taken: ours, without a second look
            // at its signature.
            Caller::Known(_) if headers.get_all(AUTHORIZATION).iter().nth(1).is_none() => {
                headers.remove(AUTHORIZATION);
            }
            _ => strip_platform_credentials(headers, authenticator.tokens()),
        }
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
