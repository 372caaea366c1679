//! HTTP/1.1 as the harness needs it: requests built once, answers read without keeping them.
//!
//! The client shares its cores with what it measures, so a call costs one write, one read and the
//! parse of a head. `httparse` does the parsing; what is here frames bodies.

use bytes::Bytes;
use std::fmt::Write as _;

use super::CallError;

/// Headers an answer may have.
const MAX_HEADERS: usize = 64;

/// A request, ready to be written again and again.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    bytes: Bytes,
    /// What the function was told to take, which is not counted as latency.
    lasts_ns: u64,
}

impl Request {
    /// A request for this path. `host` is also the value of `Host`.
    pub(crate) fn new(
        method: &str,
        host: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Self {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n");
        for (name, value) in headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        if method != "GET" {
            let _ = write!(head, "content-length: {}\r\n", body.len());
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        Self { bytes: bytes.into(), lasts_ns: 0 }
    }

    /// The same for a function that was told to take so long.
    pub(crate) fn lasting(self, ns: u64) -> Self {
        Self { lasts_ns: ns, ..self }
    }

    /// What the function was told to take.
    pub(crate) fn lasts_ns(&self) -> u64 {
        self.lasts_ns
    }

    /// The bytes on the wire.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The part of an answer's head that is looked at.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Head {
    /// Bytes of the head itself.
    pub(crate) len: usize,
    pub(crate) status: u16,
    /// What `x-cloudserve-cold` says, where the server says it.
    pub(crate) cold: Option<bool>,
    /// `server-timing`, milliseconds by name; only if it was asked for.
    pub(crate) timings: Vec<(String, f64)>,
    pub(crate) framing: Framing,
    /// The server ends the connection after this answer.
    pub(crate) closes: bool,
}

/// How long a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// Parses a head; `None` if it is not all there yet.
pub(crate) fn parse_head(bytes: &[u8], with_timings: bool) -> Result<Option<Head>, CallError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let len = match response.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(CallError::Malformed),
    };
    let status = response.code.ok_or(CallError::Malformed)?;
    let mut head = Head {
        len,
        status,
        cold: None,
        timings: Vec::new(),
        framing: if status == 204 || status == 304 {
            Framing::Length(0)
        } else {
            Framing::UntilClose
        },
        closes: false,
    };
    for header in response.headers {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            let text = std::str::from_utf8(header.value).map_err(|_| CallError::Malformed)?;
            let length = text.trim().parse().map_err(|_| CallError::Malformed)?;
            head.framing = Framing::Length(length);
        } else if is("transfer-encoding") {
            head.framing = Framing::Chunked;
        } else if is("connection") {
            head.closes = header.value.eq_ignore_ascii_case(b"close");
        } else if is("x-cloudserve-cold") {
            head.cold = Some(header.value == b"1");
        } else if with_timings && is("server-timing") {
            head.timings.extend(parse_timings(header.value));
        }
    }
    Ok(Some(head))
}

/// `queue;dur=0.012, exec;dur=0.300` as names and milliseconds.
fn parse_timings(value: &[u8]) -> Vec<(String, f64)> {
    let text = String::from_utf8_lossy(value);
    text.split(',')
        .filter_map(|entry| {
            let (name, rest) = entry.trim().split_once(';')?;
            let duration = rest.split(';').find_map(|part| part.trim().strip_prefix("dur="))?;
            Some((name.trim().to_owned(), duration.parse().ok()?))
        })
        .collect()
}

/// Where a body has been read to.
#[derive(Debug)]
pub(crate) struct BodyReader {
    state: State,
    /// Bytes of content so far.
    content: u64,
}

#[derive(Debug)]
enum State {
    Length {
        left: u64,
    },
    ChunkSize {
        line: Vec<u8>,
    },
    Chunk {
        left: u64,
    },
    /// The line end after a chunk.
    ChunkEnd {
        left: u8,
    },
    Trailers {
        line_is_empty: bool,
    },
    UntilClose,
    Done,
}

/// A size in hexadecimal with extensions; longer is no chunk size.
const MAX_SIZE_LINE: usize = 256;

impl BodyReader {
    pub(crate) fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Length(0) => State::Done,
            Framing::Length(left) => State::Length { left },
            Framing::Chunked => State::ChunkSize { line: Vec::new() },
            Framing::UntilClose => State::UntilClose,
        };
        Self { state, content: 0 }
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Whether the end of the connection is the end of the body.
    pub(crate) fn ends_with_connection(&self) -> bool {
        matches!(self.state, State::UntilClose)
    }

    /// Bytes of content read.
    pub(crate) fn content(&self) -> u64 {
        self.content
    }

    /// Takes what was read and gives content to `keep`. What follows the body is an error: nothing
    /// was asked for yet.
    pub(crate) fn take(
        &mut self,
        mut bytes: &[u8],
        mut keep: impl FnMut(&[u8]),
    ) -> Result<(), CallError> {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Length { left } | State::Chunk { left } => {
                    let n = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    keep(&bytes[..n]);
                    bytes = &bytes[n..];
                    *left -= n as u64;
                    self.content += n as u64;
                    if *left == 0 {
                        self.state = match self.state {
                            State::Length { .. } => State::Done,
                            _ => State::ChunkEnd { left: 2 },
                        };
                    }
                }
                State::UntilClose => {
                    keep(bytes);
                    self.content += bytes.len() as u64;
                    return Ok(());
                }
                State::ChunkEnd { left } => {
                    bytes = &bytes[1..];
                    *left -= 1;
                    if *left == 0 {
                        self.state = State::ChunkSize { line: Vec::new() };
                    }
                }
                State::ChunkSize { line } => {
                    line.push(bytes[0]);
                    bytes = &bytes[1..];
                    if line.len() > MAX_SIZE_LINE {
                        return Err(CallError::Malformed);
                    }
                    if line.ends_with(b"\n") {
                        self.state = match httparse::parse_chunk_size(line) {
                            Ok(httparse::Status::Complete((_, 0))) => {
                                State::Trailers { line_is_empty: true }
                            }
                            Ok(httparse::Status::Complete((_, left))) => State::Chunk { left },
                            _ => return Err(CallError::Malformed),
                        };
                    }
                }
                State::Trailers { line_is_empty } => {
                    match bytes[0] {
                        b'\n' if *line_is_empty => self.state = State::Done,
                        b'\n' => *line_is_empty = true,
                        b'\r' => {}
                        _ => *line_is_empty = false,
                    }
                    bytes = &bytes[1..];
                }
                State::Done => return Err(CallError::Malformed),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_what_it_says() {
        let request = Request::new("POST", "h:1", "/p?q", &[("x-api-key", "k")], b"ab");
        let text = String::from_utf8_lossy(request.bytes()).into_owned();
        assert_eq!(
            text,
            "POST /p?q HTTP/1.1\r\nhost: h:1\r\nx-api-key: k\r\ncontent-length: 2\r\n\r\nab"
        );
    }

    #[test]
    fn heads_are_read_for_what_matters() {
        let bytes = b"HTTP/1.1 200 OK\r\nX-CloudServe-Cold: 1\r\nserver-timing: queue;dur=0.5, \
                      exec;desc=x;dur=2\r\nContent-Length: 3\r\nconnection: close\r\n\r\nabc";
        let head = parse_head(bytes, true).unwrap().unwrap();
        assert_eq!((head.status, head.cold, head.closes), (200, Some(true), true));
        assert_eq!(head.framing, Framing::Length(3));
        assert_eq!(head.timings, [("queue".to_owned(), 0.5), ("exec".to_owned(), 2.0)]);
        assert_eq!(&bytes[head.len..], b"abc");
        assert_eq!(parse_head(&bytes[..40], true).unwrap(), None);
        assert!(parse_head(b"SMTP 220\r\n\r\n", false).is_err());
    }

    #[test]
    fn bodies_end_where_their_framing_says_however_they_are_cut() {
        let chunked: &[u8] = b"5;x=y\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\na: b\r\n\r\n";
        for (framing, wire, content) in [
            (Framing::Length(5), b"hello".as_slice(), b"hello".as_slice()),
            (Framing::Chunked, chunked, b"hello0123456789abcdef"),
        ] {
            for step in 1..=wire.len() {
                let mut body = BodyReader::new(framing);
                let mut got = Vec::new();
                for (n, piece) in wire.chunks(step).enumerate() {
                    assert!(!body.is_done(), "{framing:?}, step {step}, piece {n}");
                    body.take(piece, |bytes| got.extend_from_slice(bytes)).unwrap();
                }
                assert!(body.is_done(), "{framing:?}, step {step}");
                assert_eq!(got, content);
                assert_eq!(body.content(), content.len() as u64);
                assert!(body.take(b"x", |_| {}).is_err(), "nothing may follow");
            }
        }
    }

    #[test]
    fn a_chunk_size_that_is_none_is_refused() {
        for wire in [b"zz\r\n".as_slice(), &[b'1'; MAX_SIZE_LINE + 1]] {
            assert!(BodyReader::new(Framing::Chunked).take(wire, |_| {}).is_err());
        }
    }
}
