//! Object storage for functions that were never deployed.

use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;
use cloudserve_protocol::artifact::{ArtifactError, ArtifactKey, ArtifactStore, ListedObject};
use cloudserve_protocol::ids::FunctionId;
use futures::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use std::collections::HashMap;

/// Objects in memory.
#[derive(Debug, Default)]
pub(crate) struct MemoryStore(Mutex<HashMap<String, Bytes>>);

#[async_trait]
impl ArtifactStore for MemoryStore {
    async fn put(&self, key: &ArtifactKey, bytes: Bytes) -> Result<(), ArtifactError> {
        self.insert(key, bytes);
        Ok(())
    }

    async fn put_file(&self, key: &ArtifactKey, file: &Path) -> Result<(), ArtifactError> {
        self.insert(key, std::fs::read(file).unwrap().into());
        Ok(())
    }

    async fn get(&self, key: &ArtifactKey, max_bytes: u64) -> Result<Bytes, ArtifactError> {
        let found = self.0.lock().get(&key.to_string()).cloned();
        let bytes = found.ok_or_else(|| ArtifactError::NotFound { key: key.to_string() })?;
        if bytes.len() as u64 > max_bytes {
            return Err(ArtifactError::TooLarge { key: key.to_string(), max_bytes });
        }
        Ok(bytes)
    }

    async fn stream(
        &self,
        key: &ArtifactKey,
    ) -> Result<BoxStream<'static, Result<Bytes, ArtifactError>>, ArtifactError> {
        let bytes = self.get(key, u64::MAX).await?;
        Ok(stream::once(async { Ok(bytes) }).boxed())
    }

    async fn exists(&self, key: &ArtifactKey) -> Result<bool, ArtifactError> {
        Ok(self.0.lock().contains_key(&key.to_string()))
    }

    async fn delete(&self, key: &ArtifactKey) -> Result<(), ArtifactError> {
        self.0.lock().remove(&key.to_string());
        Ok(())
    }

    async fn delete_function(&self, function: FunctionId) -> Result<(), ArtifactError> {
        self.0.lock().retain(|key, _| !key.starts_with(&function.to_string()));
        Ok(())
    }

    fn list(&self, _: FunctionId) -> BoxStream<'static, Result<ListedObject, ArtifactError>> {
        stream::empty().boxed()
    }

    fn list_dependencies(
        &self,
        _: Option<&ArtifactKey>,
    ) -> BoxStream<'static, Result<ListedObject, ArtifactError>> {
        stream::empty().boxed()
    }
}

impl MemoryStore {
    pub(crate) fn insert(&self, key: &ArtifactKey, bytes: Bytes) {
        self.0.lock().insert(key.to_string(), bytes);
    }
}
