//! The API, as the commands use it.
//!
//! Answers stay JSON: what a command prints for scripts is what the server said. Invariant: the
//! credential goes to the server it belongs to and nowhere else; redirects are not followed.

use std::time::Duration;

use cloudserve_protocol::ids::FunctionId;
use futures::StreamExt;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Client, Method, Response, StatusCode};
use reqwest_tls as reqwest;
use serde_json::Value;
use url::{Host, Url};

use super::error::{ClientError, CredentialKind};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// An answer of the API that comes at once.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// A deploy, with its upload and a first installation of packages.
const DEPLOY_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// What is sent there takes a while.
const DEPLOY_PATH: &str = "/api/function/deploy";
/// Longest JSON answer that is read.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// Functions of one page of a list.
const PAGE: usize = 100;
/// Pages looked through.
const MAX_PAGES: usize = 1_000;
/// Names told when one is not found.
const MAX_OTHERS: usize = 5;

/// What shows who asks.
#[derive(Clone)]
pub(crate) struct Credential {
    pub(crate) secret: String,
    pub(crate) kind: CredentialKind,
}

/// A server's API.
#[derive(Clone)]
pub(crate) struct Api {
    http: Client,
    base: Url,
    credential: Option<Credential>,
}

/// An HTTP client for this address that follows nobody elsewhere.
pub(crate) fn http_client(to: &Url) -> Result<Client, ClientError> {
    // A second installation is refused, and needs none.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let builder = || {
        let client = Client::builder();
        // A proxy of the environment does not reach this machine, and must not see what is sent to
        // it.
        let client = if is_local(to) { client.no_proxy() } else { client };
        client
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("cloudserve/", env!("CARGO_PKG_VERSION")))
    };
    let client = match builder().build() {
        // Small images have no certificates of authorities; without TLS none are needed.
        Err(_) if to.scheme() == "http" => builder().tls_certs_only([]).build(),
        client => client,
    };
    client.map_err(|source| ClientError::NoCertificates { source })
}

impl Api {
    pub(crate) fn new(base: Url, credential: Option<Credential>) -> Result<Self, ClientError> {
        Ok(Self { http: http_client(&base)?, base, credential })
    }

    /// Where it is.
    pub(crate) fn base(&self) -> &Url {
        &self.base
    }

    /// The credential, which must be there.
    pub(crate) fn credential(&self) -> Result<&Credential, ClientError> {
        self.credential.as_ref().ok_or_else(|| ClientError::NotLoggedIn { url: self.base.clone() })
    }

    /// An address below the base; `path` begins with `/`.
    pub(crate) fn url(&self, path: &str) -> String {
        below(&self.base, path)
    }

    /// Reads something.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.ask(Method::GET, path, None, true).await
    }

    /// Changes something.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        self.ask(method, path, body, true).await
    }

    /// The same without showing a credential.
    pub(crate) async fn post_as_nobody(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<Value, ClientError> {
        self.ask(Method::POST, path, Some(body), false).await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        shows_credential: bool,
    ) -> Result<Value, ClientError> {
        let mut request = self.http.request(method, self.url(path)).timeout(timeout_of(path));
        if shows_credential {
            request = request.bearer_auth(&self.credential()?.secret);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|e| self.unreachable(e))?;
        let response = self.accepted(response).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(Value::Null);
        }
        let bytes = self.read(response).await?;
        serde_json::from_slice(&bytes).map_err(|_| ClientError::NotTheApi {
            url: self.base.clone(),
            what: "its answer is not JSON".to_owned(),
        })
    }

    /// A stream of server-sent events, after the one with this id.
    pub(crate) async fn events(&self, path: &str, after: &str) -> Result<Response, ClientError> {
        let mut request = self
            .http
            .get(self.url(path))
            .header(ACCEPT, "text/event-stream")
            .bearer_auth(&self.credential()?.secret);
        if !after.is_empty() {
            request = request.header("last-event-id", after);
        }
        let response = request.send().await.map_err(|e| self.unreachable(e))?;
        let response = self.accepted(response).await?;
        if is_of_type(response.headers(), "text/event-stream") {
            return Ok(response);
        }
        Err(ClientError::NotTheApi {
            url: self.base.clone(),
            what: "it does not stream logs".to_owned(),
        })
    }

    fn unreachable(&self, source: reqwest::Error) -> ClientError {
        ClientError::Unreachable { url: self.base.clone(), source: source.without_url() }
    }

    /// The answer, unless it is a refusal.
    async fn accepted(&self, response: Response) -> Result<Response, ClientError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let not_the_api = |what| ClientError::NotTheApi { url: self.base.clone(), what };
        if let Some(elsewhere) = response.headers().get(LOCATION) {
            let elsewhere = String::from_utf8_lossy(elsewhere.as_bytes()).into_owned();
            return Err(not_the_api(format!("it sends elsewhere, to {elsewhere:?}")));
        }
        let retry_after_s = number(response.headers(), RETRY_AFTER.as_str());
        let bytes = self.read(response).await?;
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let (Some(code), Some(message)) =
            (body["error"]["code"].as_str(), body["error"]["message"].as_str())
        else {
            if is_of_a_proxy(status) {
                return Err(ClientError::Behind { url: self.base.clone(), status });
            }
            return Err(not_the_api(format!("it answers {status}")));
        };
        if status == StatusCode::UNAUTHORIZED
            && code == "unauthorized"
            && let Some(credential) = &self.credential
        {
            return Err(ClientError::CredentialRefused {
                url: self.base.clone(),
                kind: credential.kind,
            });
        }
        Err(ClientError::Refused {
            status: status.as_u16(),
            code: code.to_owned(),
            message: message.to_owned(),
            retry_after_s,
        })
    }

    async fn read(&self, response: Response) -> Result<Vec<u8>, ClientError> {
        let mut all = Vec::new();
        let mut pieces = response.bytes_stream();
        while let Some(piece) = pieces.next().await {
            all.extend_from_slice(&piece.map_err(|e| self.unreachable(e))?);
            if all.len() > MAX_ANSWER_BYTES {
                let (url, max_bytes) = (self.base.clone(), MAX_ANSWER_BYTES);
                return Err(ClientError::TooLong { url, max_bytes });
            }
        }
        Ok(all)
    }

    /// All functions of the account.
    pub(crate) async fn functions(&self) -> Result<Vec<Value>, ClientError> {
        let mut all = Vec::new();
        let mut path = format!("/api/function?limit={PAGE}");
        for _ in 0..MAX_PAGES {
            let mut page = self.get(&path).await?;
            if let Value::Array(items) = page["functions"].take() {
                all.extend(items);
            }
            let Some(next) = page["nextCursor"].as_str() else { break };
            path = format!("/api/function?limit={PAGE}&cursor={next}");
        }
        Ok(all)
    }

    /// The function of this name or id, without its source.
    pub(crate) async fn function(&self, name: &str) -> Result<Value, ClientError> {
        if name.parse::<FunctionId>().is_ok() {
            return self.get(&format!("/api/function/{name}")).await;
        }
        let functions = self.functions().await?;
        let mut names: Vec<_> =
            functions.iter().filter_map(|f| f["name"].as_str().map(str::to_owned)).collect();
        let found = functions.into_iter().find(|function| function["name"] == name);
        found.ok_or_else(|| {
            names.truncate(MAX_OTHERS);
            ClientError::NoSuchFunction { name: name.to_owned(), others: names }
        })
    }

    /// The id of the function of this name or id.
    pub(crate) async fn id_of(&self, name: &str) -> Result<String, ClientError> {
        if name.parse::<FunctionId>().is_ok() {
            return Ok(name.to_owned());
        }
        Ok(text(&self.function(name).await?, "id").to_owned())
    }
}

/// How long an answer may take, with the body that is sent.
fn timeout_of(path: &str) -> Duration {
    if path.starts_with(DEPLOY_PATH) { DEPLOY_TIMEOUT } else { ANSWER_TIMEOUT }
}

/// What a proxy says for a server that it does not reach.
pub(crate) fn is_of_a_proxy(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    )
}

/// Whether it is this machine.
pub(crate) fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// An address below a base; `path` begins with `/`.
pub(crate) fn below(base: &Url, path: &str) -> String {
    format!("{}{path}", base.as_str().trim_end_matches('/'))
}

/// A field of an answer that is text; empty if it is not there.
pub(crate) fn text<'a>(answer: &'a Value, field: &str) -> &'a str {
    answer[field].as_str().unwrap_or_default()
}

/// A field of an answer that is a list; empty if it is not there.
pub(crate) fn items<'a>(answer: &'a Value, field: &str) -> &'a [Value] {
    answer[field].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The texts in such a list.
pub(crate) fn texts<'a>(answer: &'a Value, field: &str) -> Vec<&'a str> {
    items(answer, field).iter().filter_map(Value::as_str).collect()
}

/// A header that is a number.
fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// Whether an answer is of this media type.
pub(crate) fn is_of_type(headers: &HeaderMap, media_type: &str) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|value| value.trim().eq_ignore_ascii_case(media_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deploy_has_the_time_that_its_upload_takes() {
        for (path, timeout) in [
            ("/api/function/deploy", DEPLOY_TIMEOUT),
            ("/api/function/deploy?wait=true", DEPLOY_TIMEOUT),
            ("/api/function?limit=100", ANSWER_TIMEOUT),
        ] {
            assert_eq!(timeout_of(path), timeout, "{path}");
        }
    }
}
