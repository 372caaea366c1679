//! The socket between a supervisor and a worker, as both ends use it.
//!
//! The kernel tells whoever waits for a Unix socket to be writable each time its peer has read
//! something, whether the socket was full or not. tokio's sockets always wait for it, so that each
//! frame would wake its sender a second time. A [`Channel`] waits for it only when it has to.

use std::io::{self, IoSlice, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What the kernel is to hold of what was written and not read yet: it allows less to those who do not
/// ask, and a large body would leave in many small writes. As far as `net.core.wmem_max` allows.
const UNREAD_BYTES: libc::c_int = 512 * 1024;

/// Pieces of one write.
const PIECES: usize = 8;

/// See the module. One task at a time reads; anybody writes.
#[derive(Debug)]
pub struct Channel {
    socket: AsyncFd<UnixStream>,
    /// The socket once more, to wait until it takes more.
    again: Mutex<Again>,
}

#[derive(Debug)]
enum Again {
    Idle(OwnedFd),
    Watched(AsyncFd<OwnedFd>),
    /// Only while it becomes one of the others.
    Changing,
}

impl Channel {
    /// Over a connected socket.
    ///
    /// # Errors
    /// The socket cannot be made non-blocking, or not be watched.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O.
    pub fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        ask_for_room(&socket)?;
        // Now: when it is needed, whoever runs in this process may hold all descriptors there are.
        let again = Mutex::new(Again::Idle(socket.try_clone()?.into()));
        // SAFETY: the descriptor is the socket's own, which nothing closes before it is dropped.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self { socket, again })
    }

    /// Reads into the room that `into` has, of which there must be some. 0: the peer has closed it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn poll_read(&self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        loop {
            let mut readable = ready!(self.socket.poll_read_ready(cx))?;
            let room = into.capacity() - into.len();
            match self.read(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => readable.clear_ready(),
                Ok(n) => {
                    // What does not fill the room has emptied the socket: no system call need say so.
                    if 0 < n && n < room {
                        readable.clear_ready();
                    }
                    return Poll::Ready(Ok(n));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// As [`Channel::poll_read`], without waiting and past tokio, which sees what has come only when
    /// its event loop has looked.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing; else the kernel's.
    pub fn read(&self, into: &mut BytesMut) -> io::Result<usize> {
        let room = into.spare_capacity_mut();
        let socket = self.socket.get_ref().as_raw_fd();
        // What belongs to files only, `read` does for sockets as well.
        // SAFETY: the memory is ours to write to for its whole length; the descriptor is open.
        let n = unsafe { libc::recv(socket, room.as_mut_ptr().cast(), room.len(), 0) };
        let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
        // SAFETY: the kernel has written so many bytes into the room.
        unsafe { into.set_len(into.len() + n) };
        Ok(n)
    }

    /// Writes of `from` what the socket takes.
    ///
    /// # Errors
    /// `WouldBlock` when that is not all; else the kernel's.
    pub fn write(&self, from: &mut impl Buf) -> io::Result<()> {
        let mut socket = self.socket.get_ref();
        while from.has_remaining() {
            let mut slots = [IoSlice::new(&[]); PIECES];
            let written = match from.chunks_vectored(&mut slots) {
                1 => socket.write(&slots[0]),
                several => socket.write_vectored(&slots[..several]),
            };
            from.advance(written?);
        }
        Ok(())
    }

    /// Writes all of `from`, waiting for the socket to take it. One task at a time; what others
    /// write meanwhile does not end its wait.
    ///
    /// # Errors
    /// The kernel's, or tokio's: the runtime is going down.
    pub fn poll_write(&self, cx: &mut Context<'_>, from: &mut impl Buf) -> Poll<io::Result<()>> {
        loop {
            match self.write(from) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.poll_writable(cx))?;
                }
                done => {
                    self.stop_waiting();
                    return Poll::Ready(done);
                }
            }
        }
    }

    /// As [`Channel::poll_write`], blocking the thread.
    ///
    /// # Errors
    /// The kernel's.
    pub fn write_blocking(&self, from: &mut impl Buf) -> io::Result<()> {
        loop {
            match self.write(from) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.block_until_writable()?;
                }
                done => return done,
            }
        }
    }

    /// Ready when the socket may take more than it did when it was last written to.
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut again = self.again.lock();
        *again = match std::mem::replace(&mut *again, Again::Changing) {
            Again::Idle(socket) => {
                // SAFETY: as above.
                let watched =
                    unsafe { AsyncFd::register_with_interest(socket, Interest::WRITABLE) };
                match watched {
                    Ok(watched) => Again::Watched(watched),
                    Err(error) => Again::Idle(error.into_parts().0),
                }
            }
            other => other,
        };
        match &*again {
            Again::Watched(socket) => {
                ready!(socket.poll_write_ready(cx))?.clear_ready();
                Poll::Ready(Ok(()))
            }
            // The kernel watches no more: whoever waits asks again.
            Again::Idle(_) | Again::Changing => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    /// Whoever waited does not any more: until then each read of the peer is told to this side.
    fn stop_waiting(&self) {
        let mut again = self.again.lock();
        *again = match std::mem::replace(&mut *again, Again::Changing) {
            Again::Watched(socket) => Again::Idle(socket.into_inner()),
            other => other,
        };
    }

    fn block_until_writable(&self) -> io::Result<()> {
        let fd = self.socket.get_ref().as_raw_fd();
        let mut poll = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
        // SAFETY: one valid pollfd; the descriptor is open.
        if unsafe { libc::poll(&raw mut poll, 1, -1) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

fn ask_for_room(socket: &UnixStream) -> io::Result<()> {
    let bytes = UNREAD_BYTES;
    let size = libc::socklen_t::try_from(size_of_val(&bytes)).map_err(io::Error::other)?;
    let (socket, value) = (socket.as_raw_fd(), (&raw const bytes).cast());
    // SAFETY: the descriptor is open, and the value is as large as is said.
    let done = unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_SNDBUF, value, size) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::future::poll_fn;
    use std::io::Read;
    use std::task::Waker;
    use std::time::Duration;

    use super::*;

    fn pair() -> (Channel, Channel) {
        let (one, other) = UnixStream::pair().unwrap();
        (Channel::new(one).unwrap(), Channel::new(other).unwrap())
    }

    async fn read(channel: &Channel, room: usize) -> Vec<u8> {
        let mut got = BytesMut::with_capacity(room);
        poll_fn(|cx| channel.poll_read(cx, &mut got)).await.unwrap();
        got.to_vec()
    }

    #[tokio::test]
    async fn what_is_written_is_read_and_then_the_end() {
        let (one, other) = pair();
        one.write(&mut Buf::chain(&b"ab"[..], &b"cd"[..])).unwrap();
        assert_eq!(read(&other, 3).await, b"abc");
        assert_eq!(read(&other, 3).await, b"d");
        let nothing = other.read(&mut BytesMut::with_capacity(1)).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        one.write(&mut &b"e"[..]).unwrap();
        drop(one);
        assert_eq!(read(&other, 9).await, b"e");
        assert_eq!(read(&other, 9).await, b"");
    }

    #[tokio::test]
    async fn a_full_socket_takes_more_when_its_peer_has_read() {
        let (one, other) = pair();
        let more_than_it_takes = vec![7; 4 << 20];
        let mut rest = &more_than_it_takes[..];
        let full = one.write(&mut rest).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        assert!(!rest.is_empty() && rest.len() < more_than_it_takes.len());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(one.poll_write(&mut cx, &mut rest).is_pending(), "it is still full");
        let reader = async {
            let mut taken = 0;
            while taken < more_than_it_takes.len() {
                taken += read(&other, 1 << 20).await.len();
            }
        };
        let writer = poll_fn(|cx| one.poll_write(cx, &mut rest));
        let ((), written) = tokio::join!(reader, writer);
        written.unwrap();
    }

    #[tokio::test]
    async fn what_others_write_leaves_nobody_waiting_for_good() {
        let (one, other) = pair();
        let piece = vec![7; 64 * 1024];
        let fill = || while one.write(&mut &piece[..]).is_ok() {};
        fill();
        let waits = async {
            poll_fn(|cx| one.poll_writable(cx)).await.unwrap();
        };
        let others = async {
            // A little room, which somebody else takes at once.
            while one.write(&mut &b"x"[..]).is_err() {
                assert!(!read(&other, 64 * 1024).await.is_empty());
            }
            fill();
            loop {
                assert!(!read(&other, 64 * 1024).await.is_empty());
            }
        };
        tokio::select! {
            () = waits => {}
            () = others => {}
            () = tokio::time::sleep(Duration::from_secs(10)) => panic!("it still waits"),
        }
    }

    /// Each time that the event loop is woken it goes to sleep once more.
    #[tokio::test]
    async fn a_sender_is_not_woken_when_its_peer_reads() {
        const CALLS: u64 = 20;
        let (one, mut other) = UnixStream::pair().unwrap();
        let one = Channel::new(one).unwrap();
        // Not even when it was full before.
        let more_than_it_takes = vec![0; 4 << 20];
        let mut rest = &more_than_it_takes[..];
        let mut cx = Context::from_waker(Waker::noop());
        assert!(one.poll_write(&mut cx, &mut rest).is_pending());
        let mut emptied = other.try_clone().unwrap();
        let emptier = std::thread::spawn(move || emptied.read_exact(&mut vec![0; 4 << 20]));
        poll_fn(|cx| one.poll_write(cx, &mut rest)).await.unwrap();
        emptier.join().unwrap().unwrap();
        let peer = std::thread::spawn(move || {
            for _ in 0..CALLS {
                // By then whoever asked sleeps.
                std::thread::sleep(Duration::from_millis(2));
                other.read_exact(&mut [0; 7]).unwrap();
                std::thread::sleep(Duration::from_millis(2));
                other.write_all(b"answer").unwrap();
            }
        });
        let metrics = tokio::runtime::Handle::current().metrics();
        let before = metrics.worker_park_count(0);
        for _ in 0..CALLS {
            one.write(&mut &b"request"[..]).unwrap();
            assert_eq!(read(&one, 9).await, b"answer");
        }
        let slept = metrics.worker_park_count(0) - before;
        assert!(slept < CALLS * 3 / 2, "{slept} times in {CALLS} calls");
        peer.join().unwrap();
    }
}
