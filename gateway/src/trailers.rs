//! Trailers: what a message says after its body. Those pass that the message has announced in its
//! `trailer` header, but for names that frame, route or authenticate a message.

use cloudserve_protocol::headers::HeaderBlock;
use http::HeaderMap;
use http::header::{HeaderName, TRAILER};

use crate::head::{stays_here, tokens};

/// The names that may come after a body, as its `trailer` header has them.
pub(crate) struct Announced(Vec<u8>);

impl Announced {
    /// `None` if there are none that may come.
    pub(crate) fn by(headers: &HeaderMap) -> Option<Self> {
        let mut names = Vec::new();
        for name in tokens(headers, &TRAILER) {
            let Ok(name) = HeaderName::from_bytes(name) else { continue };
            if may_trail(name.as_str()) {
                if !names.is_empty() {
                    names.extend_from_slice(b", ");
                }
                names.extend_from_slice(name.as_str().as_bytes());
            }
        }
        (!names.is_empty()).then_some(Self(names))
    }

    /// What a request head has let through already.
    pub(crate) fn in_head(headers: &HeaderBlock) -> Option<Self> {
        headers.get(TRAILER.as_str()).map(|names| Self(names.to_vec()))
    }

    /// The value of the `trailer` header.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What of a message's trailers was announced; `None` if nothing was.
    pub(crate) fn select(&self, trailers: &HeaderMap) -> Option<HeaderBlock> {
        let block: HeaderBlock = trailers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .filter(|(name, _)| {
                self.0.split(|b| *b == b',').any(|known| known.trim_ascii() == name.as_bytes())
            })
            .collect();
        (!block.as_bytes().is_empty()).then_some(block)
    }
}

/// What no header may be, and RFC 9110, 6.5.1.
fn may_trail(name: &str) -> bool {
    !(stays_here(name, false)
        || name.starts_with("content-")
        || name.starts_with("if-")
        || matches!(
            name,
            "api-key"
                | "authorization"
                | "cache-control"
                | "cookie"
                | "expect"
                | "max-forwards"
                | "range"
                | "set-cookie"
                | "x-api-key"
        ))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_was_announced_passes_but_for_what_acts_on_the_message() {
        let mut headers = HeaderMap::new();
        let announced =
            "X-Sum, content-length, Authorization, api-key, x-cloudserve-cold, , bad name";
        headers.append(TRAILER, HeaderValue::from_static(announced));
        headers.append(TRAILER, HeaderValue::from_static("x-more"));
        let announced = Announced::by(&headers).unwrap();
        assert_eq!(announced.as_bytes(), b"x-sum, x-more");

        let mut trailers = HeaderMap::new();
        for (name, value) in [("x-sum", "1"), ("x-sum", "2"), ("authorization", "b"), ("x", "y")] {
            trailers.append(name, HeaderValue::from_static(value));
        }
        let passed = announced.select(&trailers).unwrap();
        let passed: Vec<_> = passed.iter().collect();
        assert_eq!(passed, [(&b"x-sum"[..], &b"1"[..]), (b"x-sum", b"2")]);
        trailers.remove("x-sum");
        assert!(announced.select(&trailers).is_none());
    }

    #[test]
    fn nothing_announced_is_nothing() {
        assert!(Announced::by(&HeaderMap::new()).is_none());
    }
}
