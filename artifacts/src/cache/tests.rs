use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use cloudserve_protocol::artifact::ListedObject;
use futures::stream::BoxStream;

use super::*;

/// Has one bundle, whatever the function.
struct OneBundle;

const CODE: &[u8] = b"export default 1";

fn none<T>(key: &ArtifactKey) -> Result<T, ArtifactError> {
    Err(ArtifactError::NotFound { key: key.to_string() })
}

#[async_trait]
impl ArtifactStore for OneBundle {
    async fn put(&self, key: &ArtifactKey, _: Bytes) -> Result<(), ArtifactError> {
        none(key)
    }

    async fn put_file(&self, key: &ArtifactKey, _: &Path) -> Result<(), ArtifactError> {
        none(key)
    }

    async fn get(&self, key: &ArtifactKey, _: u64) -> Result<Bytes, ArtifactError> {
        match key {
            ArtifactKey::Bundle { .. } => Ok(Bytes::from_static(CODE)),
            _ => none(key),
        }
    }

    async fn stream(
        &self,
        key: &ArtifactKey,
    ) -> Result<BoxStream<'static, Result<Bytes, ArtifactError>>, ArtifactError> {
        none(key)
    }

    async fn exists(&self, key: &ArtifactKey) -> Result<bool, ArtifactError> {
        Ok(matches!(key, ArtifactKey::Bundle { .. }))
    }

    async fn delete(&self, key: &ArtifactKey) -> Result<(), ArtifactError> {
        none(key)
    }

    async fn delete_function(&self, _: FunctionId) -> Result<(), ArtifactError> {
        Ok(())
    }

    fn list(&self, _: FunctionId) -> BoxStream<'static, Result<ListedObject, ArtifactError>> {
        futures::stream::empty().boxed()
    }

    fn list_dependencies(
        &self,
        _: Option<&ArtifactKey>,
    ) -> BoxStream<'static, Result<ListedObject, ArtifactError>> {
        futures::stream::empty().boxed()
    }
}

#[tokio::test]
async fn what_is_evicted_may_be_asked_for_before_it_is_removed() {
    let root = tempfile::tempdir().unwrap();
    let cache = Cache::open(root.path(), Arc::new(OneBundle), CacheOptions::default()).unwrap();
    let (function, hash) = (FunctionId::new(), BundleHash::of(CODE));
    let first = cache.bundle(function, &hash).await.unwrap();
    let path = first.path.clone();
    assert!(cache.make_room(u64::MAX).is_empty(), "it is in use");
    drop(first);
    let evicted = cache.make_room(u64::MAX);
    assert_eq!(evicted.len(), 1);

    let again = cache.bundle(function, &hash).await.unwrap();
    assert_eq!(again.path, path);
    remove(&evicted);
    assert!(!evicted[0].exists());
    assert_eq!(fs::read(path.join(BUNDLE)).unwrap(), CODE);
}

/// Polls a future so many times, each time when it is woken. `None`: it was given up then.
async fn polled<T>(times: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = times;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(cx).map(Some)
    })
    .await
}

#[tokio::test]
async fn who_gives_up_is_in_nobodys_way() {
    let root = tempfile::tempdir().unwrap();
    let cache = Cache::open(root.path(), Arc::new(OneBundle), CacheOptions::default()).unwrap();
    let hash = BundleHash::of(CODE);
    for times in 1.. {
        let function = FunctionId::new();
        let asked = polled(times, cache.bundle(function, &hash)).await;
        let [one, other] = [(); 2].map(|()| cache.bundle(function, &hash));
        let (one, other) = tokio::join!(one, other);
        assert!(Arc::ptr_eq(&one.unwrap(), &other.unwrap()), "{times}");
        if let Some(asked) = asked {
            asked.unwrap();
            break;
        }
    }
    assert!(cache.flights.lock().len() <= 1);
    // What was given up while a thread wrote it is removed by that thread.
    let left = || fs::read_dir(root.path().join(INCOMING)).unwrap().count();
    let begun = Instant::now();
    while left() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "{} directories remain", left());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn a_runtime_that_goes_down_is_an_error_and_no_panic() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let handle = runtime.handle().clone();
    runtime.shutdown_background();
    let _entered = handle.enter();
    let ended = futures::executor::block_on(blocking(|| Ok(())));
    assert!(matches!(ended, Err(CacheError::Closed)), "{ended:?}");
}
