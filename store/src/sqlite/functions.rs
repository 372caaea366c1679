//! Functions and versions in `meta.db`. How they are read is in [`super::records`], what moves the deploy
//! queue in [`super::queue`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cloudserve_protocol::ids::{BundleHash, FunctionId, FunctionName, UserId, UserName};
use rusqlite::{Connection, Params, params};

use super::columns::{inserting, reading, storage_failed, to_json, visibility_text};
use super::database::Database;
use super::records::{
    LIST, RECORD_BY_ID, RECORD_BY_NAME, ROUTE, VERSIONS, read_listed, read_route, read_version,
    record,
};
use super::statements::{all, execute, one};
use super::telemetry::SqliteTelemetry;
use super::{holdings, queue, remains, sweeps, versions};
use crate::cursor::{Cursor, finish_page, page_limit};
use crate::function::{
    Activation, BuiltVersion, Claimed, DeployError, FunctionRecord, HoldingBounds, Holdings,
    Listed, NewVersion, Page, Pruned, Rollback, Route, SealedEnv, SealedVersion, Sweep, Version,
    Visibility,
};
use crate::telemetry::forget_logs;
use crate::{Change, FunctionStore, StoreError, Timestamp};

/// [`FunctionStore`] over SQLite.
pub(crate) struct SqliteFunctions {
    meta: Arc<Database>,
    telemetry: Arc<SqliteTelemetry>,
}

impl SqliteFunctions {
    /// `telemetry` holds the logs that go when a function goes.
    pub(crate) fn new(meta: Arc<Database>, telemetry: Arc<SqliteTelemetry>) -> Self {
        Self { meta, telemetry }
    }

    /// Ends every lease and every sweep, and what was about to be stored. Blocks, and may only be called
    /// when no server is alive.
    pub(crate) fn release_leases(&self) -> Result<(), StoreError> {
        self.meta.write_blocking(|c, _| {
            queue::release_leases(c)?;
            sweeps::release(c)?;
            remains::release(c)
        })
    }

    async fn one_record<P>(
        &self,
        sql: &'static str,
        key: P,
    ) -> Result<Option<FunctionRecord>, StoreError>
    where
        P: Params + Send + 'static,
    {
        self.meta.read(move |c| record(c, sql, key)).await
    }
}

#[async_trait]
impl FunctionStore for SqliteFunctions {
    async fn accept_within(
        &self,
        new: NewVersion,
        bounds: HoldingBounds,
    ) -> Result<FunctionRecord, StoreError> {
        self.meta
            .write(move |c, changes| {
                holdings::keep_within(c, &new, bounds)?;
                let now = Timestamp::now();
                let makes_public = if new.version == 1 {
                    insert_function(c, &new, now)?;
                    remains::forget(c, new.function_id)?;
                    false
                } else {
                    advance_function(c, &new, now)?;
                    queue::makes_public(c, &new)?
                };
                insert_version(c, &new, makes_public, now)?;
                changes.extend([Change::Function(new.function_id), Change::DeploymentQueued]);
                let key = [new.function_id.as_bytes(), new.user_id.as_bytes()];
                record(c, RECORD_BY_ID, key)?.ok_or(StoreError::Missing)
            })
            .await
    }

    async fn holdings(&self, user_id: UserId) -> Result<Holdings, StoreError> {
        self.meta.read(move |c| holdings::read(c, user_id)).await
    }

    async fn trees_added(&self, user_id: UserId, day: i64) -> Result<u64, StoreError> {
        self.meta.read(move |c| holdings::trees_added(c, user_id, day)).await
    }

    async fn add_tree(&self, user_id: UserId, day: i64, bytes: u64) -> Result<(), StoreError> {
        self.meta.write(move |c, _| holdings::add_tree(c, user_id, day, bytes)).await
    }

    async fn function(
        &self,
        user_id: UserId,
        id: FunctionId,
    ) -> Result<Option<FunctionRecord>, StoreError> {
        self.one_record(RECORD_BY_ID, [*id.as_bytes(), *user_id.as_bytes()]).await
    }

    async fn function_by_name(
        &self,
        user_id: UserId,
        name: &FunctionName,
    ) -> Result<Option<FunctionRecord>, StoreError> {
        let key = (*user_id.as_bytes(), name.as_str().to_owned());
        self.one_record(RECORD_BY_NAME, key).await
    }

    async fn functions(
        &self,
        user_id: UserId,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<Page<Listed>, StoreError> {
        let (limit, from) = (page_limit(limit), Cursor::parse(cursor)?);
        self.meta
            .read(move |c| {
                let mut query = c.prepare_cached(LIST).map_err(storage_failed)?;
                let one_more = i64::from(limit) + 1;
                let rows = query
                    .query_map(
                        params![user_id.as_bytes(), from.time.0, from.id, one_more],
                        read_listed,
                    )
                    .and_then(Iterator::collect)
                    .map_err(reading("function"))?;
                let (items, next) = finish_page(rows, limit, |listed: &Listed| Cursor {
                    time: listed.function.created_at,
                    id: *listed.function.id.as_bytes(),
                });
                Ok(Page { items, next })
            })
            .await
    }

    async fn versions(
        &self,
        user_id: UserId,
        id: FunctionId,
        limit: u32,
    ) -> Result<Vec<Version>, StoreError> {
        self.meta
            .read(move |c| {
                all(
                    c,
                    VERSIONS,
                    params![id.as_bytes(), user_id.as_bytes(), page_limit(limit)],
                    "version",
                    |row| read_version(row, 0),
                )
            })
            .await
    }

    async fn version(
        &self,
        user_id: UserId,
        id: FunctionId,
        version: u32,
    ) -> Result<Option<Version>, StoreError> {
        self.meta.read(move |c| versions::version(c, user_id, id, version)).await
    }

    async fn rollback(
        &self,
        user_id: UserId,
        id: FunctionId,
        version: u32,
    ) -> Result<Rollback, StoreError> {
        self.meta
            .write(move |c, changes| versions::rollback(c, changes, user_id, id, version))
            .await
    }

    async fn prune(&self, id: FunctionId, keep: u32, sweep: &Sweep) -> Result<Pruned, StoreError> {
        let sweep = sweep.clone();
        self.meta.write(move |c, _| sweeps::prune(c, id, keep, &sweep)).await
    }

    async fn next_look(&self, age: Duration) -> Result<Option<FunctionId>, StoreError> {
        self.meta.write(move |c, _| sweeps::next_look(c, age)).await
    }

    async fn end_sweep(&self, id: FunctionId, holder: &str) -> Result<(), StoreError> {
        let holder = holder.to_owned();
        self.meta.write(move |c, _| sweeps::end(c, id, &holder)).await
    }

    async fn note_bundle(
        &self,
        id: FunctionId,
        version: u32,
        bundle: &BundleHash,
    ) -> Result<(), StoreError> {
        let bundle = bundle.clone();
        self.meta.write(move |c, _| sweeps::note_bundle(c, id, version, &bundle)).await
    }

    async fn is_swept(&self, id: FunctionId) -> Result<bool, StoreError> {
        self.meta.read(move |c| sweeps::is_swept(c, id)).await
    }

    async fn sealed_envs(
        &self,
        after: Option<(FunctionId, u32)>,
        limit: u32,
    ) -> Result<Vec<SealedVersion>, StoreError> {
        self.meta.read(move |c| versions::sealed_envs(c, after, limit)).await
    }

    async fn replace_env(
        &self,
        id: FunctionId,
        version: u32,
        old: SealedEnv,
        new: SealedEnv,
    ) -> Result<bool, StoreError> {
        self.meta.write(move |c, _| versions::replace_env(c, id, version, &old, &new)).await
    }

    async fn set_visibility(
        &self,
        user_id: UserId,
        id: FunctionId,
        visibility: Visibility,
    ) -> Result<bool, StoreError> {
        self.meta
            .write(move |c, changes| {
                let changed = execute(
                    c,
                    "UPDATE functions SET visibility = ?3, updated_at = ?4
                         WHERE id = ?1 AND user_id = ?2",
                    params![
                        id.as_bytes(),
                        user_id.as_bytes(),
                        visibility_text(visibility),
                        Timestamp::now().0,
                    ],
                )?;
                if changed == 1 {
                    queue::settle_visibility(c, id)?;
                    changes.push(Change::Function(id));
                }
                Ok(changed == 1)
            })
            .await
    }

    async fn delete_function(&self, user_id: UserId, id: FunctionId) -> Result<bool, StoreError> {
        let deleted = self
            .meta
            .write(move |c, changes| {
                let removed = execute(
                    c,
                    "DELETE FROM functions WHERE id = ?1 AND user_id = ?2",
                    [id.as_bytes(), user_id.as_bytes()],
                )?;
                if removed == 1 {
                    remains::note(c, id)?;
                    changes.push(Change::Function(id));
                }
                Ok(removed == 1)
            })
            .await?;
        if deleted {
            forget_logs(self.telemetry.as_ref(), id).await;
        }
        Ok(deleted)
    }

    async fn note_ahead(&self, id: FunctionId) -> Result<(), StoreError> {
        self.meta.write(move |c, _| remains::note(c, id)).await
    }

    async fn remains(&self, age: Duration) -> Result<Option<FunctionId>, StoreError> {
        self.meta.write(move |c, _| remains::take(c, age)).await
    }

    async fn forget_remains(&self, id: FunctionId) -> Result<(), StoreError> {
        self.meta.write(move |c, _| remains::forget(c, id)).await
    }

    async fn route(
        &self,
        user_name: &UserName,
        function_name: &FunctionName,
    ) -> Result<Option<Route>, StoreError> {
        let key = [user_name.as_str().to_owned(), function_name.as_str().to_owned()];
        self.meta.read(move |c| one(c, ROUTE, key, "function", read_route)).await
    }

    async fn claim(&self, holder: &str, lease: Duration) -> Result<Option<Claimed>, StoreError> {
        let holder = holder.to_owned();
        self.meta.write(move |c, changes| queue::claim(c, changes, &holder, lease)).await
    }

    async fn renew(
        &self,
        holder: &str,
        id: FunctionId,
        version: u32,
        lease: Duration,
    ) -> Result<bool, StoreError> {
        let holder = holder.to_owned();
        self.meta.write(move |c, _| queue::renew(c, &holder, id, version, lease)).await
    }

    async fn activate(
        &self,
        id: FunctionId,
        version: u32,
        built: BuiltVersion,
    ) -> Result<Activation, StoreError> {
        self.meta.write(move |c, changes| queue::activate(c, changes, id, version, &built)).await
    }

    async fn fail(
        &self,
        id: FunctionId,
        version: u32,
        error: DeployError,
    ) -> Result<(), StoreError> {
        self.meta.write(move |c, changes| queue::fail(c, changes, id, version, &error)).await
    }
}

fn insert_function(c: &Connection, new: &NewVersion, now: Timestamp) -> Result<(), StoreError> {
    c.prepare_cached(
        "INSERT INTO functions
             (id, user_id, name, latest_version, visibility, created_at, updated_at)
         VALUES (?1, ?2, ?3, 1, ?4, ?5, ?5)",
    )
    .and_then(|mut insert| {
        insert.execute(params![
            new.function_id.as_bytes(),
            new.user_id.as_bytes(),
            new.name.as_str(),
            visibility_text(new.visibility.unwrap_or_default()),
            now.0,
        ])
    })
    .map_err(inserting)?;
    Ok(())
}

fn advance_function(c: &Connection, new: &NewVersion, now: Timestamp) -> Result<(), StoreError> {
    // Public it becomes with the version.
    let at_once = new.visibility.filter(|visibility| *visibility == Visibility::Private);
    let advanced = execute(
        c,
        "UPDATE functions
             SET latest_version = ?3, visibility = coalesce(?4, visibility), updated_at = ?5
             WHERE id = ?1 AND user_id = ?2 AND latest_version = ?3 - 1
                 AND (?6 IS NULL OR active_version = ?6)",
        params![
            new.function_id.as_bytes(),
            new.user_id.as_bytes(),
            new.version,
            at_once.map(visibility_text),
            now.0,
            new.of_served,
        ],
    )?;
    if advanced == 1 {
        return Ok(());
    }
    let exists = c
        .prepare_cached("SELECT 1 FROM functions WHERE id = ?1 AND user_id = ?2")
        .and_then(|mut query| query.exists([new.function_id.as_bytes(), new.user_id.as_bytes()]))
        .map_err(storage_failed)?;
    Err(if exists { StoreError::Conflict } else { StoreError::Missing })
}

fn insert_version(
    c: &Connection,
    new: &NewVersion,
    makes_public: bool,
    now: Timestamp,
) -> Result<(), StoreError> {
    let (source, limits) = (to_json(&new.source)?, to_json(&new.limits)?);
    let built = new.built.as_ref().map(to_json).transpose()?;
    c.prepare_cached(
        "INSERT INTO versions
             (function_id, version, status, created_at, source_hash, limits, built, env, source,
              makes_public, bytes)
         VALUES (?1, ?2, 'pending', ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )
    .and_then(|mut insert| {
        insert.execute(params![
            new.function_id.as_bytes(),
            new.version,
            now.0,
            new.source_hash.as_str(),
            limits,
            built,
            new.env.0,
            source,
            makes_public,
            new.bytes(),
        ])
    })
    .map_err(inserting)?;
    Ok(())
}
