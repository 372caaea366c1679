//! Deciding about a worker's network calls: `connect`, `bind`, and sending to an address.
//!
//! The kernel stops the calling thread and tells us. The address is read once, judged, and the call
//! is made *here*, with the address that was judged, on the worker's own socket. So it does not
//! matter what the worker does with its memory meanwhile, nor which library or language made the
//! call: names have been resolved by then and each redirect is a call of its own.
//!
//! A worker that makes no such call costs a registration with the event loop. One that does gets a
//! thread: a call of one worker never waits for another's.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

use cloudserve_protocol::call::{LogLevel, epoch_ms};
use cloudserve_protocol::egress::{EgressPolicy, EgressRefused, EgressRule};
use libc::{c_int, c_void};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tracing::{debug, warn};

use crate::metrics::Counters;
use crate::sandbox::Shared;
use crate::worker::Process;

/// Largest datagram, and most of a stream that is sent in one such call.
const SEND_BYTES: usize = 64 * 1024;

/// Pieces of one message, and messages of one `sendmmsg`.
const PIECES: usize = 64;
const MESSAGES: usize = 8;

/// Time a blocking `connect` may take: the thread that makes it serves this worker only.
const BLOCKING_CONNECT: Duration = Duration::from_secs(10);

const STACK_BYTES: usize = 256 * 1024;

/// An `errno`.
type Errno = c_int;

/// Reads what the policy depends on: name servers, and the addresses of this host.
pub(crate) fn policy(allow: Vec<EgressRule>) -> EgressPolicy {
    let conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let resolvers: Vec<IpAddr> = conf
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse().ok())
        .collect();
    // What the C library asks when no server is named.
    let resolvers = if resolvers.is_empty() { vec![Ipv4Addr::LOCALHOST.into()] } else { resolvers };
    EgressPolicy { allow, resolvers, own: own_addresses() }
}

fn own_addresses() -> Vec<IpAddr> {
    let mut first = std::ptr::null_mut();
    // SAFETY: the pointer is valid for the call, which fills it or fails.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        let error = io::Error::last_os_error();
        warn!(%error, "the addresses of this host are not known; functions may reach public ones");
        return Vec::new();
    }
    let mut addresses = Vec::new();
    let mut next = first;
    // SAFETY: the list is the C library's until it is freed below; the last entry's `next` is null.
    while let Some(entry) = unsafe { next.as_ref() } {
        // SAFETY: as above; the family says which structure it is.
        let family = unsafe { entry.ifa_addr.as_ref() }.map(|a| c_int::from(a.sa_family));
        let len = match family {
            Some(libc::AF_INET) => size_of::<libc::sockaddr_in>(),
            Some(libc::AF_INET6) => size_of::<libc::sockaddr_in6>(),
            _ => 0,
        };
        if len > 0 {
            // SAFETY: an address of this family has this length.
            let bytes = unsafe { std::slice::from_raw_parts(entry.ifa_addr.cast::<u8>(), len) };
            if let Ok(Address::Internet(address)) = parse_address(bytes) {
                addresses.push(address.ip());
            }
        }
        next = entry.ifa_next;
    }
    // SAFETY: it came from `getifaddrs` and is not used any more.
    unsafe { libc::freeifaddrs(first) };
    addresses
}

/// What deciding takes.
pub(crate) struct Watch {
    pub(crate) policy: Arc<EgressPolicy>,
    pub(crate) process: Arc<Process>,
    pub(crate) sandbox: Weak<Shared>,
}

/// Attends to the listener of a worker for as long as the worker lives.
pub(crate) fn watch(watch: Watch, listener: OwnedFd, runtime: &Handle) -> io::Result<()> {
    let _within = runtime.enter();
    // SAFETY: an owned descriptor stays the same, and open, for as long as it is registered.
    let listener = unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE) }?;
    runtime.spawn(async move {
        // Readable as well when the worker has ended.
        if listener.readable().await.is_err() {
            return;
        }
        let listener = listener.into_inner();
        let (id, name) = (watch.process.id, format!("egress-{}", watch.process.id));
        let thread = std::thread::Builder::new().name(name).stack_size(STACK_BYTES);
        // Without a thread the listener closes, and the worker's calls fail.
        if let Err(error) = thread.spawn(move || watch.serve(&listener)) {
            warn!(worker = id, %error, "no thread for a worker's network calls");
        }
    });
    Ok(())
}

impl Watch {
    fn serve(&self, listener: &OwnedFd) {
        while let Some(call) = next(listener) {
            let result = self.decide(&call, listener);
            answer(listener, call.id, result);
        }
    }

    /// Makes the call, or says why not.
    fn decide(&self, call: &libc::seccomp_notif, listener: &OwnedFd) -> Result<i64, Errno> {
        let thread = Thread { tid: call.pid.cast_signed(), listener, id: call.id };
        let args = call.data.args;
        let socket = || self.take(args[0]);
        match i64::from(call.data.nr) {
            libc::SYS_connect => {
                let to = self.open_to(thread.address(args[1], args[2])?)?;
                connect(&socket()?, &to)
            }
            libc::SYS_bind => bind(&socket()?, &thread.address(args[1], args[2])?),
            libc::SYS_sendto => {
                let to = self.open_to(thread.address(args[4], args[5])?)?;
                let bytes = thread.bytes(args[1], length(args[2])?)?;
                send(&socket()?, &bytes, Some(&to))
            }
            libc::SYS_sendmsg => self.send_message(&thread, &socket()?, args[1]),
            libc::SYS_sendmmsg => self.send_messages(&thread, &socket()?, args[1], args[2]),
            _ => Err(libc::ENOSYS),
        }
    }

    fn send_message(&self, thread: &Thread<'_>, socket: &OwnedFd, at: u64) -> Result<i64, Errno> {
        let (name, bytes) = thread.message(at)?;
        let to = name.map(|address| self.open_to(address)).transpose()?;
        send(socket, &bytes, to.as_ref())
    }

    fn send_messages(
        &self,
        thread: &Thread<'_>,
        socket: &OwnedFd,
        at: u64,
        count: u64,
    ) -> Result<i64, Errno> {
        let size = size_of::<libc::mmsghdr>() as u64;
        let mut sent = 0;
        for index in 0..count.min(MESSAGES as u64) {
            let header = at.wrapping_add(index * size);
            match self.send_message(thread, socket, header) {
                Err(errno) if sent == 0 => return Err(errno),
                Err(_) => break,
                Ok(n) => {
                    let n = u32::try_from(n).unwrap_or(u32::MAX).to_ne_bytes();
                    let field = std::mem::offset_of!(libc::mmsghdr, msg_len) as u64;
                    thread.write(header.wrapping_add(field), &n)?;
                    sent += 1;
                }
            }
        }
        Ok(sent)
    }

    /// The worker's descriptor, as one of ours.
    fn take(&self, fd: u64) -> Result<OwnedFd, Errno> {
        let fd = RawFd::try_from(fd & 0xffff_ffff).map_err(|_| libc::EBADF)?;
        self.process.take_descriptor(fd).map_err(|error| errno_of(&error))
    }

    /// The address, if functions may reach it. A refusal is told to the function's owner.
    fn open_to(&self, to: Address) -> Result<Address, Errno> {
        let Address::Internet(address) = to else {
            return if to == Address::Unspecified { Ok(to) } else { Err(libc::EAFNOSUPPORT) };
        };
        match self.policy.check(address) {
            Ok(()) => Ok(to),
            Err(refused) => {
                self.tell(address, refused);
                Err(libc::EACCES)
            }
        }
    }

    fn tell(&self, to: SocketAddr, refused: EgressRefused) {
        debug!(worker = self.process.id, %to, reason = %refused, "connection refused");
        if let Some(sandbox) = self.sandbox.upgrade() {
            Counters::count(&sandbox.counters.egress_refused);
        }
        // The C library asks the kernel for routes like this, to put addresses in order.
        if to.port() != 0 {
            let message = format!("connection to {to} refused: {refused}");
            self.process.pipes.push(LogLevel::Warn, epoch_ms(), message);
        }
    }
}

/// The next call; `None` when the worker has ended.
fn next(listener: &OwnedFd) -> Option<libc::seccomp_notif> {
    loop {
        let mut ready = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd.
        let n = unsafe { libc::poll(&raw mut ready, 1, -1) };
        if n > 0 && ready.revents & libc::POLLIN == 0 {
            return None;
        }
        // SAFETY: the kernel wants it zeroed, and all of it is numbers.
        let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        let request = libc::SECCOMP_IOCTL_NOTIF_RECV;
        // SAFETY: the structure is what this request fills.
        if n > 0 && unsafe { libc::ioctl(listener.as_raw_fd(), request, &raw mut call) } == 0 {
            return Some(call);
        }
    }
}

fn answer(listener: &OwnedFd, id: u64, result: Result<i64, Errno>) {
    // SAFETY: all of it is numbers.
    let mut response: libc::seccomp_notif_resp = unsafe { std::mem::zeroed() };
    response.id = id;
    match result {
        Ok(value) => response.val = value,
        Err(errno) => response.error = -errno,
    }
    let request = libc::SECCOMP_IOCTL_NOTIF_SEND;
    // SAFETY: the structure is what this request takes. It fails when the thread has ended, which
    // is as well.
    unsafe { libc::ioctl(listener.as_raw_fd(), request, &raw mut response) };
}

/// An address as the worker gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Address {
    Internet(SocketAddr),
    /// No family: takes the address of a socket away.
    Unspecified,
    /// Another family.
    Other,
}

/// A thread of a worker that waits for our answer.
struct Thread<'a> {
    tid: libc::pid_t,
    listener: &'a OwnedFd,
    id: u64,
}

impl Thread<'_> {
    /// Whether the number is still that of the thread: what was read is worth nothing otherwise.
    fn still_waits(&self) -> Result<(), Errno> {
        let request = libc::SECCOMP_IOCTL_NOTIF_ID_VALID;
        // SAFETY: the number is what this request takes.
        let valid = unsafe { libc::ioctl(self.listener.as_raw_fd(), request, &raw const self.id) };
        if valid == 0 { Ok(()) } else { Err(libc::EINTR) }
    }

    fn bytes(&self, at: u64, len: usize) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0; len];
        if len == 0 {
            return Ok(bytes);
        }
        let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: len };
        let remote = libc::iovec { iov_base: pointer(at), iov_len: len };
        // SAFETY: the local buffer is ours and of this length; the kernel checks the remote one.
        let n = unsafe {
            libc::process_vm_readv(self.tid, &raw const local, 1, &raw const remote, 1, 0)
        };
        self.still_waits()?;
        if usize::try_from(n) == Ok(len) { Ok(bytes) } else { Err(libc::EFAULT) }
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.still_waits()?;
        let local =
            libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let remote = libc::iovec { iov_base: pointer(at), iov_len: bytes.len() };
        // SAFETY: the local buffer is only read; the kernel checks the remote one.
        let n = unsafe {
            libc::process_vm_writev(self.tid, &raw const local, 1, &raw const remote, 1, 0)
        };
        if usize::try_from(n) == Ok(bytes.len()) { Ok(()) } else { Err(libc::EFAULT) }
    }

    fn address(&self, at: u64, len: u64) -> Result<Address, Errno> {
        let len = usize::try_from(len & 0xffff_ffff).map_err(|_| libc::EINVAL)?;
        if len < size_of::<libc::sa_family_t>() || len > size_of::<libc::sockaddr_storage>() {
            return Err(libc::EINVAL);
        }
        parse_address(&self.bytes(at, len)?)
    }

    /// Name and content of a message. None that carries descriptors or the like.
    fn message(&self, at: u64) -> Result<(Option<Address>, Vec<u8>), Errno> {
        let header = self.bytes(at, size_of::<libc::msghdr>())?;
        // SAFETY: as many bytes as the structure has, and any of them are valid for it.
        let header: libc::msghdr =
            unsafe { header.as_ptr().cast::<libc::msghdr>().read_unaligned() };
        if header.msg_controllen != 0 {
            return Err(libc::EACCES);
        }
        let name = header.msg_name as u64;
        let name = match (name, header.msg_namelen) {
            (0, _) | (_, 0) => None,
            (name, len) => Some(self.address(name, len.into())?),
        };
        let count = header.msg_iovlen;
        if count > PIECES {
            return Err(libc::EMSGSIZE);
        }
        let list = self.bytes(header.msg_iov as u64, count * size_of::<libc::iovec>())?;
        let mut content = Vec::new();
        for piece in list.chunks_exact(size_of::<libc::iovec>()) {
            // SAFETY: as above.
            let piece: libc::iovec =
                unsafe { piece.as_ptr().cast::<libc::iovec>().read_unaligned() };
            let len = piece.iov_len;
            if len > SEND_BYTES || content.len() + len > SEND_BYTES {
                return Err(libc::EMSGSIZE);
            }
            content.extend(self.bytes(piece.iov_base as u64, len)?);
        }
        Ok((name, content))
    }
}

fn pointer(at: u64) -> *mut c_void {
    std::ptr::without_provenance_mut(usize::try_from(at).unwrap_or(0))
}

fn length(bytes: u64) -> Result<usize, Errno> {
    usize::try_from(bytes).ok().filter(|len| *len <= SEND_BYTES).ok_or(libc::EMSGSIZE)
}

fn parse_address(bytes: &[u8]) -> Result<Address, Errno> {
    let family = bytes.first_chunk().map(|family| u16::from_ne_bytes(*family));
    let port = || bytes.get(2..4)?.first_chunk().map(|port| u16::from_be_bytes(*port));
    let v4 = || bytes.get(4..8)?.first_chunk::<4>().map(|ip| IpAddr::V4(Ipv4Addr::from(*ip)));
    let v6 = || bytes.get(8..24)?.first_chunk::<16>().map(|ip| IpAddr::V6(Ipv6Addr::from(*ip)));
    let ip = match family.map(c_int::from) {
        Some(libc::AF_UNSPEC) => return Ok(Address::Unspecified),
        Some(libc::AF_INET) => v4(),
        Some(libc::AF_INET6) => v6(),
        _ => return Ok(Address::Other),
    };
    let (ip, port) = ip.zip(port()).ok_or(libc::EINVAL)?;
    Ok(Address::Internet(SocketAddr::new(ip, port)))
}

fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().unwrap_or(libc::EIO)
}

fn checked(result: isize) -> Result<i64, Errno> {
    if result < 0 { Err(errno_of(&io::Error::last_os_error())) } else { Ok(result as i64) }
}

/// An address as the kernel takes it, made anew from what was judged: no scope, no flow.
fn raw(address: &Address) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: all of it is numbers.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let at = (&raw mut storage).cast::<u8>();
    let (family, port, ip, offset) = match address {
        Address::Internet(SocketAddr::V4(v4)) => {
            (libc::AF_INET, v4.port(), v4.ip().octets().to_vec(), 4)
        }
        Address::Internet(SocketAddr::V6(v6)) => {
            (libc::AF_INET6, v6.port(), v6.ip().octets().to_vec(), 8)
        }
        Address::Unspecified | Address::Other => (libc::AF_UNSPEC, 0, Vec::new(), 4),
    };
    storage.ss_family = libc::sa_family_t::try_from(family).unwrap_or(0);
    // SAFETY: both kinds of address are smaller than the storage, and these are their offsets.
    unsafe {
        at.add(2).copy_from_nonoverlapping(port.to_be_bytes().as_ptr(), 2);
        at.add(offset).copy_from_nonoverlapping(ip.as_ptr(), ip.len());
    }
    let len = match family {
        libc::AF_INET6 => size_of::<libc::sockaddr_in6>(),
        _ => size_of::<libc::sockaddr_in>(),
    };
    (storage, libc::socklen_t::try_from(len).unwrap_or(0))
}

fn option_of(socket: &OwnedFd, option: c_int) -> Result<c_int, Errno> {
    let mut value: c_int = 0;
    let mut len = libc::socklen_t::try_from(size_of::<c_int>()).unwrap_or(0);
    // SAFETY: value and length are valid for the call.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    checked(done as isize).map(|_| value)
}

fn connect(socket: &OwnedFd, to: &Address) -> Result<i64, Errno> {
    // SAFETY: a plain system call on a descriptor that is open.
    let flags = unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_GETFL) };
    if flags & libc::O_NONBLOCK == 0 {
        let longest = libc::timeval {
            tv_sec: libc::time_t::try_from(BLOCKING_CONNECT.as_secs()).unwrap_or(1),
            tv_usec: 0,
        };
        let len = libc::socklen_t::try_from(size_of::<libc::timeval>()).unwrap_or(0);
        // SAFETY: the value is valid for the call. It cannot fail on a socket.
        unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_SNDTIMEO,
                (&raw const longest).cast(),
                len,
            )
        };
    }
    let (storage, len) = raw(to);
    // SAFETY: the address is valid for the call and as long as is said.
    let done = unsafe { libc::connect(socket.as_raw_fd(), (&raw const storage).cast(), len) };
    checked(done as isize)
}

/// Nobody connects to a function: only what a datagram socket needs to hear answers, a port the
/// kernel chooses.
fn bind(socket: &OwnedFd, to: &Address) -> Result<i64, Errno> {
    let Address::Internet(address) = to else { return Err(libc::EACCES) };
    if address.port() != 0 || option_of(socket, libc::SO_TYPE)? != libc::SOCK_DGRAM {
        return Err(libc::EACCES);
    }
    let (storage, len) = raw(to);
    // SAFETY: the address is valid for the call and as long as is said.
    let done = unsafe { libc::bind(socket.as_raw_fd(), (&raw const storage).cast(), len) };
    checked(done as isize)
}

/// The flags of the caller are passed over: they could open a connection or wait.
fn send(socket: &OwnedFd, bytes: &[u8], to: Option<&Address>) -> Result<i64, Errno> {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    let to = to.map(raw);
    let (address, len) = match &to {
        Some((storage, len)) => (std::ptr::from_ref(storage).cast(), *len),
        None => (std::ptr::null(), 0),
    };
    // SAFETY: content and address are valid for the call and as long as is said.
    let sent = unsafe {
        libc::sendto(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags, address, len)
    };
    checked(sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(address: &Address) -> Vec<u8> {
        let (storage, len) = raw(address);
        // SAFETY: the storage is at least that long and all of it is numbers.
        unsafe { std::slice::from_raw_parts((&raw const storage).cast(), len as usize) }.to_vec()
    }

    #[test]
    fn addresses_survive_the_way_through_the_kernels_form() {
        for text in ["1.2.3.4:80", "[2606:4700::1111]:443", "[::ffff:127.0.0.1]:1"] {
            let address = Address::Internet(text.parse().unwrap());
            assert_eq!(parse_address(&bytes_of(&address)), Ok(address), "{text}");
        }
        assert_eq!(parse_address(&bytes_of(&Address::Unspecified)), Ok(Address::Unspecified));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        assert_eq!(parse_address(&[]), Ok(Address::Other));
        let unix = libc::AF_UNIX.to_ne_bytes();
        assert_eq!(parse_address(&[unix[0], unix[1], 0]), Ok(Address::Other));
        let mut short = bytes_of(&Address::Internet("[::1]:1".parse().unwrap()));
        short.truncate(16);
        assert_eq!(parse_address(&short), Err(libc::EINVAL));
    }
}
