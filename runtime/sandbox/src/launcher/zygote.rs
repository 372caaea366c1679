//! A worker that is forked from a booted process.
//!
//! Everything here waits, on the launcher's own thread: a fork takes a millisecond, a new zygote
//! some hundred.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cloudserve_channel::Channel;
use cloudserve_protocol::zygote::{Forked, ZYGOTE_ARGUMENT};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, sendmsg, setsockopt,
    socketpair, sockopt,
};
use nix::sys::time::TimeVal;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use tokio::net::unix::pipe;
use tracing::debug;

use super::{Exit, LaunchError, Launched, exit, process};
use crate::jail::Group;
use crate::pidfd;

/// Workers of one zygote share its layout of memory and V8's hash seeds: neither serves for long.
const MAX_AGE: Duration = Duration::from_hours(1);
const MAX_FORKS: u32 = 10_000;

/// A running zygote. It ends when this is dropped; its workers do not.
pub(super) struct Zygote {
    child: Child,
    socket: OwnedFd,
    born: Instant,
    forks: u32,
}

impl Zygote {
    /// Starts a zygote and waits until it is ready.
    /// `patience` is the time it has to boot, and later to fork.
    pub(super) fn start(program: &Path, patience: Duration) -> Result<Self, LaunchError> {
        let (socket, child_end) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(|error| LaunchError::Descriptors(error.into()))?;
        let seconds = i64::try_from(patience.as_secs()).unwrap_or(i64::MAX);
        let patience = TimeVal::new(seconds, i64::from(patience.subsec_micros()));
        setsockopt(&socket, sockopt::ReceiveTimeout, &patience)
            .and_then(|()| setsockopt(&socket, sockopt::SendTimeout, &patience))
            .map_err(|error| LaunchError::Descriptors(error.into()))?;

        let mut command = Command::new(program);
        command
            .arg(ZYGOTE_ARGUMENT)
            .env_clear()
            .current_dir("/")
            .stdin(child_end)
            .stdout(Stdio::null())
            .stderr(Stdio::inherit());
        let parent = std::process::id();
        // SAFETY: `confine` makes plain system calls only; it neither allocates nor takes a lock.
        unsafe { command.pre_exec(move || process::confine(parent)) };
        let child = command
            .spawn()
            .map_err(|source| LaunchError::Spawn { program: program.to_owned(), source })?;
        // It holds the zygote's end of the socket, which would never be seen closed.
        drop(command);
        let zygote = Self { child, socket, born: Instant::now(), forks: 0 };
        let ready = zygote.listen().map_err(LaunchError::Boot)?;
        debug!(pid = zygote.child.id(), boot_us = ready.0, "zygote is ready");
        Ok(zygote)
    }

    /// Whether it is time for a new one.
    pub(super) fn is_worn(&self) -> bool {
        self.forks >= MAX_FORKS || self.born.elapsed() >= MAX_AGE
    }

    /// A worker, in a control group of its own if there is one for it.
    pub(super) fn fork(&mut self, group: Option<Group>) -> Result<Launched, LaunchError> {
        let (control, worker_control) = UnixStream::pair().map_err(LaunchError::Descriptors)?;
        let (stdout, worker_stdout) = std::io::pipe().map_err(LaunchError::Descriptors)?;
        let (stderr, worker_stderr) = std::io::pipe().map_err(LaunchError::Descriptors)?;
        let receiver = |reader: std::io::PipeReader| {
            pipe::Receiver::from_owned_fd(reader.into()).map_err(LaunchError::Descriptors)
        };
        let stdout = receiver(stdout)?;
        let stderr = receiver(stderr)?;
        let control = Channel::new(control).map_err(LaunchError::Descriptors)?;

        let mut descriptors =
            vec![worker_control.as_raw_fd(), worker_stdout.as_raw_fd(), worker_stderr.as_raw_fd()];
        descriptors.extend(group.as_ref().map(|group| group.as_fd().as_raw_fd()));
        sendmsg::<()>(
            self.socket.as_raw_fd(),
            &[io::IoSlice::new(&[0])],
            &[ControlMessage::ScmRights(&descriptors)],
            MsgFlags::MSG_NOSIGNAL,
            None,
        )
        .map_err(|error| LaunchError::Silent(error.into()))?;
        let forked = self.listen().map_err(LaunchError::Silent)?;
        let pid =
            forked.pid().map_err(|errno| LaunchError::Fork(io::Error::from_raw_os_error(errno)))?;
        self.forks += 1;

        match follow(pid) {
            Ok((pidfd, exit)) => Ok(Launched { pid, pidfd, control, stdout, stderr, exit, group }),
            Err(error) => {
                abandon(pid);
                Err(LaunchError::Descriptors(error))
            }
        }
    }

    fn listen(&self) -> io::Result<Forked> {
        let mut bytes = [0; Forked::BYTES];
        loop {
            // The length is the message's, also when it is longer.
            match recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_TRUNC) {
                Ok(n) if n == bytes.len() => return Ok(Forked::from_bytes(bytes)),
                Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// What there is to know a child by, and its end.
fn follow(pid: u32) -> io::Result<(OwnedFd, Exit)> {
    let pidfd = pidfd::open(pid)?;
    let exit = exit::of_child(pid.cast_signed(), pidfd.try_clone()?)?;
    Ok((pidfd, exit))
}

/// Ends a child that cannot be followed, and waits for it, since nobody else does.
fn abandon(pid: u32) {
    let pid = Pid::from_raw(pid.cast_signed());
    // Other numbers are those of groups.
    if pid.as_raw() > 0 {
        // Neither fails: it is our child, and not waited for yet.
        let _ = kill(pid, Signal::SIGKILL);
        let _ = waitpid(pid, None);
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        // Fails only when it has ended already. It was told to die; waiting takes no time.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
