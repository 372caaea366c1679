//! Limits of the process. Never of its address space: V8 reserves far more than it uses.

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};

use super::namespaces::has_own_users;

/// Open files and sockets.
const DESCRIPTORS: u64 = 1_024;

/// Memory that may be kept from being swapped out.
const LOCKED_BYTES: u64 = 64 * 1024;

/// Threads. A worker has some thirty; one with more than this is ended from outside as well, where the
/// kernel cannot count those of one user namespace, and not at once.
const THREADS: u64 = 128;

/// A limit cannot be set.
#[derive(Debug, thiserror::Error)]
#[error("{what} cannot be limited")]
pub(crate) struct ResourcesError {
    what: &'static str,
    #[source]
    source: nix::Error,
}

/// Sets them for good: lowered hard limits cannot be raised without privileges.
pub(super) fn limit(file_bytes: u64) -> Result<(), ResourcesError> {
    for (resource, most, what) in [
        (Resource::RLIMIT_CORE, 0, "core files"),
        (Resource::RLIMIT_NOFILE, DESCRIPTORS, "open files"),
        (Resource::RLIMIT_FSIZE, file_bytes, "the size of a file"),
        (Resource::RLIMIT_MEMLOCK, LOCKED_BYTES, "locked memory"),
        (Resource::RLIMIT_MSGQUEUE, 0, "message queues"),
    ] {
        setrlimit(resource, most, most).map_err(|source| ResourcesError { what, source })?;
    }
    // Counted are all threads of the user, which in a namespace of its own is this process.
    if has_own_users() {
        setrlimit(Resource::RLIMIT_NPROC, THREADS, THREADS)
            .map_err(|source| ResourcesError { what: "threads", source })?;
    }
    // A file that is too large is an error of the write, not the end of the process.
    // SAFETY: ignoring a signal installs no handler.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }
        .map_err(|source| ResourcesError { what: "the signal of a file too large", source })?;
    Ok(())
}
