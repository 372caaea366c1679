//! How a worker's end is learnt.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::pin::Pin;
use std::process::ExitStatus;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// See [`super::Launched::exit`].
pub(crate) type Exit = Pin<Box<dyn Future<Output = io::Result<ExitStatus>> + Send>>;

/// The end of a child that nothing else waits for. Called within a tokio runtime.
pub(super) fn of_child(pid: libc::pid_t, pidfd: OwnedFd) -> io::Result<Exit> {
    // A process that has ended makes its descriptor readable.
    // SAFETY: an `OwnedFd` stays open, and the same, until it is dropped.
    let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?;
    Ok(Box::pin(async move {
        loop {
            let mut guard = pidfd.readable().await?;
            let mut status = 0;
            // SAFETY: a plain system call; the pointer is valid for it.
            match unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) } {
                0 => guard.clear_ready(),
                -1 => return Err(io::Error::last_os_error()),
                _ => return Ok(ExitStatus::from_raw(status)),
            }
        }
    }))
}
