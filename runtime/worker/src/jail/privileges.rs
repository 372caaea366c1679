//! No privileges, and none to be had: no capabilities, and no program that would bring some.
//!
//! Both belong to a thread.

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

/// Drops them from this thread.
pub(super) fn drop() -> io::Result<()> {
    let header = Header { version: CAPABILITY_VERSION, pid: 0 };
    let sets = [NONE; 2];
    // SAFETY: plain system calls; the structures are as the kernel defines them and outlive them.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) == 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}
