//! What is called: the function, and the request that calls it.

use std::collections::BTreeMap;

use serde_json::json;

use crate::client::Request;

/// A workload. Its name is that of its file in `bench/workloads/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    /// The function as it is deployed.
    pub(crate) code: &'static str,
    /// The same as a module with `export default { fetch }`, for servers that know no other form.
    pub(crate) fetch_code: &'static str,
    pub(crate) packages: &'static [(&'static str, &'static str)],
    body: BodyKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BodyKind {
    None,
    /// JSON of some 10 KB.
    Json,
    /// 1 MB of bytes.
    Bytes,
}

macro_rules! source {
    ($name:literal) => {
        include_str!(concat!("../workloads/", $name, ".mjs"))
    };
}

const LODASH_AXIOS: &[(&str, &str)] = &[("axios", "1.7.9"), ("lodash", "4.17.21")];

const fn plain(name: &'static str, code: &'static str) -> Workload {
    Workload { name, code, fetch_code: code, packages: &[], body: BodyKind::None }
}

/// The handler form that needs the least: a function of an event.
pub(crate) const HELLO: Workload =
    Workload { fetch_code: source!("hello-fetch"), ..plain("hello", source!("hello")) };
/// The same answer in the form that other runtimes share.
pub(crate) const HELLO_FETCH: Workload = plain("hello-fetch", source!("hello-fetch"));
/// 10 KB of JSON, parsed and sent back.
pub(crate) const JSON_10K: Workload =
    Workload { body: BodyKind::Json, ..plain("json-10k", source!("json-10k")) };
/// 1 MB of bytes, sent back.
pub(crate) const ECHO_1M: Workload =
    Workload { body: BodyKind::Bytes, ..plain("echo-1m", source!("echo-1m")) };
/// Imports `axios` and `lodash`.
pub(crate) const PACKAGES: Workload =
    Workload { packages: LODASH_AXIOS, ..plain("packages", source!("packages")) };
/// A fixed amount of computing.
pub(crate) const CPU_5MS: Workload = plain("cpu-5ms", source!("cpu-5ms"));
/// A wait.
pub(crate) const SLEEP_50MS: Workload = plain("sleep-50ms", source!("sleep-50ms"));
/// Ten server-sent events.
pub(crate) const SSE: Workload = plain("sse", source!("sse"));
/// An express 5 application; only for cold calls.
pub(crate) const EXPRESS: Workload =
    Workload { packages: &[("express", "5.1.0")], ..plain("express", source!("express")) };
/// Takes as long as the query says.
pub(crate) const TIMED: Workload = plain("timed", source!("timed"));

/// Measured against the peers, hello apart.
pub(crate) const OTHERS: [Workload; 6] = [JSON_10K, ECHO_1M, PACKAGES, CPU_5MS, SLEEP_50MS, SSE];

impl Workload {
    /// The request that calls it. Every server gets the same headers.
    pub(crate) fn request(&self, host: &str, path: &str, key: &str) -> Request {
        let body = self.body();
        let headers =
            [("x-api-key", key), ("accept", "*/*"), ("content-type", self.content_type())];
        // Without a body, none is described.
        let headers = if body.is_empty() { &headers[..2] } else { &headers[..] };
        let method = if body.is_empty() { "GET" } else { "POST" };
        Request::new(method, host, path, headers, &body)
    }

    fn content_type(&self) -> &'static str {
        match self.body {
            BodyKind::Bytes => "application/octet-stream",
            BodyKind::Json | BodyKind::None => "application/json",
        }
    }

    fn body(&self) -> Vec<u8> {
        match self.body {
            BodyKind::None => Vec::new(),
            BodyKind::Json => {
                let items: Vec<_> = (0..200)
                    .map(|n| json!({ "id": n, "name": format!("item number {n}"), "tags": ["a", "b"] }))
                    .collect();
                json!({ "items": items }).to_string().into_bytes()
            }
            BodyKind::Bytes => (0..1_048_576_u32).map(|n| (n % 251) as u8).collect(),
        }
    }

    /// Whether an answer is what the workload must answer.
    pub(crate) fn accepts(&self, content: &[u8]) -> bool {
        let text = String::from_utf8_lossy(content);
        match self.name {
            "hello" | "hello-fetch" | "express" => text == r#"{"message":"hello"}"#,
            "json-10k" | "echo-1m" => content == self.body(),
            "packages" => text.contains("Bench Harness") && text.contains("n=1"),
            "cpu-5ms" => text.starts_with(r#"{"x":"#),
            "sleep-50ms" => text == r#"{"slept":50}"#,
            "sse" => text.matches("data: ").count() == 10,
            "timed" => text == r#"{"ms":0}"#,
            _ => false,
        }
    }

    /// Its packages as a deploy states them.
    pub(crate) fn dependencies(&self) -> BTreeMap<String, String> {
        self.packages.iter().map(|(name, version)| ((*name).into(), (*version).into())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_the_size_their_names_say() {
        let json = JSON_10K.body();
        assert!((10_000..11_000).contains(&json.len()), "{}", json.len());
        assert_eq!(ECHO_1M.body().len(), 1024 * 1024);
        assert!(JSON_10K.accepts(&json) && !JSON_10K.accepts(b"{}"));
    }

    #[test]
    fn every_workload_refuses_a_wrong_answer() {
        for workload in OTHERS.iter().chain([&HELLO, &HELLO_FETCH, &EXPRESS, &TIMED]) {
            assert!(!workload.accepts(b"no"), "{}", workload.name);
            assert!(workload.code.contains("export default"), "{}", workload.name);
        }
    }
}
