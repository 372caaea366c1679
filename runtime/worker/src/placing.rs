//! Where V8's memory lies.
//!
//! V8 asks for each piece of its heap, 256 KB, at a random address of 46 bits. Every piece then has page
//! tables of its own on three levels, 600 KB in all, of which every fork gets a copy. Asked for no address,
//! the kernel puts one piece beside the other, from an address on that is random for each program it starts.

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

static SIDE_BY_SIDE: AtomicBool = AtomicBool::new(false);

/// Has all that V8 asks for from now on lie side by side: for a process that will be forked.
pub(crate) fn side_by_side() {
    SIDE_BY_SIDE.store(true, Ordering::Relaxed);
}

unsafe extern "C" {
    safe fn __real__ZN2v84base2OS17GetRandomMmapAddrEv() -> *mut c_void;
}

/// Called in place of V8's `OS::GetRandomMmapAddr`, which is the above: `build.rs` has the linker see to it.
#[unsafe(no_mangle)]
extern "C" fn __wrap__ZN2v84base2OS17GetRandomMmapAddrEv() -> *mut c_void {
    if SIDE_BY_SIDE.load(Ordering::Relaxed) {
        ptr::null_mut()
    } else {
        __real__ZN2v84base2OS17GetRandomMmapAddrEv()
    }
}
