//! Builds take turns, and together keep to a bound what npm has downloaded for them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};
use tracing::{info, warn};

use super::npm::measure;

/// Where in its cache npm keeps what it downloaded.
pub(super) const DOWNLOADS: &str = "_cacache";

/// The turns of one builder.
pub(super) struct Turns {
    places: Semaphore,
    n_places: u32,
    downloads: Arc<Downloads>,
}

/// What npm has downloaded.
struct Downloads {
    path: PathBuf,
    /// 0: no bound.
    max_bytes: u64,
    /// As measured after a build; 0 before the first one.
    bytes: AtomicU64,
    /// Whether a build has ended and nobody has begun to measure.
    is_unmeasured: AtomicBool,
    /// Held while it is measured or emptied.
    access: Mutex<()>,
}

/// A place to build. When it is given back, what the build downloaded is measured.
pub(super) struct Place<'a> {
    downloads: &'a Arc<Downloads>,
    _permit: SemaphorePermit<'a>,
}

impl Turns {
    pub(super) fn new(in_parallel: usize, cache_dir: &Path, max_bytes: u64) -> Self {
        let n_places = u32::try_from(in_parallel.max(1)).unwrap_or(u32::MAX);
        let downloads = Downloads {
            path: cache_dir.join(DOWNLOADS),
            max_bytes,
            bytes: AtomicU64::new(0),
            is_unmeasured: AtomicBool::new(false),
            access: Mutex::new(()),
        };
        Self { places: Semaphore::new(n_places as usize), n_places, downloads: Arc::new(downloads) }
    }

    /// Waits for a place. Who comes to a cache that has outgrown its bound empties it first.
    pub(super) async fn take(&self) -> Result<Place<'_>, AcquireError> {
        self.bound_cache().await?;
        let permit = self.places.acquire().await?;
        Ok(Place { downloads: &self.downloads, _permit: permit })
    }

    /// Empties the cache only while nobody builds: a build would miss what it has just downloaded. On
    /// a busy node somebody always does, so beyond twice the bound they are waited for.
    async fn bound_cache(&self) -> Result<(), AcquireError> {
        let max_bytes = self.downloads.max_bytes;
        let bytes = self.downloads.bytes();
        let all = if max_bytes == 0 || bytes <= max_bytes {
            return Ok(());
        } else if bytes / 2 <= max_bytes {
            match self.places.try_acquire_many(self.n_places) {
                Ok(all) => all,
                Err(_) => return Ok(()),
            }
        } else {
            self.places.acquire_many(self.n_places).await?
        };
        // Another one that waited may have been here before.
        if self.downloads.bytes() > max_bytes {
            let downloads = self.downloads.clone();
            let emptied = tokio::task::spawn_blocking(move || downloads.empty());
            match emptied.await.map_err(io::Error::other).and_then(|done| done) {
                Ok(()) => info!(bytes, max_bytes, "npm's cache was emptied"),
                Err(error) => warn!(%error, "npm's cache is not emptied"),
            }
        }
        drop(all);
        Ok(())
    }
}

impl Downloads {
    /// As last measured.
    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Blocks.
    fn measure(&self) {
        let _access = self.access.lock();
        self.is_unmeasured.store(false, Ordering::SeqCst);
        self.bytes.store(measure(&self.path).0, Ordering::Relaxed);
    }

    /// Blocks.
    fn empty(&self) -> io::Result<()> {
        let _access = self.access.lock();
        let removed = match std::fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        };
        let left = if removed.is_ok() { 0 } else { measure(&self.path).0 };
        self.bytes.store(left, Ordering::Relaxed);
        removed
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        // Who has yet to begin measures this build as well.
        if self.downloads.max_bytes > 0
            && !self.downloads.is_unmeasured.swap(true, Ordering::SeqCst)
            && let Ok(runtime) = Handle::try_current()
        {
            let downloads = self.downloads.clone();
            runtime.spawn_blocking(move || downloads.measure());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    /// Gives a place back and waits until the cache is measured: to be of so many bytes.
    async fn end(turns: &Turns, place: Place<'_>, bytes: u64) {
        drop(place);
        for _ in 0..500 {
            let is_pending = turns.downloads.is_unmeasured.load(Ordering::SeqCst);
            if !is_pending && turns.downloads.bytes() == bytes {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it is measured to be of {} bytes, not {bytes}", turns.downloads.bytes());
    }

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
        end(&turns, turns.take().await.unwrap(), 0).await;

        let building = turns.take().await.unwrap();
        download(100);
        end(&turns, building, 100).await;
        let building = turns.take().await.unwrap();
        assert!(content.exists(), "it is within its bound");
        download(101);
        end(&turns, building, 101).await;
        drop(unbounded.take().await.unwrap());
        assert!(content.exists(), "there is no bound");
        let building = turns.take().await.unwrap();
        assert!(!content.exists(), "nobody built");

        download(200);
        end(&turns, turns.take().await.unwrap(), 200).await;
        let another = turns.take().await.unwrap();
        assert!(content.exists(), "somebody builds");
        download(202);
        end(&turns, another, 202).await;
        let mut waiting = Box::pin(turns.take());
        let waited = tokio::time::timeout(Duration::from_millis(200), &mut waiting).await;
        assert!(waited.is_err() && content.exists(), "somebody still builds");
        drop(building);
        drop(waiting.await.unwrap());
        assert!(!content.exists(), "nobody builds any more");
    }

    #[tokio::test]
    async fn a_cache_is_not_measured_before_a_build() {
        let cache = tempfile::tempdir().unwrap();
        let turns = Turns::new(1, cache.path(), 100);
        let downloads = cache.path().join(DOWNLOADS);
        fs::create_dir_all(&downloads).unwrap();
        fs::write(downloads.join("a"), [0; 300]).unwrap();
        let building = turns.take().await.unwrap();
        assert_eq!(turns.downloads.bytes(), 0);
        end(&turns, building, 300).await;
        drop(turns.take().await.unwrap());
        assert!(!downloads.exists());
    }
}
