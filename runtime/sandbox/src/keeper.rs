//! The task that stays with a process from start to end: it reads the pipes, looks after the
//! socket while the worker waits for work, learns how the process ended, and clears up behind it.
//!
//! A call wakes no keeper: while a worker is in a call its socket is registered under the waker of
//! the call.

use std::future::pending;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use crate::launcher::Exit;
use crate::sandbox::Shared;
use crate::worker::Process;

/// Time a worker that is to end by itself has for it.
const DISMISSAL: Duration = Duration::from_millis(500);

pub(crate) async fn keep(mut exit: Exit, process: Arc<Process>, sandbox: Weak<Shared>) {
    let mut kill_at = None;
    let status = loop {
        let overdue = async {
            match kill_at {
                Some(at) => sleep_until(at).await,
                None => pending().await,
            }
        };
        tokio::select! {
            status = &mut exit => break status,
            () = process.pipes.readable() => process.pipes.drain(),
            () = process.stirred.notified() => {
                if let Some(sandbox) = sandbox.upgrade() {
                    sandbox.attend(&process);
                }
                // It may never stop.
                tokio::task::yield_now().await;
            }
            () = process.dismissed.notified() => kill_at = Some(Instant::now() + DISMISSAL),
            () = overdue => {
                kill_at = None;
                process.kill_overstayed();
            }
        }
    };
    let status = status
        .inspect_err(|error| warn!(worker = process.id, %error, "worker cannot be waited for"))
        .ok();
    process.pipes.drain();
    let report = Arc::new(process.explain(status));
    debug!(
        worker = process.id,
        pid = process.pid,
        cause = report.cause.label(),
        status = report.status_text(),
        "worker ended"
    );
    process.report_exit(report.clone());
    if let Some(sandbox) = sandbox.upgrade() {
        sandbox.bury(&process, &report);
    }
    let belongings = process.belongings.lock().take();
    if let Some(belongings) = belongings {
        // Removes a directory that hostile code has filled.
        tokio::task::spawn_blocking(move || drop(belongings));
    }
}
