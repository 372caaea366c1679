//! Headers on their way in: what the function sees of a request.
//!
//! Hop-by-hop headers, our own names and what callers claim about themselves stay here. The rest
//! goes into one buffer, without an allocation per header.

use std::borrow::Cow;
use std::iter;

use cloudserve_protocol::call::RequestHead;
use cloudserve_protocol::headers::HeaderBlockBuilder;
use cloudserve_protocol::ids::ExecutionId;
use http::header::{CONNECTION, HOST, TE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use uuid::Uuid;

use crate::gateway::Peer;
use crate::path::RunPath;
use crate::trailers::Announced;

/// An execution id in its text form, without an allocation.
#[derive(Clone, Copy)]
pub(crate) struct ExecutionText([u8; 36]);

impl ExecutionText {
    pub(crate) fn of(id: ExecutionId) -> Self {
        let mut text = [0; 36];
        Uuid::from_bytes(*id.as_bytes()).hyphenated().encode_lower(&mut text);
        Self(text)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

pub(crate) fn request_head(
    request: &Parts,
    path: &RunPath<'_>,
    peer: &Peer,
    execution: &ExecutionText,
    trust_forwarded: bool,
    is_upgrade: bool,
) -> RequestHead {
    let authority = request.uri.authority().map(|a| a.as_str().as_bytes());
    let host = authority
        .or_else(|| request.headers.get(HOST).map(HeaderValue::as_bytes))
        .unwrap_or_default();
    let claimed = |name| {
        if !trust_forwarded {
            return None;
        }
        request.headers.get(name).map(HeaderValue::as_bytes)
    };

    let mut block = HeaderBlockBuilder::new();
    block.push(b"host", host);
    let named = NamedByConnection::of(&request.headers);
    for (name, value) in &request.headers {
        if !stays_here(name.as_str(), trust_forwarded) && !named.names(name) {
            block.push(name.as_str().as_bytes(), value.as_bytes());
        }
    }
    if let Some(announced) = Announced::by(&request.headers) {
        block.push(b"trailer", announced.as_bytes());
    }
    if takes_trailers(&request.headers) {
        block.push(b"te", b"trailers");
    }
    if is_upgrade {
        block.push(b"connection", b"Upgrade");
        block.push(b"upgrade", b"websocket");
    }
    let forwarded_for = forwarded_for(&request.headers, peer, trust_forwarded);
    if !forwarded_for.is_empty() {
        block.push(b"x-forwarded-for", &forwarded_for);
    }
    block.push(b"x-forwarded-proto", claimed("x-forwarded-proto").unwrap_or(b"http"));
    block.push(b"x-forwarded-host", claimed("x-forwarded-host").unwrap_or(host));
    block.push(b"x-forwarded-prefix", path.prefix.as_bytes());
    block.push(b"x-cloudserve-execution-id", execution.as_bytes());

    let path_and_query = request.uri.path_and_query().map_or("", |p| p.as_str());
    RequestHead {
        method: name_of(&request.method),
        target: path.target(path_and_query),
        headers: block.finish(),
    }
}

/// The name of a method; of the usual ones without an allocation.
fn name_of(method: &Method) -> Cow<'static, str> {
    let usual = match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => return Cow::Owned(method.as_str().to_owned()),
    };
    Cow::Borrowed(usual)
}

/// Whom the request has passed, the peer last. What the caller says of it may be spread over lines.
fn forwarded_for<'a>(
    headers: &'a HeaderMap,
    peer: &'a Peer,
    trust_forwarded: bool,
) -> Cow<'a, [u8]> {
    let peer = peer.as_str().as_bytes();
    if !trust_forwarded {
        return Cow::Borrowed(peer);
    }
    let mut lines = headers.get_all("x-forwarded-for").iter().map(HeaderValue::as_bytes);
    let Some(first) = lines.next() else { return Cow::Borrowed(peer) };
    let all = iter::once(first).chain(lines).chain([peer]);
    let named: Vec<_> = all.filter(|line| !line.is_empty()).collect();
    Cow::Owned(named.join(&b", "[..]))
}

/// Headers that describe a connection and not a message.
pub(crate) fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    ) || name.starts_with("proxy-")
}

/// What is not the function's to see, or not the caller's to say.
pub(crate) fn stays_here(name: &str, trust_forwarded: bool) -> bool {
    is_hop_by_hop(name)
        || name == "host"
        || name.starts_with("x-cloudserve-")
        || name.starts_with("x-forwarded-")
        || (!trust_forwarded && matches!(name, "forwarded" | "x-real-ip"))
}

/// Headers of a request that its `connection` header declares to be hop-by-hop. It may name thousands,
/// and is looked through once.
struct NamedByConnection(HeaderMap<()>);

impl NamedByConnection {
    fn of(headers: &HeaderMap) -> Self {
        let mut named = HeaderMap::default();
        for token in connection_tokens(headers) {
            let is_name =
                ![&b"keep-alive"[..], b"close"].iter().any(|t| token.eq_ignore_ascii_case(t));
            if is_name
                && let Ok(name) = HeaderName::from_bytes(token)
                && headers.contains_key(&name)
            {
                named.insert(name, ());
            }
        }
        Self(named)
    }

    fn names(&self, name: &HeaderName) -> bool {
        self.0.contains_key(name)
    }
}

pub(crate) fn connection_tokens(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    tokens(headers, &CONNECTION)
}

/// The members of a list, however many headers it is spread over.
pub(crate) fn tokens<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a [u8]> {
    headers
        .get_all(name)
        .into_iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b','))
        .map(<[u8]>::trim_ascii)
}

/// Whether the caller wants to hear what comes after an answer's body.
fn takes_trailers(headers: &HeaderMap) -> bool {
    tokens(headers, &TE).any(|token| token.eq_ignore_ascii_case(b"trailers"))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use http::Request;

    use super::*;

    fn head_of(headers: &[(&str, &str)], trust_forwarded: bool) -> Vec<(String, String)> {
        let mut request = Request::get("/run/alice/hello/x?y=1");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let path = RunPath::parse(parts.uri.path()).unwrap();
        let execution = ExecutionText::of(ExecutionId::from_bytes([0x11; 16]));
        let peer = Peer::from(IpAddr::from([10, 0, 0, 9]));
        let head = request_head(&parts, &path, &peer, &execution, trust_forwarded, false);
        assert_eq!(head.method, "GET");
        assert_eq!(head.target, "/x?y=1");
        let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
        head.headers.iter().map(|(n, v)| (text(n), text(v))).collect()
    }

    #[test]
    fn only_the_message_passes() {
        let got = head_of(
            &[
                ("host", "example.test"),
                ("connection", "keep-alive, X-Private"),
                ("x-private", "1"),
                ("te", "trailers"),
                ("transfer-encoding", "chunked"),
                ("upgrade", "h2c"),
                ("proxy-authorization", "Basic x"),
                ("x-cloudserve-execution-id", "spoofed"),
                ("x-forwarded-for", "1.2.3.4"),
                ("x-forwarded-proto", "https"),
                ("trailer", "x-sum, content-length"),
                ("x-kept", "a"),
                ("x-kept", "b"),
            ],
            false,
        );
        let expected = [
            ("host", "example.test"),
            ("x-kept", "a"),
            ("x-kept", "b"),
            ("trailer", "x-sum"),
            ("te", "trailers"),
            ("x-forwarded-for", "10.0.0.9"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "example.test"),
            ("x-forwarded-prefix", "/run/alice/hello"),
            ("x-cloudserve-execution-id", "11111111-1111-1111-1111-111111111111"),
        ];
        assert_eq!(got, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }

    #[test]
    fn a_connection_header_takes_time_by_its_length() {
        let tokens = vec!["a"; 32_000].join(",") + ",X-50";
        let names: Vec<_> = (0..99).map(|n| format!("x-{n}")).collect();
        let mut headers: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
        headers.push(("connection", tokens.as_str()));
        let begun = std::time::Instant::now();
        for _ in 0..100 {
            let got = head_of(&headers, false);
            assert_eq!(got.iter().filter(|(name, _)| name.starts_with("x-")).count(), 98 + 5);
            assert!(!got.iter().any(|(name, _)| name == "x-50"));
        }
        assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    }

    #[test]
    fn a_trusted_proxy_is_believed() {
        let got = head_of(
            &[
                ("host", "inner"),
                ("x-forwarded-for", "1.2.3.4, 5.6.7.8"),
                ("x-forwarded-for", "9.9.9.9"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "outer.test"),
            ],
            true,
        );
        for expected in [
            ("host", "inner"),
            ("x-forwarded-for", "1.2.3.4, 5.6.7.8, 9.9.9.9, 10.0.0.9"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "outer.test"),
        ] {
            let values: Vec<_> = got.iter().filter(|(n, _)| n == expected.0).collect();
            assert_eq!(values.len(), 1, "{expected:?}");
            assert_eq!(values[0].1, expected.1);
        }
    }
}
