//! Makes worker processes. How one comes to be is known here alone: today a fresh process; a fork
//! of a warmed one would return the same [`Launched`].
//!
//! A worker must not outlive the supervisor, even one that is killed. Its control socket closes
//! then, and the kernel sends it `SIGKILL` as its parent-death signal. That signal is tied to the
//! *thread* that forked, so all workers are forked by one thread that lives as long as the
//! launcher.

use std::future::Future;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc;

use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::Command;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Why no process came to be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    #[error("the worker program {} cannot be started", program.display())]
    Spawn {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("a worker's socket or pipes cannot be made")]
    Descriptors(#[source] io::Error),
    #[error("the thread that starts workers has ended")]
    Stopped,
}

/// A running process that has said nothing yet.
pub(crate) struct Launched {
    pub(crate) pid: u32,
    /// Signals go through this: the number alone may be another process's by then.
    pub(crate) pidfd: OwnedFd,
    pub(crate) control: UnixStream,
    pub(crate) stdout: pipe::Receiver,
    pub(crate) stderr: pipe::Receiver,
    /// Resolves when the process has ended and was waited for.
    pub(crate) exit: Exit,
}

/// See [`Launched::exit`].
pub(crate) type Exit = Pin<Box<dyn Future<Output = io::Result<ExitStatus>> + Send>>;

type Order = oneshot::Sender<Result<Launched, LaunchError>>;

/// Starts workers on its own thread, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Launcher {
    orders: mpsc::Sender<Order>,
}

impl Launcher {
    /// Called within a tokio runtime.
    pub(crate) fn start(program: PathBuf) -> io::Result<Self> {
        let (orders, queue) = mpsc::channel::<Order>();
        let runtime = Handle::current();
        std::thread::Builder::new().name("launcher".to_owned()).spawn(move || {
            let _within = runtime.enter();
            for order in queue {
                // Nobody waits any more: the process dies with the value.
                let _ = order.send(launch(&program));
            }
        })?;
        Ok(Self { orders })
    }

    pub(crate) async fn launch(&self) -> Result<Launched, LaunchError> {
        let (done, launched) = oneshot::channel();
        self.orders.send(done).map_err(|_| LaunchError::Stopped)?;
        launched.await.map_err(|_| LaunchError::Stopped)?
    }
}

fn launch(program: &PathBuf) -> Result<Launched, LaunchError> {
    let (control, child_end) = StdUnixStream::pair().map_err(LaunchError::Descriptors)?;
    control.set_nonblocking(true).map_err(LaunchError::Descriptors)?;

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
        spawned.map_err(|source| LaunchError::Spawn { program: program.clone(), source })?;

    let pid = child.id().expect("it was not waited for yet");
    let pidfd = open_pidfd(pid).map_err(LaunchError::Descriptors)?;
    let stdout = child.stdout.take().expect("it was asked for").into_owned_fd();
    let stderr = child.stderr.take().expect("it was asked for").into_owned_fd();
    let receiver = |fd: io::Result<OwnedFd>| {
        fd.and_then(pipe::Receiver::from_owned_fd).map_err(LaunchError::Descriptors)
    };
    Ok(Launched {
        pid,
        pidfd,
        control: UnixStream::from_std(control).map_err(LaunchError::Descriptors)?,
        stdout: receiver(stdout)?,
        stderr: receiver(stderr)?,
        exit: Box::pin(async move { child.wait().await }),
    })
}

/// Runs in the child, between fork and exec.
fn confine(parent: u32) -> io::Result<()> {
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

fn open_pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: a plain system call. The process is our child and not waited for, so the number is
    // its own.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match RawFd::try_from(fd) {
        // SAFETY: the kernel has just given us this descriptor, close-on-exec as pidfds are.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
