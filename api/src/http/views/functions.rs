//! Functions, their versions and environments.

use std::collections::BTreeMap;

use cloudserve_protocol::artifact::ArtifactKey;
use cloudserve_protocol::build::CacheOutcome;
use cloudserve_protocol::call::HandlerKind;
use cloudserve_protocol::ids::{
    BundleHash, DepHash, FunctionId, FunctionName, SourceHash, UserId, UserName,
};
use cloudserve_protocol::limits::Limits;
use cloudserve_store::Timestamp;
use cloudserve_store::function::{DeployError, DeployStatus, Listed, Version, Visibility};
use cloudserve_store::telemetry::FunctionStats;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::schemas;
use crate::app::functions::Shown;
use crate::app::versions::Variables;
use crate::build::source::{SourceFiles, stored_under};

/// Why a deploy failed.
#[derive(Serialize, ToSchema)]
#[schema(as = DeployError)]
struct DeployErrorView {
    /// `bundle_error`, `dependency_error`, `native_addon`, `startup_error`, `limit_exceeded` or
    /// `internal`.
    code: String,
    message: String,
}

impl From<DeployError> for DeployErrorView {
    fn from(error: DeployError) -> Self {
        Self { code: error.code, message: error.message }
    }
}

/// How often a function was called, and how it went.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = FunctionStats)]
struct StatsView {
    executed: u64,
    errors: u64,
    /// Mean, in ms.
    avg_latency: f64,
    /// Mean, in MB.
    avg_memory: f64,
}

impl From<FunctionStats> for StatsView {
    fn from(stats: FunctionStats) -> Self {
        Self {
            executed: stats.executed,
            errors: stats.errors,
            avg_latency: stats.avg_latency,
            avg_memory: stats.avg_memory,
        }
    }
}

/// A function, to its owner.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Function)]
pub(in super::super) struct FunctionView {
    #[schema(value_type = String, format = Uuid)]
    id: FunctionId,
    /// The same.
    #[serde(rename = "_id")]
    #[schema(value_type = String, format = Uuid)]
    same_id: FunctionId,
    #[schema(value_type = String, format = Uuid)]
    user: UserId,
    #[schema(value_type = String)]
    name: FunctionName,
    #[schema(value_type = String)]
    user_name: UserName,
    /// Of the newest version: `pending`, `deploying`, `active` or `failed`.
    #[schema(value_type = String)]
    status: DeployStatus,
    deploy_error: Option<DeployErrorView>,
    /// The newest version.
    version: u32,
    /// The version that is served.
    active_version: Option<u32>,
    #[schema(value_type = String)]
    source_hash: SourceHash,
    #[schema(value_type = Option<String>)]
    bundle_hash: Option<BundleHash>,
    bundle_bytes: Option<u64>,
    #[schema(value_type = Option<String>)]
    dep_hash: Option<DepHash>,
    /// `hit` or `miss`.
    #[schema(value_type = Option<String>)]
    dependency_cache: Option<CacheOutcome>,
    #[schema(value_type = Option<String>)]
    handler_kind: Option<HandlerKind>,
    endpoint: String,
    url: Option<String>,
    /// `private` or `public`.
    #[schema(value_type = String)]
    visibility: Visibility,
    #[schema(schema_with = schemas::limits)]
    limits: Limits,
    env_names: Vec<String>,
    dependencies: BTreeMap<String, String>,
    external: Vec<String>,
    stats: StatsView,
    source_path: String,
    bundle_path: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    deployed_at: Option<Timestamp>,
    /// Where one function is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<SourceView>,
    /// Where one function is shown that is one file: its text.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
}

/// What was deployed.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Source)]
pub(in super::super) struct SourceView {
    entry: String,
    files: BTreeMap<String, String>,
    /// Files that are not text.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    binary_files: Vec<String>,
}

impl FunctionView {
    pub(in super::super) fn new(
        shown: Shown,
        user_name: &UserName,
        gateway_url: Option<&str>,
    ) -> Self {
        let Shown { listed, stats, env_names } = shown;
        let Listed { function, source, source_hash, limits, built, .. } = listed;
        let endpoint = format!("/run/{user_name}/{}", function.name);
        let only_file = source.only_file.as_deref();
        let source_key = stored_under(function.id, source.stored_version, &source_hash, only_file);
        let bundle_path = built.as_ref().map(|built| {
            let hash = built.bundle_hash.clone();
            ArtifactKey::Bundle { function: function.id, hash }.to_string()
        });
        Self {
            id: function.id,
            same_id: function.id,
            user: function.user_id,
            name: function.name,
            user_name: user_name.clone(),
            status: match function.status {
                // It was built, and another one is served.
                DeployStatus::Superseded => DeployStatus::Active,
                status => status,
            },
            deploy_error: function.deploy_error.map(DeployErrorView::from),
            version: function.latest_version,
            active_version: function.active_version,
            source_hash,
            bundle_hash: built.as_ref().map(|built| built.bundle_hash.clone()),
            bundle_bytes: built.as_ref().map(|built| built.bundle_bytes),
            dep_hash: built.as_ref().and_then(|built| built.dep_hash.clone()),
            dependency_cache: built.as_ref().and_then(|built| built.dependency_cache),
            handler_kind: built.as_ref().map(|built| built.handler_kind),
            url: gateway_url.map(|base| format!("{}{endpoint}", base.trim_end_matches('/'))),
            endpoint,
            visibility: function.visibility,
            limits,
            env_names,
            dependencies: source.dependencies,
            external: source.external,
            stats: stats.into(),
            source_path: source_key.to_string(),
            bundle_path,
            created_at: function.created_at,
            updated_at: function.updated_at,
            deployed_at: function.deployed_at,
            source: None,
            code: None,
        }
    }

    /// The same with its source.
    pub(in super::super) fn with_source(mut self, entry: String, sources: &SourceFiles) -> Self {
        let source = SourceView::new(entry, sources);
        self.code = source.files.values().next().filter(|_| source.files.len() == 1).cloned();
        self.source = Some(source);
        self
    }
}

/// A page of functions, newest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Functions)]
pub(in super::super) struct FunctionsView {
    pub(in super::super) functions: Vec<FunctionView>,
    /// For `?cursor=`; `null` at the end.
    pub(in super::super) next_cursor: Option<String>,
}

impl SourceView {
    pub(in super::super) fn new(entry: String, sources: &SourceFiles) -> Self {
        let (mut files, mut binary_files) = (BTreeMap::new(), Vec::new());
        for (path, bytes) in sources.iter() {
            match std::str::from_utf8(bytes) {
                Ok(text) => drop(files.insert(path.to_owned(), text.to_owned())),
                Err(_) => binary_files.push(path.to_owned()),
            }
        }
        Self { entry, files, binary_files }
    }
}

/// A version in a list.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Version)]
pub(in super::super) struct VersionView {
    version: u32,
    /// `pending`, `deploying`, `active`, `failed`, or `superseded`: built, but never served.
    #[schema(value_type = String)]
    status: DeployStatus,
    deploy_error: Option<DeployErrorView>,
    #[schema(value_type = String)]
    source_hash: SourceHash,
    #[schema(value_type = Option<String>)]
    bundle_hash: Option<BundleHash>,
    bundle_bytes: Option<u64>,
    #[schema(value_type = Option<String>)]
    dep_hash: Option<DepHash>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// Whether it is the one that is served.
    active: bool,
}

impl VersionView {
    pub(in super::super) fn new(version: Version, active: Option<u32>) -> Self {
        let built = version.built;
        Self {
            active: active == Some(version.version),
            version: version.version,
            status: version.status,
            deploy_error: version.error.map(DeployErrorView::from),
            source_hash: version.source_hash,
            bundle_hash: built.as_ref().map(|built| built.bundle_hash.clone()),
            bundle_bytes: built.as_ref().map(|built| built.bundle_bytes),
            dep_hash: built.and_then(|built| built.dep_hash),
            created_at: version.created_at,
        }
    }
}

/// The environment of a function: its names, never its values.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Env)]
pub(in super::super) struct EnvView {
    names: Vec<String>,
    /// The version that has them.
    version: u32,
    /// Where that version stands.
    #[schema(value_type = String)]
    status: DeployStatus,
    deploy_error: Option<DeployErrorView>,
    /// The version that is served.
    active_version: Option<u32>,
}

impl From<Variables> for EnvView {
    fn from(variables: Variables) -> Self {
        Self {
            names: variables.names,
            version: variables.version,
            status: variables.status,
            deploy_error: variables.error.map(DeployErrorView::from),
            active_version: variables.active_version,
        }
    }
}
