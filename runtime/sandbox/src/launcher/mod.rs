//! Makes worker processes. How one comes to be is known here alone: forked from a [`zygote`] that
//! is booted already, or a fresh [`process`].
//!
//! A worker must not outlive the supervisor, even one that is killed. Its control socket closes
//! then, and the kernel sends it `SIGKILL` as its parent-death signal. That signal is tied to the
//! *thread* that forked, so all workers are forked by one thread that lives as long as the
//! launcher, or by a zygote that this thread started.

mod exit;
mod process;
mod zygote;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use cloudserve_channel::Channel;
use cloudserve_protocol::fault::Chain;
use serde::Deserialize;
use tokio::net::unix::pipe;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracing::{info, warn};

pub(crate) use exit::Exit;
use zygote::Zygote;

use crate::jail::{Delegation, Group};
use crate::options::SandboxOptions;

/// How worker processes come to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LaunchMode {
    /// Forked from a booted process: a worker is READY within 2 ms and shares the memory that
    /// booting made. Workers of one zygote have the same layout of memory.
    #[default]
    Zygote,
    /// A program of its own for each worker, with a layout of its own: READY within 60 ms.
    Process,
}

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
    #[error("a worker cannot be put into its control group")]
    Group(#[source] io::Error),
    #[error("the zygote did not become ready")]
    Boot(#[source] io::Error),
    #[error("the zygote does not answer")]
    Silent(#[source] io::Error),
    #[error("the zygote cannot fork")]
    Fork(#[source] io::Error),
    #[error("the thread that starts workers has ended")]
    Stopped,
}

/// What the system says when it has no more of something just now.
const SHORTAGES: [libc::c_int; 6] =
    [libc::EAGAIN, libc::ENOMEM, libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOSPC];

impl LaunchError {
    /// Whether it is a shortage of this moment, which says nothing of the zygote.
    fn is_of_the_moment(&self) -> bool {
        match self {
            Self::Descriptors(source) | Self::Fork(source) | Self::Spawn { source, .. } => {
                source.raw_os_error().is_some_and(|errno| SHORTAGES.contains(&errno))
            }
            Self::Group(_) | Self::Boot(_) | Self::Silent(_) | Self::Stopped => false,
        }
    }
}

/// A running process that has said nothing yet.
pub(crate) struct Launched {
    pub(crate) pid: u32,
    /// Signals go through this: the number alone may be another process's by then.
    pub(crate) pidfd: OwnedFd,
    pub(crate) control: Channel,
    pub(crate) stdout: pipe::Receiver,
    pub(crate) stderr: pipe::Receiver,
    /// Resolves when the process has ended and was waited for.
    pub(crate) exit: Exit,
    /// What bounds its memory, where the platform has that.
    pub(crate) group: Option<Group>,
}

type Order = oneshot::Sender<Result<Launched, LaunchError>>;

/// A process that was ordered. Closed when the launcher has ended.
pub(crate) type Ordered = oneshot::Receiver<Result<Launched, LaunchError>>;

/// Starts workers on its own thread, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Launcher {
    orders: mpsc::Sender<Order>,
}

impl Launcher {
    /// Called within a tokio runtime.
    pub(crate) fn start(options: &SandboxOptions) -> io::Result<Self> {
        let (orders, queue) = mpsc::channel::<Order>();
        let runtime = Handle::current();
        let mut source = Source::new(options);
        std::thread::Builder::new().name("launcher".to_owned()).spawn(move || {
            let _within = runtime.enter();
            for order in queue {
                // Nobody waits any more: the process dies with the value.
                let _ = order.send(source.launch());
            }
        })?;
        Ok(Self { orders })
    }

    /// Orders a process, at once: whoever is to wait for it may have to be woken first.
    pub(crate) fn order(&self) -> Ordered {
        let (done, ordered) = oneshot::channel();
        // An order that nobody takes is dropped, and `ordered` closed.
        let _ = self.orders.send(done);
        ordered
    }
}

/// Zygotes in a row that may fail before workers are started without one.
const HOPELESS_ZYGOTES: u32 = 2;

/// Time after which another one is tried nevertheless; twice as long each time, up to an hour or so.
/// On platforms where none works, an attempt may take all the time that booting may.
const WITHOUT_ZYGOTE: Duration = Duration::from_mins(1);
const MAX_DOUBLINGS: u32 = 6;

/// Where workers come from.
struct Source {
    program: PathBuf,
    patience: Duration,
    mode: LaunchMode,
    zygote: Option<Zygote>,
    /// Of zygotes, in a row.
    failures: u32,
    /// Until then workers are started without a zygote.
    without_until: Option<Instant>,
}

impl Source {
    fn new(options: &SandboxOptions) -> Self {
        Self {
            program: options.worker_program.clone(),
            patience: Duration::from_millis(options.start_timeout_ms.into()),
            mode: options.launch,
            zygote: None,
            failures: 0,
            without_until: None,
        }
    }

    fn launch(&mut self) -> Result<Launched, LaunchError> {
        while self.forks() {
            match self.fork(group()?) {
                Ok(launched) => {
                    self.failures = 0;
                    return Ok(launched);
                }
                // The pool tries again, after a pause.
                Err(error) if error.is_of_the_moment() => return Err(error),
                Err(error) => self.zygote_failed(&error),
            }
        }
        process::launch(&self.program, group()?)
    }

    fn forks(&self) -> bool {
        self.mode == LaunchMode::Zygote
            && self.without_until.is_none_or(|until| Instant::now() >= until)
    }

    fn fork(&mut self, group: Option<Group>) -> Result<Launched, LaunchError> {
        // The old one is kept until there is a new one.
        if self.zygote.as_ref().is_none_or(Zygote::is_worn) {
            self.zygote = Some(Zygote::start(&self.program, self.patience)?);
        }
        let zygote = self.zygote.as_mut().expect("it was just made");
        zygote.fork(group)
    }

    /// Platforms exist that take no part in this: what is lost is speed.
    fn zygote_failed(&mut self, error: &LaunchError) {
        warn!(error = %Chain(error), "the zygote failed");
        self.zygote = None;
        self.failures = self.failures.saturating_add(1);
        if let Some(more) = self.failures.checked_sub(HOPELESS_ZYGOTES) {
            let pause = WITHOUT_ZYGOTE * (1_u32 << more.min(MAX_DOUBLINGS));
            self.without_until = Some(Instant::now() + pause);
            info!(
                for_s = pause.as_secs(),
                "every worker is a program of its own for now; they start more slowly"
            );
        }
    }
}

/// A worker without one is watched, as on platforms that have none. Not for want of descriptors: it
/// will have one in a moment.
fn group() -> Result<Option<Group>, LaunchError> {
    let Some(delegation) = Delegation::of_this_process() else { return Ok(None) };
    match delegation.group() {
        Ok(group) => Ok(Some(group)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
            Err(LaunchError::Descriptors(error))
        }
        Err(error) => {
            warn!(%error, "a worker has no control group");
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_says_nothing_of_the_zygote() {
        let of = io::Error::from_raw_os_error;
        let spawn = |errno| LaunchError::Spawn { program: PathBuf::new(), source: of(errno) };
        for shortage in SHORTAGES {
            for error in [
                LaunchError::Descriptors(of(shortage)),
                LaunchError::Fork(of(shortage)),
                spawn(shortage),
            ] {
                assert!(error.is_of_the_moment(), "{error}");
            }
            // A zygote that does not answer in time.
            assert!(!LaunchError::Silent(of(shortage)).is_of_the_moment());
            assert!(!LaunchError::Boot(of(shortage)).is_of_the_moment());
        }
        for error in [
            LaunchError::Descriptors(of(libc::ENOSYS)),
            LaunchError::Fork(of(libc::ENOSYS)),
            LaunchError::Fork(of(libc::EPERM)),
            spawn(libc::ENOENT),
        ] {
            assert!(!error.is_of_the_moment(), "{error}");
        }
    }

    #[test]
    fn a_zygote_is_tried_again_after_a_while() {
        let options = SandboxOptions { launch: LaunchMode::Zygote, ..SandboxOptions::default() };
        let mut source = Source::new(&options);
        let error = LaunchError::Silent(io::ErrorKind::UnexpectedEof.into());
        source.zygote_failed(&error);
        assert!(source.forks(), "once is an accident");
        let mut pauses = Vec::new();
        for _ in 0..12 {
            source.zygote_failed(&error);
            assert!(!source.forks());
            pauses.push(source.without_until.unwrap().duration_since(Instant::now()));
            source.without_until = Some(Instant::now());
            assert!(source.forks());
        }
        assert!(pauses[0] <= WITHOUT_ZYGOTE && pauses[0] > WITHOUT_ZYGOTE / 2);
        assert!(pauses[1] > pauses[0] && pauses[11] <= WITHOUT_ZYGOTE * 64);
    }
}
