//! No privileges, and none to be had: no capabilities, and no program that would bring some.
//!
//! Both belong to a thread, and one that is made later inherits them.

use std::io;

/// `_LINUX_CAPABILITY_VERSION_3`
const CAPABILITY_VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    /// 0 is the calling thread.
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const NONE: Sets = Sets { effective: 0, permitted: 0, inheritable: 0 };

/// This thread gets no new ones.
pub(super) fn renounce() -> io::Result<()> {
    // SAFETY: a plain system call.
    done(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 })
}

/// Drops those that this thread has.
pub(super) fn drop() -> io::Result<()> {
    let header = Header { version: CAPABILITY_VERSION, pid: 0 };
    let sets = [NONE; 2];
    // SAFETY: a plain system call; the structures are as the kernel defines them and outlive it.
    done(unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) == 0 })
}

fn done(is_done: bool) -> io::Result<()> {
    if is_done { Ok(()) } else { Err(io::Error::last_os_error()) }
}
