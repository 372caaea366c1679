//! Short turns at the processor, for this process and all that it starts.
//!
//! Linux protects who runs for a slice (about 3 ms) before it lets others in, even those that have
//! slept until now. A function that computes would make every call of its neighbours wait for that
//! long. With short slices they get in at once; how much of the processor everybody gets in the end
//! stays the same.

use std::io;
use std::mem::size_of;
use std::time::Duration;

use nix::libc;

/// Long enough that switching costs next to nothing. Kernels take 0.1 to 100 ms.
const SLICE: Duration = Duration::from_micros(200);

/// Asks for short slices. To be called before threads and processes are started: they inherit them.
/// Kernels before 6.12 take it and do nothing.
pub(crate) fn shorten() {
    let attributes = libc::sched_attr {
        size: u32::try_from(size_of::<libc::sched_attr>()).expect("a few dozen bytes"),
        sched_policy: libc::SCHED_OTHER.unsigned_abs(),
        sched_flags: 0,
        sched_nice: nice(),
        sched_priority: 0,
        sched_runtime: u64::try_from(SLICE.as_nanos()).expect("a fraction of a second"),
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: `attributes` is a valid `sched_attr` of the size that it says, for the time of the
    // call, which reads it only. 0 is this thread.
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if done != 0 {
        let error = io::Error::last_os_error();
        tracing::debug!(%error, "the slices of the scheduler stay as they are");
    }
}

/// The niceness that this process was started with: it is set anew together with the slice.
fn nice() -> i32 {
    // SAFETY: takes numbers only. 0 is this process, which exists, so that the call does not fail.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
}
