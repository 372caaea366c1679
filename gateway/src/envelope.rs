//! The answer as one JSON document, for callers that want logs and figures with it.

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use cloudserve_protocol::call::{Body, LogLevel, LogLine, Outcome, Piece, Reply};
use cloudserve_protocol::fault::{Fault, FaultClass};
use cloudserve_protocol::headers::HeaderBlock;
use cloudserve_store::Timestamp;
use futures::StreamExt;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::answer::{AnswerBody, crashed, explain_refusal, stamp, status_of, told};
use crate::head::ExecutionText;
use crate::mask::masked;
use crate::meter::{Call, log_fault, megabytes, milliseconds};
use crate::options::GatewayOptions;
use crate::refusal::json;

const MEDIA_TYPE: &str = "application/vnd.cloudserve.invocation+json";

/// Whether the caller asks for the envelope.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().any(|value| {
        value
            .as_bytes()
            .split(|b| matches!(b, b',' | b';'))
            .any(|part| part.trim_ascii().eq_ignore_ascii_case(MEDIA_TYPE.as_bytes()))
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    success: bool,
    /// The function's own status.
    #[serde(skip_serializing_if = "Option::is_none")]
    status_code: Option<u16>,
    result: Value<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Error<'a>>,
    logs: Vec<Line<'a>>,
    /// MB.
    memory_usage: f64,
    /// Milliseconds.
    duration: f64,
    execution_id: String,
}

#[derive(Serialize)]
struct Error<'a> {
    code: &'static str,
    message: &'a str,
}

#[derive(Serialize)]
struct Line<'a> {
    level: LogLevel,
    message: &'a str,
    timestamp: Timestamp,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Value<'a> {
    None,
    Json(Box<RawValue>),
    Text(&'a str),
    Bytes { base64: String },
}

/// Waits for the call to end and tells all of it. Logs are for the owner alone: a stranger may
/// call a public function but not read what it writes, and nor may a key that is for calls alone.
pub(crate) async fn envelope(
    mut call: Box<Call>,
    reply: Result<Reply, Box<Outcome>>,
    may_read_logs: bool,
    options: &GatewayOptions,
) -> Response<AnswerBody> {
    let mut answered = None;
    let mut outcome = match reply {
        Err(outcome) => *outcome,
        Ok(reply) => {
            let last_moment = call.deadline() + options.deadline_grace();
            let max_bytes = call.target().limits.response_body_bytes;
            let (cold, timings) = (reply.cold, reply.timings);
            let whole = tokio::time::timeout_at(last_moment.into(), async {
                let body = collect(reply.body, max_bytes).await;
                (body, call.over().await)
            });
            let failed = |fault| Outcome { cold, timings, ..Outcome::not_started(fault) };
            match whole.await {
                Err(_) => failed(Fault::timeout(call.target().limits.timeout_ms)),
                Ok((body, outcome)) => {
                    let mut outcome = outcome.unwrap_or_else(|| failed(crashed()));
                    match body {
                        Ok(body) => answered = Some((reply.head, body)),
                        // That we have stopped reading is not why the call failed.
                        Err(fault) if !outcome.fault.as_ref().is_some_and(is_final) => {
                            outcome.fault = Some(fault);
                        }
                        Err(_) => {}
                    }
                    outcome
                }
            }
        }
    };
    let duration = milliseconds(call.stop_clock());
    log_fault(&mut outcome);
    let fault = outcome.fault.clone();
    let status = fault.as_ref().map_or(StatusCode::OK, |fault| status_of(fault.class));
    let (execution_id, target) = (call.execution_id(), call.target().clone());
    let (cold, timings, memory_bytes) = (outcome.cold, outcome.timings, outcome.memory_bytes);
    let started = outcome.started;
    let lines = if may_read_logs { outcome.logs.clone() } else { Vec::new() };
    let unread = call.unread().clone();
    // Whoever hangs up from here on costs the row nothing.
    call.answered(status.as_u16());
    call.finish(outcome);
    let lines = masked(lines, target.clone()).await;
    let document = Envelope {
        success: fault.is_none(),
        status_code: answered.as_ref().map(|(head, _)| head.status),
        result: answered.as_ref().map_or(Value::None, |(head, body)| value_of(&head.headers, body)),
        error: fault.as_ref().map(|f| Error { code: f.class.code(), message: told(f) }),
        logs: lines.iter().map(line).collect(),
        memory_usage: megabytes(memory_bytes),
        duration,
        execution_id: execution_id.to_string(),
    };
    let mut response = json(status, &document);
    response.body_mut().count(&unread);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    if let Some(fault) = &fault {
        explain_refusal(headers, fault, started, target.limits.concurrency);
    }
    stamp(headers, &ExecutionText::of(execution_id), cold, timings);
    response
}

fn is_final(fault: &Fault) -> bool {
    fault.class != FaultClass::Cancelled
}

async fn collect(body: Body, max_bytes: u64) -> Result<Bytes, Fault> {
    let Body::Stream(mut pieces) = body else { return body.collect().await };
    let mut all = Vec::new();
    while let Some(piece) = pieces.next().await {
        let Piece::Data(piece) = piece? else { continue };
        if (all.len() + piece.len()) as u64 > max_bytes {
            return Err(Fault::new(
                FaultClass::ResponseTooLarge,
                format!(
                    "the answer is larger than {max_bytes} bytes and was asked for in one piece \
                     (limits.responseBodyBytes raises it)"
                ),
            ));
        }
        all.extend_from_slice(&piece);
    }
    Ok(all.into())
}

fn value_of<'a>(headers: &HeaderBlock, body: &'a [u8]) -> Value<'a> {
    if body.is_empty() {
        return Value::None;
    }
    let content_type = headers.get("content-type").unwrap_or_default().to_ascii_lowercase();
    let media_type = content_type.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    let is_json = media_type == b"application/json" || media_type.ends_with(b"+json");
    if is_json && let Ok(value) = serde_json::from_slice(body) {
        return Value::Json(value);
    }
    let is_text = media_type.is_empty()
        || media_type.starts_with(b"text/")
        || media_type.ends_with(b"json")
        || media_type.ends_with(b"xml")
        || media_type.ends_with(b"javascript");
    match std::str::from_utf8(body) {
        Ok(text) if is_text => Value::Text(text),
        _ => Value::Bytes { base64: BASE64_STANDARD.encode(body) },
    }
}

fn line(line: &LogLine) -> Line<'_> {
    let timestamp = Timestamp(i64::try_from(line.timestamp_ms).unwrap_or(i64::MAX));
    Line { level: line.level, message: &line.message, timestamp }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(content_type: &str, body: &[u8], expected: &str) {
        let headers = [("content-type", content_type)].into_iter().collect();
        assert_eq!(serde_json::to_string(&value_of(&headers, body)).unwrap(), expected);
    }

    #[test]
    fn the_result_has_the_form_of_the_answer() {
        check("application/json; charset=utf-8", b"{\"a\": 1}", "{\"a\": 1}");
        check("application/problem+json", b"[]", "[]");
        check("application/json", b"not json", "\"not json\"");
        check("text/plain", b"hi", "\"hi\"");
        check("image/png", &[0xff, 0], "{\"base64\":\"/wA=\"}");
        check("text/plain", &[0xff], "{\"base64\":\"/w==\"}");
        check("", b"", "null");
    }
}
