//! What callers see of what is stored. Secrets have no field here.

use std::collections::BTreeMap;

use cloudserve_identity::ApiKeySecret;
use cloudserve_protocol::artifact::ArtifactKey;
use cloudserve_protocol::build::CacheOutcome;
use cloudserve_protocol::call::{HandlerKind, LogLevel, LogLine};
use cloudserve_protocol::ids::{
    ApiKeyId, BundleHash, DepHash, ExecutionId, FunctionId, FunctionName, SourceHash, UserId,
    UserName,
};
use cloudserve_protocol::limits::Limits;
use cloudserve_store::Timestamp;
use cloudserve_store::account::{ApiKey, Scope, User};
use cloudserve_store::function::{DeployError, DeployStatus, Version, Visibility};
use cloudserve_store::telemetry::{CallStatus, FunctionStats, LogRow};
use serde::{Serialize, Serializer};

use crate::app::functions::Shown;
use crate::build::source::{SourceFiles, source_key};

/// An id under both names it goes by.
#[derive(Clone, Copy)]
struct Id<T>(T);

impl<T: Serialize + Copy> Serialize for Id<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("id", &self.0)?;
        map.serialize_entry("_id", &self.0)?;
        map.end()
    }
}

/// An account, to its owner.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UserView {
    #[serde(flatten)]
    id: Id<UserId>,
    full_name: String,
    user_name: UserName,
    email: String,
    created_at: Timestamp,
}

impl From<User> for UserView {
    fn from(user: User) -> Self {
        Self {
            id: Id(user.id),
            full_name: user.full_name,
            user_name: user.user_name,
            email: user.email,
            created_at: user.created_at,
        }
    }
}

/// An API key; itself only when it was just made.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ApiKeyView {
    #[serde(flatten)]
    id: Id<ApiKeyId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    name: String,
    prefix: String,
    scopes: Vec<Scope>,
    expires_at: Option<Timestamp>,
    created_at: Timestamp,
}

impl ApiKeyView {
    pub(super) fn new(key: ApiKey, secret: Option<&ApiKeySecret>) -> Self {
        Self {
            id: Id(key.id),
            key: secret.map(|secret| secret.reveal().to_owned()),
            name: key.name,
            prefix: key.prefix,
            scopes: key.scopes,
            expires_at: key.expires_at,
            created_at: key.created_at,
        }
    }
}

/// A function, to its owner.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FunctionView {
    #[serde(flatten)]
    id: Id<FunctionId>,
    user: UserId,
    name: FunctionName,
    user_name: UserName,
    status: DeployStatus,
    deploy_error: Option<DeployError>,
    version: u32,
    active_version: Option<u32>,
    source_hash: SourceHash,
    bundle_hash: Option<BundleHash>,
    bundle_bytes: Option<u64>,
    dep_hash: Option<DepHash>,
    dependency_cache: Option<CacheOutcome>,
    handler_kind: Option<HandlerKind>,
    endpoint: String,
    url: Option<String>,
    visibility: Visibility,
    limits: Limits,
    env_names: Vec<String>,
    dependencies: BTreeMap<String, String>,
    external: Vec<String>,
    stats: FunctionStats,
    source_path: String,
    bundle_path: Option<String>,
    created_at: Timestamp,
    updated_at: Timestamp,
    deployed_at: Option<Timestamp>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    source: Option<WithSource>,
}

/// The source, where one function is shown.
#[derive(Serialize)]
struct WithSource {
    source: SourceView,
    /// Of a function that is one file: its text.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SourceView {
    entry: String,
    files: BTreeMap<String, String>,
    /// Files that are not text.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    binary_files: Vec<String>,
}

impl FunctionView {
    pub(super) fn new(shown: Shown, user_name: &UserName, gateway_url: Option<&str>) -> Self {
        let Shown { record, stats, env_names } = shown;
        let (function, latest) = (record.function, record.latest);
        // What the newest version has not built is still served from the one before.
        let built = latest.built.or_else(|| record.active.and_then(|active| active.built));
        let endpoint = format!("/run/{user_name}/{}", function.name);
        let source_key = source_key(function.id, &latest.source, &latest.source_hash);
        let bundle_path = built.as_ref().map(|built| {
            let hash = built.bundle_hash.clone();
            ArtifactKey::Bundle { function: function.id, hash }.to_string()
        });
        Self {
            id: Id(function.id),
            user: function.user_id,
            name: function.name,
            user_name: user_name.clone(),
            status: function.status,
            deploy_error: function.deploy_error,
            version: function.latest_version,
            active_version: function.active_version,
            source_hash: latest.source_hash,
            bundle_hash: built.as_ref().map(|built| built.bundle_hash.clone()),
            bundle_bytes: built.as_ref().map(|built| built.bundle_bytes),
            dep_hash: built.as_ref().and_then(|built| built.dep_hash.clone()),
            dependency_cache: built.as_ref().and_then(|built| built.dependency_cache),
            handler_kind: built.as_ref().map(|built| built.handler_kind),
            url: gateway_url.map(|base| format!("{}{endpoint}", base.trim_end_matches('/'))),
            endpoint,
            visibility: function.visibility,
            limits: latest.limits,
            env_names,
            dependencies: latest.source.dependencies,
            external: latest.source.external,
            stats,
            source_path: source_key.to_string(),
            bundle_path,
            created_at: function.created_at,
            updated_at: function.updated_at,
            deployed_at: function.deployed_at,
            source: None,
        }
    }

    /// The same with its source.
    pub(super) fn with_source(mut self, entry: String, sources: &SourceFiles) -> Self {
        let (mut files, mut binary_files) = (BTreeMap::new(), Vec::new());
        for (path, bytes) in sources.iter() {
            match std::str::from_utf8(bytes) {
                Ok(text) => drop(files.insert(path.to_owned(), text.to_owned())),
                Err(_) => binary_files.push(path.to_owned()),
            }
        }
        let code = files.values().next().filter(|_| files.len() == 1).cloned();
        let source = SourceView { entry, files, binary_files };
        self.source = Some(WithSource { source, code });
        self
    }
}

/// A version in a list.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct VersionView {
    version: u32,
    status: DeployStatus,
    deploy_error: Option<DeployError>,
    source_hash: SourceHash,
    bundle_hash: Option<BundleHash>,
    dep_hash: Option<DepHash>,
    created_at: Timestamp,
    active: bool,
}

impl VersionView {
    pub(super) fn new(version: Version, active: Option<u32>) -> Self {
        Self {
            active: active == Some(version.version),
            version: version.version,
            status: version.status,
            deploy_error: version.error,
            source_hash: version.source_hash,
            bundle_hash: version.built.as_ref().map(|built| built.bundle_hash.clone()),
            dep_hash: version.built.and_then(|built| built.dep_hash),
            created_at: version.created_at,
        }
    }
}

/// What one call wrote.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LogRowView {
    function_id: FunctionId,
    execution_id: ExecutionId,
    logs: Vec<LogLineView>,
    duration: f64,
    memory_used: f64,
    status: CallStatus,
    truncated: bool,
    timestamp: Timestamp,
}

#[derive(Serialize)]
struct LogLineView {
    level: LogLevel,
    message: String,
    timestamp: Timestamp,
}

impl From<LogRow> for LogRowView {
    fn from(row: LogRow) -> Self {
        let line = |line: LogLine| LogLineView {
            level: line.level,
            message: line.message,
            timestamp: Timestamp(i64::try_from(line.timestamp_ms).unwrap_or(i64::MAX)),
        };
        Self {
            function_id: row.function_id,
            execution_id: row.execution_id,
            logs: row.lines.into_iter().map(line).collect(),
            duration: row.duration_ms,
            memory_used: row.memory_mb,
            status: row.status,
            truncated: row.truncated,
            timestamp: row.timestamp,
        }
    }
}
