//! Accounts, keys, quotas and the audit trail.

use cloudserve_identity::ApiKeySecret;
use cloudserve_protocol::ids::{ApiKeyId, FunctionId, UserId, UserName};
use cloudserve_store::Timestamp;
use cloudserve_store::account::{Actor, ApiKey, AuditEntry, Scope, User};
use cloudserve_store::function::Page;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::accounts::Session;
use crate::app::quota::Standing;

/// An account, to its owner.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = User)]
pub(in super::super) struct UserView {
    #[schema(value_type = String, format = Uuid)]
    id: UserId,
    /// The same.
    #[serde(rename = "_id")]
    #[schema(value_type = String, format = Uuid)]
    same_id: UserId,
    full_name: String,
    #[schema(value_type = String)]
    user_name: UserName,
    email: String,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

impl From<User> for UserView {
    fn from(user: User) -> Self {
        Self {
            id: user.id,
            same_id: user.id,
            full_name: user.full_name,
            user_name: user.user_name,
            email: user.email,
            created_at: user.created_at,
        }
    }
}

/// A session that has begun.
#[derive(Serialize, ToSchema)]
#[schema(as = Session)]
pub(in super::super) struct SessionView {
    /// To be sent as `Authorization: Bearer`.
    token: String,
    user: UserView,
}

impl From<Session> for SessionView {
    fn from(session: Session) -> Self {
        Self { token: session.token, user: session.user.into() }
    }
}

/// The account that asks.
#[derive(Serialize, ToSchema)]
#[schema(as = Me)]
pub(in super::super) struct MeView {
    pub(in super::super) user: UserView,
}

/// An API key; itself only when it was just made.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ApiKey)]
pub(in super::super) struct ApiKeyView {
    #[schema(value_type = String, format = Uuid)]
    id: ApiKeyId,
    /// The same.
    #[serde(rename = "_id")]
    #[schema(value_type = String, format = Uuid)]
    same_id: ApiKeyId,
    /// Shown once, when the key is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    name: String,
    /// How the key begins.
    prefix: String,
    #[schema(value_type = Vec<String>)]
    scopes: Vec<Scope>,
    /// Ids of the functions it is for; empty means all.
    #[schema(value_type = Vec<String>)]
    functions: Vec<FunctionId>,
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// To about a minute.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_used_at: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

impl ApiKeyView {
    pub(in super::super) fn new(key: ApiKey, secret: Option<&ApiKeySecret>) -> Self {
        Self {
            id: key.id,
            same_id: key.id,
            key: secret.map(|secret| secret.reveal().to_owned()),
            name: key.name,
            prefix: key.prefix,
            scopes: key.scopes,
            functions: key.functions,
            expires_at: key.expires_at,
            last_used_at: key.last_used_at,
            created_at: key.created_at,
        }
    }
}

/// The account's keys, newest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ApiKeys)]
pub(in super::super) struct ApiKeysView {
    pub(in super::super) api_keys: Vec<ApiKeyView>,
}

/// One bound and how much of it is used.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Allowance)]
struct AllowanceView {
    /// `null`: no bound.
    limit: Option<f64>,
    used: f64,
    /// `null`: no bound.
    remaining: Option<f64>,
    /// When `used` begins at 0 again; `null` if it does not.
    #[schema(value_type = Option<String>, format = DateTime)]
    resets_at: Option<Timestamp>,
}

impl AllowanceView {
    fn new(limit: Option<f64>, used: f64, resets_at: Option<Timestamp>) -> Self {
        let remaining = limit.map(|limit| (limit - used).max(0.0));
        Self { limit, used, remaining, resets_at }
    }
}

/// Calls per second of each credential.
#[derive(Serialize, ToSchema)]
#[schema(as = Rate)]
struct RateView {
    /// `null`: no bound.
    limit: Option<u32>,
}

/// What the account may use and has used.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Quota)]
pub(in super::super) struct QuotaView {
    /// Calls of all functions on this day (UTC).
    calls_per_day: AllowanceView,
    /// Memory times wall-clock time in this month (UTC).
    gb_seconds_per_month: AllowanceView,
    rate_per_second: RateView,
    api_keys: AllowanceView,
    functions: AllowanceView,
    /// What all versions of all functions take of storage, each whole.
    stored_bytes: AllowanceView,
    /// Calls in flight at the same time.
    concurrency: RateView,
}

#[allow(clippy::cast_precision_loss)] // Counts beyond 2^53 are shown rounded.
impl From<Standing> for QuotaView {
    fn from(standing: Standing) -> Self {
        let calls = standing.quota.calls_per_day.map(|limit| limit as f64);
        let keys = (standing.max_api_keys as f64, standing.api_keys as f64);
        let functions = (standing.max_functions.map(f64::from), standing.held.functions.into());
        let bytes = (standing.max_stored_bytes.map(|max| max as f64), standing.held.bytes as f64);
        Self {
            calls_per_day: AllowanceView::new(
                calls,
                standing.calls_today as f64,
                Some(standing.day_ends),
            ),
            gb_seconds_per_month: AllowanceView::new(
                standing.quota.gb_seconds_per_month,
                standing.gb_seconds_this_month,
                Some(standing.month_ends),
            ),
            rate_per_second: RateView {
                limit: standing.quota.rate_per_second.filter(|rate| *rate > 0),
            },
            api_keys: AllowanceView::new(Some(keys.0), keys.1, None),
            functions: AllowanceView::new(functions.0, functions.1, None),
            stored_bytes: AllowanceView::new(bytes.0, bytes.1, None),
            concurrency: RateView { limit: Some(standing.concurrency) },
        }
    }
}

/// One thing that was done.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AuditEntry)]
pub(in super::super) struct AuditEntryView {
    id: String,
    /// The same.
    #[serde(rename = "_id")]
    same_id: String,
    /// `session`, `apiKey` or `operator`.
    actor: &'static str,
    /// The key, if it was one.
    #[schema(value_type = Option<String>, format = Uuid)]
    api_key_id: Option<ApiKeyId>,
    /// A stable code such as `apikey.created`.
    action: String,
    /// The id of what it was done to.
    subject: Option<String>,
    detail: String,
    #[schema(value_type = String, format = DateTime)]
    timestamp: Timestamp,
}

impl From<AuditEntry> for AuditEntryView {
    fn from(entry: AuditEntry) -> Self {
        let (actor, api_key_id) = match entry.actor {
            Actor::Session => ("session", None),
            Actor::ApiKey(id) => ("apiKey", Some(id)),
            Actor::Operator => ("operator", None),
        };
        let id = entry.id.to_string();
        Self {
            same_id: id.clone(),
            id,
            actor,
            api_key_id,
            action: entry.action,
            subject: entry.subject,
            detail: entry.detail,
            timestamp: entry.at,
        }
    }
}

/// The audit trail, newest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Audit)]
pub(in super::super) struct AuditView {
    entries: Vec<AuditEntryView>,
    /// For `?cursor=`; `null` at the end.
    next_cursor: Option<String>,
}

impl From<Page<AuditEntry>> for AuditView {
    fn from(page: Page<AuditEntry>) -> Self {
        let entries = page.items.into_iter().map(AuditEntryView::from).collect();
        Self { entries, next_cursor: page.next }
    }
}
