//! Versions that are there: listed, served again, and followed by one that differs only in its
//! environment. Nothing is built here.

use std::sync::Arc;
use std::time::Duration;

use cloudserve_identity::Principal;
use cloudserve_protocol::call::Env;
use cloudserve_protocol::ids::FunctionId;
use cloudserve_store::StoreError;
use cloudserve_store::function::{
    DeployError, DeployStatus, FunctionRecord, NewVersion, Rollback, Source, Version,
};

use super::audit::Act;
use super::deployments::{Accepted, MAX_CONFLICTS};
use super::functions::Shown;
use super::refusal::Refusal;
use super::{App, access, detached};

/// Versions shown of one function.
const MAX_VERSIONS: u32 = 1_000;

/// The environment of a version, without its values.
pub(crate) struct Variables {
    pub(crate) names: Vec<String>,
    pub(crate) version: u32,
    pub(crate) status: DeployStatus,
    pub(crate) error: Option<DeployError>,
    pub(crate) active_version: Option<u32>,
}

/// Variables to set and to remove.
#[derive(Debug, Clone, Default)]
pub(crate) struct EnvPatch {
    pub(crate) set: Env,
    pub(crate) unset: Vec<String>,
}

impl EnvPatch {
    fn apply(&self, Env(mut env): Env) -> Env {
        for name in &self.unset {
            env.remove(name);
        }
        env.extend(self.set.0.clone());
        Env(env)
    }
}

/// What an environment belongs to, and what a change of it starts from: a version that waits, for
/// it is about to be served; else the one that is served, which after a rollback or a failed deploy
/// is not the newest.
fn env_base(record: &FunctionRecord) -> &Version {
    let served = record.active.as_ref().filter(|_| !record.latest.status.is_under_way());
    served.unwrap_or(&record.latest)
}

impl App {
    pub(crate) async fn versions(
        &self,
        principal: &Principal,
        id: FunctionId,
    ) -> Result<(FunctionRecord, Vec<Version>), Refusal> {
        access::may_read(principal)?;
        let record = self.function(principal, id).await?;
        let versions = self.stores.functions.versions(principal.user_id, id, MAX_VERSIONS).await?;
        Ok((record, versions))
    }

    /// The function as this version left it, or is about to: its deploy is waited for so long at
    /// most. `false`: it has not ended yet. It tells what the answer to a deploy does, so whoever may
    /// deploy may ask.
    pub(crate) async fn deploy_of(
        &self,
        principal: &Principal,
        id: FunctionId,
        version: u32,
        patience: Duration,
    ) -> Result<(Shown, bool), Refusal> {
        access::may_deploy(principal)?;
        // Before it is looked for: no change of it is missed.
        let changes = self.stores.changes.subscribe();
        let record = self.function(principal, id).await?;
        if record.latest.version != version
            && self.stores.functions.version(principal.user_id, id, version).await?.is_none()
        {
            return Err(Refusal::VersionNotFound);
        }
        let (record, has_ended) =
            self.ended_within(principal, id, version, changes, patience).await?;
        Ok((self.with_stats(record).await?, has_ended))
    }

    /// Serves a version that was built before.
    pub(crate) async fn rollback(
        self: Arc<Self>,
        principal: Arc<Principal>,
        id: FunctionId,
        version: u32,
    ) -> Result<Shown, Refusal> {
        access::may_deploy(&principal)?;
        detached(async move { self.go_back(&principal, id, version).await }).await
    }

    async fn go_back(
        &self,
        principal: &Principal,
        id: FunctionId,
        version: u32,
    ) -> Result<Shown, Refusal> {
        self.function(principal, id).await?;
        match self.stores.functions.rollback(principal.user_id, id, version).await? {
            Rollback::Moved => {}
            Rollback::NotBuilt => return Err(Refusal::VersionNotBuilt),
            Rollback::Unknown => return Err(Refusal::VersionNotFound),
        }
        self.note(principal, Act::RolledBack { id, version }).await;
        let record = self.function(principal, id).await?;
        self.with_stats(record).await
    }

    /// The names of a function's variables.
    pub(crate) async fn variables(
        &self,
        principal: &Principal,
        id: FunctionId,
    ) -> Result<Variables, Refusal> {
        access::may_read(principal)?;
        let record = self.function(principal, id).await?;
        self.variables_of(&record, env_base(&record))
    }

    fn variables_of(
        &self,
        record: &FunctionRecord,
        version: &Version,
    ) -> Result<Variables, Refusal> {
        Ok(Variables {
            names: self.env_names(version.function_id, &version.env)?,
            version: version.version,
            status: version.status,
            error: version.error.clone(),
            active_version: record.function.active_version,
        })
    }

    /// Makes a version with another environment. It is loaded, not built, before it is served.
    pub(crate) async fn change_env(
        self: Arc<Self>,
        principal: Arc<Principal>,
        id: FunctionId,
        patch: EnvPatch,
    ) -> Result<Accepted, Refusal> {
        access::may_deploy(&principal)?;
        if patch.set.0.is_empty() && patch.unset.is_empty() {
            return Err(Refusal::field("body", "names nothing that is to be changed"));
        }
        detached(async move {
            let accepted = self.accept_env(&principal, id, &patch).await?;
            let names = patch.set.0.keys().chain(&patch.unset).cloned().collect();
            self.note(&principal, Act::EnvChanged { id, names }).await;
            Ok(accepted)
        })
        .await
    }

    async fn accept_env(
        &self,
        principal: &Principal,
        id: FunctionId,
        patch: &EnvPatch,
    ) -> Result<Accepted, Refusal> {
        // Before anything is accepted: no change of it is missed.
        let changes = self.stores.changes.subscribe();
        for _ in 0..MAX_CONFLICTS {
            let record = self.function(principal, id).await?;
            let base = env_base(&record);
            let env = patch.apply(self.sealer.open(id, &base.env)?);
            self.check_env_size(&env)?;
            let new = NewVersion {
                function_id: id,
                user_id: principal.user_id,
                name: record.function.name.clone(),
                version: record.function.latest_version + 1,
                of_served: record.function.active_version.filter(|served| *served == base.version),
                visibility: None,
                source: Source { refresh_dependencies: false, ..base.source.clone() },
                source_hash: base.source_hash.clone(),
                env: self.sealer.seal(id, &env)?,
                limits: base.limits,
                built: base.built.clone(),
            };
            match self.enqueue(new).await {
                Ok(record) => return Ok(Accepted::new(record, changes)),
                // Others were faster: look again.
                Err(StoreError::Conflict | StoreError::Missing) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Refusal::Conflict)
    }

    fn check_env_size(&self, Env(env): &Env) -> Result<(), Refusal> {
        let max = self.options.limits.env_bytes;
        let bytes: usize = env.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > max as usize {
            let wrong = format!("makes the environment larger than {max} bytes, names and values");
            return Err(Refusal::field("set", wrong));
        }
        Ok(())
    }

    /// Waits for an accepted change of the environment to end. `false`: it has not ended yet.
    pub(crate) async fn wait_for_env(
        &self,
        principal: &Principal,
        accepted: Accepted,
    ) -> Result<(Variables, bool), Refusal> {
        let (record, has_ended) = self.ended(principal, accepted).await?;
        Ok((self.variables_of(&record, &record.latest)?, has_ended))
    }

    /// An accepted change of the environment, not waited for.
    pub(crate) fn env_accepted(&self, accepted: &Accepted) -> Result<Variables, Refusal> {
        let record = accepted.record();
        self.variables_of(record, &record.latest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_wins_over_what_is_removed() {
        let env = |pairs: &[(&str, &str)]| {
            Env(pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect())
        };
        let patch =
            EnvPatch { set: env(&[("A", "2"), ("C", "3")]), unset: vec!["A".into(), "B".into()] };
        let patched = patch.apply(env(&[("A", "1"), ("B", "1"), ("D", "1")]));
        assert!(patched == env(&[("A", "2"), ("C", "3"), ("D", "1")]), "{patched:?}");
    }
}
