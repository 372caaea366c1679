//! What is asked: paths, and how a call is written down.
//!
//! A call is the body of one request: length (u32 LE) and JSON of [`CallHead`], length and bytes of
//! the function's request headers, and then the function's request body, to the end. Its trailers
//! are one trailer of ours, which HTTP lets us announce before we know them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use cloudserve_protocol::call::{Body, Invocation, Outcome, RequestHead, Target, micros};
use cloudserve_protocol::headers::HeaderBlock;
use cloudserve_protocol::ids::{ExecutionId, FunctionId};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// Runs a call.
pub(crate) const INVOKE: &str = "/v1/invoke";
/// Says that nobody reads the answer of a call any more; its id follows.
pub(crate) const CANCEL: &str = "/v1/cancel/";
/// Loads a version once.
pub(crate) const LOAD: &str = "/v1/load";
/// Ends workers of old versions.
pub(crate) const RETIRE: &str = "/v1/retire";
/// Builds a dependency set.
pub(crate) const DEPENDENCIES: &str = "/v1/dependencies";
/// How the node is.
pub(crate) const STATUS: &str = "/v1/status";

/// Bounds of a call's two preambles: an environment with every character escaped, and more
/// headers than a gateway takes.
const MAX_HEAD_BYTES: usize = 1024 * 1024;
const MAX_HEADERS_BYTES: usize = 1024 * 1024;

const PREFIX: usize = 4;

/// The trailer that holds the trailers of the function's request.
pub(crate) const TRAILERS: HeaderName = HeaderName::from_static("x-function-trailers");

/// A call without its headers and body.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CallHead {
    execution_id: ExecutionId,
    /// Clocks of two machines differ: the time that is left goes along, not the deadline.
    time_left_us: u64,
    method: String,
    target: String,
    function: Arc<Target>,
}

/// Which workers are not wanted any more.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Retirement {
    pub(crate) function_id: FunctionId,
    pub(crate) below: u32,
}

/// How a node is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    /// Whether it takes calls.
    pub(crate) ready: bool,
}

/// A call cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed call")]
pub(crate) struct Malformed;

/// What comes before the function's request body.
pub(crate) fn preamble(
    execution_id: ExecutionId,
    function: &Arc<Target>,
    deadline: Instant,
    request: &RequestHead,
) -> Result<BytesMut, serde_json::Error> {
    let time_left = deadline.saturating_duration_since(Instant::now());
    let head = serde_json::to_vec(&CallHead {
        execution_id,
        time_left_us: micros(time_left),
        method: request.method.to_string(),
        target: request.target.to_string(),
        function: function.clone(),
    })?;
    let headers = request.headers.as_bytes();
    let mut out = BytesMut::with_capacity(2 * PREFIX + head.len() + headers.len());
    for part in [&head[..], headers] {
        // Both are far below: the head has a bound, and the headers came with one.
        out.put_u32_le(u32::try_from(part.len()).unwrap_or(u32::MAX));
        out.put_slice(part);
    }
    Ok(out)
}

/// What comes after the function's request body.
pub(crate) fn wrap_trailers(trailers: &HeaderBlock) -> HeaderMap {
    let text = BASE64_STANDARD.encode(trailers.as_bytes());
    let value = HeaderValue::try_from(text).expect("base64 is visible ASCII");
    HeaderMap::from_iter([(TRAILERS, value)])
}

/// See [`wrap_trailers`].
pub(crate) fn unwrap_trailers(trailers: &HeaderMap) -> Result<HeaderBlock, Malformed> {
    let text = trailers.get(TRAILERS).ok_or(Malformed)?;
    let bytes = BASE64_STANDARD.decode(text).map_err(|_| Malformed)?;
    HeaderBlock::parse(bytes.into()).map_err(|_| Malformed)
}

/// Takes the preamble off the front of what has come. `None`: more has to come first.
pub(crate) fn take_preamble(
    received: &mut Bytes,
) -> Result<Option<(CallHead, HeaderBlock)>, Malformed> {
    let Some((head, rest)) = part(received, 0, MAX_HEAD_BYTES)? else { return Ok(None) };
    let Some((headers, rest)) = part(received, rest, MAX_HEADERS_BYTES)? else { return Ok(None) };
    let head = serde_json::from_slice(&received[head]).map_err(|_| Malformed)?;
    let headers = HeaderBlock::parse(received.slice(headers)).map_err(|_| Malformed)?;
    received.advance(rest);
    Ok(Some((head, headers)))
}

fn part(
    received: &Bytes,
    at: usize,
    max: usize,
) -> Result<Option<(std::ops::Range<usize>, usize)>, Malformed> {
    let Some(prefix) = received.get(at..at + PREFIX) else { return Ok(None) };
    let length = u32::from_le_bytes(prefix.try_into().map_err(|_| Malformed)?) as usize;
    if length > max {
        return Err(Malformed);
    }
    let start = at + PREFIX;
    let end = start + length;
    Ok((received.len() >= end).then_some((start..end, end)))
}

impl CallHead {
    /// The call. Its time runs from when it arrived.
    pub(crate) fn into_call(
        self,
        headers: HeaderBlock,
        body: Body,
        arrived: Instant,
        told: oneshot::Sender<Outcome>,
    ) -> Result<Invocation, Malformed> {
        let time_left = Duration::from_micros(self.time_left_us);
        Ok(Invocation {
            execution_id: self.execution_id,
            target: self.function,
            deadline: arrived.checked_add(time_left).ok_or(Malformed)?,
            head: RequestHead { method: self.method.into(), target: self.target.into(), headers },
            body,
            told,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use cloudserve_protocol::call::Env;
    use cloudserve_protocol::ids::{BundleHash, UserId};
    use cloudserve_protocol::limits::Limits;

    use super::*;

    pub(crate) fn call(body: Body) -> Invocation {
        Invocation {
            execution_id: ExecutionId::new(),
            target: Arc::new(Target {
                function_id: FunctionId::new(),
                owner_id: UserId::new(),
                owner_name: "owner".parse().unwrap(),
                function_name: "function".parse().unwrap(),
                version: 3,
                bundle_hash: BundleHash::of(b""),
                runtime_deps: None,
                limits: Limits::default(),
                env: Env([("A".to_owned(), "b".to_owned())].into()),
            }),
            deadline: Instant::now() + Duration::from_secs(5),
            head: RequestHead {
                method: "POST".into(),
                target: "/x?y=1".into(),
                headers: [("host", "h"), ("a", "1"), ("a", "2")].into_iter().collect(),
            },
            body,
            told: oneshot::channel().0,
        }
    }

    #[test]
    fn a_call_arrives_as_it_was_sent_however_it_is_cut() {
        let sent = call(Body::Empty);
        let mut whole =
            preamble(sent.execution_id, &sent.target, sent.deadline, &sent.head).unwrap();
        let length = whole.len();
        whole.extend_from_slice(b"body");
        let whole = whole.freeze();
        for cut in 0..length {
            assert!(take_preamble(&mut whole.slice(..cut)).unwrap().is_none(), "{cut}");
        }
        let mut rest = whole.clone();
        let (head, headers) = take_preamble(&mut rest).unwrap().unwrap();
        assert_eq!(rest, "body");
        let got =
            head.into_call(headers, Body::Empty, Instant::now(), oneshot::channel().0).unwrap();
        assert_eq!((got.execution_id, &got.target), (sent.execution_id, &sent.target));
        assert_eq!(got.head, sent.head);
        let lost = sent.deadline.saturating_duration_since(got.deadline);
        assert!(got.deadline <= sent.deadline + Duration::from_secs(1), "{lost:?}");
    }

    #[test]
    fn trailers_arrive_as_they_were_sent() {
        let sent: HeaderBlock = [("sum", "1"), ("sum", "\u{e9}")].into_iter().collect();
        assert_eq!(unwrap_trailers(&wrap_trailers(&sent)).unwrap(), sent);
        assert_eq!(unwrap_trailers(&HeaderMap::new()).unwrap_err(), Malformed);
    }

    #[test]
    fn lengths_beyond_the_bound_are_refused_at_once() {
        let mut huge = Bytes::from_static(&[0xff; 8]);
        assert_eq!(take_preamble(&mut huge).unwrap_err(), Malformed);
        let mut garbage = Bytes::from_static(b"\x02\0\0\0{]\0\0\0\0");
        assert_eq!(take_preamble(&mut garbage).unwrap_err(), Malformed);
    }
}
