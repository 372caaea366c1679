//! What is answered to a call: frames in the body of the HTTP answer, the outcome last.
//!
//! Layout: kind (u8), length (u32 LE), content. [`Event::Failed`] comes alone; otherwise
//! [`Event::Head`], any number of [`Event::Data`], then [`Event::End`], [`Event::Trailers`] or
//! [`Event::Broken`], and [`Event::Outcome`] when the call is over. An answer that ends without its
//! outcome is one whose sandbox has lost the worker.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use cloudserve_protocol::call::{Outcome, ResponseHead, Timings};
use cloudserve_protocol::fault::Fault;
use cloudserve_protocol::headers::HeaderBlock;
use futures::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;

const HEAD: u8 = 1;
const DATA: u8 = 2;
const END: u8 = 3;
const BROKEN: u8 = 4;
const OUTCOME: u8 = 5;
const FAILED: u8 = 6;
const TRAILERS: u8 = 7;

const PREFIX: usize = 5;
/// Status, cold, and three timings, before the headers.
const HEAD_PREFIX: usize = 2 + 1 + 3 * 8;

/// Content of a frame that is read whole: an outcome with the longest log there may be, escaped.
const MAX_WHOLE_BYTES: usize = 16 * 1024 * 1024;
/// Data is cut into frames of at most this.
const MAX_DATA_BYTES: usize = 1024 * 1024 * 1024;

/// One thing that a node says of a call.
#[derive(Debug, PartialEq)]
pub(crate) enum Event {
    /// The answer has begun.
    Head { head: ResponseHead, cold: bool, timings: Timings },
    /// Some of its body.
    Data(Bytes),
    /// Its body is complete.
    End,
    /// Its body is complete, and this comes after it.
    Trailers(HeaderBlock),
    /// Its body ends here, and is not complete.
    Broken(Fault),
    /// The call is over.
    Outcome(Box<Outcome>),
    /// The call is over and there is no answer.
    Failed(Box<Outcome>),
}

/// Why an answer cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("the answer was cut off")]
    Cut,
    #[error("the answer is malformed")]
    Malformed,
}

pub(crate) fn push_head(out: &mut BytesMut, head: &ResponseHead, cold: bool, timings: Timings) {
    let headers = head.headers.as_bytes();
    out.reserve(PREFIX + HEAD_PREFIX + headers.len());
    push_prefix(out, HEAD, HEAD_PREFIX + headers.len());
    out.put_u16_le(head.status);
    out.put_u8(u8::from(cold));
    out.put_u64_le(timings.queue_us);
    out.put_u64_le(timings.boot_us);
    out.put_u64_le(timings.exec_us);
    out.put_slice(headers);
}

/// The prefix of the data that follows. At most [`MAX_DATA_BYTES`], which nothing exceeds: answers
/// have a bound.
pub(crate) fn push_data_prefix(out: &mut BytesMut, length: usize) {
    push_prefix(out, DATA, length.min(MAX_DATA_BYTES));
}

pub(crate) fn push_end(out: &mut BytesMut) {
    push_prefix(out, END, 0);
}

pub(crate) fn push_trailers(out: &mut BytesMut, trailers: &HeaderBlock) {
    push_prefix(out, TRAILERS, trailers.as_bytes().len());
    out.put_slice(trailers.as_bytes());
}

pub(crate) fn push_broken(out: &mut BytesMut, fault: &Fault) {
    push_json(out, BROKEN, fault);
}

pub(crate) fn push_outcome(out: &mut BytesMut, outcome: &Outcome) {
    push_json(out, OUTCOME, outcome);
}

pub(crate) fn push_failed(out: &mut BytesMut, outcome: &Outcome) {
    push_json(out, FAILED, outcome);
}

fn push_json<T: Serialize>(out: &mut BytesMut, kind: u8, value: &T) {
    let json = serde_json::to_vec(value).expect("text keys, no maps, no failing Serialize");
    push_prefix(out, kind, json.len());
    out.put_slice(&json);
}

fn push_prefix(out: &mut BytesMut, kind: u8, length: usize) {
    out.put_u8(kind);
    out.put_u32_le(u32::try_from(length).unwrap_or(u32::MAX));
}

/// Puts a piece behind what has come. One alone is taken as it is.
pub(crate) fn append(received: &mut Bytes, piece: Bytes) {
    if received.is_empty() {
        *received = piece;
        return;
    }
    // Copies only what is shared with others, so that many pieces cost no more than few.
    let mut whole = BytesMut::from(std::mem::take(received));
    whole.extend_from_slice(&piece);
    *received = whole.freeze();
}

/// Why something that was said, or nothing, is not what has to come here.
pub(crate) fn unexpected(said: &Result<Option<Event>, FrameError>) -> FrameError {
    match said {
        Ok(Some(_)) => FrameError::Malformed,
        Ok(None) => FrameError::Cut,
        Err(error) => *error,
    }
}

/// Reads frames. Data is passed on as it comes.
#[derive(Debug)]
pub(crate) struct FrameReader<S> {
    source: S,
    received: Bytes,
    data_left: usize,
}

impl<S, E> FrameReader<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    pub(crate) fn new(source: S) -> Self {
        Self { source, received: Bytes::new(), data_left: 0 }
    }

    /// The next thing said; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, FrameError> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// See [`FrameReader::next`].
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Event>, FrameError>> {
        loop {
            if let Some(event) = self.take()? {
                return Poll::Ready(Ok(Some(event)));
            }
            match ready!(Pin::new(&mut self.source).poll_next(cx)) {
                Some(Ok(piece)) => append(&mut self.received, piece),
                None if self.received.is_empty() && self.data_left == 0 => {
                    return Poll::Ready(Ok(None));
                }
                Some(Err(_)) | None => return Poll::Ready(Err(FrameError::Cut)),
            }
        }
    }

    fn take(&mut self) -> Result<Option<Event>, FrameError> {
        loop {
            if self.data_left > 0 {
                let length = self.data_left.min(self.received.len());
                self.data_left -= length;
                return Ok((length > 0).then(|| Event::Data(self.received.split_to(length))));
            }
            let Some(prefix) = self.received.get(..PREFIX) else { return Ok(None) };
            let kind = prefix[0];
            let length = u32::from_le_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
            if kind == DATA {
                self.received.advance(PREFIX);
                self.data_left = length;
                continue;
            }
            if length > MAX_WHOLE_BYTES {
                return Err(FrameError::Malformed);
            }
            if self.received.len() < PREFIX + length {
                return Ok(None);
            }
            self.received.advance(PREFIX);
            return parse(kind, self.received.split_to(length)).map(Some);
        }
    }
}

fn parse(kind: u8, mut content: Bytes) -> Result<Event, FrameError> {
    Ok(match kind {
        HEAD => {
            if content.len() < HEAD_PREFIX {
                return Err(FrameError::Malformed);
            }
            let status = content.get_u16_le();
            let cold = content.get_u8() != 0;
            let timings = Timings {
                queue_us: content.get_u64_le(),
                boot_us: content.get_u64_le(),
                exec_us: content.get_u64_le(),
            };
            let headers = HeaderBlock::parse(content).map_err(|_| FrameError::Malformed)?;
            Event::Head { head: ResponseHead { status, headers }, cold, timings }
        }
        END => Event::End,
        TRAILERS => {
            Event::Trailers(HeaderBlock::parse(content).map_err(|_| FrameError::Malformed)?)
        }
        BROKEN => Event::Broken(json(&content)?),
        OUTCOME => Event::Outcome(json(&content)?),
        FAILED => Event::Failed(json(&content)?),
        _ => return Err(FrameError::Malformed),
    })
}

fn json<T: DeserializeOwned>(content: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(content).map_err(|_| FrameError::Malformed)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use cloudserve_protocol::fault::FaultClass;
    use futures::stream;

    use super::*;

    fn answer() -> (BytesMut, Vec<Event>) {
        let head = ResponseHead { status: 201, headers: [("a", "b")].into_iter().collect() };
        let timings = Timings { queue_us: 1, boot_us: 2, exec_us: 3 };
        let outcome = Outcome { started: true, cpu_us: 7, ..Outcome::default() };
        let fault = Fault::new(FaultClass::Timeout, "late");
        let mut out = BytesMut::new();
        push_head(&mut out, &head, true, timings);
        push_data_prefix(&mut out, 5);
        out.extend_from_slice(b"hello");
        push_data_prefix(&mut out, 0);
        push_end(&mut out);
        push_trailers(&mut out, &[("sum", "1")].into_iter().collect());
        push_broken(&mut out, &fault);
        push_outcome(&mut out, &outcome);
        push_failed(&mut out, &Outcome::not_started(fault.clone()));
        let events = vec![
            Event::Head { head, cold: true, timings },
            Event::Data(Bytes::from_static(b"hello")),
            Event::End,
            Event::Trailers([("sum", "1")].into_iter().collect()),
            Event::Broken(fault.clone()),
            Event::Outcome(Box::new(outcome)),
            Event::Failed(Box::new(Outcome::not_started(fault))),
        ];
        (out, events)
    }

    async fn read(pieces: Vec<Bytes>) -> Result<Vec<Event>, FrameError> {
        let source = stream::iter(pieces.into_iter().map(Ok::<_, Infallible>));
        let mut reader = FrameReader::new(source);
        let mut events = Vec::new();
        while let Some(event) = reader.next().await? {
            match (events.last_mut(), event) {
                (Some(Event::Data(before)), Event::Data(more)) => {
                    *before = [&before[..], &more[..]].concat().into();
                }
                (_, event) => events.push(event),
            }
        }
        Ok(events)
    }

    #[tokio::test]
    async fn frames_are_read_however_they_are_cut() {
        let (bytes, events) = answer();
        let bytes = bytes.freeze();
        for size in [1, 2, 3, 7, 64, bytes.len()] {
            let pieces = bytes.chunks(size).map(Bytes::copy_from_slice).collect();
            assert_eq!(read(pieces).await.unwrap(), events, "{size}");
        }
    }

    #[tokio::test]
    async fn cut_and_malformed_answers_are_told_apart() {
        let (bytes, _) = answer();
        let cut = bytes.len() - 1;
        assert_eq!(read(vec![bytes.freeze().slice(..cut)]).await.unwrap_err(), FrameError::Cut);
        for wrong in
            [&[9, 0, 0, 0, 0][..], &[OUTCOME, 0xff, 0xff, 0xff, 0xff], &[END + 2, 1, 0, 0, 0, b'{']]
        {
            let read = read(vec![Bytes::copy_from_slice(wrong)]).await;
            assert_eq!(read.unwrap_err(), FrameError::Malformed, "{wrong:?}");
        }
    }
}
