//! The body of a request to a node: a call's preamble and the function's request body.
//!
//! A body that comes in pieces is not touched before the node has taken the call: until then it may
//! have to go elsewhere.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use cloudserve_protocol::call::{Body, BodyStream, Piece};
use cloudserve_protocol::fault::{Fault, FaultClass};
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;

use crate::message::wrap_trailers;

/// A function's request body, for as many attempts as it takes.
#[derive(Clone)]
pub(super) enum Source {
    Whole(Bytes),
    Pieces(Arc<Mutex<Pieces>>),
}

/// A body in pieces.
pub(super) struct Pieces {
    stream: BodyStream,
    /// Which attempt they are for. One that is over may still be asked what comes next.
    attempt: u32,
    is_open: bool,
    was_read: bool,
    /// Why it ended before its end.
    fault: Option<Fault>,
    waiting: Option<Waker>,
}

impl Source {
    pub(super) fn of(body: Body) -> Self {
        match body {
            Body::Empty => Self::Whole(Bytes::new()),
            Body::Full(bytes) => Self::Whole(bytes),
            Body::Stream(stream) => Self::Pieces(Arc::new(Mutex::new(Pieces {
                stream,
                attempt: 0,
                is_open: false,
                was_read: false,
                fault: None,
                waiting: None,
            }))),
        }
    }

    /// The body of one attempt.
    pub(super) fn upload(&self, mut preamble: BytesMut) -> Upload {
        match self {
            Self::Whole(bytes) => {
                preamble.extend_from_slice(bytes);
                Upload::whole(preamble.freeze())
            }
            Self::Pieces(pieces) => {
                let attempt = {
                    let mut pieces = pieces.lock();
                    pieces.is_open = false;
                    pieces.attempt += 1;
                    pieces.attempt
                };
                let pieces = Some((pieces.clone(), attempt));
                Upload { first: preamble.freeze(), pieces, sent: None }
            }
        }
    }

    /// The node has taken the call: pieces may be sent.
    pub(super) fn open(&self) {
        if let Self::Pieces(pieces) = self {
            let mut pieces = pieces.lock();
            pieces.is_open = true;
            if let Some(waiting) = pieces.waiting.take() {
                waiting.wake();
            }
        }
    }

    /// Takes the body back from an attempt that is over, for another one. `false`: some of it was
    /// sent, and is not here any more.
    pub(super) fn take_back(&self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Pieces(pieces) => {
                let mut pieces = pieces.lock();
                // Its connection asks what comes next until it has noticed.
                pieces.attempt += 1;
                pieces.is_open = false;
                !pieces.was_read
            }
        }
    }

    /// Why it ended before its end, if it did.
    pub(super) fn fault(&self) -> Option<Fault> {
        match self {
            Self::Whole(_) => None,
            Self::Pieces(pieces) => pieces.lock().fault.clone(),
        }
    }
}

/// What goes over the wire in one attempt.
pub(crate) struct Upload {
    first: Bytes,
    /// With the number of the attempt.
    pieces: Option<(Arc<Mutex<Pieces>>, u32)>,
    sent: Option<Arc<AtomicBool>>,
}

impl Upload {
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self { first: bytes, pieces: None, sent: None }
    }

    /// Sets `sent` when there is a connection that takes it. Until then no node has any of it.
    pub(super) fn telling(self, sent: &Arc<AtomicBool>) -> Self {
        sent.store(false, Relaxed);
        Self { sent: Some(sent.clone()), ..self }
    }

    pub(super) fn is_in_pieces(&self) -> bool {
        self.pieces.is_some()
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        if let Some(sent) = self.sent.take() {
            sent.store(true, Relaxed);
        }
        if !self.first.is_empty() {
            let first = std::mem::take(&mut self.first);
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let Some((pieces, attempt)) = &self.pieces else { return Poll::Ready(None) };
        let mut pieces = pieces.lock();
        if pieces.attempt != *attempt {
            let over = Fault::new(FaultClass::Cancelled, "the call goes on elsewhere");
            return Poll::Ready(Some(Err(over)));
        }
        if !pieces.is_open {
            pieces.waiting = Some(cx.waker().clone());
            return Poll::Pending;
        }
        pieces.was_read = true;
        match pieces.stream.as_mut().poll_next(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Ready(Some(Ok(Piece::Data(bytes)))) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Poll::Ready(Some(Ok(Piece::Trailers(trailers)))) => {
                Poll::Ready(Some(Ok(Frame::trailers(wrap_trailers(&trailers)))))
            }
            Poll::Ready(Some(Err(fault))) => {
                pieces.fault = Some(fault.clone());
                Poll::Ready(Some(Err(fault)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty() && self.pieces.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.pieces.is_none() {
            SizeHint::with_exact(self.first.len() as u64)
        } else {
            SizeHint::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use futures::stream;
    use http_body::Body as _;

    use super::*;

    fn next(upload: &mut Upload) -> Poll<Option<Result<Bytes, FaultClass>>> {
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(upload).poll_frame(&mut cx).map(|frame| {
            frame.map(|frame| frame.map(|f| f.into_data().unwrap()).map_err(|fault| fault.class))
        })
    }

    #[test]
    fn an_attempt_that_is_over_takes_nothing_of_the_next() {
        let pieces = vec![Ok(Piece::Data(Bytes::from_static(b"piece")))];
        let source = Source::of(Body::Stream(Box::pin(stream::iter(pieces))));
        let preamble = || BytesMut::from(&b"head"[..]);
        let mut first = source.upload(preamble());
        assert_eq!(next(&mut first), Poll::Ready(Some(Ok(Bytes::from_static(b"head")))));
        let mut second = source.upload(preamble());
        source.open();
        assert_eq!(next(&mut first), Poll::Ready(Some(Err(FaultClass::Cancelled))));
        for expected in [&b"head"[..], b"piece"] {
            assert_eq!(next(&mut second), Poll::Ready(Some(Ok(Bytes::from_static(expected)))));
        }
        assert_eq!(next(&mut second), Poll::Ready(None));
    }

    #[test]
    fn what_was_not_sent_is_taken_back_from_an_attempt_that_was_under_way() {
        let pieces = vec![Ok(Piece::Data(Bytes::from_static(b"piece")))];
        let source = Source::of(Body::Stream(Box::pin(stream::iter(pieces))));
        let mut first = source.upload(BytesMut::from(&b"head"[..]));
        source.open();
        assert_eq!(next(&mut first), Poll::Ready(Some(Ok(Bytes::from_static(b"head")))));
        assert!(source.take_back());
        // Before there is another attempt.
        assert_eq!(next(&mut first), Poll::Ready(Some(Err(FaultClass::Cancelled))));
        let mut second = source.upload(BytesMut::from(&b"head"[..]));
        source.open();
        for expected in [&b"head"[..], b"piece"] {
            assert_eq!(next(&mut second), Poll::Ready(Some(Ok(Bytes::from_static(expected)))));
        }
        assert!(!source.take_back(), "the piece is gone");
        assert!(Source::of(Body::Full(Bytes::from_static(b"whole"))).take_back());
    }
}
