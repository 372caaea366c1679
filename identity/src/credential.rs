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
    /// The credential of this request, if it presents one. Of several session cookies the first that
    /// we signed counts.
    #[must_use]
    pub fn of(headers: &HeaderMap, tokens: &SessionTokens) -> Option<(Self, Presented)> {
        Self::in_header(headers).map(|credential| (credential, Presented::Header)).or_else(|| {
            let signed = session_cookies(headers).find(|token| tokens.is_ours(token));
            let token = signed.or_else(|| session_cookies(headers).next())?;
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

/// The session tokens among the cookies. More than one, if a page has set cookies of that name for
/// other paths: which one is ours, their order does not say.
fn session_cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(COOKIE)
        .into_iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b';'))
        .filter_map(|cookie| std::str::from_utf8(session_token(cookie)?).ok())
}

/// The value of this cookie, if it has the name of the session's.
fn session_token(cookie: &[u8]) -> Option<&[u8]> {
    let cookie = cookie.trim_ascii();
    let value = cookie.strip_prefix(SESSION_COOKIE.as_bytes())?.strip_prefix(b"=")?;
    Some(value.trim_ascii())
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
    if session_cookies(headers).any(is_ours) {
        strip_session_cookies(headers, is_ours);
    }
}

/// Removes each cookie that is ours and leaves the others byte for byte: what is in them is the
/// page's business, and need not be text.
fn strip_session_cookies(headers: &mut HeaderMap, is_ours: impl Fn(&str) -> bool) {
    let stays = |cookie: &&[u8]| {
        session_token(cookie).and_then(|t| std::str::from_utf8(t).ok()).is_none_or(|t| !is_ours(t))
    };
    let kept: Vec<_> = headers
        .get_all(COOKIE)
        .into_iter()
        .map(|value| {
            let cookies = value.as_bytes().split(|b| *b == b';').filter(stays);
            cookies.collect::<Vec<_>>().join(&b';')
        })
        .filter_map(|kept| HeaderValue::from_bytes(kept.trim_ascii()).ok())
        .filter(|kept| !kept.is_empty())
        .collect();
    headers.remove(COOKIE);
    for value in kept {
        headers.append(COOKIE, value);
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
        let after_another = format!("token=x; token={session}; b=2");
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
            (("cookie", &after_another), Some("token=x; b=2")),
        ] {
            let mut map = headers(&[before]);
            strip_platform_credentials(&mut map, &tokens);
            assert_eq!(map.get(before.0).map(|v| v.to_str().unwrap()), after, "{before:?}");
        }
    }

    /// A page of a function can set any cookie for its own path, and browsers send that first.
    #[test]
    fn no_other_cookie_hides_the_session() {
        let tokens = SessionTokens::new(&Secret::generate().unwrap(), Duration::from_secs(60));
        let session = format!("token={}", tokens.issue(UserId::new()));
        let not_text: &[u8] = b"a=\xc3\xa9\xff";
        for (before, after) in [
            ([not_text, b"; ", session.as_bytes()].concat(), vec![not_text]),
            ([session.as_bytes(), b";", not_text].concat(), vec![not_text]),
            ([&b"token=\xff; "[..], session.as_bytes()].concat(), vec![&b"token=\xff"[..]]),
            ([&b"b=1;  "[..], session.as_bytes(), b" ; c=2"].concat(), vec![b"b=1; c=2"]),
        ] {
            let mut map = HeaderMap::new();
            map.insert(COOKIE, HeaderValue::from_bytes(&before).unwrap());
            strip_platform_credentials(&mut map, &tokens);
            let left: Vec<_> = map.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
            assert_eq!(left, after, "{}", before.escape_ascii());
        }
        let mut map = headers(&[("a", "1")]);
        for cookie in ["x=1", &session, "y=2"] {
            map.append(COOKIE, cookie.parse().unwrap());
        }
        strip_platform_credentials(&mut map, &tokens);
        assert_eq!(map.get_all(COOKIE).iter().collect::<Vec<_>>(), ["x=1", "y=2"]);
    }

    #[test]
    fn the_first_credential_counts() {
        let tokens = SessionTokens::new(&Secret::generate().unwrap(), Duration::from_secs(60));
        let signed = tokens.issue(UserId::new());
        let behind_another = format!("token=abc; token={signed}");
        for (presented, expected) in [
            (vec![("authorization", "Bearer abc"), ("cookie", "token=def")], Some(("abc", false))),
            (vec![("authorization", "Basic dTpw")], None),
            (vec![("cookie", "token=abc; token=def")], Some(("abc", true))),
            (vec![("cookie", behind_another.as_str())], Some((signed.as_str(), true))),
        ] {
            let found = Credential::of(&headers(&presented), &tokens);
            let found = found.as_ref().map(|(credential, presented)| match credential {
                Credential::Session(text) => (text.as_str(), *presented == Presented::Cookie),
                Credential::ApiKey(_) => panic!("no API key was presented"),
            });
            assert_eq!(found, expected, "{presented:?}");
        }
    }
}
