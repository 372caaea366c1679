//! Sources that are stored before the version that refers to them is accepted.

use cloudserve_identity::Principal;
use cloudserve_protocol::artifact::ArtifactKey;
use cloudserve_protocol::fault::Chain;
use cloudserve_protocol::ids::FunctionId;
use cloudserve_store::StoreError;

use super::App;
use super::deployments::NewSource;
use super::refusal::Refusal;
use crate::build::leftovers::unswept;
use crate::build::source::source_key;

/// A source that was stored for a version before it was accepted.
pub(super) struct StoredAhead {
    pub(super) id: FunctionId,
    pub(super) version: u32,
    pub(super) key: ArtifactKey,
}

impl App {
    /// Makes a source durable. If one that nobody refers to lies there already, somebody may be removing it
    /// in this moment: then it is there only when that has ended.
    pub(super) async fn store_ahead(
        &self,
        id: FunctionId,
        source: &NewSource,
        key: &ArtifactKey,
    ) -> Result<(), Refusal> {
        let artifacts = self.stores.artifacts.as_ref();
        let was_there = artifacts.exists(key).await?;
        source.files.store(artifacts, key).await?;
        if was_there {
            unswept(self.stores.functions.as_ref(), id).await?;
            if !artifacts.exists(key).await? {
                source.files.store(artifacts, key).await?;
            }
        }
        Ok(())
    }

    /// Removes a source that no version refers to. Should somebody deploy the very same files in this
    /// moment, that deploy may fail for want of them.
    pub(super) async fn discard(&self, principal: &Principal, stored: &StoredAhead) {
        let StoredAhead { id, version, key } = stored;
        let functions = &self.stores.functions;
        let discarded: Result<(), StoreError> = async {
            let artifacts = &self.stores.artifacts;
            let Some(record) = functions.function(principal.user_id, *id).await? else {
                // It never was, or was deleted meanwhile: what is there is nobody's. What is left of it then,
                // the store knows of.
                return artifacts.delete_function(*id).await.map_err(StoreError::unavailable);
            };
            // No version refers to what was stored for a later one.
            let newer = (record.function.latest_version + 1).saturating_sub(*version);
            let versions = match newer {
                0 => Vec::new(),
                newer => functions.versions(principal.user_id, *id, newer).await?,
            };
            let is_used = versions
                .iter()
                .any(|version| source_key(*id, &version.source, &version.source_hash) == *key);
            if is_used {
                return Ok(());
            }
            artifacts.delete(key).await.map_err(StoreError::unavailable)
        }
        .await;
        if let Err(error) = discarded {
            tracing::warn!(function = %id, error = %Chain(&error),
                "the source of a deploy that was not accepted remains");
        }
    }
}
