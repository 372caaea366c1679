//! A connection that carries one call after the other.

use std::net::SocketAddr;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::wire::{BodyReader, Head, Request, parse_head};
use super::{Answer, CallError};

/// Read at once. Answers of most workloads fit.
const READ_BYTES: usize = 64 * 1024;
/// A head may be this long.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// A request up to this size is written before the answer is read: it fits into the socket's
/// buffer, so the server cannot block us by answering early.
const WRITTEN_FIRST_BYTES: usize = 64 * 1024;

/// Something calls go over, one at a time.
pub(crate) trait Lane {
    /// Makes a call. `with_timings` asks for `server-timing`, which costs something to parse.
    async fn call(&mut self, request: &Request, with_timings: bool) -> Result<Answer, CallError>;
}

/// A TCP connection, opened when it is needed and again after it broke.
#[derive(Debug)]
pub(crate) struct TcpLane {
    address: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl TcpLane {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, stream: None, buffer: vec![0; READ_BYTES] }
    }

    /// As many lanes to one address.
    pub(crate) fn many(address: SocketAddr, n: usize) -> Vec<Self> {
        (0..n).map(|_| Self::new(address)).collect()
    }

    /// Connects now and not when the first call is due.
    pub(crate) async fn connect(&mut self) -> Result<(), CallError> {
        let stream = self.connected().await?;
        self.stream = Some(stream);
        Ok(())
    }

    async fn connected(&mut self) -> Result<TcpStream, CallError> {
        if let Some(stream) = self.stream.take() {
            return Ok(stream);
        }
        let stream = TcpStream::connect(self.address).await.map_err(|_| CallError::Connect)?;
        stream.set_nodelay(true).map_err(|_| CallError::Connect)?;
        Ok(stream)
    }

    /// A call whose answer is wanted: for probes, not for load.
    pub(crate) async fn fetch(
        &mut self,
        request: &Request,
    ) -> Result<(Answer, Vec<u8>), CallError> {
        let mut content = Vec::new();
        let answer = self.exchange(request, true, |bytes| content.extend_from_slice(bytes)).await?;
        Ok((answer, content))
    }

    async fn exchange(
        &mut self,
        request: &Request,
        with_timings: bool,
        keep: impl FnMut(&[u8]),
    ) -> Result<Answer, CallError> {
        let mut stream = self.connected().await?;
        let bytes = request.bytes();
        let begun = Instant::now();
        // The connection is put back only if the call went well.
        let (answer, closes) = if bytes.len() <= WRITTEN_FIRST_BYTES {
            stream.write_all(bytes).await.map_err(|_| CallError::Broken)?;
            read(&mut stream, &mut self.buffer, begun, with_timings, keep).await?
        } else {
            let (mut reader, mut writer) = stream.split();
            let write = async { writer.write_all(bytes).await.map_err(|_| CallError::Broken) };
            let read = read(&mut reader, &mut self.buffer, begun, with_timings, keep);
            let ((), read) = tokio::try_join!(write, read)?;
            read
        };
        if !closes {
            self.stream = Some(stream);
        }
        Ok(answer)
    }
}

impl Lane for TcpLane {
    async fn call(&mut self, request: &Request, with_timings: bool) -> Result<Answer, CallError> {
        self.exchange(request, with_timings, |_| {}).await
    }
}

/// Reads one answer; says whether the connection ends with it.
async fn read(
    stream: &mut (impl AsyncReadExt + Unpin),
    buffer: &mut Vec<u8>,
    begun: Instant,
    with_timings: bool,
    mut keep: impl FnMut(&[u8]),
) -> Result<(Answer, bool), CallError> {
    let mut filled = 0;
    let mut first_byte_ns = None;
    let head: Head = loop {
        if filled == buffer.len() {
            if filled >= MAX_HEAD_BYTES {
                return Err(CallError::Malformed);
            }
            buffer.resize(filled * 2, 0);
        }
        let n = stream.read(&mut buffer[filled..]).await.map_err(|_| CallError::Broken)?;
        if n == 0 {
            return Err(CallError::Broken);
        }
        first_byte_ns.get_or_insert_with(|| begun.elapsed().as_nanos() as u64);
        filled += n;
        match parse_head(&buffer[..filled], with_timings)? {
            // An interim answer: the real one follows.
            Some(head) if head.status < 200 => {
                buffer.copy_within(head.len..filled, 0);
                filled -= head.len;
            }
            Some(head) => break head,
            None => {}
        }
    };
    let mut body = BodyReader::new(head.framing);
    body.take(&buffer[head.len..filled], &mut keep)?;
    while !body.is_done() {
        let n = stream.read(buffer).await.map_err(|_| CallError::Broken)?;
        if n == 0 {
            if body.ends_with_connection() {
                break;
            }
            return Err(CallError::Broken);
        }
        body.take(&buffer[..n], &mut keep)?;
    }
    let answer = Answer {
        status: head.status,
        cold: head.cold,
        body_bytes: body.content(),
        first_byte_ns: first_byte_ns.unwrap_or_default(),
        timings: head.timings,
    };
    Ok((answer, head.closes || body.ends_with_connection()))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Answers each connection with these bytes once something was sent.
    async fn server(answers: &'static [&'static [u8]]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = [0; 1024];
                while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {
                    // Byte by byte, so that every cut is met.
                    for byte in *answer {
                        stream.write_all(&[*byte]).await.unwrap();
                    }
                    if !answer.starts_with(b"HTTP/1.1 200") {
                        break;
                    }
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn one_connection_carries_many_calls() {
        let address = server(&[
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ])
        .await;
        let request = Request::new("GET", "h", "/", &[], b"");
        let mut lane = TcpLane::new(address);
        for _ in 0..3 {
            let (answer, content) = lane.fetch(&request).await.unwrap();
            assert_eq!((answer.status, answer.body_bytes), (200, 3));
            assert_eq!(content, b"abc");
        }
    }

    #[tokio::test]
    async fn what_goes_wrong_has_a_name_and_the_lane_goes_on() {
        let address = server(&[
            b"HTTP/1.1 500 Oh\r\ncontent-length: 9\r\n\r\nabc",
            b"nonsense\r\n\r\n",
            b"HTTP/1.1 503 No\r\n\r\nuntil the end",
        ])
        .await;
        let request = Request::new("GET", "h", "/", &[], b"");
        let mut lane = TcpLane::new(address);
        assert_eq!(lane.call(&request, false).await, Err(CallError::Broken));
        assert_eq!(lane.call(&request, false).await, Err(CallError::Malformed));
        let (answer, content) = lane.fetch(&request).await.unwrap();
        assert_eq!((answer.status, content.as_slice()), (503, b"until the end".as_slice()));
    }
}
