//! A server the harness started: it writes to a file and dies with us.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::procfs::{self, CpuTime};
use crate::error::{BenchError, Doing};

/// A server has this long to listen.
const START: Duration = Duration::from_secs(30);
/// A server has this long to end when asked.
const STOP: Duration = Duration::from_secs(10);
/// So much of a server's output is shown when it fails.
const SHOWN_BYTES: usize = 4_000;

/// A running server. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program; what it writes goes to `<dir>/<name>.log`.
    pub(crate) fn start(name: &str, mut command: Command, dir: &Path) -> Result<Self, BenchError> {
        let log = dir.join(format!("{name}.log"));
        let file = File::create(&log).doing(format!("cannot write {}", log.display()))?;
        let also = file.try_clone().doing("cannot share a log file")?;
        command.stdin(Stdio::null()).stdout(file).stderr(also);
        // SAFETY: `prctl` with these arguments is async-signal-safe and touches no memory.
        unsafe {
            command.pre_exec(|| {
                // The harness has one thread, so the child is tied to the harness.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let child = command.spawn().doing(format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its CPU time and that of all below it.
    pub(crate) fn cpu_time(&self) -> CpuTime {
        procfs::cpu_time(self.pid())
    }

    /// What it wrote.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until `ready` gives a value, which it is asked for every now and then.
    pub(crate) async fn wait_for<T>(
        &mut self,
        every: Duration,
        mut ready: impl AsyncFnMut(&Self) -> Option<T>,
    ) -> Result<T, BenchError> {
        let end = Instant::now() + START;
        loop {
            if let Some(value) = ready(self).await {
                return Ok(value);
            }
            let has_ended = !matches!(self.child.try_wait(), Ok(None));
            if has_ended || Instant::now() > end {
                let output = self.output();
                let tail = output.floor_char_boundary(output.len().saturating_sub(SHOWN_BYTES));
                return Err(BenchError::NotStarted {
                    name: self.name.clone(),
                    output: output[tail..].to_owned(),
                });
            }
            tokio::time::sleep(every).await;
        }
    }

    /// Waits until it takes connections.
    pub(crate) async fn wait_for_port(&mut self, address: SocketAddr) -> Result<(), BenchError> {
        self.wait_for(Duration::from_millis(10), async |_| {
            tokio::net::TcpStream::connect(address).await.ok().map(drop)
        })
        .await
    }

    /// Asks it to end and waits; kills it if that takes too long.
    pub(crate) async fn stop(mut self) {
        let pid = Pid::from_raw(self.pid().cast_signed());
        if kill(pid, Signal::SIGTERM).is_ok() {
            let end = Instant::now() + STOP;
            while Instant::now() < end {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        // Dropping kills.
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port nobody listens on now, for programs that cannot tell which one they took.
pub(crate) fn free_address() -> Result<SocketAddr, BenchError> {
    let listener = TcpListener::bind("127.0.0.1:0").doing("no port is free")?;
    listener.local_addr().doing("a listener has no address")
}
