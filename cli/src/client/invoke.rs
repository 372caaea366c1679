//! `invoke`: one call, with what it wrote and what it took.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use futures::StreamExt;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder, Response};
use reqwest_tls as reqwest;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use url::Url;

use super::api::{Api, below, http_client, is_of_a_proxy, is_of_type, items, text};
use super::environment::GATEWAY_VARIABLE;
use super::error::ClientError;
use super::logs::write_line;
use super::output::{Output, on_stderr, printable, write_indented};
use super::project::named_or_current;
use super::session::{Common, parse_url};

const ENVELOPE: &str = "application/vnd.cloudserve.invocation+json";
/// Longer than the longest call.
const TIMEOUT: Duration = Duration::from_secs(20 * 60);
/// Longest body that is sent; the function's own limit is the server's business.
const MAX_BODY_BYTES: u64 = 100 * 1024 * 1024;
/// Longest answer that is kept; `--raw` has no bound.
const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;

#[derive(Args)]
pub(crate) struct Invoke {
    /// Name, id, USER/NAME for someone else's public function, or . for that of this folder.
    function: String,

    /// The body: text, @FILE, or - for standard input.
    #[arg(allow_hyphen_values = true)]
    body: Option<String>,

    /// The method [default: POST with a body, else GET].
    #[arg(long, short = 'X', value_name = "METHOD")]
    method: Option<String>,

    /// A header; may be given several times.
    #[arg(long, short = 'H', value_name = "NAME: VALUE")]
    header: Vec<String>,

    /// What follows the function's name: /items/7?all=true
    #[arg(long, short, value_name = "PATH", default_value = "")]
    path: String,

    /// Write the answer's body as it comes, without status, timing and logs.
    #[arg(long, short, conflicts_with = "json")]
    raw: bool,

    /// Where calls go [default: where the API says].
    #[arg(long, value_name = "URL", env = GATEWAY_VARIABLE)]
    gateway: Option<String>,

    #[command(flatten)]
    pub(super) common: Common,
}

pub(crate) async fn run(args: Invoke) -> Result<ExitCode, ClientError> {
    let api = args.common.api()?;
    let address = format!("{}{}", address(&api, &args).await?, rest(&args.path));
    let body = args.body.as_deref().map(read_body).transpose()?;
    let address = Url::parse(&address).map_err(|error| {
        ClientError::usage(format!("{address:?} is no address: {error}"), "is --path right?")
    })?;
    let request = request(&api, &args, &address, body)?;
    let response = request.send().await.map_err(|source| ClientError::NoGateway {
        url: origin(&address),
        source: source.without_url(),
    })?;
    if args.raw {
        return pass_on(response).await;
    }
    if !is_of_type(response.headers(), ENVELOPE) {
        return Err(refused(&api, &address, response).await);
    }
    show(args.common.output(), response).await
}

/// Where the function is called.
async fn address(api: &Api, args: &Invoke) -> Result<String, ClientError> {
    let gateway = args.gateway.as_deref().filter(|text| !text.is_empty());
    let gateway = gateway.map(parse_url).transpose()?;
    if let Some((user, name)) = args.function.split_once('/') {
        let gateway = gateway.ok_or_else(|| {
            ClientError::usage(
                "where are the functions of others called?",
                format!("say it with --gateway or {GATEWAY_VARIABLE}: http://127.0.0.1:8081"),
            )
        })?;
        return Ok(below(&gateway, &format!("/run/{user}/{name}")));
    }
    let view = match api.function(&named_or_current(Some(&args.function))?).await {
        Err(ClientError::Refused { status: 403, .. }) => {
            return Err(ClientError::Failed {
                code: "forbidden",
                message: "this API key may not read where the function is".to_owned(),
                hint: format!(
                    "name it as USER/{} and its gateway with --gateway or {GATEWAY_VARIABLE}, or \
                     use a key with the scope read",
                    args.function
                ),
            });
        }
        view => view?,
    };
    match (gateway, view["url"].as_str()) {
        (Some(gateway), _) => Ok(below(&gateway, text(&view, "endpoint"))),
        (None, Some(url)) => Ok(url.to_owned()),
        (None, None) => Err(ClientError::usage(
            "the API does not say where functions are called",
            format!("say it with --gateway or {GATEWAY_VARIABLE}"),
        )),
    }
}

/// An address without its path.
fn origin(address: &Url) -> Url {
    address.join("/").unwrap_or_else(|_| address.clone())
}

fn rest(path: &str) -> String {
    match path.chars().next() {
        None | Some('/' | '?') => path.to_owned(),
        Some(_) => format!("/{path}"),
    }
}

fn read_body(given: &str) -> Result<Vec<u8>, ClientError> {
    let mut body = Vec::new();
    let limit = MAX_BODY_BYTES + 1;
    match (given, given.strip_prefix('@')) {
        ("-", _) => {
            io::stdin().lock().take(limit).read_to_end(&mut body).map_err(ClientError::Prompt)?;
        }
        (_, Some(path)) => {
            fs::File::open(path)
                .and_then(|file| file.take(limit).read_to_end(&mut body))
                .map_err(ClientError::file(path))?;
        }
        (text, None) => text.as_bytes().clone_into(&mut body),
    }
    if body.len() as u64 > MAX_BODY_BYTES {
        return Err(ClientError::usage(
            format!("the body is larger than {MAX_BODY_BYTES} bytes"),
            "no function takes it; send less",
        ));
    }
    Ok(body)
}

fn request(
    api: &Api,
    args: &Invoke,
    address: &Url,
    body: Option<Vec<u8>>,
) -> Result<RequestBuilder, ClientError> {
    let method = match &args.method {
        Some(method) => {
            Method::from_bytes(method.to_ascii_uppercase().as_bytes()).map_err(|_| {
                ClientError::usage(format!("{method:?} is no method"), "write GET, POST, PUT, ...")
            })?
        }
        None if body.is_some() => Method::POST,
        None => Method::GET,
    };
    if method == Method::HEAD && !args.raw {
        return Err(ClientError::usage(
            "an answer to HEAD has no body that could tell how the call went",
            "add --raw: the exit code tells whether the status is below 400",
        ));
    }
    let mut headers = headers(&args.header)?;
    if !args.raw {
        headers.append(ACCEPT, HeaderValue::from_static(ENVELOPE));
    }
    if let Some(body) = &body
        && !headers.contains_key(CONTENT_TYPE)
    {
        let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
        let kind = match std::str::from_utf8(body) {
            _ if is_json => "application/json",
            Ok(_) => "text/plain; charset=utf-8",
            Err(_) => "application/octet-stream",
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    let request = http_client(address)?
        .request(method, address.clone())
        .timeout(TIMEOUT)
        .bearer_auth(&api.credential()?.secret)
        .headers(headers);
    Ok(if let Some(body) = body { request.body(body) } else { request })
}

fn headers(given: &[String]) -> Result<HeaderMap, ClientError> {
    let mut headers = HeaderMap::new();
    for header in given {
        let parsed = header.split_once(':').and_then(|(name, value)| {
            let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
            Some((name, HeaderValue::from_str(value.trim()).ok()?))
        });
        let (name, value) = parsed.ok_or_else(|| {
            ClientError::usage(
                format!("{header:?} is no header"),
                "write it like -H 'x-colour: blue'",
            )
        })?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// What the gateway says when it does not call the function.
async fn refused(api: &Api, address: &Url, response: Response) -> ClientError {
    let status = response.status();
    let retry_after_s =
        response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    let body: Value = match collect(response).await {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
        Err(error) => return error,
    };
    let error = &body["error"];
    match (status.as_u16(), error["code"].as_str()) {
        (401, Some("unauthorized")) => match api.credential() {
            Ok(credential) => {
                ClientError::CredentialRefused { url: api.base().clone(), kind: credential.kind }
            }
            Err(error) => error,
        },
        (_, Some(code)) => ClientError::Refused {
            status: status.as_u16(),
            code: code.to_owned(),
            message: text(error, "message").to_owned(),
            retry_after_s,
        },
        (_, None) if is_of_a_proxy(status) => ClientError::Behind { url: origin(address), status },
        (_, None) => ClientError::NotTheApi {
            url: api.base().clone(),
            what: format!("its gateway answers {status} and says nothing of the call"),
        },
    }
}

async fn collect(response: Response) -> Result<Vec<u8>, ClientError> {
    let mut all = Vec::new();
    let mut pieces = response.bytes_stream();
    while let Some(piece) = pieces.next().await {
        all.extend_from_slice(&piece.map_err(cut_off)?);
        if all.len() > MAX_ANSWER_BYTES {
            return Err(ClientError::Failed {
                code: "response_too_large",
                message: format!("the answer is larger than {MAX_ANSWER_BYTES} bytes"),
                hint: "--raw writes it as it comes".to_owned(),
            });
        }
    }
    Ok(all)
}

fn cut_off(source: reqwest::Error) -> ClientError {
    ClientError::Failed {
        code: "cut_off",
        message: format!("the answer ended early: {}", source.without_url()),
        hint: "`cloudserve logs` shows whether the call failed".to_owned(),
    }
}

/// The body as it comes.
async fn pass_on(response: Response) -> Result<ExitCode, ClientError> {
    let has_failed = response.status().as_u16() >= 400;
    let mut pieces = response.bytes_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(cut_off)?;
        let mut out = io::stdout().lock();
        out.write_all(&piece).and_then(|()| out.flush()).map_err(ClientError::Output)?;
    }
    Ok(if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What is shown for scripts.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    call: &'a Value,
    result: &'a RawValue,
}

/// What the envelope says of the call, and the function's result as it is there: other JSON than ours, whose
/// numbers may be of any size.
fn parts(envelope: &[u8]) -> serde_json::Result<(Value, Box<RawValue>)> {
    let fields: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(envelope)?;
    let mut result = None;
    let mut call = Map::new();
    for (name, raw) in fields {
        if name == "result" {
            result = Some(raw);
        } else {
            call.insert(name, serde_json::from_str(raw.get())?);
        }
    }
    let result = result.map_or_else(|| serde_json::from_str("null"), Ok)?;
    Ok((call.into(), result))
}

/// Writes a result for people, of which `null` is nothing.
fn write_result(
    out: &mut dyn Write,
    result: &RawValue,
    shown: fn(&str) -> Cow<'_, str>,
) -> io::Result<()> {
    match serde_json::from_str::<Option<String>>(result.get()) {
        Ok(None) => Ok(()),
        Ok(Some(text)) => writeln!(out, "{}", shown(&text)),
        Err(_) => {
            // Many lines: standard output would write each of them by itself.
            let mut out = BufWriter::new(out);
            write_indented(&mut out, result.get(), shown)?;
            writeln!(out)?;
            out.flush()
        }
    }
}

fn as_it_is(text: &str) -> Cow<'_, str> {
    text.into()
}

async fn show(output: Output, response: Response) -> Result<ExitCode, ClientError> {
    let status = response.status().as_u16();
    let is_cold = response.headers().get("x-cloudserve-cold").is_some_and(|value| value == "1");
    let timings = timings(response.headers());
    let (mut call, result) = parts(&collect(response).await?).map_err(|_| ClientError::Failed {
        code: "cut_off",
        message: "the answer is no JSON".to_owned(),
        hint: "--raw shows it as it is".to_owned(),
    })?;
    let success = call["success"] == true;
    let status = call["statusCode"].as_u64().filter(|_| success).unwrap_or(status.into());
    call["status"] = status.into();
    call["cold"] = is_cold.into();
    call["timings"] = timings.iter().cloned().map(|(name, ms)| (name, json!(ms))).collect();
    let has_failed = !success || status >= 400;

    if !output.is_json {
        tell(&call, status, has_failed, is_cold, &timings);
    }
    let document = Document { call: &call, result: &result };
    // A terminal must not obey what a function writes; a file gets it as it is.
    let shown = if io::stdout().is_terminal() { printable } else { as_it_is };
    output.result(&document, |out| write_result(out, &result, shown))?;
    Ok(if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Status, timing, logs and what went wrong, on standard error.
fn tell(call: &Value, status: u64, has_failed: bool, is_cold: bool, timings: &[(String, f64)]) {
    let mut err = io::stderr().lock();
    let shown = on_stderr(status.to_string());
    let shown = if has_failed { shown.red().bold() } else { shown.green().bold() };
    let parts: Vec<_> = timings.iter().map(|(name, ms)| format!("{name} {ms:.1} ms")).collect();
    // Nobody may be reading standard error.
    let _ = writeln!(
        err,
        "{shown}  {:.1} ms ({}{})  {:.1} MB  {}",
        call["duration"].as_f64().unwrap_or(0.0),
        parts.join(", "),
        if is_cold { ", cold start" } else { "" },
        call["memoryUsage"].as_f64().unwrap_or(0.0),
        text(call, "executionId"),
    );
    for line in items(call, "logs") {
        let _ = write_line(&mut err, line);
    }
    let error = &call["error"];
    if let Some(code) = error["code"].as_str() {
        let message = printable(text(error, "message"));
        let _ = writeln!(err, "{} {code}: {message}", on_stderr("error:").red().bold());
    }
}

/// `queue;dur=0.010, boot;dur=0.000, exec;dur=1.234` in milliseconds.
fn timings(headers: &HeaderMap) -> Vec<(String, f64)> {
    let values = headers.get_all("server-timing").iter().filter_map(|value| value.to_str().ok());
    let metrics = values.flat_map(|value| value.split(','));
    let parsed = metrics.filter_map(|metric| {
        let (name, ms) = metric.trim().split_once(";dur=")?;
        Some((name.to_owned(), ms.parse().ok()?))
    });
    parsed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_timings_are_read() {
        let read = headers(&["x-a: b: c".into(), "X-A:d".into()]).unwrap();
        assert_eq!(read.get_all("x-a").iter().collect::<Vec<_>>(), ["b: c", "d"]);
        for wrong in ["x-a", "a b: c", ": x"] {
            assert!(headers(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
        let mut answer = HeaderMap::new();
        answer.append("server-timing", HeaderValue::from_static("db;desc=x, queue;dur=0.5"));
        answer.append("server-timing", HeaderValue::from_static("exec;dur=1.25"));
        assert_eq!(timings(&answer), [("queue".to_owned(), 0.5), ("exec".to_owned(), 1.25)]);
    }

    #[test]
    fn results_are_shown_as_they_are() {
        let readable = |result: &RawValue| {
            let mut out = Vec::new();
            write_result(&mut out, result, as_it_is).unwrap();
            String::from_utf8(out).unwrap()
        };
        for (result, expected) in [
            ("null", ""),
            ("\"a\\nb\"", "a\nb\n"),
            ("\"\\ud800\"", "\"\\ud800\"\n"),
            ("1e400", "1e400\n"),
            ("[123456789012345678901]", "[\n  123456789012345678901\n]\n"),
        ] {
            let envelope = format!("{{\"success\":true,\"result\":{result},\"logs\":[]}}");
            let (call, raw) = parts(envelope.as_bytes()).unwrap();
            assert_eq!(call, json!({ "success": true, "logs": [] }));
            assert_eq!(readable(&raw), expected, "{result}");
            let document = Document { call: &call, result: &raw };
            let written = serde_json::to_string(&document).unwrap();
            assert!(written.ends_with(&format!("\"result\":{result}}}")), "{written}");
        }
        assert_eq!(readable(&parts(b"{}").unwrap().1), "");
        assert!(parts(b"[]").is_err());
    }

    #[test]
    fn paths_follow_the_name() {
        for (path, expected) in [("", ""), ("/a", "/a"), ("a/b?c", "/a/b?c"), ("?x=1", "?x=1")] {
            assert_eq!(rest(path), expected);
        }
    }

    #[test]
    fn bodies_come_from_the_argument_or_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("body");
        fs::write(&path, "{}").unwrap();
        assert_eq!(read_body("text").unwrap(), b"text");
        assert_eq!(read_body(&format!("@{}", path.display())).unwrap(), b"{}");
        assert!(read_body("@/no/such/file").unwrap_err().to_string().contains("/no/such/file"));
    }
}
