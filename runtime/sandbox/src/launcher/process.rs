//! A worker that is a program of its own.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;

use cloudserve_channel::Channel;
use tokio::net::unix::pipe;
use tokio::process::Command;

use super::{LaunchError, Launched};
use crate::jail::Group;
use crate::pidfd;

/// See the module.
pub(super) fn launch(program: &Path, group: Option<Group>) -> Result<Launched, LaunchError> {
    let (control, child_end) = UnixStream::pair().map_err(LaunchError::Descriptors)?;

    let mut command = Command::new(program);
    command
        .env_clear()
        .current_dir("/")
        .stdin(OwnedFd::from(child_end))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let parent = std::process::id();
    // SAFETY: `confine` makes plain system calls only; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(move || confine(parent)) };
    let spawned = command.spawn();
    let mut child =
        spawned.map_err(|source| LaunchError::Spawn { program: program.to_owned(), source })?;

    let pid = child.id().expect("it was not waited for yet");
    if let Some(group) = &group {
        group.take_in(pid).map_err(LaunchError::Group)?;
    }
    let pidfd = pidfd::open(pid).map_err(LaunchError::Descriptors)?;
    let stdout = child.stdout.take().expect("it was asked for").into_owned_fd();
    let stderr = child.stderr.take().expect("it was asked for").into_owned_fd();
    let receiver = |fd: io::Result<OwnedFd>| {
        fd.and_then(pipe::Receiver::from_owned_fd).map_err(LaunchError::Descriptors)
    };
    Ok(Launched {
        pid,
        pidfd,
        control: Channel::new(control).map_err(LaunchError::Descriptors)?,
        stdout: receiver(stdout)?,
        stderr: receiver(stderr)?,
        exit: Box::pin(async move { child.wait().await }),
        group,
    })
}

/// Runs in the child, between fork and exec.
pub(super) fn confine(parent: u32) -> io::Result<()> {
    let check = |result: libc::c_int| {
        if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: plain system calls; the pointer is valid for the call.
    unsafe {
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        // The parent may have died before the line above.
        if libc::getppid().cast_unsigned() != parent {
            return Err(io::ErrorKind::NotConnected.into());
        }
        check(libc::setsid())?;
        // A core file would hold a function's secrets.
        check(libc::setrlimit(libc::RLIMIT_CORE, &raw const none))?;
        // Everything we open is close-on-exec; this holds for what a library opens, too. Kernels
        // before 5.11 cannot.
        let flags = libc::CLOSE_RANGE_CLOEXEC.cast_signed();
        libc::close_range(3, libc::c_uint::MAX, flags);
    }
    Ok(())
}
