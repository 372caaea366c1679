//! The part of a request's body that did not fit into the request's frame: sent piece by piece, as
//! far as the worker has granted credit.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use cloudserve_protocol::call::{self, Body, BodyStream};
use cloudserve_protocol::fault::Fault;
use cloudserve_protocol::headers::HeaderBlock;
use cloudserve_protocol::wire::{INITIAL_UPLOAD_CREDIT_BYTES, MAX_CHUNK_BYTES};

/// What comes next of a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// More of it.
    Body { bytes: Bytes, end: bool },
    /// Its end, with trailers.
    Trailers(HeaderBlock),
    /// Nothing more will come, though it is not complete.
    Aborted(Fault),
}

/// See the module.
pub(crate) struct Upload {
    rest: Bytes,
    stream: Option<BodyStream>,
    credit_bytes: u64,
    /// What `limits.requestBodyBytes` still allows.
    left_bytes: u64,
    limit_bytes: u64,
}

impl Upload {
    /// What goes into the request's frame, and what is left if that is not all.
    pub(crate) fn split(body: Body, limit_bytes: u64) -> (Bytes, Option<Self>) {
        let credit_bytes = u64::from(INITIAL_UPLOAD_CREDIT_BYTES);
        match body {
            Body::Empty => (Bytes::new(), None),
            Body::Full(bytes) if bytes.len() <= INITIAL_UPLOAD_CREDIT_BYTES as usize => {
                (bytes, None)
            }
            Body::Full(mut bytes) => {
                let first = bytes.split_to(INITIAL_UPLOAD_CREDIT_BYTES as usize);
                let left_bytes = bytes.len() as u64;
                let upload =
                    Self { rest: bytes, stream: None, credit_bytes: 0, left_bytes, limit_bytes };
                (first, Some(upload))
            }
            Body::Stream(stream) => {
                let upload = Self {
                    rest: Bytes::new(),
                    stream: Some(stream),
                    credit_bytes,
                    left_bytes: limit_bytes,
                    limit_bytes,
                };
                (Bytes::new(), Some(upload))
            }
        }
    }

    /// The worker takes this much more.
    pub(crate) fn grant(&mut self, bytes: u32) {
        self.credit_bytes = self.credit_bytes.saturating_add(bytes.into());
    }

    /// The next piece. Pending while there is no credit: the frame that brings some wakes the
    /// caller.
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Piece> {
        while self.rest.is_empty() {
            let Some(stream) = &mut self.stream else {
                return Poll::Ready(Piece::Body { bytes: Bytes::new(), end: true });
            };
            match ready!(stream.as_mut().poll_next(cx)) {
                None => self.stream = None,
                Some(Err(fault)) => return Poll::Ready(Piece::Aborted(fault)),
                Some(Ok(call::Piece::Trailers(trailers))) => {
                    return Poll::Ready(Piece::Trailers(trailers));
                }
                Some(Ok(call::Piece::Data(bytes))) if bytes.len() as u64 > self.left_bytes => {
                    return Poll::Ready(Piece::Aborted(Fault::payload_too_large(self.limit_bytes)));
                }
                Some(Ok(call::Piece::Data(bytes))) => {
                    self.left_bytes -= bytes.len() as u64;
                    self.rest = bytes;
                }
            }
        }
        let allowed = usize::try_from(self.credit_bytes).unwrap_or(MAX_CHUNK_BYTES);
        let len = self.rest.len().min(allowed).min(MAX_CHUNK_BYTES);
        if len == 0 {
            return Poll::Pending;
        }
        self.credit_bytes -= len as u64;
        let bytes = self.rest.split_to(len);
        let end = self.rest.is_empty() && self.stream.is_none();
        Poll::Ready(Piece::Body { bytes, end })
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use futures::stream;

    use super::*;

    fn next(upload: &mut Upload) -> Poll<Piece> {
        upload.poll_piece(&mut Context::from_waker(Waker::noop()))
    }

    fn data(bytes: &'static [u8]) -> call::Piece {
        Bytes::from_static(bytes).into()
    }

    #[test]
    fn trailers_end_a_stream() {
        let trailers: HeaderBlock = [("sum", "1")].into_iter().collect();
        let pieces = vec![Ok(data(b"ab")), Ok(call::Piece::Trailers(trailers.clone()))];
        let (_, upload) = Upload::split(Body::Stream(Box::pin(stream::iter(pieces))), 3);
        let mut upload = upload.unwrap();
        let bytes = Bytes::from_static(b"ab");
        assert_eq!(next(&mut upload), Poll::Ready(Piece::Body { bytes, end: false }));
        assert_eq!(next(&mut upload), Poll::Ready(Piece::Trailers(trailers)));
    }

    #[test]
    fn small_bodies_travel_with_the_request() {
        for body in
            [Body::Empty, Body::Full(Bytes::from(vec![0; INITIAL_UPLOAD_CREDIT_BYTES as usize]))]
        {
            assert!(Upload::split(body, 1 << 30).1.is_none());
        }
    }

    #[test]
    fn the_rest_of_a_large_body_waits_for_credit() {
        let size = INITIAL_UPLOAD_CREDIT_BYTES as usize + MAX_CHUNK_BYTES + 5;
        let (first, upload) = Upload::split(Body::Full(Bytes::from(vec![7; size])), 1 << 30);
        let mut upload = upload.unwrap();
        assert_eq!(first.len(), INITIAL_UPLOAD_CREDIT_BYTES as usize);
        assert!(next(&mut upload).is_pending());
        upload.grant(10);
        upload.grant(u32::MAX);
        let mut got = 0;
        while let Poll::Ready(Piece::Body { bytes, end: false }) = next(&mut upload) {
            assert!(bytes.len() <= MAX_CHUNK_BYTES);
            got += bytes.len();
        }
        assert_eq!(first.len() + got + 5, size);
    }

    #[test]
    fn streams_end_with_their_last_piece_or_an_empty_one() {
        let pieces = vec![Ok(data(b"ab")), Ok(data(b"c"))];
        let (_, upload) = Upload::split(Body::Stream(Box::pin(stream::iter(pieces))), 3);
        let mut upload = upload.unwrap();
        for (expected, at_end) in [(&b"ab"[..], false), (b"c", false), (b"", true)] {
            let bytes = Bytes::from_static(expected);
            assert_eq!(next(&mut upload), Poll::Ready(Piece::Body { bytes, end: at_end }));
        }
    }

    #[test]
    fn streams_over_the_limit_are_cut_off() {
        let pieces = vec![Ok(data(b"abcd"))];
        let (_, upload) = Upload::split(Body::Stream(Box::pin(stream::iter(pieces))), 3);
        let polled = next(&mut upload.unwrap());
        assert_eq!(polled, Poll::Ready(Piece::Aborted(Fault::payload_too_large(3))));
    }
}
