//! Builds take turns, and together keep to a bound what npm has downloaded for them.

use std::io;
use std::path::{Path, PathBuf};

use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};
use tracing::{info, warn};

use super::npm::measure;

/// Where in its cache npm keeps what it downloaded.
const DOWNLOADS: &str = "_cacache";

/// The turns of one builder.
pub(super) struct Turns {
    places: Semaphore,
    n_places: u32,
    downloads: PathBuf,
    /// 0: no bound.
    max_bytes: u64,
}

impl Turns {
    pub(super) fn new(in_parallel: usize, cache_dir: &Path, max_bytes: u64) -> Self {
        let n_places = u32::try_from(in_parallel.max(1)).unwrap_or(u32::MAX);
        Self {
            places: Semaphore::new(n_places as usize),
            n_places,
            downloads: cache_dir.join(DOWNLOADS),
            max_bytes,
        }
    }

    /// Waits for a place. Who comes to a cache that has outgrown its bound empties it first.
    pub(super) async fn take(&self) -> Result<SemaphorePermit<'_>, AcquireError> {
        self.bound_cache().await?;
        self.places.acquire().await
    }

    /// Empties the cache only while nobody builds: a build would miss what it has just downloaded. On
    /// a busy node somebody always does, so beyond twice the bound they are waited for.
    async fn bound_cache(&self) -> Result<(), AcquireError> {
        if self.max_bytes == 0 {
            return Ok(());
        }
        let bytes = self.bytes().await;
        let all = if bytes <= self.max_bytes {
            return Ok(());
        } else if bytes / 2 <= self.max_bytes {
            match self.places.try_acquire_many(self.n_places) {
                Ok(all) => all,
                Err(_) => return Ok(()),
            }
        } else {
            self.places.acquire_many(self.n_places).await?
        };
        // Another one that waited may have been here before.
        if self.bytes().await > self.max_bytes {
            let downloads = self.downloads.clone();
            let emptied = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(downloads));
            match emptied.await.map_err(io::Error::other).and_then(|done| done) {
                Ok(()) => info!(bytes, max_bytes = self.max_bytes, "npm's cache was emptied"),
                Err(error) => warn!(%error, "npm's cache is not emptied"),
            }
        }
        drop(all);
        Ok(())
    }

    /// What is in the cache now.
    async fn bytes(&self) -> u64 {
        let downloads = self.downloads.clone();
        let measured = tokio::task::spawn_blocking(move || measure(&downloads)).await;
        measured.map_or(0, |(bytes, _)| bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_npm_keeps_is_bounded_and_never_taken_from_a_build() {
        let cache = tempfile::tempdir().unwrap();
        let content = cache.path().join(DOWNLOADS).join("content-v2/a");
        let download = |bytes: usize| {
            fs::create_dir_all(content.parent().unwrap()).unwrap();
            fs::write(&content, vec![0; bytes]).unwrap();
        };
        let unbounded = Turns::new(2, cache.path(), 0);
        let turns = Turns::new(2, cache.path(), 100);
        // There need not be a cache.
        drop(turns.take().await.unwrap());

        download(100);
        drop(turns.take().await.unwrap());
        assert!(content.exists(), "it is within its bound");
        download(101);
        drop(unbounded.take().await.unwrap());
        assert!(content.exists(), "there is no bound");
        let building = turns.take().await.unwrap();
        assert!(!content.exists(), "nobody built");

        download(200);
        drop(turns.take().await.unwrap());
        assert!(content.exists(), "somebody builds");
        download(202);
        let mut waiting = Box::pin(turns.take());
        let waited = tokio::time::timeout(Duration::from_millis(200), &mut waiting).await;
        assert!(waited.is_err() && content.exists(), "somebody still builds");
        drop(building);
        drop(waiting.await.unwrap());
        assert!(!content.exists(), "nobody builds any more");
    }
}
