//! An account store that counts what it is asked, and can be held up or out of reach.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use async_trait::async_trait;
use cloudserve_protocol::ids::{ApiKeyId, UserId, UserName};
use cloudserve_store::account::{AccountStore, ApiKey, AuditEntry, Quota, User};
use cloudserve_store::function::Page;
use cloudserve_store::{StoreError, Stores, Timestamp};
use tokio::sync::Notify;

/// What is known of it.
#[derive(Clone, Default)]
pub(crate) struct Watch {
    lookups: Arc<AtomicUsize>,
    is_down: Arc<AtomicBool>,
    pause: Option<Arc<Pause>>,
}

/// Accounts are read, and then waited with.
#[derive(Default)]
pub(crate) struct Pause {
    pub(crate) has_read: Notify,
    pub(crate) goes_on: Notify,
}

impl Watch {
    /// One whose accounts wait.
    pub(crate) fn with_pause() -> (Self, Arc<Pause>) {
        let pause = Arc::<Pause>::default();
        (Self { pause: Some(pause.clone()), ..Self::default() }, pause)
    }

    /// The same stores, watched.
    pub(crate) fn over(&self, stores: Stores) -> Stores {
        let inner = stores.accounts.clone();
        Stores { accounts: Arc::new(Watched { inner, watch: self.clone() }), ..stores }
    }

    /// From now on it knows of no key whether it exists.
    pub(crate) fn break_down(&self) {
        self.is_down.store(true, Relaxed);
    }

    /// How many keys it was asked for.
    pub(crate) fn lookups(&self) -> usize {
        self.lookups.load(Relaxed)
    }
}

struct Watched {
    inner: Arc<dyn AccountStore>,
    watch: Watch,
}

#[async_trait]
impl AccountStore for Watched {
    async fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        let user = self.inner.user(id).await;
        if let Some(pause) = &self.watch.pause {
            pause.has_read.notify_one();
            pause.goes_on.notified().await;
        }
        user
    }

    async fn create_user(&self, user: User) -> Result<(), StoreError> {
        self.inner.create_user(user).await
    }

    async fn user_by_name(&self, name: &UserName) -> Result<Option<User>, StoreError> {
        self.inner.user_by_name(name).await
    }

    async fn user_by_email(&self, email: &str) -> Result<Option<User>, StoreError> {
        self.inner.user_by_email(email).await
    }

    async fn create_api_key_within(
        &self,
        key: ApiKey,
        max_keys: Option<usize>,
    ) -> Result<(), StoreError> {
        self.inner.create_api_key_within(key, max_keys).await
    }

    async fn api_keys(&self, user_id: UserId) -> Result<Vec<ApiKey>, StoreError> {
        self.inner.api_keys(user_id).await
    }

    async fn api_key_by_hash(&self, key_hash: &str) -> Result<Option<ApiKey>, StoreError> {
        self.watch.lookups.fetch_add(1, Relaxed);
        if self.watch.is_down.load(Relaxed) {
            return Err(StoreError::unavailable("out of reach"));
        }
        self.inner.api_key_by_hash(key_hash).await
    }

    async fn touch_api_keys(&self, used: Vec<(ApiKeyId, Timestamp)>) -> Result<(), StoreError> {
        self.inner.touch_api_keys(used).await
    }

    async fn delete_api_key(&self, user_id: UserId, id: ApiKeyId) -> Result<bool, StoreError> {
        self.inner.delete_api_key(user_id, id).await
    }

    async fn set_quota(&self, user_id: UserId, quota: Quota) -> Result<bool, StoreError> {
        self.inner.set_quota(user_id, quota).await
    }

    async fn record_audit_within(
        &self,
        entry: AuditEntry,
        max_entries: u32,
    ) -> Result<(), StoreError> {
        self.inner.record_audit_within(entry, max_entries).await
    }

    async fn audit(
        &self,
        user_id: UserId,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<Page<AuditEntry>, StoreError> {
        self.inner.audit(user_id, limit, cursor).await
    }

    async fn revoke_token(&self, token_id: &str, expires_at: Timestamp) -> Result<(), StoreError> {
        self.inner.revoke_token(token_id, expires_at).await
    }

    async fn is_token_revoked(&self, token_id: &str) -> Result<bool, StoreError> {
        self.inner.is_token_revoked(token_id).await
    }
}
