//! Changes of a project's files.
//!
//! Folders are watched one by one: what is not sent, `node_modules` above all, costs nothing.

use std::collections::BTreeSet;
use std::path::PathBuf;
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

    /// Watches these folders; tells whether there is one among them that was not watched before.
    pub(crate) fn watch(&mut self, folders: &[PathBuf]) -> Result<bool, ClientError> {
        let mut is_any_new = false;
        // One that is gone may come back, and is another one then.
        self.watched.retain(|folder| folder.is_dir());
        for folder in folders {
            // Also one that is watched: it may have been removed and made again meanwhile, and what
            // is watched is the one of before.
            match self.inner.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => is_any_new |= self.watched.insert(folder.clone()),
                // Gone since it was read.
                Err(_) if !folder.is_dir() => {}
                Err(error) => return Err(cannot_watch(&error)),
            }
        }
        Ok(is_any_new)
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Long enough for a machine that has much to do.
    const HEARD: Duration = Duration::from_secs(2);
    const TRIES: usize = 15;

    #[tokio::test]
    async fn a_folder_that_was_made_again_is_watched_again() {
        let dir = tempfile::tempdir().unwrap();
        let lib = dir.path().join("lib");
        let folders = [dir.path().to_owned(), lib.clone()];
        fs::create_dir(&lib).unwrap();
        let mut watcher = Watcher::new().unwrap();
        assert!(watcher.watch(&folders).unwrap());
        fs::remove_dir(&lib).unwrap();
        fs::create_dir(&lib).unwrap();
        watcher.changed().await.unwrap();

        assert!(!watcher.watch(&folders).unwrap());
        for n in 0..TRIES {
            fs::write(lib.join("index.js"), n.to_string()).unwrap();
            if let Ok(change) = tokio::time::timeout(HEARD, watcher.changed()).await {
                change.unwrap();
                return;
            }
            watcher.watch(&folders).unwrap();
        }
        panic!("a change in a folder that was made again is not heard");
    }
}
