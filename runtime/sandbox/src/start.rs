//! From an order of the pool to a READY worker.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use cloudserve_protocol::fault::Chain;
use cloudserve_protocol::wire::{FromWorker, Ready};
use tracing::{debug, error};

use crate::claims::Claims;
use crate::death::DeathCause;
use crate::keeper::keep;
use crate::launcher::{LaunchError, Ordered};
use crate::pipes::Pipes;
use crate::sandbox::{Shared, WORKER_DIR_PREFIX};
use crate::state::State;
use crate::worker::{Belongings, Process, Worker};

/// Time a process that failed to start has to say why.
const LAST_WORDS: Duration = Duration::from_millis(500);

impl Shared {
    /// Waits until a process that was ordered is READY.
    pub(crate) async fn start_worker(self: Arc<Self>, ordered: Ordered) {
        let launched = match ordered.await.unwrap_or(Err(LaunchError::Stopped)) {
            Ok(launched) => launched,
            Err(error) => {
                self.start_failed(Chain(&error).to_string());
                self.forget();
                return;
            }
        };
        let pipes = Pipes::new(launched.stdout, launched.stderr);
        let id = self.next_worker_id();
        let process = Process::new(id, launched.pid, launched.pidfd, pipes, launched.group);
        let process = Arc::new(process);
        debug!(worker = id, pid = launched.pid, "worker started");
        self.register(&process);
        self.runtime.spawn(keep(launched.exit, process.clone(), Arc::downgrade(&self)));

        let mut worker = Box::new(Worker::new(process.clone(), launched.control));
        // While it boots: no first call waits for a file system that is busy with what others store.
        let ready = match self.make_directory(&process) {
            Ok(()) => self.ready(&mut worker).await,
            Err(error) => {
                process.kill(DeathCause::StartFailed);
                Err(format!("has no directory: {error}"))
            }
        };
        match ready {
            Ok(Ready { boot_us, code_cache_tag, claims }) => {
                debug!(worker = id, boot_us, "worker is ready");
                worker.code_cache_tag = code_cache_tag;
                share_claims(&worker, claims);
                self.with_state(|state, todo| {
                    state.pool_mut().started(worker);
                    state.refill(todo);
                });
            }
            Err(reason) => {
                drop(worker);
                let report = process.exited(LAST_WORDS).await;
                let status = report.status_text();
                let words = &report.last_words;
                self.start_failed(format!("a worker {reason} ({status}): {words}"));
            }
        }
    }

    fn make_directory(&self, process: &Process) -> io::Result<()> {
        let work_dir = &self.options.work_dir;
        let tmp = tempfile::Builder::new().prefix(WORKER_DIR_PREFIX).tempdir_in(work_dir)?;
        *process.belongings.lock() = Some(Belongings { tmp, version: None });
        Ok(())
    }

    async fn ready(&self, worker: &mut Worker) -> Result<Ready, String> {
        let longest = Duration::from_millis(self.options.start_timeout_ms.into());
        let frame = tokio::time::timeout(longest, poll_fn(|cx| worker.poll_frame(cx))).await;
        let reason = match frame {
            Ok(Ok(FromWorker::Ready(ready))) => return Ok(ready),
            Ok(Ok(_)) => "began with a frame that is not `Ready`".to_owned(),
            // Its exit status says more.
            Ok(Err(error)) if !error.is_violation() => {
                return Err("ended before it was ready".to_owned());
            }
            Ok(Err(error)) => Chain(&error).to_string(),
            Err(_elapsed) => format!("was not ready within {} ms", longest.as_millis()),
        };
        worker.process.kill(DeathCause::StartFailed);
        Err(reason)
    }

    fn start_failed(&self, reason: String) {
        let reason: Arc<str> = reason.into();
        let pause = self.with_state(|state, _| state.pool_mut().start_failed(&reason));
        error!(reason = &*reason, retry_in_ms = pause.as_millis(), "worker cannot be started");
        self.change_in(pause, State::refill);
    }
}

/// Without it no call ever waits in this worker.
fn share_claims(worker: &Worker, number: Option<i32>) {
    let file = number.map(|number| worker.process.take_descriptor(number));
    match file.map(|file| file.and_then(|file| Claims::map(&file))) {
        Some(Ok(claims)) => worker.line.share(claims),
        Some(Err(error)) => debug!(worker = worker.process.id, %error, "no memory is shared"),
        None => {}
    }
}
