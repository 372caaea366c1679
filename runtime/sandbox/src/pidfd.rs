//! Descriptors of processes. The number of one that was waited for may be another's.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Of a child that was not waited for yet, so that the number is its own.
pub(crate) fn open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: a plain system call, which returns a new descriptor, close-on-exec as pidfds are.
    unsafe { owned(libc::syscall(libc::SYS_pidfd_open, pid, 0)) }
}

/// One of the process's descriptors, as one of ours.
pub(crate) fn take_descriptor(pidfd: &OwnedFd, number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: a plain system call on a descriptor that is open. It returns a new one, close-on-exec.
    unsafe { owned(libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0)) }
}

/// # Safety
///
/// The kernel has just returned it: a descriptor that is nobody's yet, or an error.
unsafe fn owned(returned: libc::c_long) -> io::Result<OwnedFd> {
    match RawFd::try_from(returned) {
        // SAFETY: see above.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
