//! The socket of a connection, which fails when its peer takes nothing of what is written to it.
//!
//! hyper has no such bound: while its buffer is full it waits for the socket and looks at nothing
//! else, so that an answer which nobody reads would keep its connection, its call and all they hold.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use cloudserve_protocol::alarm::Alarm;
use nix::sys::socket::{MsgFlags, send};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Pieces of so much together are written as one: the kernel takes longer for several than it takes to
/// copy them.
const GATHERED_BYTES: usize = 4 * 1024;

thread_local! {
    /// Where they are gathered.
    static GATHERED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A TCP connection. As long as writes do not wait, it is nothing more.
pub(crate) struct Socket {
    stream: TcpStream,
    /// Zero: a write may wait for good.
    timeout: Duration,
    /// While a write waits: until when something must be taken.
    deadline: Option<Instant>,
    /// There was room of which tokio knows nothing, and there may be more.
    is_filling: bool,
    alarm: Alarm,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream, write_timeout: Duration) -> Self {
        Self {
            stream,
            timeout: write_timeout,
            deadline: None,
            is_filling: false,
            alarm: Alarm::default(),
        }
    }

    /// A write of `bytes` has to wait, as tokio sees it: ready with what became of it.
    ///
    /// The kernel says that there is room when a third of its buffer is free, which may be more than
    /// a slow reader takes in the time it has. A write finds whatever room there is, so one is tried at
    /// the end of that time, and others until the room is filled.
    fn wait(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_filling {
            match self.try_directly(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_filling = false,
                written => return Poll::Ready(written),
            }
        }
        let timeout = self.timeout;
        if timeout.is_zero() {
            return Poll::Pending;
        }
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + timeout);
        ready!(self.alarm.poll(cx, deadline));
        self.deadline = None;
        let written = self.try_directly(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => {
                // The kernel would go on offering what it holds after the connection is closed.
                let _ = self.stream.set_zero_linger();
                io::ErrorKind::TimedOut.into()
            }
            _ => error,
        });
        self.is_filling = written.is_ok();
        Poll::Ready(written)
    }

    /// Writes past tokio, which takes the socket for full.
    fn try_directly(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        send(self.stream.as_raw_fd(), bytes, flags).map_err(io::Error::from)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Poll::Ready(written) = Pin::new(&mut self.stream).poll_write(cx, bytes) else {
            return self.wait(cx, bytes);
        };
        self.deadline = None;
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if pieces.iter().map(|piece| piece.len()).sum::<usize>() <= GATHERED_BYTES {
            return GATHERED.with_borrow_mut(|gathered| {
                gathered.clear();
                for piece in pieces {
                    gathered.extend_from_slice(piece);
                }
                self.poll_write(cx, gathered)
            });
        }
        let Poll::Ready(written) = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
        else {
            let first = pieces.iter().map(|piece| &**piece).find(|piece| !piece.is_empty());
            return self.wait(cx, first.unwrap_or_default());
        };
        self.deadline = None;
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Never waits: a TCP socket keeps nothing back.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn pieces_arrive_in_order_whether_they_are_gathered_or_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut reader = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = Socket::new(stream, Duration::from_secs(10));
        for length in [0, 1, GATHERED_BYTES - 4, GATHERED_BYTES - 3, 2 * GATHERED_BYTES] {
            let body = vec![b'x'; length];
            let pieces = [&b"head"[..], &body].map(IoSlice::new);
            let write = poll_fn(|cx| Pin::new(&mut socket).poll_write_vectored(cx, &pieces));
            assert_eq!(write.await.unwrap(), 4 + length);
            let mut read = vec![0; 4 + length];
            reader.read_exact(&mut read).await.unwrap();
            assert!(read.starts_with(b"head") && read[4..] == body, "{length}");
        }
    }
}
