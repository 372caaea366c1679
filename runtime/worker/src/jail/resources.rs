//! Limits of the process. Never of its address space: V8 reserves far more than it uses.

use std::ffi::CStr;
use std::mem::MaybeUninit;

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

/// The first Linux that counts the threads of a user in each user namespace by itself.
const COUNTS_BY_NAMESPACE: (u32, u32) = (5, 14);

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
    if are_threads_bounded() {
        setrlimit(Resource::RLIMIT_NPROC, THREADS, THREADS)
            .map_err(|source| ResourcesError { what: "threads", source })?;
    }
    // A file that is too large is an error of the write, not the end of the process.
    // SAFETY: ignoring a signal installs no handler.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }
        .map_err(|source| ResourcesError { what: "the signal of a file too large", source })?;
    Ok(())
}

/// Counted are all threads of the user, which in a namespace of its own is this process. An older kernel
/// counts those of the server and of all its workers with them, and would refuse one to a worker that has few.
pub(super) fn are_threads_bounded() -> bool {
    has_own_users() && counts_by_namespace(&kernel_release())
}

fn counts_by_namespace(release: &str) -> bool {
    let mut numbers = release.split(['.', '-', '+']).map_while(|part| part.parse::<u32>().ok());
    let version = numbers.next().zip(numbers.next());
    version.is_some_and(|version| version >= COUNTS_BY_NAMESPACE)
}

/// Empty if the kernel does not say it.
fn kernel_release() -> String {
    let mut names = MaybeUninit::<libc::utsname>::zeroed();
    // SAFETY: the pointer is valid for the call, and zeros are names as well: empty ones.
    let names = unsafe {
        libc::uname(names.as_mut_ptr());
        names.assume_init()
    };
    // SAFETY: the kernel ends each name with a zero, within its field.
    let release = unsafe { CStr::from_ptr(names.release.as_ptr()) };
    release.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_bounded_where_they_are_counted_alone() {
        for (release, expected) in [
            ("4.18.0-553.el8_10.x86_64", false),
            ("5.10.0-28-amd64", false),
            ("5.13.19", false),
            ("5.14.0-570.el9.aarch64", true),
            ("5.14+", true),
            ("6.1.0-rc3", true),
            ("10.0", true),
            ("6", false),
            ("", false),
        ] {
            assert_eq!(counts_by_namespace(release), expected, "{release}");
        }
        assert!(kernel_release().contains('.'));
    }
}
