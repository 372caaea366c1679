//! A key that is revoked while somebody looks it up.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cloudserve_gateway::GatewayOptions;
use cloudserve_protocol::ids::{ApiKeyId, UserId, UserName};
use cloudserve_store::account::{AccountStore, ApiKey, AuditEntry, Quota, User};
use cloudserve_store::function::{Page, Visibility};
use cloudserve_store::{StoreError, Stores, Timestamp};
use http::Request;
use tokio::sync::Notify;

use crate::fixture::World;

#[tokio::test]
async fn a_key_that_was_revoked_while_it_was_looked_up_is_refused() {
    let (has_read, goes_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = |stores: Stores| Stores {
        accounts: Arc::new(Slow {
            inner: stores.accounts.clone(),
            has_read: has_read.clone(),
            goes_on: goes_on.clone(),
        }),
        ..stores
    };
    let w = World::with(GatewayOptions::default(), slow).await;
    w.deploy(&w.alice, "version", Visibility::Private).await;
    let call = || {
        let request = Request::get("/run/alice/version").header("x-api-key", &w.alice.key);
        w.send(request.body(axum::body::Body::empty()).unwrap())
    };
    let revoke = async {
        has_read.notified().await;
        for key in w.stores.accounts.api_keys(w.alice.id).await.unwrap() {
            assert!(w.stores.accounts.delete_api_key(w.alice.id, key.id).await.unwrap());
        }
        goes_on.notify_one();
    };
    // It began before.
    let (answer, ()) = tokio::join!(call(), revoke);
    assert_eq!(answer.status, 200);
    let refused = async {
        while call().await.status != 401 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(2), refused).await.expect("it is refused");
}

/// Says when it has read an account, and then waits.
struct Slow {
    inner: Arc<dyn AccountStore>,
    has_read: Arc<Notify>,
    goes_on: Arc<Notify>,
}

#[async_trait]
impl AccountStore for Slow {
    async fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        let user = self.inner.user(id).await;
        self.has_read.notify_one();
        self.goes_on.notified().await;
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

    async fn create_api_key(&self, key: ApiKey) -> Result<(), StoreError> {
        self.inner.create_api_key(key).await
    }

    async fn api_keys(&self, user_id: UserId) -> Result<Vec<ApiKey>, StoreError> {
        self.inner.api_keys(user_id).await
    }

    async fn api_key_by_hash(&self, key_hash: &str) -> Result<Option<ApiKey>, StoreError> {
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

    async fn record_audit(&self, entry: AuditEntry) -> Result<(), StoreError> {
        self.inner.record_audit(entry).await
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
