//! Keeps what V8 compiled, so that the next worker of a version compiles less. Written by a task
//! of its own: no call waits for the disk.

use std::sync::Arc;

use bytes::Bytes;
use cloudserve_artifacts::Cache;
use cloudserve_protocol::call::Target;
use cloudserve_protocol::fault::Chain;
use cloudserve_protocol::ids::{BundleHash, FunctionId};
use tokio::sync::mpsc;
use tracing::{debug, warn};

/// Code caches that wait to be written. More are dropped: the next worker makes another.
const QUEUE_LENGTH: usize = 8;

/// Under which caches are kept that were made after a call. Those of before have nothing of what calls
/// compile, and are given to workers as long as there are no others.
pub(crate) fn called(tag: &str) -> String {
    format!("{tag}-called")
}

struct Fresh {
    function_id: FunctionId,
    bundle_hash: BundleHash,
    tag: String,
    bytes: Bytes,
}

/// Takes code caches in.
#[derive(Debug, Clone)]
pub(crate) struct CodeCaches(mpsc::Sender<Fresh>);

impl CodeCaches {
    /// Called within a tokio runtime. The task ends when the last handle is dropped.
    pub(crate) fn start(cache: Arc<Cache>) -> Self {
        let (queue, mut incoming) = mpsc::channel::<Fresh>(QUEUE_LENGTH);
        tokio::spawn(async move {
            while let Some(fresh) = incoming.recv().await {
                let Fresh { function_id, bundle_hash, tag, bytes } = fresh;
                let stored = cache.store_code_cache(function_id, &bundle_hash, &tag, bytes).await;
                if let Err(error) = stored {
                    warn!(%function_id, error = %Chain(&error), "code cache not stored");
                }
            }
        });
        Self(queue)
    }

    pub(crate) fn store(&self, target: &Target, tag: String, bytes: Bytes) {
        let function_id = target.function_id;
        let bundle_hash = target.bundle_hash.clone();
        let fresh = Fresh { function_id, bundle_hash, tag, bytes };
        if self.0.try_send(fresh).is_err() {
            debug!(%function_id, "code cache dropped");
        }
    }
}
