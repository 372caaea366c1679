//! Calls on behalf of somebody who wants to look at the answer: the dashboard's invoke panel.
//!
//! Functions answer at the gateway, which is another origin and does not take the session cookie.
//! So the control plane calls in the caller's name, with the caller's own credential, and hands
//! the answer back as data: what a function answers is never a document of this origin. Who may
//! call what stays the gateway's decision.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cloudserve_identity::{Credential, Principal};
use cloudserve_protocol::ids::{FunctionId, UserId};
use cloudserve_protocol::limits::Limits;
use cloudserve_store::function::FunctionRecord;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Url, redirect};
use tokio::sync::Semaphore;

use super::App;
use super::access;
use super::places::Places;
use super::refusal::Refusal;
use crate::options::ApiOptions;

/// What the gateway adds to a function's own time: its queue, a cold start, its grace.
const BEYOND_TIMEOUT: Duration = Duration::from_secs(20);
const MAX_HEADERS: usize = 64;
const MAX_PATH_BYTES: usize = 8 * 1024;

/// A call to be made.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Below the function's address, with the query.
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Option<String>,
    /// The address it comes from, as far as it is known.
    pub(crate) from: Option<IpAddr>,
}

/// What the function answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
    /// Whether there was more.
    pub(crate) truncated: bool,
    pub(crate) duration: Duration,
}

/// The way to the gateway.
pub(super) struct Caller {
    client: Client,
    /// `http://host:port`
    gateway: Option<String>,
    places: Semaphore,
    by_account: Places<UserId>,
    max_answer_bytes: usize,
}

impl Caller {
    pub(super) fn new(options: &ApiOptions) -> Self {
        let client = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(Duration::from_secs(5))
            .build()
            .expect("a client without TLS and proxy has nothing to read that could be wrong");
        let gateway = options.invoke_url.as_ref();
        let parallel = options.invocations_in_parallel;
        Self {
            client,
            gateway: gateway.map(|url| url.trim_end_matches('/').to_owned()),
            places: Semaphore::new(parallel.max(1)),
            by_account: Places::new((parallel / 4).max(1)),
            max_answer_bytes: options.invoke_answer_bytes,
        }
    }
}

impl App {
    /// The function that is to be called.
    pub(crate) async fn callee(
        &self,
        principal: &Principal,
        id: FunctionId,
    ) -> Result<FunctionRecord, Refusal> {
        access::may_invoke(principal)?;
        access::may_use(principal, id)?;
        self.function(principal, id).await
    }

    /// Calls a function of this account with the credential that was presented here.
    pub(crate) async fn invoke(
        &self,
        principal: &Principal,
        credential: &Credential,
        record: &FunctionRecord,
        request: Request,
    ) -> Result<Answer, Refusal> {
        let caller = &self.caller;
        let gateway = caller.gateway.as_deref().ok_or(Refusal::NoGateway)?;
        // A place is taken for as long as a call may take: no account has all of them.
        let max = caller.by_account.each();
        let own_place = caller.by_account.of(principal.user_id).try_acquire_owned();
        let _own_place = own_place.map_err(|_| Refusal::TooManyInvocations { max })?;
        let _place = caller.places.try_acquire().map_err(|_| Refusal::Busy)?;

        let address = format!("{gateway}/run/{}/{}", principal.user_name, record.function.name);
        let url = target(&address, &request.path)?;
        let method = Method::from_bytes(request.method.as_bytes())
            .map_err(|_| Refusal::field("method", "is no HTTP method"))?;
        let mut headers = headers(request.headers)?;
        if !headers.contains_key(AUTHORIZATION) {
            headers.insert(AUTHORIZATION, bearer(credential)?);
        }
        // A gateway that trusts who calls it takes the caller for the caller, and not this process.
        if let Some(from) = request.from {
            let from = HeaderValue::from_str(&from.to_string()).map_err(Refusal::internal)?;
            headers.insert("x-forwarded-for", from);
        }
        let timeout = Duration::from_millis(timeout_ms(record, &headers).into());
        let begun = Instant::now();
        let mut response = caller
            .client
            .request(method, url)
            .headers(headers)
            .body(request.body.unwrap_or_default())
            .timeout(timeout + BEYOND_TIMEOUT)
            .send()
            .await
            .map_err(|error| Refusal::Unavailable(error.into()))?;
        let mut body = Vec::new();
        let mut truncated = false;
        while let Some(piece) = response.chunk().await.map_err(|_| Refusal::AnswerCutOff)? {
            let left = caller.max_answer_bytes - body.len();
            body.extend_from_slice(&piece[..piece.len().min(left)]);
            if piece.len() > left {
                truncated = true;
                break;
            }
        }
        let headers = response.headers().iter().map(|(name, value)| {
            (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        });
        Ok(Answer {
            status: response.status().as_u16(),
            headers: headers.collect(),
            body: body.into(),
            truncated,
            duration: begun.elapsed(),
        })
    }
}

/// What the version that is called may take at most: the one that is served, after a rollback not the
/// newest, or one that the caller names.
fn timeout_ms(record: &FunctionRecord, headers: &HeaderMap) -> u32 {
    if headers.contains_key("x-cloudserve-version") {
        return Limits::MAX.timeout_ms;
    }
    let active = record.active.as_ref().unwrap_or(&record.latest);
    active.limits.timeout_ms.max(record.latest.limits.timeout_ms)
}

/// The address of a call. A path that leads out of the function's own is refused.
fn target(address: &str, path: &str) -> Result<Url, Refusal> {
    if path.len() > MAX_PATH_BYTES || !(path.is_empty() || path.starts_with(['/', '?'])) {
        return Err(Refusal::field("path", "must begin with / and have at most 8192 bytes"));
    }
    let wrong = |_| Refusal::field("path", "is no path");
    let own = Url::parse(address).map_err(Refusal::internal)?;
    let url = Url::parse(&format!("{address}{path}")).map_err(wrong)?;
    let below = url.path().strip_prefix(own.path());
    if url.origin() != own.origin() || !below.is_some_and(|r| r.is_empty() || r.starts_with('/')) {
        return Err(Refusal::field("path", "must not lead out of the function's address"));
    }
    Ok(url)
}

fn headers(given: BTreeMap<String, String>) -> Result<HeaderMap, Refusal> {
    let wrong = |message: String| Refusal::field("headers", message);
    if given.len() > MAX_HEADERS {
        return Err(wrong(format!("must be at most {MAX_HEADERS}")));
    }
    let mut headers = HeaderMap::with_capacity(given.len() + 2);
    for (name, value) in given {
        let lower = name.to_ascii_lowercase();
        let is_ours = matches!(
            lower.as_str(),
            "host"
                | "connection"
                | "content-length"
                | "transfer-encoding"
                | "te"
                | "upgrade"
                | "keep-alive"
                | "expect"
                | "cookie"
                | "x-api-key"
                | "api-key"
                | "forwarded"
        );
        if is_ours || lower.starts_with("x-forwarded-") {
            return Err(wrong(format!("cannot hold {name}")));
        }
        let name: HeaderName = name.parse().map_err(|_| wrong(format!("holds no name: {name}")))?;
        let value =
            HeaderValue::from_str(&value).map_err(|_| wrong(format!("holds no value: {name}")))?;
        headers.insert(name, value);
    }
    // Nobody shows keys in the name of this process, or of an address that is not its own: the gateway
    // counts those that are made up.
    if let Some(Credential::ApiKey(_)) = Credential::in_header(&headers) {
        return Err(wrong("cannot hold an API key: the call has the caller's own".to_owned()));
    }
    Ok(headers)
}

fn bearer(credential: &Credential) -> Result<HeaderValue, Refusal> {
    let (Credential::Session(text) | Credential::ApiKey(text)) = credential;
    let mut value = HeaderValue::from_str(&format!("Bearer {text}")).map_err(Refusal::internal)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_stays_below_its_function() {
        let address = "http://127.0.0.1:8081/run/ada/hello";
        for (path, expected) in [
            ("", "/run/ada/hello"),
            ("/", "/run/ada/hello/"),
            ("?a=1", "/run/ada/hello"),
            ("/a/../b?c=/../d", "/run/ada/hello/b"),
        ] {
            assert_eq!(target(address, path).unwrap().path(), expected, "{path}");
        }
        for path in ["a", "@evil.example/", "/..", "/../other", "/%2e%2e/other", "/../../bob/x"] {
            assert!(target(address, path).is_err(), "{path}");
        }
    }

    #[test]
    fn headers_of_the_connection_and_of_ours_are_refused() {
        let of = |name: &str| headers(BTreeMap::from([(name.to_owned(), "x".to_owned())]));
        assert!(of("accept").is_ok());
        assert!(of("authorization").is_ok());
        for name in ["Host", "cookie", "X-Api-Key", "transfer-encoding", "a b", "é"] {
            assert!(of(name).is_err(), "{name}");
        }
        for name in ["X-Forwarded-For", "x-forwarded-proto", "Forwarded"] {
            assert!(of(name).is_err(), "{name}");
        }
        let key = cloudserve_identity::ApiKeySecret::generate().unwrap();
        for (value, is_right) in [
            ("Basic dTpw", true),
            ("Bearer the-functions-own", true),
            (&format!("Bearer {}", key.reveal()), false),
            (&format!("bearer  {}", key.reveal()), false),
            ("Bearer cs_live_x", false),
        ] {
            let given = BTreeMap::from([("Authorization".to_owned(), value.to_owned())]);
            assert_eq!(headers(given).is_ok(), is_right, "{value}");
        }
    }
}
