//! What has come of an answer and was not passed on yet.

use bytes::{Bytes, BytesMut};
use cloudserve_protocol::call::{Body, Piece};
use cloudserve_protocol::headers::HeaderBlock;

/// What is on its way to the consumer.
pub(crate) struct Passed {
    pub(crate) piece: Piece,
    pub(crate) end: bool,
}

/// See the module. Whoever fills it bounds it.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// One piece, as it came. Empty when there is `more`.
    piece: Bytes,
    /// Several, in one.
    more: BytesMut,
    trailers: Option<HeaderBlock>,
    is_whole: bool,
    /// The consumer has not been told that it is whole.
    is_end_due: bool,
}

impl Backlog {
    pub(crate) fn add(&mut self, bytes: Bytes, end: bool) {
        if self.piece.is_empty() && self.more.is_empty() {
            self.piece = bytes;
        } else {
            self.more.extend_from_slice(&std::mem::take(&mut self.piece));
            self.more.extend_from_slice(&bytes);
        }
        self.is_whole |= end;
        self.is_end_due |= end;
    }

    pub(crate) fn end_with(&mut self, trailers: HeaderBlock) {
        self.trailers = Some(trailers);
        self.is_whole = true;
        self.is_end_due = true;
    }

    /// Whether all of the answer has come.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_whole
    }

    pub(crate) fn has_more(&self) -> bool {
        !self.piece.is_empty() || !self.more.is_empty() || self.is_end_due
    }

    /// All of the answer, of which nothing was passed on.
    pub(crate) fn into_body(mut self) -> Body {
        let bytes = self.take_bytes();
        match self.trailers {
            Some(trailers) => Body::ending(bytes, Ok(Piece::Trailers(trailers))),
            None => bytes.into(),
        }
    }

    /// What comes next.
    pub(crate) fn take(&mut self) -> Option<Passed> {
        if !self.has_more() {
            return None;
        }
        let bytes = self.take_bytes();
        let piece = match self.trailers.take_if(|_| bytes.is_empty()) {
            Some(trailers) => Piece::Trailers(trailers),
            None => bytes.into(),
        };
        let end = self.is_end_due && self.trailers.is_none();
        self.is_end_due &= !end;
        Some(Passed { piece, end })
    }

    fn take_bytes(&mut self) -> Bytes {
        if self.more.is_empty() {
            std::mem::take(&mut self.piece)
        } else {
            self.more.split().freeze()
        }
    }
}
