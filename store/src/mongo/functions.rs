//! Functions and versions. What they are as documents is in [`super::documents`], what moves the deploy
//! queue in [`super::queue`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cloudserve_protocol::ids::{BundleHash, FunctionId, FunctionName, UserId, UserName};
use futures::TryStreamExt;
use mongodb::bson::{Document, RawDocumentBuf, doc};
use mongodb::options::ReadConcern;

use super::database::{Database, Failed, Transaction, in_transaction, inserting};
use super::documents::{
    FunctionDocument, VersionDocument, VersionKey, read_record, read_version, records, sealed,
    versions_of,
};
use super::schema::{FUNCTIONS, USERS, VERSIONS};
use super::telemetry::MongoTelemetry;
use super::values::{Key, date, document, field, size};
use super::{holdings, list, queue, remains, route, sweeps, versions};
use crate::cursor::page_limit;
use crate::function::{
    Activation, BuiltVersion, Claimed, DeployError, DeployStatus, FunctionRecord, HoldingBounds,
    Holdings, Listed, NewVersion, Page, Pruned, Rollback, Route, SealedEnv, SealedVersion, Sweep,
    Version, Visibility,
};
use crate::telemetry::forget_logs;
use crate::{Change, FunctionStore, StoreError, Timestamp};

/// [`FunctionStore`] over MongoDB.
pub(crate) struct MongoFunctions {
    pub(super) database: Database,
    telemetry: Arc<MongoTelemetry>,
}

impl MongoFunctions {
    /// `telemetry` holds the logs that go when a function goes.
    pub(super) fn new(database: Database, telemetry: Arc<MongoTelemetry>) -> Self {
        Self { database, telemetry }
    }

    /// A function and its versions of one moment.
    pub(super) async fn one_record(
        &self,
        filter: Document,
    ) -> Result<Option<FunctionRecord>, StoreError> {
        let functions = self.database.collection(FUNCTIONS);
        let read = async {
            let mut found = functions
                .aggregate(records(filter, None))
                .with_type::<RawDocumentBuf>()
                .read_concern(ReadConcern::snapshot())
                .await?;
            found.try_next().await
        };
        self.database.bounded(read).await?.as_ref().map(read_record).transpose()
    }

    pub(super) async fn owns(&self, user_id: UserId, id: FunctionId) -> Result<bool, StoreError> {
        let functions = self.database.collection(FUNCTIONS);
        let filter = doc! { "_id": id.key(), "user": user_id.key() };
        let found = functions.find_one(filter).projection(doc! { "_id": 1 });
        Ok(self.database.bounded(found).await?.is_some())
    }

    async fn try_accept(
        &self,
        new: &NewVersion,
        bounds: HoldingBounds,
        tx: &mut Transaction,
    ) -> Result<FunctionRecord, Failed> {
        holdings::keep_within(&self.database, new, bounds, tx).await?;
        let now = Timestamp::now();
        let makes_public = if new.version == 1 {
            self.insert_function(new, now, tx).await?;
            remains::forget_with(&self.database, new.function_id, tx).await?;
            false
        } else {
            self.advance_function(new, now, tx).await?;
            queue::makes_public(&self.database, new, tx).await?
        };
        let row = document(&VersionDocument {
            id: VersionKey { function_id: new.function_id.key(), version: new.version },
            status: DeployStatus::Pending,
            error: None,
            source: new.source.clone(),
            source_hash: new.source_hash.clone(),
            env: sealed(&new.env),
            limits: new.limits,
            built: new.built.clone(),
            created_at: date(now),
            queued_at: Some(date(now)),
            queued_by: Some(new.user_id.key()),
            makes_public,
            attempts: 0,
            bytes: size(new.bytes()),
        })?;
        self.insert(VERSIONS, row, tx).await?;
        tx.announce(Change::Function(new.function_id));
        tx.announce(Change::DeploymentQueued);
        let accepted = doc! { "_id": new.function_id.key() };
        let functions = self.database.collection(FUNCTIONS);
        let mut found = functions
            .aggregate(records(accepted, None))
            .with_type::<RawDocumentBuf>()
            .session(tx.session())
            .await?;
        let found = found.next(tx.session()).await.ok_or(StoreError::Missing)??;
        Ok(read_record(&found)?)
    }

    async fn insert(
        &self,
        collection: &str,
        row: RawDocumentBuf,
        tx: &mut Transaction,
    ) -> Result<(), Failed> {
        let collection = self.database.collection(collection);
        let insert = collection.insert_one(row);
        insert.session(tx.session()).await.map(drop).map_err(inserting)
    }

    async fn insert_function(
        &self,
        new: &NewVersion,
        now: Timestamp,
        tx: &mut Transaction,
    ) -> Result<(), Failed> {
        let owner = doc! { "_id": new.user_id.key() };
        let users = self.database.collection(USERS);
        let owner = users.find_one(owner).projection(doc! { "_id": 1 });
        if owner.session(tx.session()).await?.is_none() {
            return Err(StoreError::Missing.into());
        }
        let row = document(&FunctionDocument {
            id: new.function_id.key(),
            user: new.user_id.key(),
            name: new.name.clone(),
            latest_version: 1,
            active_version: None,
            settled_version: 0,
            visibility: new.visibility.unwrap_or_default(),
            created_at: date(now),
            updated_at: date(now),
            deployed_at: None,
        })?;
        self.insert(FUNCTIONS, row, tx).await
    }

    async fn advance_function(
        &self,
        new: &NewVersion,
        now: Timestamp,
        tx: &mut Transaction,
    ) -> Result<(), Failed> {
        let functions = self.database.collection(FUNCTIONS);
        let own = doc! { "_id": new.function_id.key(), "user": new.user_id.key() };
        let mut previous = own.clone();
        previous.insert("latestVersion", i64::from(new.version) - 1);
        if let Some(served) = new.of_served {
            previous.insert("activeVersion", i64::from(served));
        }
        let mut set = doc! { "latestVersion": i64::from(new.version), "updatedAt": date(now) };
        // Public it becomes with the version.
        if let Some(visibility @ Visibility::Private) = new.visibility {
            set.insert("visibility", field(&visibility)?);
        }
        let update = functions.update_one(previous, doc! { "$set": set });
        if update.session(tx.session()).await?.matched_count == 1 {
            return Ok(());
        }
        let found = functions.find_one(own).projection(doc! { "_id": 1 });
        let exists = found.session(tx.session()).await?.is_some();
        Err(if exists { StoreError::Conflict } else { StoreError::Missing }.into())
    }

    async fn try_set_visibility(
        &self,
        user_id: UserId,
        id: FunctionId,
        visibility: Visibility,
        tx: &mut Transaction,
    ) -> Result<bool, Failed> {
        let own = doc! { "_id": id.key(), "user": user_id.key() };
        let set = doc! {
            "visibility": field(&visibility)?, "updatedAt": date(Timestamp::now()),
        };
        let functions = self.database.collection(FUNCTIONS);
        let update = functions.update_one(own, doc! { "$set": set });
        let changed = update.session(tx.session()).await?.matched_count == 1;
        if changed {
            queue::settle_visibility(&self.database, id, tx).await?;
            tx.announce(Change::Function(id));
        }
        Ok(changed)
    }

    async fn try_delete(
        &self,
        user_id: UserId,
        id: FunctionId,
        tx: &mut Transaction,
    ) -> Result<bool, Failed> {
        let own = doc! { "_id": id.key(), "user": user_id.key() };
        let functions = self.database.collection(FUNCTIONS);
        let delete = functions.delete_one(own);
        if delete.session(tx.session()).await?.deleted_count == 0 {
            return Ok(false);
        }
        let versions = self.database.collection(VERSIONS);
        let delete = versions.delete_many(versions_of(id));
        delete.session(tx.session()).await?;
        remains::note_with(&self.database, id, tx).await?;
        tx.announce(Change::Function(id));
        Ok(true)
    }
}

#[async_trait]
impl FunctionStore for MongoFunctions {
    async fn accept_within(
        &self,
        new: NewVersion,
        bounds: HoldingBounds,
    ) -> Result<FunctionRecord, StoreError> {
        in_transaction!(self.database, |tx| self.try_accept(&new, bounds, &mut tx))
    }

    async fn holdings(&self, user_id: UserId) -> Result<Holdings, StoreError> {
        in_transaction!(self.database, |tx| holdings::read(&self.database, user_id, &mut tx))
    }

    async fn trees_added(&self, user_id: UserId, day: i64) -> Result<u64, StoreError> {
        holdings::trees_added(&self.database, user_id, day).await
    }

    async fn add_tree(&self, user_id: UserId, day: i64, bytes: u64) -> Result<(), StoreError> {
        holdings::add_tree(&self.database, user_id, day, bytes).await
    }

    async fn function(
        &self,
        user_id: UserId,
        id: FunctionId,
    ) -> Result<Option<FunctionRecord>, StoreError> {
        self.one_record(doc! { "_id": id.key(), "user": user_id.key() }).await
    }

    async fn function_by_name(
        &self,
        user_id: UserId,
        name: &FunctionName,
    ) -> Result<Option<FunctionRecord>, StoreError> {
        self.one_record(doc! { "user": user_id.key(), "name": name.as_str() }).await
    }

    async fn functions(
        &self,
        user_id: UserId,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<Page<Listed>, StoreError> {
        list::page(&self.database, user_id, limit, cursor).await
    }

    async fn versions(
        &self,
        user_id: UserId,
        id: FunctionId,
        limit: u32,
    ) -> Result<Vec<Version>, StoreError> {
        if !self.owns(user_id, id).await? {
            return Ok(Vec::new());
        }
        let versions = self.database.collection(VERSIONS);
        let read = async {
            versions
                .find(versions_of(id))
                .projection(doc! { "source.packageLock": 0 })
                .sort(doc! { "_id": -1 })
                .limit(page_limit(limit).into())
                .await?
                .map_err(Failed::Driver)
                .and_then(async |row| Ok(read_version(&row)?))
                .try_collect()
                .await
        };
        self.database.bounded(read).await
    }

    async fn version(
        &self,
        user_id: UserId,
        id: FunctionId,
        version: u32,
    ) -> Result<Option<Version>, StoreError> {
        if !self.owns(user_id, id).await? {
            return Ok(None);
        }
        versions::version(&self.database, id, version).await
    }

    async fn rollback(
        &self,
        user_id: UserId,
        id: FunctionId,
        version: u32,
    ) -> Result<Rollback, StoreError> {
        in_transaction!(self.database, |tx| versions::rollback(
            &self.database,
            user_id,
            id,
            version,
            &mut tx
        ))
    }

    async fn prune(&self, id: FunctionId, keep: u32, sweep: &Sweep) -> Result<Pruned, StoreError> {
        in_transaction!(self.database, |tx| sweeps::prune(&self.database, id, keep, sweep, &mut tx))
    }

    async fn next_look(&self, age: Duration) -> Result<Option<FunctionId>, StoreError> {
        in_transaction!(self.database, |tx| sweeps::next_look(&self.database, age, &mut tx))
    }

    async fn end_sweep(&self, id: FunctionId, holder: &str) -> Result<(), StoreError> {
        sweeps::end(&self.database, id, holder).await
    }

    async fn note_bundle(
        &self,
        id: FunctionId,
        version: u32,
        bundle: &BundleHash,
    ) -> Result<(), StoreError> {
        sweeps::note_bundle(&self.database, id, version, bundle).await
    }

    async fn is_swept(&self, id: FunctionId) -> Result<bool, StoreError> {
        sweeps::is_swept(&self.database, id).await
    }

    async fn sealed_envs(
        &self,
        after: Option<(FunctionId, u32)>,
        limit: u32,
    ) -> Result<Vec<SealedVersion>, StoreError> {
        versions::sealed_envs(&self.database, after, limit).await
    }

    async fn replace_env(
        &self,
        id: FunctionId,
        version: u32,
        old: SealedEnv,
        new: SealedEnv,
    ) -> Result<bool, StoreError> {
        versions::replace_env(&self.database, id, version, &old, &new).await
    }

    async fn set_visibility(
        &self,
        user_id: UserId,
        id: FunctionId,
        visibility: Visibility,
    ) -> Result<bool, StoreError> {
        in_transaction!(self.database, |tx| self
            .try_set_visibility(user_id, id, visibility, &mut tx))
    }

    async fn delete_function(&self, user_id: UserId, id: FunctionId) -> Result<bool, StoreError> {
        let deleted = in_transaction!(self.database, |tx| self.try_delete(user_id, id, &mut tx))?;
        if deleted {
            forget_logs(self.telemetry.as_ref(), id).await;
        }
        Ok(deleted)
    }

    async fn note_ahead(&self, id: FunctionId) -> Result<(), StoreError> {
        remains::note(&self.database, id).await
    }

    async fn remains(&self, age: Duration) -> Result<Option<FunctionId>, StoreError> {
        in_transaction!(self.database, |tx| remains::take(&self.database, age, &mut tx))
    }

    async fn forget_remains(&self, id: FunctionId) -> Result<(), StoreError> {
        remains::forget(&self.database, id).await
    }

    async fn route(
        &self,
        user_name: &UserName,
        function_name: &FunctionName,
    ) -> Result<Option<Route>, StoreError> {
        route::find(&self.database, user_name, function_name).await
    }

    async fn claim(&self, holder: &str, lease: Duration) -> Result<Option<Claimed>, StoreError> {
        queue::claim(self, holder, lease).await
    }

    async fn renew(
        &self,
        holder: &str,
        id: FunctionId,
        version: u32,
        lease: Duration,
    ) -> Result<bool, StoreError> {
        queue::renew(self, holder, id, version, lease).await
    }

    async fn activate(
        &self,
        id: FunctionId,
        version: u32,
        built: BuiltVersion,
    ) -> Result<Activation, StoreError> {
        in_transaction!(self.database, |tx| queue::activate(self, id, version, &built, &mut tx))
    }

    async fn fail(
        &self,
        id: FunctionId,
        version: u32,
        error: DeployError,
    ) -> Result<(), StoreError> {
        in_transaction!(self.database, |tx| queue::fail(self, id, version, &error, &mut tx))
    }
}
