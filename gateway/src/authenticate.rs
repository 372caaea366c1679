//! Who calls. What is not recognised is no error yet: a public function may have bearer tokens,
//! keys and cookies of its own.

use std::sync::Arc;

use cloudserve_identity::{
    AuthError, Authenticator, Presented, Principal, SESSION_COOKIE, strip_platform_credentials,
};
use cloudserve_store::StoreError;
use http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN};
use http::{HeaderMap, Method, Uri};

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
    Known {
        /// Which.
        principal: Arc<Principal>,
        /// How its credential came.
        presented: Presented,
    },
}

pub(crate) async fn authenticate(authenticator: &Authenticator, headers: &HeaderMap) -> Caller {
    match authenticator.authenticate(headers).await {
        Ok(None) => Caller::Anonymous,
        Ok(Some((principal, presented))) => Caller::Known { principal, presented },
        Err(AuthError::Invalid) => Caller::Unrecognised,
        Err(AuthError::Unavailable(error)) => Caller::Unchecked(error),
    }
}

/// Removes our credentials before the function sees the headers.
pub(crate) fn strip_credentials(
    headers: &mut HeaderMap,
    caller: &Caller,
    authenticator: &Authenticator,
) {
    let keys = headers.contains_key("x-api-key") || headers.contains_key("api-key");
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
            Caller::Known { presented: Presented::Header, .. } => {
                headers.remove(AUTHORIZATION);
            }
            _ => strip_platform_credentials(headers, authenticator.tokens()),
        }
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Whether a request that carries the session cookie may be another site's doing.
///
/// Browsers say where a request comes from in `Sec-Fetch-Site`, older ones in `Origin`. A request
/// with neither comes from no browser, so no browser added the cookie to it.
pub(crate) fn may_be_cross_origin(method: &Method, uri: &Uri, headers: &HeaderMap) -> bool {
    if method.is_safe() {
        return false;
    }
    if let Some(site) = headers.get("sec-fetch-site") {
        return site != "same-origin" && site != "none";
    }
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let host = match uri.authority() {
        Some(authority) => Some(authority.as_str().as_bytes()),
        None => headers.get(HOST).map(http::HeaderValue::as_bytes),
    };
    let origin = origin.as_bytes();
    let claimed = [&b"http://"[..], b"https://"].iter().find_map(|s| origin.strip_prefix(*s));
    !matches!((claimed, host), (Some(a), Some(b)) if a.eq_ignore_ascii_case(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &Method, headers: &[(&'static str, &'static str)], cross: bool) {
        let map = headers.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect();
        let got = may_be_cross_origin(method, &Uri::from_static("/run/a/b"), &map);
        assert_eq!(got, cross, "{method} {headers:?}");
    }

    #[test]
    fn only_the_same_origin_may_use_the_cookie_to_change_things() {
        let host = ("host", "127.0.0.1:8081");
        check(&Method::POST, &[host, ("origin", "http://127.0.0.1:8081")], false);
        check(&Method::POST, &[host, ("origin", "http://127.0.0.1:8080")], true);
        check(&Method::POST, &[host, ("origin", "http://evil.example")], true);
        check(&Method::POST, &[host, ("origin", "null")], true);
        check(&Method::GET, &[host, ("origin", "http://evil.example")], false);
        check(&Method::POST, &[host, ("sec-fetch-site", "same-origin")], false);
        check(&Method::DELETE, &[host, ("sec-fetch-site", "same-site")], true);
        check(&Method::POST, &[host, ("sec-fetch-site", "cross-site")], true);
        check(&Method::POST, &[host], false);
    }
}
