//! The credential a request presents, and the removal of ours before user code sees the request.
//!
//! Looked at in this order: `Authorization: Bearer`, `x-api-key`, `api-key`, the session cookie.
//! The first that is there counts, on whichever line of its header; a second is not a fallback for a
//! bad first one. All of them are kept from user code, whether they counted or not. The cookie is
//! for the control plane alone: pages of functions share an origin among themselves, and cookies
//! know no ports, so where functions are called a cookie would let any function's page act as the
//! visitor.

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE, HeaderName, HeaderValue};

use crate::api_key::ApiKeySecret;
use crate::session::{SESSION_COOKIE, SessionTokens};

static KEY_HEADERS: [HeaderName; 2] =
    [HeaderName::from_static("x-api-key"), HeaderName::from_static("api-key")];

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
        InHeader::of(headers).map(InHeader::into_credential)
    }
}

/// A credential where it lies.
#[derive(Clone, Copy)]
pub(crate) enum InHeader<'a> {
    Bearer(&'a str),
    Key(&'a str),
}

impl<'a> InHeader<'a> {
    /// See [`Credential::in_header`].
    pub(crate) fn of(headers: &'a HeaderMap) -> Option<Self> {
        bearer(headers).map(Self::Bearer).or_else(|| {
            let key = KEY_HEADERS.iter().find_map(|name| lines(headers, name).next());
            key.map(|key| Self::Key(key.trim()))
        })
    }

    pub(crate) fn text(self) -> &'a str {
        match self {
            Self::Bearer(text) | Self::Key(text) => text,
        }
    }

    pub(crate) fn into_credential(self) -> Credential {
        match self {
            Self::Bearer(text) if !ApiKeySecret::looks_like(text) => {
                Credential::Session(text.to_owned())
            }
            Self::Bearer(key) | Self::Key(key) => Credential::ApiKey(key.to_owned()),
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    lines(headers, &AUTHORIZATION).find_map(|line| {
        let (scheme, token) = line.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    })
}

/// The lines of a header that are text.
fn lines<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok())
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

/// Removes what is ours: tokens we signed and what has the form of our keys, on any line of
/// `authorization` and of the key headers, and the session cookie. What belongs to the function's own
/// users stays: a public function may have its own bearer tokens, keys and cookies.
pub fn strip_platform_credentials(headers: &mut HeaderMap, tokens: &SessionTokens) {
    let is_ours = |text: &[u8]| {
        std::str::from_utf8(text)
            .is_ok_and(|text| ApiKeySecret::looks_like(text) || tokens.is_ours(text))
    };
    // Whatever the scheme before it is.
    let holds_ours = |part: &[u8]| part.split(u8::is_ascii_whitespace).any(is_ours);
    strip(headers, &AUTHORIZATION, holds_ours);
    for name in &KEY_HEADERS {
        strip(headers, name, holds_ours);
    }
    strip(headers, &COOKIE, |cookie| session_token(cookie).is_some_and(is_ours));
}

/// Removes each part that is ours from each line of a header and leaves the others byte for byte:
/// what is in them is the caller's business, and need not be text.
fn strip(headers: &mut HeaderMap, name: &HeaderName, is_ours: impl Fn(&[u8]) -> bool) {
    let mut found = false;
    let kept: Vec<_> = headers
        .get_all(name)
        .into_iter()
        .filter_map(|line| {
            without(line.as_bytes(), |part| {
                let is_ours = is_ours(part);
                found |= is_ours;
                is_ours
            })
        })
        .collect();
    if !found {
        return;
    }
    headers.remove(name);
    for line in kept {
        headers.append(name, line);
    }
}

/// The line without these parts; `None` if nothing else is in it. A part ends at a `;` or a `,`: a
/// proxy may have joined lines.
fn without(line: &[u8], mut is_left_out: impl FnMut(&[u8]) -> bool) -> Option<HeaderValue> {
    let mut kept = Vec::with_capacity(line.len());
    let mut start = 0;
    loop {
        let length = line[start..].iter().position(|b| matches!(b, b';' | b','));
        let end = length.map_or(line.len(), |length| start + length);
        if !is_left_out(&line[start..end]) {
            // With what separates it from the one before it.
            let from = if kept.is_empty() { start } else { start - 1 };
            kept.extend_from_slice(&line[from..end]);
        }
        if end == line.len() {
            break;
        }
        start = end + 1;
    }
    HeaderValue::from_bytes(kept.trim_ascii()).ok().filter(|kept| !kept.is_empty())
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

    #[test]
    fn a_header_of_many_words_is_no_work() {
        let tokens = SessionTokens::new(&Secret::generate().unwrap(), Duration::from_secs(60));
        let words = vec!["a.b.c"; 11_000].join(" ");
        let begun = std::time::Instant::now();
        for _ in 0..500 {
            let mut map = headers(&[("authorization", words.as_str())]);
            strip_platform_credentials(&mut map, &tokens);
            assert_eq!(map.len(), 1);
        }
        assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    }

    #[test]
    fn every_line_and_every_part_of_it_is_judged() {
        let tokens = SessionTokens::new(&Secret::generate().unwrap(), Duration::from_secs(60));
        let session: &str = &tokens.issue(UserId::new());
        let key = ApiKeySecret::generate().unwrap();
        let key = key.reveal();
        let bearer_session: &str = &format!("Bearer {session}");
        let joined: &str = &format!("Basic dTpw, Bearer {key}");
        let ours_first: &str = &format!("Bearer {key}, Basic dTpw");
        let in_the_middle: &str = &format!("a, {key},b");
        let twice: &str = &format!("{key}, {session}");
        let joined_cookies: &str = &format!("a=1, token={session}; b=2");
        let session_cookie: &str = &format!("token={session}");
        let digest = "Digest realm=\"a\", uri=\"/;x\"";
        for (name, before, after) in [
            ("authorization", vec!["Basic dTpw", bearer_session], vec!["Basic dTpw"]),
            ("authorization", vec![bearer_session, "Basic dTpw"], vec!["Basic dTpw"]),
            ("authorization", vec![bearer_session, bearer_session], vec![]),
            ("authorization", vec!["Bearer theirs", bearer_session], vec!["Bearer theirs"]),
            ("authorization", vec![joined], vec!["Basic dTpw"]),
            ("authorization", vec![ours_first], vec!["Basic dTpw"]),
            ("authorization", vec![digest, bearer_session], vec![digest]),
            ("authorization", vec!["Basic dTpw", digest], vec!["Basic dTpw", digest]),
            ("x-api-key", vec!["foo", key], vec!["foo"]),
            ("x-api-key", vec![key, "foo", session, "bar"], vec!["foo", "bar"]),
            ("x-api-key", vec![in_the_middle], vec!["a,b"]),
            ("api-key", vec!["foo", key], vec!["foo"]),
            ("api-key", vec!["foo", twice], vec!["foo"]),
            ("api-key", vec![",a;;b", "c,,"], vec![",a;;b", "c,,"]),
            ("cookie", vec!["a=1", session_cookie], vec!["a=1"]),
            ("cookie", vec!["token=theirs", session_cookie], vec!["token=theirs"]),
            ("cookie", vec![joined_cookies], vec!["a=1; b=2"]),
        ] {
            let entries: Vec<_> = before.iter().map(|value| (name, *value)).collect();
            let mut map = headers(&entries);
            strip_platform_credentials(&mut map, &tokens);
            let left: Vec<_> = map.get_all(name).iter().map(|v| v.to_str().unwrap()).collect();
            assert_eq!(left, after, "{name}: {before:?}");
        }
        // What is no text hides nothing.
        let mut map = HeaderMap::new();
        let line = [&b"\xff, "[..], key.as_bytes()].concat();
        map.insert("x-api-key", HeaderValue::from_bytes(&line).unwrap());
        strip_platform_credentials(&mut map, &tokens);
        assert_eq!(map["x-api-key"].as_bytes(), b"\xff");
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
            (
                vec![
                    ("authorization", "Basic dTpw"),
                    ("authorization", "Bearer abc"),
                    ("authorization", "Bearer def"),
                ],
                Some(("abc", false)),
            ),
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
