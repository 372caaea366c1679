//! Accounts, API keys, revoked session tokens, quotas and the audit trail.

use async_trait::async_trait;
use cloudserve_protocol::ids::{ApiKeyId, AuditId, FunctionId, UserId, UserName};
use serde::{Deserialize, Serialize};

use crate::function::Page;
use crate::time::DAY_MS;
use crate::{StoreError, Timestamp};

/// An account.
#[derive(Clone)]
pub struct User {
    /// Identity.
    pub id: UserId,
    /// As people write it.
    pub full_name: String,
    /// Unique, lower case.
    pub user_name: UserName,
    /// Unique, lower case.
    pub email: String,
    /// Argon2id in PHC form. Never the password.
    pub password_hash: String,
    /// What it may use. A new account has no bounds of its own.
    pub quota: Quota,
    /// When it was registered.
    pub created_at: Timestamp,
}

/// What an account may use. `None`: no bound but the installation's. Stored as it serialises, so a
/// field is never renamed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Quota {
    /// Calls of all its functions in one day (UTC).
    pub calls_per_day: Option<u64>,
    /// Memory times wall-clock time of all its calls in one month (UTC). Finite and not negative.
    pub gb_seconds_per_month: Option<f64>,
    /// Calls per second of each of its credentials; 0 sets no bound.
    pub rate_per_second: Option<u32>,
}

/// What a key may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Call the owner's functions.
    Invoke,
    /// Deploy, change and delete functions.
    Deploy,
    /// Read functions, logs and usage.
    Read,
}

impl Scope {
    /// All of them: what a key has unless it was made with fewer.
    pub const ALL: [Self; 3] = [Self::Invoke, Self::Deploy, Self::Read];
}

/// An API key. The key itself is known only to its holder.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// Identity.
    pub id: ApiKeyId,
    /// Whose it is.
    pub user_id: UserId,
    /// What the owner calls it.
    pub name: String,
    /// SHA-256 (hex) of the key. Keys are random and long, so no slow hash is needed.
    pub key_hash: String,
    /// First characters of the key, to tell keys apart in lists.
    pub prefix: String,
    /// What it may be used for. Not empty.
    pub scopes: Vec<Scope>,
    /// The functions it may be used for; empty means all, those to come included.
    pub functions: Vec<FunctionId>,
    /// From when on it is refused.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to about a minute; `None` if never.
    pub last_used_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Who did something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "id", rename_all = "camelCase")]
pub enum Actor {
    /// The owner, logged in.
    Session,
    /// One of the account's keys.
    ApiKey(ApiKeyId),
    /// The operator of the installation.
    Operator,
}

/// One thing that was done to an account or what belongs to it.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEntry {
    /// Identity.
    pub id: AuditId,
    /// Whose trail it is in.
    pub user_id: UserId,
    /// Who did it.
    pub actor: Actor,
    /// What was done: a stable code such as `apikey.created`.
    pub action: String,
    /// The id of what it was done to, if that has one.
    pub subject: Option<String>,
    /// What else is worth knowing, for people. No secrets.
    pub detail: String,
    /// When.
    pub at: Timestamp,
}

/// How long entries of the audit trail are kept, counted from the newest of the account.
pub const AUDIT_KEPT_DAYS: i64 = 400;

/// How many entries of an account's trail are kept, the newest: fifty for each of these days.
pub const AUDIT_KEPT_ENTRIES: u32 = 20_000;

impl AuditEntry {
    /// What of its account is older goes when it is added.
    pub(crate) fn oldest_kept(&self) -> Timestamp {
        Timestamp(self.at.0.saturating_sub(AUDIT_KEPT_DAYS * DAY_MS))
    }
}

/// Storage of accounts.
#[async_trait]
pub trait AccountStore: Send + Sync {
    /// Adds an account. `Taken` names `userName` or `email`. Announces nothing: no cache knows of an
    /// account before it is there.
    async fn create_user(&self, user: User) -> Result<(), StoreError>;

    /// The account with this identity.
    async fn user(&self, id: UserId) -> Result<Option<User>, StoreError>;

    /// The account with this name.
    async fn user_by_name(&self, name: &UserName) -> Result<Option<User>, StoreError>;

    /// The account with this lower-case address.
    async fn user_by_email(&self, email: &str) -> Result<Option<User>, StoreError>;

    /// [`Self::create_api_key_within`], however many the account has.
    async fn create_api_key(&self, key: ApiKey) -> Result<(), StoreError> {
        self.create_api_key_within(key, None).await
    }

    /// Adds a key. `Full`: the account has `max_keys`.
    async fn create_api_key_within(
        &self,
        key: ApiKey,
        max_keys: Option<usize>,
    ) -> Result<(), StoreError>;

    /// The account's keys, newest first.
    async fn api_keys(&self, user_id: UserId) -> Result<Vec<ApiKey>, StoreError>;

    /// The key with this hash, expired or not.
    async fn api_key_by_hash(&self, key_hash: &str) -> Result<Option<ApiKey>, StoreError>;

    /// Notes when keys were used; for each the latest time counts. Keys that are gone are skipped.
    /// Announces nothing: no cache depends on it.
    async fn touch_api_keys(&self, used: Vec<(ApiKeyId, Timestamp)>) -> Result<(), StoreError>;

    /// Removes a key of this account. `false`: it has no such key.
    async fn delete_api_key(&self, user_id: UserId, id: ApiKeyId) -> Result<bool, StoreError>;

    /// Sets what an account may use, all of it. `false`: there is no such account.
    async fn set_quota(&self, user_id: UserId, quota: Quota) -> Result<bool, StoreError>;

    /// [`Self::record_audit_within`] what is kept of a trail.
    async fn record_audit(&self, entry: AuditEntry) -> Result<(), StoreError> {
        self.record_audit_within(entry, AUDIT_KEPT_ENTRIES).await
    }

    /// Adds an entry to an account's audit trail and removes those of the account that are older
    /// than [`AUDIT_KEPT_DAYS`], and all but the newest `max_entries`, which are one at least.
    async fn record_audit_within(
        &self,
        entry: AuditEntry,
        max_entries: u32,
    ) -> Result<(), StoreError>;

    /// An account's audit trail, newest first. `BadCursor`: no page of this list gave it.
    async fn audit(
        &self,
        user_id: UserId,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<Page<AuditEntry>, StoreError>;

    /// Refuses a session token from now on. `expires_at` is the token's own end; entries past it
    /// may be forgotten.
    async fn revoke_token(&self, token_id: &str, expires_at: Timestamp) -> Result<(), StoreError>;

    /// Whether a session token was revoked.
    async fn is_token_revoked(&self, token_id: &str) -> Result<bool, StoreError>;

    /// Asks for the least there is. An error: the storage does not answer.
    async fn answers(&self) -> Result<(), StoreError> {
        self.is_token_revoked("").await.map(drop)
    }
}
