//! The control socket: frames in, frames out.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use cloudserve_channel::Channel;
use cloudserve_protocol::wire::{ToWorker, WireError};

const READ_BYTES: usize = 64 * 1024;

/// Room that is left is read into while there is so much: requests that wait hold on to the buffer they
/// came in, and more room is another one.
const LEAST_READ_BYTES: usize = READ_BYTES / 4;

/// Takes descriptor 0 for itself: user code that reads standard input finds it empty.
pub(crate) fn take_socket() -> io::Result<UnixStream> {
    // SAFETY: plain system calls on descriptors this process owns; nothing else runs yet.
    let socket = unsafe {
        let high = libc::fcntl(0, libc::F_DUPFD_CLOEXEC, 3);
        if high < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(high)
    };
    let socket = UnixStream::from(socket);
    socket.peer_addr()?;
    let null = std::fs::File::open("/dev/null")?;
    // SAFETY: both descriptors are open.
    if unsafe { libc::dup2(null.as_raw_fd(), 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
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
    channel: Channel,
    incoming: BytesMut,
}

impl Control {
    pub(crate) fn new(socket: UnixStream) -> io::Result<Self> {
        let channel = Channel::new(socket)?;
        Ok(Self { channel, incoming: BytesMut::with_capacity(READ_BYTES) })
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
            self.make_room();
            if ready!(self.channel.poll_read(cx, &mut self.incoming))? == 0 {
                return Poll::Ready(Err(ControlError::Closed));
            }
        }
    }

    /// A frame of which more than a little is there has room for the rest of it.
    fn make_room(&mut self) {
        let room = self.incoming.capacity() - self.incoming.len();
        if room < LEAST_READ_BYTES && self.incoming.len() < LEAST_READ_BYTES {
            self.incoming.reserve(READ_BYTES);
        }
    }

    /// Looks for more for so long without sleeping. Whether something has come.
    pub(crate) fn watch(&mut self, time: Duration) -> bool {
        let until = Instant::now() + time;
        self.make_room();
        loop {
            match self.channel.read(&mut self.incoming) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Whoever reads next is told of the end and of errors.
                _ => return true,
            }
            if Instant::now() >= until {
                return false;
            }
            // Whoever is to send it may need this core.
            std::thread::yield_now();
        }
    }

    /// Writes what it can without waiting.
    pub(crate) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut BytesMut,
    ) -> Poll<Result<(), ControlError>> {
        self.channel.poll_write(cx, out).map_err(ControlError::from)
    }

    /// Writes everything, waiting as long as it takes: the last words of a worker.
    pub(crate) fn flush_blocking(&mut self, out: &mut BytesMut) {
        // Nobody is left to tell that it did not arrive.
        let _ = self.channel.write_blocking(out);
    }
}
