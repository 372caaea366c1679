//! Accounts, API keys and revoked session tokens.

use async_trait::async_trait;
use cloudserve_protocol::ids::{ApiKeyId, UserId, UserName};
use serde::{Deserialize, Serialize};

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
    /// When it was registered.
    pub created_at: Timestamp,
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
    /// From when on it is refused.
    pub expires_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Storage of accounts.
#[async_trait]
pub trait AccountStore: Send + Sync {
    /// Adds an account. `Taken` names `userName` or `email`.
    async fn create_user(&self, user: User) -> Result<(), StoreError>;

    /// The account with this identity.
    async fn user(&self, id: UserId) -> Result<Option<User>, StoreError>;

    /// The account with this name.
    async fn user_by_name(&self, name: &UserName) -> Result<Option<User>, StoreError>;

    /// The account with this lower-case address.
    async fn user_by_email(&self, email: &str) -> Result<Option<User>, StoreError>;

    /// Adds a key.
    async fn create_api_key(&self, key: ApiKey) -> Result<(), StoreError>;

    /// The account's keys, newest first.
    async fn api_keys(&self, user_id: UserId) -> Result<Vec<ApiKey>, StoreError>;

    /// The key with this hash, expired or not.
    async fn api_key_by_hash(&self, key_hash: &str) -> Result<Option<ApiKey>, StoreError>;

    /// Removes a key of this account. `false`: it has no such key.
    async fn delete_api_key(&self, user_id: UserId, id: ApiKeyId) -> Result<bool, StoreError>;

    /// Refuses a session token from now on. `expires_at` is the token's own end; entries past it
    /// may be forgotten.
    async fn revoke_token(&self, token_id: &str, expires_at: Timestamp) -> Result<(), StoreError>;

    /// Whether a session token was revoked.
    async fn is_token_revoked(&self, token_id: &str) -> Result<bool, StoreError>;
}
