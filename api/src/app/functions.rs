//! Functions that are there: read, listed, deleted.

use std::sync::Arc;

use cloudserve_identity::{Principal, SealError};
use cloudserve_protocol::call::Env;
use cloudserve_protocol::fault::Chain;
use cloudserve_protocol::ids::FunctionId;
use cloudserve_store::function::{FunctionRecord, Listed, Page, SealedEnv, Visibility};
use cloudserve_store::telemetry::FunctionStats;

use super::audit::Act;
use super::refusal::Refusal;
use super::{App, access, detached};
use crate::build::source::SourceFiles;

/// A function and what else its view tells.
pub(crate) struct Shown {
    pub(crate) listed: Listed,
    pub(crate) stats: FunctionStats,
    pub(crate) env_names: Vec<String>,
}

impl App {
    /// A function of this account.
    pub(super) async fn function(
        &self,
        principal: &Principal,
        id: FunctionId,
    ) -> Result<FunctionRecord, Refusal> {
        access::may_use(principal, id)?;
        let found = self.stores.functions.function(principal.user_id, id).await?;
        found.ok_or(Refusal::FunctionNotFound)
    }

    /// A function with the source of its newest version: its entry and its files.
    pub(crate) async fn show(
        &self,
        principal: &Principal,
        id: FunctionId,
    ) -> Result<(Shown, String, SourceFiles), Refusal> {
        access::may_read(principal)?;
        let record = self.function(principal, id).await?;
        let latest = &record.latest;
        let files = SourceFiles::load(
            self.stores.artifacts.as_ref(),
            id,
            &latest.source,
            &latest.source_hash,
        )
        .await?;
        let entry = latest.source.entry.clone();
        Ok((self.with_stats(record).await?, entry, files))
    }

    pub(crate) async fn list(
        &self,
        principal: &Principal,
        limit: u32,
        cursor: Option<String>,
    ) -> Result<Page<Shown>, Refusal> {
        access::may_read(principal)?;
        let mut page =
            self.stores.functions.functions(principal.user_id, limit, cursor.as_deref()).await?;
        // A page of a key for chosen functions may be short, or empty, and yet have a successor.
        page.items.retain(|listed| principal.may_use(listed.function.id));
        let ids: Vec<_> = page.items.iter().map(|listed| listed.function.id).collect();
        let mut stats = self.stores.telemetry.function_stats(&ids).await?;
        let items = page.items.into_iter().map(|listed| {
            let id = listed.function.id;
            let at = stats.iter().position(|(of, _)| *of == id);
            let stats = at.map(|at| stats.swap_remove(at).1).unwrap_or_default();
            Ok(Shown { env_names: self.env_names(id, &listed.env)?, listed, stats })
        });
        Ok(Page { items: items.collect::<Result<_, Refusal>>()?, next: page.next })
    }

    pub(super) async fn with_stats(&self, record: FunctionRecord) -> Result<Shown, Refusal> {
        let of_one = self.stores.telemetry.function_stats(&[record.function.id]).await?;
        let stats = of_one.into_iter().next().map(|(_, stats)| stats).unwrap_or_default();
        let listed = Listed::from(record);
        let env_names = self.env_names(listed.function.id, &listed.env)?;
        Ok(Shown { listed, stats, env_names })
    }

    /// The names of variables. Of what opens under no master key that is known here there are none to
    /// be seen: that is no reason to show nothing of the function, or of any other in a list.
    pub(super) fn env_names(
        &self,
        function: FunctionId,
        env: &SealedEnv,
    ) -> Result<Vec<String>, Refusal> {
        match self.sealer.open(function, env) {
            Ok(Env(env)) => Ok(env.into_keys().collect()),
            Err(SealError::UnknownKey { .. } | SealError::DoesNotOpen) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn set_visibility(
        &self,
        principal: &Principal,
        id: FunctionId,
        visibility: Visibility,
    ) -> Result<Shown, Refusal> {
        if !self.stores.functions.set_visibility(principal.user_id, id, visibility).await? {
            return Err(Refusal::FunctionNotFound);
        }
        self.note(principal, Act::VisibilityChanged { id, visibility, with: None }).await;
        let record = self.function(principal, id).await?;
        self.with_stats(record).await
    }

    pub(crate) async fn delete(
        self: Arc<Self>,
        principal: Arc<Principal>,
        id: FunctionId,
    ) -> Result<(), Refusal> {
        access::may_deploy(&principal)?;
        access::may_use(&principal, id)?;
        detached(async move { self.remove(&principal, id).await }).await
    }

    async fn remove(&self, principal: &Principal, id: FunctionId) -> Result<(), Refusal> {
        if !self.stores.functions.delete_function(principal.user_id, id).await? {
            return Err(Refusal::FunctionNotFound);
        }
        self.note(principal, Act::FunctionDeleted { id }).await;
        self.loader.retire_below(id, u32::MAX);
        if let Err(error) = self.stores.artifacts.delete_function(id).await {
            // The function is gone; what is left of it takes space and serves nobody until it is removed.
            tracing::warn!(function = %id, error = %Chain(&error),
                "objects of a deleted function remain");
        }
        Ok(())
    }
}
