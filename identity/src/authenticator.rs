//! Where a credential becomes a principal. Answers from a cache whose entries are dropped when
//! the store reports a change and, in any case, after [`Authenticator::MAX_STALENESS`].

use std::sync::Arc;
use std::time::Duration;

use cloudserve_protocol::ids::{ApiKeyId, UserId, UserName};
use cloudserve_store::account::Scope;
use cloudserve_store::{AccountStore, Change, ChangeFeed, StoreError, Timestamp};
use moka::sync::Cache;
use sha2::{Digest, Sha256};
use tokio::sync::broadcast::error::RecvError;

use crate::api_key::ApiKeySecret;
use crate::credential::{Credential, Presented};
use crate::session::SessionTokens;

/// Who is asking.
#[derive(Debug, Clone, PartialEq)]
pub struct Principal {
    /// The account.
    pub user_id: UserId,
    /// Its name.
    pub user_name: UserName,
    /// What it showed.
    pub via: Via,
}

/// What a principal showed to be believed.
#[derive(Debug, Clone, PartialEq)]
pub enum Via {
    /// A session token.
    Session {
        /// Its id, to revoke it.
        token_id: String,
        /// When it ends.
        expires_at: Timestamp,
    },
    /// An API key.
    ApiKey {
        /// Which.
        id: ApiKeyId,
        /// What it may be used for.
        scopes: Vec<Scope>,
        /// From when on it is refused.
        expires_at: Option<Timestamp>,
    },
}

impl Principal {
    /// Whether it may do what this scope names. A session may do everything.
    #[must_use]
    pub fn may(&self, scope: Scope) -> bool {
        match &self.via {
            Via::Session { .. } => true,
            Via::ApiKey { scopes, .. } => scopes.contains(&scope),
        }
    }

    fn has_ended(&self) -> bool {
        let end = match &self.via {
            Via::Session { expires_at, .. } => Some(*expires_at),
            Via::ApiKey { expires_at, .. } => *expires_at,
        };
        end.is_some_and(|end| end <= Timestamp::now())
    }
}

/// Why nobody was recognised.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// Malformed, unknown, ended or revoked; which of these is not told.
    #[error("the credential is not valid")]
    Invalid,
    /// It could not be checked.
    #[error("credentials cannot be checked now")]
    Unavailable(#[source] StoreError),
}

type Fingerprint = [u8; 32];

/// Checks credentials.
#[derive(Clone)]
pub struct Authenticator {
    accounts: Arc<dyn AccountStore>,
    tokens: SessionTokens,
    known: Cache<Fingerprint, Arc<Principal>>,
}

impl Authenticator {
    /// For how long a revoked credential may still be taken where no change feed reaches.
    pub const MAX_STALENESS: Duration = Duration::from_secs(5);

    const MAX_CACHED: u64 = 100_000;

    /// An authenticator over this store. Must be called within a tokio runtime.
    #[must_use]
    pub fn new(
        accounts: Arc<dyn AccountStore>,
        tokens: SessionTokens,
        changes: &dyn ChangeFeed,
    ) -> Self {
        let known = Cache::builder()
            .max_capacity(Self::MAX_CACHED)
            .time_to_live(Self::MAX_STALENESS)
            .build();
        let mut feed = changes.subscribe();
        let to_clear = known.clone();
        tokio::spawn(async move {
            loop {
                match feed.recv().await {
                    Ok(Change::ApiKey(_) | Change::User(_) | Change::Token)
                    | Err(RecvError::Lagged(_)) => to_clear.invalidate_all(),
                    Ok(Change::Function(_) | Change::DeploymentQueued) => {}
                    Err(RecvError::Closed) => break,
                }
            }
        });
        Self { accounts, tokens, known }
    }

    /// The tokens it verifies.
    #[must_use]
    pub fn tokens(&self) -> &SessionTokens {
        &self.tokens
    }

    /// Forgets whom it knows, so that the next request sees what was just revoked.
    pub fn forget(&self) {
        self.known.invalidate_all();
    }

    /// Who presents these headers; `None` if they present no credential.
    pub async fn authenticate(
        &self,
        headers: &http::HeaderMap,
    ) -> Result<Option<(Arc<Principal>, Presented)>, AuthError> {
        let Some((credential, presented)) = Credential::of(headers) else { return Ok(None) };
        Ok(Some((self.check(&credential).await?, presented)))
    }

    /// Whose credential this is.
    pub async fn check(&self, credential: &Credential) -> Result<Arc<Principal>, AuthError> {
        let text = match credential {
            Credential::Session(text) | Credential::ApiKey(text) => text,
        };
        let fingerprint: Fingerprint = Sha256::digest(text.as_bytes()).into();
        let principal = if let Some(known) = self.known.get(&fingerprint) {
            known
        } else {
            let looked_up = Arc::new(match credential {
                Credential::Session(token) => self.session(token).await?,
                Credential::ApiKey(key) => self.api_key(key).await?,
            });
            self.known.insert(fingerprint, looked_up.clone());
            looked_up
        };
        if principal.has_ended() { Err(AuthError::Invalid) } else { Ok(principal) }
    }

    async fn session(&self, token: &str) -> Result<Principal, AuthError> {
        let claims = self.tokens.verify(token).ok_or(AuthError::Invalid)?;
        let user_id = claims.user_id().ok_or(AuthError::Invalid)?;
        let revoked = self.accounts.is_token_revoked(&claims.jti).await;
        if revoked.map_err(AuthError::Unavailable)? {
            return Err(AuthError::Invalid);
        }
        let expires_at = claims.expires_at();
        self.principal(user_id, Via::Session { token_id: claims.jti, expires_at }).await
    }

    async fn api_key(&self, text: &str) -> Result<Principal, AuthError> {
        let secret = ApiKeySecret::parse(text).ok_or(AuthError::Invalid)?;
        let key = self
            .accounts
            .api_key_by_hash(&secret.hash())
            .await
            .map_err(AuthError::Unavailable)?
            .ok_or(AuthError::Invalid)?;
        let via = Via::ApiKey { id: key.id, scopes: key.scopes, expires_at: key.expires_at };
        self.principal(key.user_id, via).await
    }

    async fn principal(&self, user_id: UserId, via: Via) -> Result<Principal, AuthError> {
        let user = self.accounts.user(user_id).await.map_err(AuthError::Unavailable)?;
        let user = user.ok_or(AuthError::Invalid)?;
        Ok(Principal { user_id, user_name: user.user_name, via })
    }
}
