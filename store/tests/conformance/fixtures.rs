//! Records that only differ in what a case is about.

use std::collections::BTreeMap;

use cloudserve_protocol::call::HandlerKind;
use cloudserve_protocol::ids::{
    BundleHash, DepHash, ExecutionId, FunctionId, FunctionName, SourceHash, UserId,
};
use cloudserve_protocol::limits::Limits;
use cloudserve_store::account::{Quota, User};
use cloudserve_store::function::{
    BuiltVersion, DeployError, NewVersion, SealedEnv, Source, SourceFile,
};
use cloudserve_store::telemetry::{CallStatus, LogRow, UsageRow};
use cloudserve_store::{Stores, Timestamp};

/// 2023-11-14, 22:13:20.007 UTC.
pub(crate) const NOON: i64 = 1_700_000_000_007;

pub(crate) fn user(name: &str) -> User {
    User {
        id: UserId::new(),
        full_name: "Ada Lovelace".into(),
        user_name: name.parse().unwrap(),
        email: format!("{name}@example.org"),
        password_hash: "$argon2id$v=19$...".into(),
        quota: Quota::default(),
        created_at: Timestamp(NOON),
    }
}

pub(crate) async fn registered(stores: &Stores, name: &str) -> UserId {
    let user = user(name);
    let id = user.id;
    stores.accounts.create_user(user).await.unwrap();
    id
}

pub(crate) fn function_name(name: &str) -> FunctionName {
    name.parse().unwrap()
}

pub(crate) fn first_version(user_id: UserId, name: &str) -> NewVersion {
    let code = "export default () => 1";
    NewVersion {
        function_id: FunctionId::new(),
        user_id,
        name: function_name(name),
        version: 1,
        of_served: None,
        visibility: None,
        source: Source {
            stored_version: 1,
            entry: "index.ts".into(),
            entry_is_given: false,
            files: vec![SourceFile {
                path: "index.ts".into(),
                sha256: SourceHash::of(code.as_bytes()).to_string(),
                bytes: code.len() as u64,
            }],
            dependencies: BTreeMap::from([("axios".into(), "^1".into())]),
            external: vec!["sharp".into()],
            optional_dependencies: BTreeMap::from([("fsevents".into(), "^2".into())]),
            overrides: Some("{\"a@^1\":{\".\":\"1.2.3\"}}".into()),
            package_lock: Some("{\"lockfileVersion\":3}".into()),
            refresh_dependencies: false,
        },
        source_hash: SourceHash::of(code.as_bytes()),
        env: SealedEnv(vec![0, 159, 146, 150]),
        limits: Limits { timeout_ms: 1_234, ..Limits::default() },
        built: None,
    }
}

pub(crate) fn next_version(of: &NewVersion, version: u32) -> NewVersion {
    NewVersion { version, ..of.clone() }
}

pub(crate) fn built() -> BuiltVersion {
    BuiltVersion {
        bundle_hash: BundleHash::of(b"bundle"),
        bundle_bytes: 6,
        beside_bytes: 3,
        dep_hash: Some(DepHash::of(b"deps")),
        dependency_cache: None,
        needs_tree: true,
        handler_kind: HandlerKind::Event,
    }
}

pub(crate) fn deploy_error() -> DeployError {
    DeployError { code: "bundle_error".into(), message: "index.ts:1:2: no".into() }
}

pub(crate) fn usage(user_id: UserId, function_id: FunctionId, timestamp: i64) -> UsageRow {
    UsageRow {
        function_id,
        user_id,
        execution_id: ExecutionId::new(),
        version: 1,
        duration_ms: 12.5,
        cpu_ms: 3.25,
        memory_mb: 64.0,
        status: CallStatus::Success,
        code: "ok".into(),
        cold: false,
        timestamp: Timestamp(timestamp),
    }
}

pub(crate) fn log(function_id: FunctionId, timestamp: i64) -> LogRow {
    LogRow {
        function_id,
        execution_id: ExecutionId::new(),
        lines: Vec::new(),
        duration_ms: 12.5,
        memory_mb: 64.0,
        status: CallStatus::Success,
        truncated: false,
        timestamp: Timestamp(timestamp),
    }
}
