//! Accounts, API keys and revoked tokens in `meta.db`. The audit trail is in [`super::audit`].

use std::sync::Arc;

use async_trait::async_trait;
use cloudserve_protocol::ids::{ApiKeyId, UserId, UserName};
use rusqlite::{Connection, Params, Row, params};

use super::audit;
use super::columns::{json, optional_time, parsed, reading, storage_failed, time, to_json};
use super::database::Database;
use super::statements::{all, execute, insert_new, one};
use crate::account::{ApiKey, AuditEntry, Quota, User};
use crate::cursor::Cursor;
use crate::function::Page;
use crate::{AccountStore, Change, StoreError, Timestamp};

/// [`AccountStore`] over SQLite.
pub(crate) struct SqliteAccounts {
    meta: Arc<Database>,
}

impl SqliteAccounts {
    pub(crate) fn new(meta: Arc<Database>) -> Self {
        Self { meta }
    }

    async fn one_user<P>(&self, sql: &'static str, key: P) -> Result<Option<User>, StoreError>
    where
        P: Params + Send + 'static,
    {
        self.meta.read(move |c| one(c, sql, key, "user", read_user)).await
    }
}

macro_rules! user_where {
    ($condition:literal) => {
        concat!(
            "SELECT id, full_name, user_name, email, password_hash, quota, created_at
             FROM users WHERE ",
            $condition
        )
    };
}

pub(super) use user_where;

pub(super) fn read_user(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User {
        id: UserId::from_bytes(row.get(0)?),
        full_name: row.get(1)?,
        user_name: parsed(row, 2)?,
        email: row.get(3)?,
        password_hash: row.get(4)?,
        quota: json(row, 5)?,
        created_at: time(row, 6)?,
    })
}

macro_rules! api_key_where {
    ($condition:literal) => {
        concat!(
            "SELECT id, user_id, name, key_hash, prefix, scopes, functions, expires_at,
                    last_used_at, created_at
             FROM api_keys WHERE ",
            $condition
        )
    };
}

pub(super) use api_key_where;

pub(super) fn read_api_key(row: &Row<'_>) -> rusqlite::Result<ApiKey> {
    Ok(ApiKey {
        id: ApiKeyId::from_bytes(row.get(0)?),
        user_id: UserId::from_bytes(row.get(1)?),
        name: row.get(2)?,
        key_hash: row.get(3)?,
        prefix: row.get(4)?,
        scopes: json(row, 5)?,
        functions: json(row, 6)?,
        expires_at: optional_time(row, 7)?,
        last_used_at: optional_time(row, 8)?,
        created_at: time(row, 9)?,
    })
}

/// Adds an account, unless its id, name or address is there; says whether it did.
pub(super) fn insert_user(c: &Connection, user: &User) -> Result<bool, StoreError> {
    let sql = "INSERT INTO users
                   (id, full_name, user_name, email, password_hash, quota, created_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING";
    let values = params![
        user.id.as_bytes(),
        user.full_name,
        user.user_name.as_str(),
        user.email,
        user.password_hash,
        to_json(&user.quota)?,
        user.created_at.0,
    ];
    insert_new(c, sql, values)
}

fn count_api_keys(c: &Connection, user_id: UserId) -> Result<u32, StoreError> {
    c.prepare_cached("SELECT count(*) FROM api_keys WHERE user_id = ?1")
        .and_then(|mut query| query.query_row([user_id.as_bytes()], |row| row.get(0)))
        .map_err(reading("API key"))
}

/// Adds a key, unless its id or hash is there; says whether it did.
pub(super) fn insert_api_key(c: &Connection, key: &ApiKey) -> Result<bool, StoreError> {
    let sql = "INSERT INTO api_keys
                   (id, user_id, name, key_hash, prefix, scopes, functions, expires_at,
                    last_used_at, created_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING";
    let values = params![
        key.id.as_bytes(),
        key.user_id.as_bytes(),
        key.name,
        key.key_hash,
        key.prefix,
        to_json(&key.scopes)?,
        to_json(&key.functions)?,
        key.expires_at.map(|t| t.0),
        key.last_used_at.map(|t| t.0),
        key.created_at.0,
    ];
    insert_new(c, sql, values)
}

#[async_trait]
impl AccountStore for SqliteAccounts {
    async fn create_user(&self, user: User) -> Result<(), StoreError> {
        self.meta
            .write(move |c, _| {
                if insert_user(c, &user)? {
                    return Ok(());
                }
                let (name_taken, email_taken): (bool, bool) = c
                    .query_row(
                        "SELECT EXISTS (SELECT 1 FROM users WHERE user_name = ?1),
                                EXISTS (SELECT 1 FROM users WHERE email = ?2)",
                        params![user.user_name.as_str(), user.email],
                        |row| Ok((row.get(0)?, row.get(1)?)),
                    )
                    .map_err(storage_failed)?;
                Err(match (name_taken, email_taken) {
                    (true, _) => StoreError::Taken { what: "userName" },
                    (false, true) => StoreError::Taken { what: "email" },
                    (false, false) => StoreError::Conflict,
                })
            })
            .await
    }

    async fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        self.one_user(user_where!("id = ?1"), [*id.as_bytes()]).await
    }

    async fn user_by_name(&self, name: &UserName) -> Result<Option<User>, StoreError> {
        self.one_user(user_where!("user_name = ?1"), [name.as_str().to_owned()]).await
    }

    async fn user_by_email(&self, email: &str) -> Result<Option<User>, StoreError> {
        self.one_user(user_where!("email = ?1"), [email.to_owned()]).await
    }

    async fn create_api_key_within(
        &self,
        key: ApiKey,
        max_keys: Option<usize>,
    ) -> Result<(), StoreError> {
        self.meta
            .write(move |c, _| {
                if let Some(max) = max_keys
                    && count_api_keys(c, key.user_id)? as usize >= max
                {
                    return Err(StoreError::Full { what: "API keys", max });
                }
                if insert_api_key(c, &key)? { Ok(()) } else { Err(StoreError::Conflict) }
            })
            .await
    }

    async fn api_keys(&self, user_id: UserId) -> Result<Vec<ApiKey>, StoreError> {
        self.meta
            .read(move |c| {
                let sql = api_key_where!("user_id = ?1 ORDER BY created_at DESC, id DESC");
                all(c, sql, [user_id.as_bytes()], "API key", read_api_key)
            })
            .await
    }

    async fn api_key_by_hash(&self, key_hash: &str) -> Result<Option<ApiKey>, StoreError> {
        let key_hash = key_hash.to_owned();
        self.meta
            .read(move |c| {
                one(c, api_key_where!("key_hash = ?1"), [key_hash], "API key", read_api_key)
            })
            .await
    }

    async fn touch_api_keys(&self, used: Vec<(ApiKeyId, Timestamp)>) -> Result<(), StoreError> {
        self.meta
            .write(move |c, _| {
                let mut update = c
                    .prepare_cached(
                        "UPDATE api_keys SET last_used_at = max(coalesce(last_used_at, ?2), ?2)
                         WHERE id = ?1",
                    )
                    .map_err(storage_failed)?;
                for (id, at) in used {
                    update.execute(params![id.as_bytes(), at.0]).map_err(storage_failed)?;
                }
                Ok(())
            })
            .await
    }

    async fn delete_api_key(&self, user_id: UserId, id: ApiKeyId) -> Result<bool, StoreError> {
        self.meta
            .write(move |c, changes| {
                let removed = execute(
                    c,
                    "DELETE FROM api_keys WHERE id = ?1 AND user_id = ?2",
                    [id.as_bytes(), user_id.as_bytes()],
                )?;
                if removed == 1 {
                    changes.push(Change::ApiKey(id));
                }
                Ok(removed == 1)
            })
            .await
    }

    async fn set_quota(&self, user_id: UserId, quota: Quota) -> Result<bool, StoreError> {
        self.meta
            .write(move |c, changes| {
                let quota = to_json(&quota)?;
                let changed = execute(
                    c,
                    "UPDATE users SET quota = ?2 WHERE id = ?1",
                    params![user_id.as_bytes(), quota],
                )?;
                if changed == 1 {
                    changes.push(Change::User(user_id));
                }
                Ok(changed == 1)
            })
            .await
    }

    async fn record_audit_within(
        &self,
        entry: AuditEntry,
        max_entries: u32,
    ) -> Result<(), StoreError> {
        self.meta.write(move |c, _| audit::record(c, &entry, max_entries)).await
    }

    async fn audit(
        &self,
        user_id: UserId,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<Page<AuditEntry>, StoreError> {
        let from = Cursor::parse(cursor)?;
        self.meta.read(move |c| audit::read(c, user_id, limit, from)).await
    }

    async fn revoke_token(&self, token_id: &str, expires_at: Timestamp) -> Result<(), StoreError> {
        let token_id = token_id.to_owned();
        self.meta
            .write(move |c, changes| {
                execute(
                    c,
                    "DELETE FROM revoked_tokens WHERE expires_at < ?1",
                    [Timestamp::now().0],
                )?;
                execute(
                    c,
                    "INSERT INTO revoked_tokens (token_id, expires_at) VALUES (?1, ?2)
                     ON CONFLICT (token_id)
                     DO UPDATE SET expires_at = max(expires_at, excluded.expires_at)",
                    params![token_id, expires_at.0],
                )?;
                changes.push(Change::Token);
                Ok(())
            })
            .await
    }

    async fn is_token_revoked(&self, token_id: &str) -> Result<bool, StoreError> {
        let token_id = token_id.to_owned();
        self.meta
            .read(move |c| {
                c.prepare_cached("SELECT 1 FROM revoked_tokens WHERE token_id = ?1")
                    .and_then(|mut query| query.exists([token_id]))
                    .map_err(storage_failed)
            })
            .await
    }
}
