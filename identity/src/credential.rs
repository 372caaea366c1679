//! The credential a request presents, and the removal of ours before user code sees the request.
//!
//! Looked at in this order: `Authorization: Bearer`, `x-api-key`, `api-key`, the session cookie.
//! The first that is there counts; a second is not a fallback for a bad first one. The cookie is
//! for the control plane alone: pages of functions share an origin among themselves, and cookies
//! know no ports, so where functions are called a cookie would let any function's page act as the
//! visitor.

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE, HeaderValue};

use crate::api_key::ApiKeySecret;
use crate::session::{SESSION_COOKIE, SessionTokens};

const KEY_HEADERS: [&str; 2] = ["x-api-key", "api-key"];

/// A credential, not yet checked.
#[derive(Clone)]
pub enum Credential {
    /// A session token.
    Session(String),
    /// An API key.
    ApiKey(String),
}

/// How a credential came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presented {
    /// In a header the caller's code set.
    Header,
    /// In a cookie, which a browser also sends when another site causes the request.
    Cookie,
}

impl Credential {
    /// The credential of this request, if it presents one.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<(Self, Presented)> {
        Self::in_header(headers).map(|credential| (credential, Presented::Header)).or_else(|| {
            let token = session_cookie(headers)?;
            Some((Self::Session(token.to_owned()), Presented::Cookie))
        })
    }

    /// The credential of this request, if it presents one in a header of its own.
    #[must_use]
    pub fn in_header(headers: &HeaderMap) -> Option<Self> {
        bearer(headers).map(Self::from_bearer).or_else(|| {
            KEY_HEADERS
                .iter()
                .find_map(|name| headers.get(*name)?.to_str().ok())
                .map(|key| Self::ApiKey(key.trim().to_owned()))
        })
    }

    fn from_bearer(text: &str) -> Self {
        if ApiKeySecret::looks_like(text) {
            Self::ApiKey(text.to_owned())
        } else {
            Self::Session(text.to_owned())
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(COOKIE)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .map(str::trim)
}

fn session_cookie(headers: &HeaderMap) -> Option<&str> {
    cookies(headers).find_map(|cookie| {
        let (name, value) = cookie.split_once('=')?;
        (name == SESSION_COOKIE).then_some(value)
    })
}

/// Removes what is ours: a bearer token we signed or that has the form of our keys, key headers
/// that hold such a key, and the session cookie. What belongs to the function's own users stays:
/// a public function may have its own bearer tokens, keys and cookies.
pub fn strip_platform_credentials(headers: &mut HeaderMap, tokens: &SessionTokens) {
    let is_ours = |text: &str| ApiKeySecret::looks_like(text) || tokens.is_ours(text);
    if bearer(headers).is_some_and(is_ours) {
        headers.remove(AUTHORIZATION);
    }
    for name in KEY_HEADERS {
        if headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim).is_some_and(is_ours) {
            headers.remove(name);
        }
    }
    if session_cookie(headers).is_some_and(is_ours) {
        let own_prefix = format!("{SESSION_COOKIE}=");
        let kept: Vec<_> = cookies(headers).filter(|c| !c.starts_with(&own_prefix)).collect();
        let kept = HeaderValue::from_str(&kept.join("; ")).ok().filter(|v| !v.is_empty());
        headers.remove(COOKIE);
        if let Some(kept) = kept {
            headers.insert(COOKIE, kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cloudserve_protocol::ids::UserId;

    use super::*;
    use crate::secret::Secret;

    fn headers(entries: &[(&'static str, &str)]) -> HeaderMap {
        entries.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect()
    }

    #[test]
    fn ours_is_removed_and_the_functions_own_stays() {
        let tokens = SessionTokens::new(&Secret::generate().unwrap(), Duration::from_secs(60));
        let session = tokens.issue(UserId::new());
        let key = ApiKeySecret::generate().unwrap();
        let bearer_session = format!("Bearer {session}");
        let bearer_key = format!("bearer {}", key.reveal());
        let cookie = format!("a=1; token={session}; b=2");
        let only_cookie = format!("token={session}");
        for (before, after) in [
            (("authorization", bearer_session.as_str()), None),
            (("authorization", &bearer_key), None),
            (("x-api-key", key.reveal()), None),
            (("api-key", key.reveal()), None),
            (("cookie", &cookie), Some("a=1; b=2")),
            (("cookie", &only_cookie), None),
            (("authorization", "Bearer someone-elses"), Some("Bearer someone-elses")),
            (("authorization", "Basic dTpw"), Some("Basic dTpw")),
            (("x-api-key", "the functions own"), Some("the functions own")),
            (("cookie", "token=the-functions-own"), Some("token=the-functions-own")),
        ] {
            let mut map = headers(&[before]);
            strip_platform_credentials(&mut map, &tokens);
            assert_eq!(map.get(before.0).map(|v| v.to_str().unwrap()), after, "{before:?}");
        }
    }

    #[test]
    fn the_first_credential_counts() {
        let map = headers(&[("authorization", "Bearer abc"), ("cookie", "token=def")]);
        let Some((Credential::Session(text), Presented::Header)) = Credential::of(&map) else {
            panic!("no session credential in a header");
        };
        assert_eq!(text, "abc");
        assert!(Credential::of(&headers(&[("authorization", "Basic dTpw")])).is_none());
    }
}
