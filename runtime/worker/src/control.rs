//! The control socket: frames in, frames out.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use cloudserve_protocol::wire::{ToWorker, WireError};
use tokio::net::UnixStream;
use tokio_util::io::poll_read_buf;

const READ_BYTES: usize = 64 * 1024;

/// Takes descriptor 0 for itself: user code that reads standard input finds it empty.
pub(crate) fn take_socket() -> io::Result<StdUnixStream> {
    // SAFETY: plain system calls on descriptors this process owns; nothing else runs yet.
    let socket = unsafe {
        let high = libc::fcntl(0, libc::F_DUPFD_CLOEXEC, 3);
        if high < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(high)
    };
    let socket = StdUnixStream::from(socket);
    socket.peer_addr()?;
    let null = std::fs::File::open("/dev/null")?;
    // SAFETY: both descriptors are open.
    if unsafe { libc::dup2(null.as_raw_fd(), 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Why the conversation is over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    #[error("the control socket was closed")]
    Closed,
    #[error("the control socket failed")]
    Io(#[from] io::Error),
    #[error("the control socket carried a bad frame")]
    Wire(#[from] WireError),
}

/// The socket with its buffers. `out` is filled by whoever has something to say and leaves in as
/// few writes as possible.
pub(crate) struct Control {
    stream: UnixStream,
    incoming: BytesMut,
}

impl Control {
    pub(crate) fn new(socket: StdUnixStream) -> io::Result<Self> {
        Ok(Self {
            stream: UnixStream::from_std(socket)?,
            incoming: BytesMut::with_capacity(READ_BYTES),
        })
    }

    /// The next frame.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ToWorker, ControlError>> {
        loop {
            if let Some(frame) = ToWorker::decode(&mut self.incoming)? {
                return Poll::Ready(Ok(frame));
            }
            // `poll_read` knows that a read that did not fill its buffer emptied the socket, and
            // saves the system call that would say so.
            self.incoming.reserve(READ_BYTES);
            if ready!(poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.incoming))? == 0 {
                return Poll::Ready(Err(ControlError::Closed));
            }
        }
    }

    /// Writes what it can without waiting.
    pub(crate) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut BytesMut,
    ) -> Poll<Result<(), ControlError>> {
        while !out.is_empty() {
            match self.stream.try_write(out) {
                Ok(n) => out.advance(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.stream.poll_write_ready(cx))?;
                }
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes everything, waiting as long as it takes: the last words of a worker.
    pub(crate) fn flush_blocking(&mut self, out: &mut BytesMut) {
        let fd = self.stream.as_raw_fd();
        while !out.is_empty() {
            match self.stream.try_write(out) {
                Ok(n) => out.advance(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut poll = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
                    // SAFETY: one valid pollfd; the descriptor is open.
                    if unsafe { libc::poll(&raw mut poll, 1, -1) } < 0 {
                        return;
                    }
                    let fd_again = fd;
                    // tokio's readiness is stale after a raw poll: write past it.
                    // SAFETY: the buffer is valid for its length; the descriptor is open.
                    let n = unsafe { libc::write(fd_again, out.as_ptr().cast(), out.len()) };
                    match usize::try_from(n) {
                        Ok(n) => out.advance(n),
                        Err(_) => return,
                    }
                }
                Err(_) => return,
            }
        }
    }
}
