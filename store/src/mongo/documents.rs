//! Functions and versions as documents.

use cloudserve_protocol::ids::{FunctionId, FunctionName, SourceHash, UserId};
use cloudserve_protocol::limits::Limits;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, DateTime, Document, RawDocumentBuf, Uuid, doc};
use serde::{Deserialize, Serialize};

use super::schema::VERSIONS;
use super::values::{Key, parse, time};
use crate::StoreError;
use crate::function::{
    BuiltVersion, DeployError, DeployStatus, Function, FunctionRecord, SealedEnv, Source, Version,
    Visibility,
};

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
    /// What it takes of storage. Not there if it is from an earlier release.
    #[serde(default)]
    pub(super) bytes: i64,
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

pub(super) fn read_record(found: &RawDocumentBuf) -> Result<FunctionRecord, StoreError> {
    parse::<RecordDocument>("function", found).map(FunctionRecord::from)
}

pub(super) fn read_version(found: &RawDocumentBuf) -> Result<Version, StoreError> {
    parse::<VersionDocument>("version", found).map(Version::from)
}
