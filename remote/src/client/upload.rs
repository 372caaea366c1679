//! The body of a request to a node: a call's preamble and the function's request body.
//!
//! A body that comes in pieces is not touched before the node has taken the call: until then it may
//! have to go elsewhere.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use cloudserve_protocol::call::{Body, BodyStream, Piece};
use cloudserve_protocol::fault::Fault;
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
                pieces.lock().is_open = false;
                Upload { first: preamble.freeze(), pieces: Some(pieces.clone()) }
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

    /// Whether some of it was sent that is not here any more.
    pub(super) fn was_read(&self) -> bool {
        match self {
            Self::Whole(_) => false,
            Self::Pieces(pieces) => pieces.lock().was_read,
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
    pieces: Option<Arc<Mutex<Pieces>>>,
}

impl Upload {
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self { first: bytes, pieces: None }
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
        if !self.first.is_empty() {
            let first = std::mem::take(&mut self.first);
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let Some(pieces) = &self.pieces else { return Poll::Ready(None) };
        let mut pieces = pieces.lock();
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
