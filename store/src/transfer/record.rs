//! One record as one line of JSON.
//!
//! The lines are a format of their own: what other serialisations of these types are for (answers
//! of the API, columns) may change without it. Times are milliseconds since the epoch, numbers are
//! exact, bytes are hexadecimal.

use std::borrow::Cow;

use cloudserve_protocol::call::LogLine;
use cloudserve_protocol::ids::{
    ApiKeyId, AuditId, ExecutionId, FunctionId, FunctionName, SourceHash, UserId, UserName,
};
use cloudserve_protocol::limits::Limits;
use serde::{Deserialize, Serialize};

use super::{Key, Kind};
use crate::Timestamp;
use crate::account::{Actor, ApiKey, AuditEntry, Quota, Scope, User};
use crate::function::{
    BuiltVersion, DeployError, DeployStatus, SealedEnv, Source, Version, Visibility,
};
use crate::telemetry::{CallStatus, LATENCY_BUCKETS, LogRow, UsageRow};

/// A record of any kind.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::large_enum_variant, reason = "a page holds mostly one kind, and not for long")]
pub enum Record {
    /// A session token that is refused.
    RevokedToken(RevokedToken),
    /// An API key.
    ApiKey(#[serde(with = "ApiKeyLine")] ApiKey),
    /// An entry of the audit trail.
    Audit(#[serde(with = "AuditLine")] AuditEntry),
    /// A function.
    Function(StoredFunction),
    /// A version of a function.
    Version(#[serde(with = "VersionLine")] Version),
    /// An account.
    User(#[serde(with = "UserLine")] User),
    /// Sums over the calls of one day.
    UsageDay(UsageSums),
    /// One call.
    Usage(#[serde(with = "UsageLine")] UsageRow),
    /// What one call wrote.
    Log(#[serde(with = "LogRowLine")] LogRow),
}

impl Record {
    /// The kind it is walked with.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::RevokedToken(_) => Kind::RevokedTokens,
            Self::ApiKey(_) => Kind::ApiKeys,
            Self::Audit(_) => Kind::Audit,
            Self::Function(_) | Self::Version(_) => Kind::Functions,
            Self::User(_) => Kind::Users,
            Self::UsageDay(_) => Kind::UsageDays,
            Self::Usage(_) => Kind::Usages,
            Self::Log(_) => Kind::Logs,
        }
    }

    /// What tells it from others of its kind.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::RevokedToken(token) => Key::Token(token.token_id.clone()),
            Self::ApiKey(key) => Key::Id(*key.id.as_bytes()),
            Self::Audit(entry) => Key::Id(*entry.id.as_bytes()),
            Self::Function(function) => Key::Version(*function.id.as_bytes(), 0),
            Self::Version(version) => {
                Key::Version(*version.function_id.as_bytes(), version.version)
            }
            Self::User(user) => Key::Id(*user.id.as_bytes()),
            Self::UsageDay(sums) => {
                Key::Day(*sums.function_id.as_bytes(), sums.day, *sums.user_id.as_bytes())
            }
            Self::Usage(row) => Key::Id(*row.execution_id.as_bytes()),
            Self::Log(row) => Key::Id(*row.execution_id.as_bytes()),
        }
    }

    /// Its line, without the end of the line. Equal records have equal lines.
    pub fn to_line(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// Reads a line of this schema or of one before.
    pub fn parse(line: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(line)
    }
}

/// A version as it is when nobody works on it: a deploy that is in work begins again.
pub(crate) fn at_rest(mut version: Version) -> Version {
    if version.status == DeployStatus::Deploying {
        version.status = DeployStatus::Pending;
    }
    version
}

/// A session token that is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevokedToken {
    /// Its identity.
    pub token_id: String,
    /// When it ends by itself.
    #[serde(with = "ms")]
    pub expires_at: Timestamp,
}

/// A function as it is stored: its status is that of its newest version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredFunction {
    /// Identity.
    pub id: FunctionId,
    /// Its owner.
    pub user_id: UserId,
    /// Unique per owner.
    pub name: FunctionName,
    /// Number of the newest version.
    pub latest_version: u32,
    /// The version that is served.
    pub active_version: Option<u32>,
    /// Versions up to this one no longer move the pointer when their build ends.
    pub settled_version: u32,
    /// Who may call it.
    pub visibility: Visibility,
    /// When it was first deployed.
    #[serde(with = "ms")]
    pub created_at: Timestamp,
    /// When it last changed.
    #[serde(with = "ms")]
    pub updated_at: Timestamp,
    /// When the active version was activated.
    #[serde(with = "optional_ms")]
    pub deployed_at: Option<Timestamp>,
}

/// Sums over the calls of one function, day (UTC) and account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageSums {
    /// The function.
    pub function_id: FunctionId,
    /// The day, counted from the epoch.
    pub day: i64,
    /// Who is billed.
    pub user_id: UserId,
    /// Calls.
    pub executed: i64,
    /// Calls that failed.
    pub errors: i64,
    /// Calls that loaded the function.
    pub cold: i64,
    /// Wall-clock time.
    #[serde(with = "exact")]
    pub duration_ms: f64,
    /// CPU time.
    #[serde(with = "exact")]
    pub cpu_ms: f64,
    /// Memory of all calls.
    #[serde(with = "exact")]
    pub memory_mb: f64,
    /// Memory times wall-clock time.
    #[serde(with = "exact")]
    pub gb_seconds: f64,
    /// Calls by latency.
    pub latency: [i64; LATENCY_BUCKETS],
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "User", rename_all = "camelCase")]
struct UserLine {
    id: UserId,
    full_name: String,
    user_name: UserName,
    email: String,
    password_hash: String,
    quota: Quota,
    #[serde(with = "ms")]
    created_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "ApiKey", rename_all = "camelCase")]
struct ApiKeyLine {
    id: ApiKeyId,
    user_id: UserId,
    name: String,
    key_hash: String,
    prefix: String,
    scopes: Vec<Scope>,
    functions: Vec<FunctionId>,
    #[serde(with = "optional_ms")]
    expires_at: Option<Timestamp>,
    #[serde(with = "optional_ms")]
    last_used_at: Option<Timestamp>,
    #[serde(with = "ms")]
    created_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "AuditEntry", rename_all = "camelCase")]
struct AuditLine {
    id: AuditId,
    user_id: UserId,
    actor: Actor,
    action: String,
    subject: Option<String>,
    detail: String,
    #[serde(with = "ms")]
    at: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Version", rename_all = "camelCase")]
struct VersionLine {
    function_id: FunctionId,
    version: u32,
    status: DeployStatus,
    error: Option<DeployError>,
    source: Source,
    source_hash: SourceHash,
    #[serde(with = "sealed")]
    env: SealedEnv,
    limits: Limits,
    built: Option<BuiltVersion>,
    #[serde(with = "ms")]
    created_at: Timestamp,
    /// Not in lines of schema 1.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    makes_public: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "UsageRow", rename_all = "camelCase")]
struct UsageLine {
    function_id: FunctionId,
    user_id: UserId,
    execution_id: ExecutionId,
    version: u32,
    #[serde(with = "exact")]
    duration_ms: f64,
    #[serde(with = "exact")]
    cpu_ms: f64,
    #[serde(with = "exact")]
    memory_mb: f64,
    status: CallStatus,
    code: Cow<'static, str>,
    cold: bool,
    #[serde(with = "ms")]
    timestamp: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "LogRow", rename_all = "camelCase")]
struct LogRowLine {
    function_id: FunctionId,
    execution_id: ExecutionId,
    lines: Vec<LogLine>,
    #[serde(with = "exact")]
    duration_ms: f64,
    #[serde(with = "exact")]
    memory_mb: f64,
    status: CallStatus,
    truncated: bool,
    #[serde(with = "ms")]
    timestamp: Timestamp,
}

/// Times as milliseconds: exact, however far away.
mod ms {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::Timestamp;

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this")]
    pub(super) fn serialize<S: Serializer>(time: &Timestamp, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_i64(time.0)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Timestamp, D::Error> {
        i64::deserialize(d).map(Timestamp)
    }
}

mod optional_ms {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::Timestamp;

    #[allow(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "serde asks for this")]
    pub(super) fn serialize<S: Serializer>(
        time: &Option<Timestamp>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        time.map(|time| time.0).serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        Ok(Option::<i64>::deserialize(d)?.map(Timestamp))
    }
}

/// Numbers that are read as they were written: the parser of `serde_json` may miss the last bit,
/// and sums have many digits.
mod exact {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};
    use serde_json::value::RawValue;

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this")]
    pub(super) fn serialize<S: Serializer>(value: &f64, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_f64(*value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
        let text = Box::<RawValue>::deserialize(d)?;
        text.get().parse().map_err(D::Error::custom)
    }
}

/// Sealed environments as hexadecimal digits.
mod sealed {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::function::SealedEnv;

    pub(super) fn serialize<S: Serializer>(env: &SealedEnv, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&hex::encode(&env.0))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<SealedEnv, D::Error> {
        let text = String::deserialize(d)?;
        hex::decode(text).map(SealedEnv).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_survive_to_the_last_bit() {
        let mut duration_ms = 0.1_f64;
        for n in 0..2_000_u32 {
            duration_ms = (duration_ms * 1.000_37 + f64::from(n) / 7.0).abs();
            let row = UsageRow {
                function_id: FunctionId::new(),
                user_id: UserId::new(),
                execution_id: ExecutionId::new(),
                version: 1,
                duration_ms,
                cpu_ms: duration_ms / 3.0,
                memory_mb: f64::MIN_POSITIVE,
                status: CallStatus::Success,
                code: "ok".into(),
                cold: false,
                timestamp: Timestamp(i64::MAX),
            };
            let line = Record::Usage(row.clone()).to_line().unwrap();
            let Record::Usage(again) = Record::parse(&line).unwrap() else { panic!("{line}") };
            assert_eq!(again, row, "{line}");
            assert!(line.starts_with(r#"{"usage":{"#), "{line}");
        }
    }

    #[test]
    fn kinds_are_walked_in_one_order_and_named_as_they_serialise() {
        assert!(Kind::ALL.is_sorted());
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
        }
    }
}
