//! Answers: what comes back from a sandbox becomes HTTP, and the end of the answer ends the call.
//!
//! All functions share one origin, so a function may not use what acts on the whole of it: our
//! own `x-cloudserve-*` names, the session cookie (cookies ignore ports, so it is the
//! dashboard's), and headers that govern every page, worker or cookie of the host.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use cloudserve_identity::SESSION_COOKIE;
use cloudserve_protocol::call::{Body, BodyStream, Outcome, Piece, Reply, Timings};
use cloudserve_protocol::fault::{Fault, FaultClass};
use cloudserve_protocol::headers::HeaderBlock;
use cloudserve_protocol::pieces;
use futures::StreamExt;
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue, RETRY_AFTER, SET_COOKIE, TRAILER};
use http::{HeaderMap, Response, StatusCode};
use http_body::{Frame, SizeHint};
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::time::Sleep;

use crate::head::{ExecutionText, is_hop_by_hop};
use crate::meter::Call;
use crate::refusal::{json, limited};
use crate::timing::server_timing;
use crate::unread::Unread;

pub(crate) static EXECUTION_ID: HeaderName = HeaderName::from_static("x-cloudserve-execution-id");
static COLD: HeaderName = HeaderName::from_static("x-cloudserve-cold");
static SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Headers of an answer that are passed on. A [`HeaderMap`] panics where it would need more than 32 768
/// places, and for names chosen to collide it takes more while a fifth of them are in use: with so many,
/// and those that are added here, it never does.
const MAX_HEADERS: usize = 6_000;

/// The body of an answer. When it ends or is dropped, its call is recorded.
pub(crate) struct AnswerBody {
    content: Content,
    settlement: Option<Settlement>,
}

enum Content {
    Empty,
    Whole(Bytes),
    Stream {
        pieces: BodyStream,
        /// What is still to come, if the function has said how long its answer is. HTTP takes no more
        /// than that, and does not ask whether there is more.
        left: Option<u64>,
        /// Fires when even the grace has passed.
        last_moment: Pin<Box<Sleep>>,
    },
    /// The function sends a body where HTTP has none (HEAD, 204). Read, so that the function is
    /// not taken for abandoned.
    Unsent(BodyStream),
}

/// How an answer ended.
enum End {
    Complete,
    Faulted(Fault),
    HungUp,
}

/// What is needed to record a call whose answer has begun.
struct Settlement {
    call: Box<Call>,
    outcome: Option<oneshot::Receiver<Outcome>>,
    cold: bool,
    timings: Timings,
}

/// The answer to a call whose function has answered.
pub(crate) fn answer(mut call: Box<Call>, reply: Reply, is_head: bool) -> Response<AnswerBody> {
    let execution = ExecutionText::of(call.execution_id());
    let Reply { head, body, cold, timings } = reply;
    let outcome = call.outcome();
    call.answered(head.status);
    let status = StatusCode::from_u16(head.status).ok().filter(|s| !s.is_informational());
    let bodiless =
        is_head || matches!(status, Some(StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED));
    let length = match &body {
        Body::Full(bytes) if is_head => Some(bytes.len()),
        _ => None,
    };
    let mut content = match body {
        Body::Stream(pieces) if bodiless => Content::Unsent(pieces),
        Body::Stream(pieces) => {
            let last_moment = Box::pin(tokio::time::sleep_until(call.last_moment().into()));
            Content::Stream { pieces, left: None, last_moment }
        }
        Body::Full(bytes) if !bodiless && !bytes.is_empty() => {
            Content::Whole(call.unread().count(bytes))
        }
        Body::Full(_) | Body::Empty => Content::Empty,
    };
    let is_open = status != Some(StatusCode::NO_CONTENT)
        && (bodiless || matches!(content, Content::Stream { .. }));
    let mut headers = response_headers(&head.headers, is_open);
    if let Some(length) = length {
        headers.entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    // A connection that was switched has no length, whatever the function says.
    if let Content::Stream { left, .. } = &mut content
        && status.is_some()
    {
        *left = headers.get(CONTENT_LENGTH).and_then(|n| n.to_str().ok()?.parse().ok());
    }
    stamp(&mut headers, &execution, cold, timings);

    let settlement = Settlement { call, outcome, cold, timings };
    let mut response = Response::new(AnswerBody { content, settlement: Some(settlement) });
    // The sandbox has checked the status; what it could not mean is an error of the function.
    *response.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.headers_mut() = headers;
    response
}

/// What a caller is told of a fault. What the function's own code threw is for its owner, who finds
/// it in the log: a caller may be anybody.
pub(crate) fn told(fault: &Fault) -> &str {
    match fault.class {
        FaultClass::HandlerError => "the function threw an error; its log holds the details",
        FaultClass::StartupError => "the function could not be loaded; its log holds the details",
        _ => &fault.message,
    }
}

/// The answer to a call that failed before the function answered.
pub(crate) fn failure(call: Box<Call>, outcome: Outcome) -> Response<AnswerBody> {
    #[derive(Serialize)]
    struct Failed<'a> {
        error: Description<'a>,
        message: &'a str,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Description<'a> {
        code: &'static str,
        message: &'a str,
        execution_id: String,
    }
    let mut outcome = outcome;
    let fault = outcome.fault.get_or_insert_with(crashed);
    let message = told(fault);
    let code = fault.class.code();
    let execution_id = call.execution_id().to_string();
    let body = Failed { error: Description { code, message, execution_id }, message };
    let mut response = json(status_of(fault.class), &body);
    let headers = response.headers_mut();
    explain_refusal(headers, fault, outcome.started, call.target().limits.concurrency);
    stamp(headers, &ExecutionText::of(call.execution_id()), outcome.cold, outcome.timings);
    call.finish(outcome);
    response
}

pub(crate) fn status_of(class: FaultClass) -> StatusCode {
    StatusCode::from_u16(class.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// The worker is gone and has not said why.
pub(crate) fn crashed() -> Fault {
    Fault::new(FaultClass::Crashed, "the function's process ended while the call was in it")
}

/// When to come again, for calls that were not taken. `concurrency` is the function's: a sandbox says
/// which bound was met if it knows. A call that was `started` has met none of calls.
pub(crate) fn explain_refusal(
    headers: &mut HeaderMap,
    fault: &Fault,
    started: bool,
    concurrency: u32,
) {
    match fault.class.http_status() {
        429 if !started => limited(headers, &fault.limit.unwrap_or(concurrency).to_string(), 1),
        429 | 503 => drop(headers.insert(RETRY_AFTER, HeaderValue::from_static("1"))),
        _ => {}
    }
}

/// The headers every answer of a call has.
pub(crate) fn stamp(
    headers: &mut HeaderMap,
    execution: &ExecutionText,
    cold: bool,
    timings: Timings,
) {
    let cold = HeaderValue::from_static(if cold { "1" } else { "0" });
    headers.insert(COLD.clone(), cold);
    if let Ok(execution) = HeaderValue::from_maybe_shared(pieces::copy(execution.as_bytes())) {
        headers.append(EXECUTION_ID.clone(), execution);
    }
    // A function may have timings of its own.
    headers.append(SERVER_TIMING.clone(), server_timing(timings));
}

/// `is_open`: not all of the body is there, so that the function may say how long it is, or what
/// comes after it.
fn response_headers(from: &HeaderBlock, is_open: bool) -> HeaderMap {
    let block = from.as_bytes();
    let mut headers = HeaderMap::with_capacity(from.iter().count().min(MAX_HEADERS) + 4);
    for (name, value) in from.iter().take(MAX_HEADERS) {
        let Ok(name) = HeaderName::from_bytes(name) else { continue };
        // Shares the block's buffer instead of copying each value.
        let Ok(value) = HeaderValue::from_maybe_shared(block.slice_ref(value)) else { continue };
        if name == CONTENT_LENGTH {
            let is_number = value.to_str().is_ok_and(|text| text.parse::<u64>().is_ok());
            if is_open && is_number && !headers.contains_key(CONTENT_LENGTH) {
                headers.insert(CONTENT_LENGTH, value);
            }
        } else if !stays_here(&name, &value) || (name == TRAILER && is_open) {
            headers.append(name, value);
        }
    }
    headers
}

fn stays_here(name: &HeaderName, value: &HeaderValue) -> bool {
    if *name == SET_COOKIE {
        return sets_session_cookie(value.as_bytes());
    }
    let name = name.as_str();
    is_hop_by_hop(name)
        || name.starts_with("x-cloudserve-")
        || matches!(
            name,
            "alt-svc"
                | "clear-site-data"
                | "nel"
                | "report-to"
                | "service-worker-allowed"
                | "strict-transport-security"
                // Proxies send files of their own for these, and answers of places that are theirs alone.
                | "x-accel-redirect"
                | "x-lighttpd-send-file"
                | "x-sendfile"
        )
}

/// Browsers send a cookie without a name, `=token=x`, back as `token=x`.
fn sets_session_cookie(cookie: &[u8]) -> bool {
    let is_blank = |b: &u8| b.is_ascii_whitespace() || *b == b'=';
    let start = cookie.iter().position(|b| !is_blank(b)).unwrap_or(cookie.len());
    let name = cookie[start..].split(|b| matches!(b, b'=' | b';')).next().unwrap_or_default();
    name.trim_ascii() == SESSION_COOKIE.as_bytes()
}

impl AnswerBody {
    /// A body that belongs to no call.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self { content: Content::Whole(bytes), settlement: None }
    }

    /// Counts it until it is read.
    pub(crate) fn count(&mut self, unread: &Unread) {
        if let Content::Whole(bytes) = &mut self.content {
            *bytes = unread.count(std::mem::take(bytes));
        }
    }

    fn settle(&mut self, end: End, unsent: Option<BodyStream>) {
        let Some(mut settlement) = self.settlement.take() else { return };
        settlement.call.stop_clock();
        if unsent.is_none() {
            match settlement.outcome.as_mut().map(oneshot::Receiver::try_recv) {
                Some(Ok(over)) => return settlement.close(end, Some(over)),
                Some(Err(TryRecvError::Closed)) | None => return settlement.close(end, None),
                Some(Err(TryRecvError::Empty)) => {}
            }
        }
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(settlement.wait(end, unsent))),
            Err(_) => settlement.close(end, None),
        }
    }
}

impl Settlement {
    /// Waits for what the sandbox has to say. Bounded: it may never say it.
    async fn wait(mut self, end: End, unsent: Option<BodyStream>) {
        let soon = Instant::now() + self.call.hang_up_wait();
        let last_moment = self.call.last_moment();
        let until = if matches!(end, End::Complete) { last_moment.max(soon) } else { soon };
        let outcome = tokio::time::timeout_at(until.into(), async {
            if let Some(mut pieces) = unsent {
                while let Some(Ok(_)) = pieces.next().await {}
            }
            match &mut self.outcome {
                Some(outcome) => outcome.await.ok(),
                None => None,
            }
        });
        let (end, over) = match (outcome.await, end) {
            (Ok(over), end) => (end, over),
            (Err(_), End::Complete) => (End::Faulted(Fault::timeout(self.timeout_ms())), None),
            (Err(_), end) => (end, None),
        };
        self.close(end, over);
    }

    /// Records the call, with what the sandbox says of it; `None`: it says nothing.
    fn close(self, end: End, over: Option<Outcome>) {
        let (cold, timings, is_lost) = (self.cold, self.timings, over.is_none());
        let lost = || Outcome { started: true, cold, timings, ..Outcome::default() };
        let mut outcome = over.unwrap_or_else(lost);
        outcome.fault = match (outcome.fault.take(), end) {
            // Nobody listened any more because of this fault.
            (Some(said), End::Faulted(fault)) if said.class == FaultClass::Cancelled => Some(fault),
            (Some(said), _) => Some(said),
            (None, End::Complete) => is_lost.then(crashed),
            (None, End::Faulted(fault)) => Some(fault),
            (None, End::HungUp) => Some(Fault::cancelled()),
        };
        self.call.finish(outcome);
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.content, Content::Empty) {
            Content::Empty | Content::Whole(_) => self.settle(End::Complete, None),
            Content::Unsent(pieces) => self.settle(End::Complete, Some(pieces)),
            Content::Stream { pieces, left: Some(0), .. } => {
                self.settle(End::Complete, Some(pieces));
            }
            Content::Stream { pieces, .. } => {
                // First, for it tells the sandbox that nobody listens.
                drop(pieces);
                self.settle(End::HungUp, None);
            }
        }
    }
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        match &mut self.content {
            Content::Empty | Content::Unsent(_) => Poll::Ready(None),
            Content::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                self.content = Content::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Content::Stream { pieces, left, last_moment } => {
                let fault = match pieces.poll_next_unpin(cx) {
                    Poll::Ready(Some(Ok(Piece::Data(piece)))) => {
                        *left = left.map(|left| left.saturating_sub(piece.len() as u64));
                        return Poll::Ready(Some(Ok(Frame::data(piece))));
                    }
                    Poll::Ready(Some(Ok(Piece::Trailers(trailers)))) => {
                        self.content = Content::Empty;
                        self.settle(End::Complete, None);
                        // Those the answer has not announced, or its caller does not take, are
                        // left out by the HTTP library.
                        let trailers = response_headers(&trailers, false);
                        return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                    }
                    Poll::Ready(None) => {
                        self.content = Content::Empty;
                        self.settle(End::Complete, None);
                        return Poll::Ready(None);
                    }
                    Poll::Ready(Some(Err(fault))) => fault,
                    Poll::Pending => {
                        if last_moment.as_mut().poll(cx).is_pending() {
                            return Poll::Pending;
                        }
                        Fault::timeout(self.settlement.as_ref().map_or(0, Settlement::timeout_ms))
                    }
                };
                self.content = Content::Empty;
                self.settle(End::Faulted(fault.clone()), None);
                Poll::Ready(Some(Err(fault)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Empty | Content::Unsent(_))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty | Content::Unsent(_) => SizeHint::with_exact(0),
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Stream { .. } => SizeHint::default(),
        }
    }
}

impl Settlement {
    fn timeout_ms(&self) -> u32 {
        self.call.target().limits.timeout_ms
    }
}

#[cfg(test)]
mod tests {
    use cloudserve_protocol::ids::ExecutionId;

    use super::*;

    #[test]
    fn a_function_sets_its_own_cookies_but_not_ours() {
        for cookie in [
            "token=x",
            " token = x; Path=/",
            "=token=x",
            "= token=x",
            "token",
            "token;a",
            "\ttoken=x",
        ] {
            assert!(sets_session_cookie(cookie.as_bytes()), "{cookie}");
        }
        for cookie in ["tokens=x", "Token=x", "a=token=x", "__Host-token=x", "", "session=1"] {
            assert!(!sets_session_cookie(cookie.as_bytes()), "{cookie}");
        }
    }

    #[test]
    fn what_belongs_to_the_connection_or_the_host_is_dropped() {
        let headers = [
            ("content-type", "text/plain"),
            ("content-length", "3"),
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("trailer", "x-sum"),
            ("set-cookie", "a=1"),
            ("set-cookie", "token=evil"),
            ("set-cookie", "b=2"),
            ("x-cloudserve-cold", "7"),
            ("clear-site-data", "\"cookies\""),
            ("strict-transport-security", "max-age=0"),
            ("x-accel-redirect", "/internal/secrets"),
            ("x-sendfile", "/etc/passwd"),
            ("bad name", "x"),
            ("x-bad-value", "a\r\nb"),
        ];
        let block = headers.into_iter().collect();
        let got = response_headers(&block, false);
        let got: Vec<_> = got.iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
        assert_eq!(
            got,
            [("content-type", "text/plain"), ("set-cookie", "a=1"), ("set-cookie", "b=2")]
        );
        let open = response_headers(&block, true);
        assert_eq!(open.get(CONTENT_LENGTH).unwrap(), "3");
        assert_eq!(open.get(TRAILER).unwrap(), "x-sum");
    }

    #[test]
    fn an_answer_of_more_headers_than_a_map_holds_has_the_first_of_them() {
        let all = (0..40_000).map(|n| (format!("x-{n}"), "v"));
        let mut headers = response_headers(&all.collect(), false);
        let execution = ExecutionText::of(ExecutionId::from_bytes([1; 16]));
        stamp(&mut headers, &execution, false, Timings::default());
        assert!(headers.contains_key("x-5999") && !headers.contains_key("x-6000"));
        assert!(headers.contains_key(&EXECUTION_ID));
    }
}
