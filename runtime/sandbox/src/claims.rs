//! The supervisor's side of [`cloudserve_protocol::claims`].

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::{self, NonNull};

use cloudserve_protocol::claims::ClaimSlots;

/// The seals without which whoever made the file could take it away under us.
const SEALS: libc::c_int = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;

/// Memory shared with one worker. The worker may write into it what it likes: it decides who runs
/// the calls of its own function and nothing else.
#[derive(Debug)]
pub(crate) struct Claims(NonNull<ClaimSlots>);

// SAFETY: the memory is accessed as atomics only.
unsafe impl Send for Claims {}
// SAFETY: as above.
unsafe impl Sync for Claims {}

impl Claims {
    /// Maps the file a worker has made.
    pub(crate) fn map(file: &OwnedFd) -> io::Result<Self> {
        let size = size_of::<ClaimSlots>();
        let fd = file.as_raw_fd();
        // SAFETY: plain data, filled by the kernel below.
        let mut status: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: plain system calls on a descriptor we own; `status` is valid.
        let (seals, stated) =
            unsafe { (libc::fcntl(fd, libc::F_GET_SEALS), libc::fstat(fd, &raw mut status)) };
        let is_large_enough =
            stated == 0 && u64::try_from(status.st_size).is_ok_and(|n| n >= size as u64);
        if seals < 0 || seals & SEALS != SEALS || !is_large_enough {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping; the file has this size for good.
        let mapped =
            unsafe { libc::mmap(ptr::null_mut(), size, protection, libc::MAP_SHARED, fd, 0) };
        match NonNull::new(mapped.cast()) {
            Some(slots) if mapped != libc::MAP_FAILED => Ok(Self(slots)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub(crate) fn slots(&self) -> &ClaimSlots {
        // SAFETY: mapped until this is dropped, aligned to a page; any bytes are valid atomics.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Claims {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this size, and nothing refers to it any more.
        unsafe { libc::munmap(self.0.as_ptr().cast(), size_of::<ClaimSlots>()) };
    }
}
