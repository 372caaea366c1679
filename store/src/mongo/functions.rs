//! Functions and versions. What moves the deploy queue is in [`super::queue`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cloudserve_protocol::ids::{FunctionId, FunctionName, SourceHash, UserId, UserName};
use cloudserve_protocol::limits::Limits;
use futures::TryStreamExt;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, DateTime, Document, RawDocumentBuf, Uuid, doc};
use mongodb::options::ReadConcern;
use serde::{Deserialize, Serialize};

use super::database::{Database, Failed, Transaction, in_transaction, inserting};
use super::schema::{FUNCTIONS, USERS, VERSIONS};
use super::telemetry::MongoTelemetry;
use super::values::{Key, date, document, field, parse, time};
use super::{list, queue, remains, route, sweeps, versions};
use crate::cursor::page_limit;
use crate::function::{
    Activation, BuiltVersion, Claimed, DeployError, DeployStatus, Function, FunctionRecord, Listed,
    NewVersion, Page, Pruned, Rollback, Route, SealedEnv, SealedVersion, Source, Sweep, Version,
    Visibility,
};
use crate::telemetry::forget_logs;
use crate::{Change, FunctionStore, StoreError, Timestamp};

/// [`FunctionStore`] over MongoDB.
pub(crate) struct MongoFunctions {
    pub(super) database: Database,
    telemetry: Arc<MongoTelemetry>,
}

/// A function's status is that of its newest version and is not stored a second time.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FunctionDocument {
    #[serde(rename = "_id")]
    pub(super) id: Uuid,
    pub(super) user: Uuid,
    pub(super) name: FunctionName,
    pub(super) latest_version: u32,
    pub(super) active_version: Option<u32>,
    /// Versions up to this one no longer move the pointer when their build ends.
    pub(super) settled_version: u32,
    pub(super) visibility: Visibility,
    pub(super) created_at: DateTime,
    pub(super) updated_at: DateTime,
    pub(super) deployed_at: Option<DateTime>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct VersionKey {
    pub(super) function_id: Uuid,
    pub(super) version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct VersionDocument {
    #[serde(rename = "_id")]
    pub(super) id: VersionKey,
    pub(super) status: DeployStatus,
    pub(super) error: Option<DeployError>,
    pub(super) source: Source,
    pub(super) source_hash: SourceHash,
    pub(super) env: Binary,
    pub(super) limits: Limits,
    pub(super) built: Option<BuiltVersion>,
    pub(super) created_at: DateTime,
    /// While it waits or is in work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) queued_at: Option<DateTime>,
    /// Its owner, meanwhile. Not there if it came with an import or from an earlier release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) queued_by: Option<Uuid>,
    /// Meanwhile, and only if it does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) makes_public: bool,
    /// How often it was claimed.
    pub(super) attempts: u32,
}

impl From<VersionDocument> for Version {
    fn from(version: VersionDocument) -> Self {
        Self {
            function_id: FunctionId::of(version.id.function_id),
            version: version.id.version,
            status: version.status,
            error: version.error,
            source: version.source,
            source_hash: version.source_hash,
            env: SealedEnv(version.env.bytes),
            limits: version.limits,
            built: version.built,
            created_at: time(version.created_at),
            makes_public: version.makes_public,
        }
    }
}

/// A function and the two versions that matter, as one query gives them.
#[derive(Deserialize)]
struct RecordDocument {
    function: FunctionDocument,
    latest: VersionDocument,
    active: Option<VersionDocument>,
}

/// The function, with the standing of its newest version.
pub(super) fn function(
    function: FunctionDocument,
    status: DeployStatus,
    deploy_error: Option<DeployError>,
) -> Function {
    Function {
        id: FunctionId::of(function.id),
        user_id: UserId::of(function.user),
        name: function.name,
        status,
        deploy_error,
        latest_version: function.latest_version,
        active_version: function.active_version,
        visibility: function.visibility,
        created_at: time(function.created_at),
        updated_at: time(function.updated_at),
        deployed_at: function.deployed_at.map(time),
    }
}

impl From<RecordDocument> for FunctionRecord {
    fn from(RecordDocument { function: of, latest, active }: RecordDocument) -> Self {
        let function = function(of, latest.status, latest.error.clone());
        let latest = Version::from(latest);
        let active = if function.active_version == Some(latest.version) {
            Some(latest.clone())
        } else {
            active.map(Version::from)
        };
        Self { function, latest, active }
    }
}

/// The identity of a version: one field order, so that equality is that of the bytes.
pub(super) fn version_key(id: FunctionId, version: u32) -> Document {
    doc! { "functionId": id.key(), "version": i64::from(version) }
}

/// A sealed environment as a value.
pub(super) fn sealed(env: &SealedEnv) -> Binary {
    Binary { subtype: BinarySubtype::Generic, bytes: env.0.clone() }
}

/// All versions of a function, by the index of `_id`.
pub(super) fn versions_of(id: FunctionId) -> Document {
    let from = doc! { "functionId": id.key(), "version": 0_i64 };
    let to = doc! { "functionId": id.key(), "version": i64::MAX };
    doc! { "_id": { "$gte": from, "$lte": to } }
}

/// The query for [`RecordDocument`]s: functions that match, then, after `middle`, their versions.
pub(super) fn records(
    filter: Document,
    middle: impl IntoIterator<Item = Document>,
) -> Vec<Document> {
    let key_of = |version: &str| doc! { "functionId": "$_id", "version": version };
    let is_other = doc! { "$and": [
        { "$ne": ["$activeVersion", "$latestVersion"] },
        { "$gt": ["$activeVersion", null] },
    ] };
    let lookup = |key: &str, name: &str| {
        doc! { "$lookup": {
            "from": VERSIONS, "localField": key, "foreignField": "_id", "as": name,
        } }
    };
    let mut stages = vec![doc! { "$match": filter }];
    stages.extend(middle);
    stages.extend([
        doc! { "$project": {
            "_id": 0,
            "function": "$$ROOT",
            "latestKey": key_of("$latestVersion"),
            // The same version is not read twice; no version has the key `false`.
            "activeKey": { "$cond": [is_other, key_of("$activeVersion"), false] },
        } },
        lookup("latestKey", "latest"),
        lookup("activeKey", "active"),
        doc! { "$project": {
            "function": 1,
            "latest": { "$first": "$latest" },
            "active": { "$first": "$active" },
        } },
    ]);
    stages
}

fn read_record(found: &RawDocumentBuf) -> Result<FunctionRecord, StoreError> {
    parse::<RecordDocument>("function", found).map(FunctionRecord::from)
}

pub(super) fn read_version(found: &RawDocumentBuf) -> Result<Version, StoreError> {
    parse::<VersionDocument>("version", found).map(Version::from)
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
        max_queued: Option<u32>,
        tx: &mut Transaction,
    ) -> Result<FunctionRecord, Failed> {
        if let Some(max) = max_queued {
            queue::keep_within(&self.database, new.user_id, max, tx).await?;
        }
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
        max_queued: Option<u32>,
    ) -> Result<FunctionRecord, StoreError> {
        in_transaction!(self.database, |tx| self.try_accept(&new, max_queued, &mut tx))
    }

    async fn queued(&self, user_id: UserId) -> Result<u32, StoreError> {
        queue::queued(&self.database, user_id).await
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

    async fn end_sweep(&self, id: FunctionId, holder: &str) -> Result<(), StoreError> {
        sweeps::end(&self.database, id, holder).await
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
