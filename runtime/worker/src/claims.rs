//! The memory in which worker and supervisor agree who runs a call that waits: see
//! [`cloudserve_protocol::claims`].

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use cloudserve_protocol::claims::ClaimSlots;

/// Mapped for as long as the process lives.
pub(crate) struct Claims {
    slots: &'static ClaimSlots,
}

impl Claims {
    /// Makes the memory, and the descriptor by which the supervisor finds it. Its size can never
    /// change: whoever maps a file that shrinks dies of it.
    pub(crate) fn make() -> io::Result<(Self, OwnedFd)> {
        let size = size_of::<ClaimSlots>();
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
        // SAFETY: a constant name; the descriptor is new and owned from here on.
        let file =
            unsafe { OwnedFd::from_raw_fd(check(libc::memfd_create(c"claims".as_ptr(), flags))?) };
        let fd = file.as_raw_fd();
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        // SAFETY: plain system calls on a descriptor we own.
        unsafe {
            check(libc::ftruncate(fd, libc::off_t::try_from(size).unwrap_or(libc::off_t::MAX)))?;
            check(libc::fcntl(fd, libc::F_ADD_SEALS, seals))?;
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of a file we own, of its whole size.
        let mapped =
            unsafe { libc::mmap(ptr::null_mut(), size, protection, libc::MAP_SHARED, fd, 0) };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: aligned to a page, as large as `ClaimSlots`, zeroed, which is valid for it, only
        // ever accessed as atomics by both sides, and never unmapped.
        let slots = unsafe { &*mapped.cast::<ClaimSlots>() };
        Ok((Self { slots }, file))
    }

    /// Whether this worker is to run the call.
    pub(crate) fn claim(&self, call: u32) -> bool {
        self.slots.claim(call)
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
