//! Headers of requests on their way into JavaScript, and the strings among them that V8 has once.

use cloudserve_protocol::headers::HeaderBlock;
use deno_core::v8;

/// What most requests have: methods, and names of headers, the most frequent first. V8 has one string
/// of each, and looking it up takes longer than finding it here.
const COMMON: [&str; 31] = [
    "GET",
    "POST",
    "host",
    "accept",
    "user-agent",
    "accept-encoding",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-prefix",
    "x-cloudserve-execution-id",
    "traceparent",
    "content-type",
    "content-length",
    "cookie",
    "authorization",
    "accept-language",
    "cache-control",
    "origin",
    "referer",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "if-none-match",
    "connection",
    "transfer-encoding",
    "te",
    "PUT",
    "PATCH",
    "DELETE",
    "HEAD",
];

/// [`COMMON`] as V8 has it.
pub(crate) struct Names(Vec<(&'static [u8], v8::Global<v8::String>)>);

impl Names {
    pub(crate) fn new(scope: &mut v8::PinScope<'_, '_>) -> Self {
        let names = COMMON.map(|name| {
            let kind = v8::NewStringType::Internalized;
            let string = v8::String::new_from_one_byte(scope, name.as_bytes(), kind);
            (name.as_bytes(), v8::Global::new(scope, string.expect("a short string")))
        });
        Self(names.into())
    }

    /// `[name, value, name, value, ...]`
    pub(crate) fn list<'s>(
        &self,
        scope: &mut v8::PinScope<'s, '_>,
        headers: &HeaderBlock,
    ) -> v8::Local<'s, v8::Value> {
        let mut list: Vec<v8::Local<v8::Value>> = Vec::with_capacity(32);
        for (name, value) in headers.iter() {
            list.push(self.one_of_a_kind(scope, name));
            list.push(latin1(scope, value, v8::NewStringType::Normal));
        }
        v8::Array::new_with_elements(scope, &list).into()
    }

    /// A string that V8 keeps once: it is compared and looked up by its address.
    pub(crate) fn one_of_a_kind<'s>(
        &self,
        scope: &mut v8::PinScope<'s, '_>,
        text: &[u8],
    ) -> v8::Local<'s, v8::Value> {
        match self.0.iter().find(|(common, _)| *common == text) {
            Some((_, string)) => v8::Local::new(scope, string).into(),
            None => latin1(scope, text, v8::NewStringType::Internalized),
        }
    }
}

/// Header bytes as browsers and Node show them: one character per byte.
pub(crate) fn latin1<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    bytes: &[u8],
    kind: v8::NewStringType,
) -> v8::Local<'s, v8::Value> {
    v8::String::new_from_one_byte(scope, bytes, kind)
        .map_or_else(|| v8::String::empty(scope).into(), Into::into)
}

/// `scheme://host` of the URL that was asked for, as the gateway says it.
pub(crate) fn origin_of(headers: &HeaderBlock) -> Vec<u8> {
    let (mut scheme, mut host) = (&b"http"[..], &b"localhost"[..]);
    for (name, value) in headers.iter() {
        match name {
            b"host" => host = value,
            b"x-forwarded-proto" if value == b"https" => scheme = value,
            _ => {}
        }
    }
    [scheme, &b"://"[..], host].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_is_what_the_gateway_says() {
        let origin = |headers: &[(&str, &str)]| {
            String::from_utf8(origin_of(&headers.iter().copied().collect())).unwrap()
        };
        assert_eq!(origin(&[]), "http://localhost");
        assert_eq!(origin(&[("accept", "*/*"), ("host", "h.test:8081")]), "http://h.test:8081");
        assert_eq!(origin(&[("host", "h"), ("x-forwarded-proto", "https")]), "https://h");
        assert_eq!(origin(&[("x-forwarded-proto", "ftp"), ("host", "h")]), "http://h");
    }
}
