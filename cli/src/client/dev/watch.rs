//! Changes of a project's files.
//!
//! Folders are watched one by one: what is not sent, `node_modules` above all, costs nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use crate::client::error::ClientError;

/// A change has ended when nothing more happened for this long; editors write in several steps.
const QUIET: Duration = Duration::from_millis(30);
/// A change that does not end is looked at anyway.
const LONGEST: Duration = Duration::from_millis(500);

/// Tells when files have changed.
pub(crate) struct Watcher {
    inner: RecommendedWatcher,
    /// Room for one: that something changed is all there is to say.
    changes: mpsc::Receiver<()>,
    watched: BTreeSet<PathBuf>,
}

impl Watcher {
    pub(crate) fn new() -> Result<Self, ClientError> {
        let (sender, changes) = mpsc::channel(1);
        let inner = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // An error is most likely that events were lost.
            if event.is_ok_and(|event| !is_change(event.kind)) {
                return;
            }
            // Full: it is known already.
            let _ = sender.try_send(());
        });
        let inner = inner.map_err(|error| cannot_watch(&error))?;
        Ok(Self { inner, changes, watched: BTreeSet::new() })
    }

    /// Watches these folders, as far as it does not yet.
    pub(crate) fn watch(&mut self, folders: &[PathBuf]) -> Result<(), ClientError> {
        // One that is gone may come back, and is another one then.
        self.watched.retain(|folder| folder.is_dir());
        for folder in folders {
            if self.watched.contains(folder) {
                continue;
            }
            match self.inner.watch(Path::new(folder), RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.watched.insert(folder.clone())),
                // Gone since it was read.
                Err(_) if !folder.is_dir() => {}
                Err(error) => return Err(cannot_watch(&error)),
            }
        }
        Ok(())
    }

    /// Waits for the next change to end; tells when it began.
    pub(crate) async fn changed(&mut self) -> Result<Instant, ClientError> {
        if self.changes.recv().await.is_none() {
            return Err(cannot_watch(&notify::Error::generic("the watcher has ended")));
        }
        let begun = Instant::now();
        while begun.elapsed() < LONGEST {
            if tokio::time::timeout(QUIET, self.changes.recv()).await.is_err() {
                break;
            }
        }
        Ok(begun)
    }
}

/// Reading a file is an event, too.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

fn cannot_watch(error: &notify::Error) -> ClientError {
    ClientError::Failed {
        code: "watch",
        message: format!("the project's files cannot be watched: {error}"),
        hint: "sysctl fs.inotify.max_user_watches and max_user_instances bound what Linux watches"
            .to_owned(),
    }
}
