//! Accounts, API keys and revoked tokens. The audit trail is in [`super::audit`].

use async_trait::async_trait;
use cloudserve_protocol::ids::{ApiKeyId, FunctionId, UserId, UserName};
use futures::TryStreamExt;
use mongodb::bson::{DateTime, Document, RawDocumentBuf, Uuid, doc};
use serde::{Deserialize, Serialize};

use super::audit;
use super::database::{Database, Failed, Transaction, in_transaction, inserting};
use super::schema::{API_KEYS, REVOKED_TOKENS, USERS};
use super::values::{Key, date, document, field, is_duplicate, parse, time};
use crate::account::{ApiKey, AuditEntry, Quota, Scope, User};
use crate::cursor::Cursor;
use crate::function::Page;
use crate::{AccountStore, Change, StoreError, Timestamp};

/// [`AccountStore`] over MongoDB.
pub(crate) struct MongoAccounts {
    database: Database,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UserDocument {
    #[serde(rename = "_id")]
    id: Uuid,
    full_name: String,
    user_name: UserName,
    email: String,
    password: String,
    #[serde(default)]
    quota: Quota,
    created_at: DateTime,
}

impl From<User> for UserDocument {
    fn from(user: User) -> Self {
        Self {
            id: user.id.key(),
            full_name: user.full_name,
            user_name: user.user_name,
            email: user.email,
            password: user.password_hash,
            quota: user.quota,
            created_at: date(user.created_at),
        }
    }
}

impl From<UserDocument> for User {
    fn from(user: UserDocument) -> Self {
        Self {
            id: UserId::of(user.id),
            full_name: user.full_name,
            user_name: user.user_name,
            email: user.email,
            password_hash: user.password,
            quota: user.quota,
            created_at: time(user.created_at),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ApiKeyDocument {
    #[serde(rename = "_id")]
    id: Uuid,
    user: Uuid,
    name: String,
    key_hash: String,
    prefix: String,
    scopes: Vec<Scope>,
    #[serde(default)]
    functions: Vec<Uuid>,
    expires_at: Option<DateTime>,
    last_used_at: Option<DateTime>,
    created_at: DateTime,
}

impl From<ApiKey> for ApiKeyDocument {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id.key(),
            user: key.user_id.key(),
            name: key.name,
            key_hash: key.key_hash,
            prefix: key.prefix,
            scopes: key.scopes,
            functions: key.functions.iter().map(Key::key).collect(),
            expires_at: key.expires_at.map(date),
            last_used_at: key.last_used_at.map(date),
            created_at: date(key.created_at),
        }
    }
}

impl From<ApiKeyDocument> for ApiKey {
    fn from(key: ApiKeyDocument) -> Self {
        Self {
            id: ApiKeyId::of(key.id),
            user_id: UserId::of(key.user),
            name: key.name,
            key_hash: key.key_hash,
            prefix: key.prefix,
            scopes: key.scopes,
            functions: key.functions.into_iter().map(FunctionId::of).collect(),
            expires_at: key.expires_at.map(time),
            last_used_at: key.last_used_at.map(time),
            created_at: time(key.created_at),
        }
    }
}

pub(super) fn read_user(found: &RawDocumentBuf) -> Result<User, StoreError> {
    parse::<UserDocument>("user", found).map(User::from)
}

pub(super) fn read_api_key(found: &RawDocumentBuf) -> Result<ApiKey, StoreError> {
    parse::<ApiKeyDocument>("API key", found).map(ApiKey::from)
}

impl MongoAccounts {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }

    async fn one_user(&self, filter: Document) -> Result<Option<User>, StoreError> {
        let users = self.database.collection(USERS);
        let found = self.database.bounded(users.find_one(filter)).await?;
        found.as_ref().map(read_user).transpose()
    }

    async fn insert_user(&self, user: &RawDocumentBuf, tx: &mut Transaction) -> Result<(), Failed> {
        let users = self.database.collection(USERS);
        users.insert_one(user).session(tx.session()).await.map(drop).map_err(inserting)
    }

    async fn try_create_key(
        &self,
        user_id: UserId,
        row: &RawDocumentBuf,
        max_keys: Option<usize>,
        tx: &mut Transaction,
    ) -> Result<(), Failed> {
        // Written for the sake of another key of the account that is made meanwhile: both touch one
        // document, so one of them begins again and counts the other.
        let users = self.database.collection(USERS);
        let touch =
            users.update_one(doc! { "_id": user_id.key() }, doc! { "$inc": { "keyed": 1_i64 } });
        if touch.session(tx.session()).await?.matched_count == 0 {
            return Err(StoreError::Missing.into());
        }
        let keys = self.database.collection(API_KEYS);
        if let Some(max) = max_keys {
            let count = keys.count_documents(doc! { "user": user_id.key() });
            let count = count.session(tx.session()).await?;
            if usize::try_from(count).unwrap_or(usize::MAX) >= max {
                return Err(StoreError::Full { what: "API keys", max }.into());
            }
        }
        keys.insert_one(row).session(tx.session()).await.map(drop).map_err(inserting)
    }

    async fn try_delete_key(
        &self,
        user_id: UserId,
        id: ApiKeyId,
        tx: &mut Transaction,
    ) -> Result<bool, Failed> {
        let keys = self.database.collection(API_KEYS);
        let filter = doc! { "_id": id.key(), "user": user_id.key() };
        let removed = keys.delete_one(filter).session(tx.session()).await?.deleted_count;
        if removed == 1 {
            tx.announce(Change::ApiKey(id));
        }
        Ok(removed == 1)
    }

    async fn try_set_quota(
        &self,
        user_id: UserId,
        quota: Quota,
        tx: &mut Transaction,
    ) -> Result<bool, Failed> {
        let users = self.database.collection(USERS);
        let set = doc! { "$set": { "quota": field(&quota)? } };
        let update = users.update_one(doc! { "_id": user_id.key() }, set);
        let changed = update.session(tx.session()).await?.matched_count == 1;
        if changed {
            tx.announce(Change::User(user_id));
        }
        Ok(changed)
    }

    async fn try_revoke(
        &self,
        token_id: &str,
        expires_at: Timestamp,
        tx: &mut Transaction,
    ) -> Result<(), Failed> {
        let latest = doc! { "$max": { "expiresAt": date(expires_at) } };
        let tokens = self.database.collection(REVOKED_TOKENS);
        let upsert = tokens.update_one(doc! { "_id": token_id }, latest).upsert(true);
        match upsert.session(tx.session()).await {
            // Revoked twice at the same time.
            Err(error) if is_duplicate(&error) => Err(Failed::Again),
            Err(error) => Err(error.into()),
            Ok(_) => {
                tx.announce(Change::Token);
                Ok(())
            }
        }
    }
}

#[async_trait]
impl AccountStore for MongoAccounts {
    async fn create_user(&self, user: User) -> Result<(), StoreError> {
        let (name, email) = (user.user_name.clone(), user.email.clone());
        let row = document(&UserDocument::from(user))?;
        match in_transaction!(self.database, |tx| self.insert_user(&row, &mut tx)) {
            Err(StoreError::Conflict) => Err(if self.user_by_name(&name).await?.is_some() {
                StoreError::Taken { what: "userName" }
            } else if self.user_by_email(&email).await?.is_some() {
                StoreError::Taken { what: "email" }
            } else {
                StoreError::Conflict
            }),
            added => added,
        }
    }

    async fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        self.one_user(doc! { "_id": id.key() }).await
    }

    async fn user_by_name(&self, name: &UserName) -> Result<Option<User>, StoreError> {
        self.one_user(doc! { "userName": name.as_str() }).await
    }

    async fn user_by_email(&self, email: &str) -> Result<Option<User>, StoreError> {
        self.one_user(doc! { "email": email }).await
    }

    async fn create_api_key_within(
        &self,
        key: ApiKey,
        max_keys: Option<usize>,
    ) -> Result<(), StoreError> {
        let user_id = key.user_id;
        let row = document(&ApiKeyDocument::from(key))?;
        in_transaction!(self.database, |tx| self.try_create_key(user_id, &row, max_keys, &mut tx))
    }

    async fn api_keys(&self, user_id: UserId) -> Result<Vec<ApiKey>, StoreError> {
        let keys = self.database.collection(API_KEYS);
        let read = async {
            let newest_first = doc! { "createdAt": -1, "_id": -1 };
            keys.find(doc! { "user": user_id.key() })
                .sort(newest_first)
                .await?
                .map_err(Failed::Driver)
                .and_then(async |row| Ok(read_api_key(&row)?))
                .try_collect()
                .await
        };
        self.database.bounded(read).await
    }

    async fn api_key_by_hash(&self, key_hash: &str) -> Result<Option<ApiKey>, StoreError> {
        let keys = self.database.collection(API_KEYS);
        let found = self.database.bounded(keys.find_one(doc! { "keyHash": key_hash })).await?;
        found.as_ref().map(read_api_key).transpose()
    }

    async fn touch_api_keys(&self, used: Vec<(ApiKeyId, Timestamp)>) -> Result<(), StoreError> {
        if used.is_empty() {
            return Ok(());
        }
        let updates: Vec<_> = used
            .into_iter()
            .map(|(id, at)| {
                let latest = doc! { "$max": { "lastUsedAt": date(at) } };
                doc! { "q": { "_id": id.key() }, "u": latest }
            })
            .collect();
        let command = doc! { "update": API_KEYS, "updates": updates, "ordered": false };
        self.database.bounded(self.database.handle().run_command(command)).await.map(drop)
    }

    async fn delete_api_key(&self, user_id: UserId, id: ApiKeyId) -> Result<bool, StoreError> {
        in_transaction!(self.database, |tx| self.try_delete_key(user_id, id, &mut tx))
    }

    async fn set_quota(&self, user_id: UserId, quota: Quota) -> Result<bool, StoreError> {
        in_transaction!(self.database, |tx| self.try_set_quota(user_id, quota, &mut tx))
    }

    async fn record_audit_within(
        &self,
        entry: AuditEntry,
        max_entries: u32,
    ) -> Result<(), StoreError> {
        if self.user(entry.user_id).await?.is_none() {
            return Err(StoreError::Missing);
        }
        audit::record(&self.database, entry, max_entries).await
    }

    async fn audit(
        &self,
        user_id: UserId,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<Page<AuditEntry>, StoreError> {
        audit::read(&self.database, user_id, limit, Cursor::parse(cursor)?).await
    }

    async fn revoke_token(&self, token_id: &str, expires_at: Timestamp) -> Result<(), StoreError> {
        in_transaction!(self.database, |tx| self.try_revoke(token_id, expires_at, &mut tx))
    }

    async fn is_token_revoked(&self, token_id: &str) -> Result<bool, StoreError> {
        let tokens = self.database.collection(REVOKED_TOKENS);
        let found = self.database.bounded(tokens.find_one(doc! { "_id": token_id })).await?;
        Ok(found.is_some())
    }
}
