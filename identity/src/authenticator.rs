//! Where a credential becomes a principal. Answers from a cache whose entries count for nothing once
//! the store has reported a change of the key, the sessions or the account they are about
//! ([`Epochs`]) and, in any case, after [`Authenticator::MAX_STALENESS`]. What is not in the
//! cache is asked of the store, about keys as often as [`super::strangers`] lets it be.
//!
//! Invariant: what is being looked up while a change is reported is not taken for what it was
//! before.
//!
//! That a key was used is noted once a minute, by a task of its own: no request waits for it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use cloudserve_protocol::fault::Chain;
use cloudserve_protocol::ids::{ApiKeyId, FunctionId, UserId, UserName};
use cloudserve_store::account::Scope;
use cloudserve_store::{AccountStore, Change, ChangeFeed, Epochs, StoreError, Subject, Timestamp};
use moka::sync::Cache;
use sha2::{Digest, Sha256};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use crate::api_key::ApiKeySecret;
use crate::credential::{Credential, InHeader, Presented};
use crate::session::{SessionClaims, SessionTokens};
use crate::shown::ShownLast;
use crate::strangers::{Fingerprint, Strangers, TooManyUnknown};

/// Who is asking.
#[derive(Debug, Clone, PartialEq)]
pub struct Principal {
    /// The account.
    pub user_id: UserId,
    /// Its name.
    pub user_name: UserName,
    /// What it showed.
    pub via: Via,
    /// Calls per second of each of its credentials, if that is not the installation's bound.
    pub rate_per_second: Option<u32>,
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
        /// The functions it may be used for; empty means all.
        functions: Vec<FunctionId>,
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

    /// Whether it may touch this function of its account.
    #[must_use]
    pub fn may_use(&self, function: FunctionId) -> bool {
        match &self.via {
            Via::Session { .. } => true,
            Via::ApiKey { functions, .. } => functions.is_empty() || functions.contains(&function),
        }
    }

    /// Whether it may touch some functions of its account only.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        matches!(&self.via, Via::ApiKey { functions, .. } if !functions.is_empty())
    }

    /// What a lookup of it is about.
    fn subjects(&self) -> [Subject; 2] {
        let credential = match &self.via {
            Via::Session { .. } => Subject::Sessions,
            Via::ApiKey { id, .. } => Subject::ApiKey(*id),
        };
        [credential, Subject::User(self.user_id)]
    }

    fn has_ended(&self, now: Timestamp) -> bool {
        let end = match &self.via {
            Via::Session { expires_at, .. } => Some(*expires_at),
            Via::ApiKey { expires_at, .. } => *expires_at,
        };
        end.is_some_and(|end| end <= now)
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
    /// It was not looked up.
    #[error(transparent)]
    TooOften(#[from] TooManyUnknown),
}

/// A principal in the cache.
pub(crate) struct Known {
    principal: Arc<Principal>,
    /// When the use of its key was last noted, in ms; of a session, never again.
    noted_at: AtomicI64,
}

/// What was looked up, and when and in which epoch that began.
#[derive(Clone)]
pub(crate) struct Entry {
    known: Arc<Known>,
    since: Instant,
    epoch: u64,
}

/// A credential of our form, whose it is not known yet.
enum Claimed {
    Session(SessionClaims),
    ApiKey(ApiKeySecret),
}

impl Known {
    /// Whether this use of a key is to be noted.
    fn is_to_be_noted(&self, now: Timestamp) -> bool {
        let before = self.noted_at.load(Relaxed);
        now.0.saturating_sub(before) >= NOTE_EVERY_MS
            && self.noted_at.compare_exchange(before, now.0, Relaxed, Relaxed).is_ok()
    }
}

/// How exactly the last use of a key is known.
const NOTE_EVERY_MS: i64 = 60_000;
/// Notes that wait to be stored. What does not fit is noted with a later use.
const MAX_NOTES: usize = 1_024;

/// Checks credentials.
#[derive(Clone)]
pub struct Authenticator {
    accounts: Arc<dyn AccountStore>,
    tokens: SessionTokens,
    known: Cache<Fingerprint, Entry>,
    epochs: Arc<Epochs>,
    strangers: Arc<Strangers>,
    used: mpsc::Sender<(ApiKeyId, Timestamp)>,
}

impl Authenticator {
    /// For how long a revoked credential may still be taken where no change feed reaches.
    pub const MAX_STALENESS: Duration = Duration::from_secs(5);

    const MAX_CACHED: u64 = 100_000;

    /// An authenticator over this store, which is asked about so many keys per second and address
    /// that it does not know; 0 sets no bound. Must be called within a tokio runtime.
    #[must_use]
    pub fn new(
        accounts: Arc<dyn AccountStore>,
        tokens: SessionTokens,
        changes: &dyn ChangeFeed,
        unknown_per_second: u32,
    ) -> Self {
        let known = Cache::builder()
            .max_capacity(Self::MAX_CACHED)
            .time_to_live(Self::MAX_STALENESS)
            .build();
        let epochs = Arc::new(Epochs::default());
        let (used, notes) = mpsc::channel(MAX_NOTES);
        tokio::spawn(note_uses(accounts.clone(), notes));
        let mut feed = changes.subscribe();
        let told = epochs.clone();
        tokio::spawn(async move {
            loop {
                match feed.recv().await {
                    Ok(change) => tell(&told, change),
                    Err(RecvError::Lagged(_)) => told.change_all(),
                    Err(RecvError::Closed) => break,
                }
            }
        });
        let strangers = Arc::new(Strangers::new(unknown_per_second));
        Self { accounts, tokens, known, epochs, strangers, used }
    }

    /// The tokens it verifies.
    #[must_use]
    pub fn tokens(&self) -> &SessionTokens {
        &self.tokens
    }

    /// Forgets whom this change is about, so that the next request sees it.
    pub fn forget(&self, change: Change) {
        tell(&self.epochs, change);
    }

    /// Who presents these headers; `None` if they present no credential. `from` tells the address they
    /// come from, and is asked only where it counts.
    pub async fn authenticate(
        &self,
        headers: &http::HeaderMap,
        from: impl FnOnce() -> Option<IpAddr>,
    ) -> Result<Option<(Arc<Principal>, Presented)>, AuthError> {
        let Some((credential, presented)) = Credential::of(headers, &self.tokens) else {
            return Ok(None);
        };
        Ok(Some((self.check(&credential, from).await?, presented)))
    }

    /// The same of a request that came at `now`, the session cookie left out. What its connection has
    /// shown `last` is not looked up again.
    pub async fn authenticate_header(
        &self,
        headers: &http::HeaderMap,
        last: &ShownLast,
        now: Instant,
        from: impl FnOnce() -> Option<IpAddr>,
    ) -> Result<Option<Arc<Principal>>, AuthError> {
        let Some(shown) = InHeader::of(headers) else { return Ok(None) };
        let holds = |entry: &Entry| {
            self.holds(entry) && now.saturating_duration_since(entry.since) < Self::MAX_STALENESS
        };
        let recalled = last.recall(shown.text(), holds, |entry| self.admit(&entry.known));
        if let Some(admitted) = recalled {
            return admitted.map(Some);
        }
        let entry = self.find(&shown.into_credential(), from).await?;
        last.keep(shown.text(), entry.clone());
        self.admit(&entry.known).map(Some)
    }

    /// Whose credential this is.
    pub async fn check(
        &self,
        credential: &Credential,
        from: impl FnOnce() -> Option<IpAddr>,
    ) -> Result<Arc<Principal>, AuthError> {
        let entry = self.find(credential, from).await?;
        self.admit(&entry.known)
    }

    /// Whose it is or was.
    async fn find(
        &self,
        credential: &Credential,
        from: impl FnOnce() -> Option<IpAddr>,
    ) -> Result<Entry, AuthError> {
        let text = match credential {
            Credential::Session(text) | Credential::ApiKey(text) => text,
        };
        let fingerprint: Fingerprint = Sha256::digest(text.as_bytes()).into();
        let epoch = self.epochs.now();
        if let Some(entry) = self.known.get(&fingerprint).filter(|entry| self.holds(entry)) {
            return Ok(entry);
        }
        let since = Instant::now();
        let known = Arc::new(self.look_up(credential, fingerprint, from()).await?);
        let entry = Entry { known, since, epoch };
        self.known.insert(fingerprint, entry.clone());
        Ok(entry)
    }

    /// Whether nothing was reported since that concerns it.
    fn holds(&self, entry: &Entry) -> bool {
        self.epochs.holds(entry.epoch, entry.known.principal.subjects())
    }

    /// The principal, unless it has ended. Notes that its key is used.
    fn admit(&self, known: &Known) -> Result<Arc<Principal>, AuthError> {
        let now = Timestamp::now();
        if known.principal.has_ended(now) {
            return Err(AuthError::Invalid);
        }
        if let Via::ApiKey { id, .. } = known.principal.via
            && known.is_to_be_noted(now)
        {
            // An error says that too many wait; a later use will be noted.
            let _ = self.used.try_send((id, now));
        }
        Ok(known.principal.clone())
    }

    /// Asks the store, if it may be asked.
    async fn look_up(
        &self,
        credential: &Credential,
        fingerprint: Fingerprint,
        from: Option<IpAddr>,
    ) -> Result<Known, AuthError> {
        // What cannot be ours is no question.
        let claimed = match credential {
            Credential::Session(token) => self.tokens.verify(token).map(Claimed::Session),
            Credential::ApiKey(key) => ApiKeySecret::parse(key).map(Claimed::ApiKey),
        };
        let claimed = claimed.ok_or(AuthError::Invalid)?;
        if self.strangers.is_unknown(&fingerprint) {
            return Err(AuthError::Invalid);
        }
        let found = match claimed {
            // We have signed it, so it is no guess: guesses from its address are not its matter.
            Claimed::Session(claims) => self.session(claims).await,
            Claimed::ApiKey(secret) => {
                self.strangers.admit(&fingerprint, from)?;
                let question = self.strangers.question(from);
                let found = self.api_key(&secret).await;
                if !matches!(found, Err(AuthError::Invalid)) {
                    question.does_not_count();
                }
                found
            }
        };
        match &found {
            Ok(_) => self.strangers.found(fingerprint),
            Err(AuthError::Invalid) => self.strangers.not_found(fingerprint),
            Err(AuthError::Unavailable(_) | AuthError::TooOften(_)) => {}
        }
        found
    }

    async fn session(&self, claims: SessionClaims) -> Result<Known, AuthError> {
        let user_id = claims.user_id().ok_or(AuthError::Invalid)?;
        let revoked = self.accounts.is_token_revoked(&claims.jti).await;
        if revoked.map_err(AuthError::Unavailable)? {
            return Err(AuthError::Invalid);
        }
        let expires_at = claims.expires_at();
        let via = Via::Session { token_id: claims.jti, expires_at };
        self.known(user_id, via, Timestamp(i64::MAX)).await
    }

    async fn api_key(&self, secret: &ApiKeySecret) -> Result<Known, AuthError> {
        let key = self
            .accounts
            .api_key_by_hash(&secret.hash())
            .await
            .map_err(AuthError::Unavailable)?
            .ok_or(AuthError::Invalid)?;
        let via = Via::ApiKey {
            id: key.id,
            scopes: key.scopes,
            functions: key.functions,
            expires_at: key.expires_at,
        };
        self.known(key.user_id, via, key.last_used_at.unwrap_or(Timestamp(0))).await
    }

    async fn known(
        &self,
        user_id: UserId,
        via: Via,
        noted_at: Timestamp,
    ) -> Result<Known, AuthError> {
        let user = self.accounts.user(user_id).await.map_err(AuthError::Unavailable)?;
        let user = user.ok_or(AuthError::Invalid)?;
        let rate_per_second = user.quota.rate_per_second;
        let principal = Principal { user_id, user_name: user.user_name, via, rate_per_second };
        Ok(Known { principal: Arc::new(principal), noted_at: AtomicI64::new(noted_at.0) })
    }
}

/// Changes of what principals are about; no other ones, so that these cost no credential a lookup.
fn tell(epochs: &Epochs, change: Change) {
    match change {
        Change::ApiKey(id) => epochs.change(Subject::ApiKey(id)),
        Change::User(id) => epochs.change(Subject::User(id)),
        Change::Token => epochs.change(Subject::Sessions),
        Change::Function(_) | Change::DeploymentQueued => {}
    }
}

/// Stores when keys were used, all that wait in one write.
async fn note_uses(
    accounts: Arc<dyn AccountStore>,
    mut notes: mpsc::Receiver<(ApiKeyId, Timestamp)>,
) {
    let mut waiting = Vec::new();
    while notes.recv_many(&mut waiting, MAX_NOTES).await > 0 {
        if let Err(error) = accounts.touch_api_keys(std::mem::take(&mut waiting)).await {
            tracing::warn!(
                error = %Chain(&error),
                "the use of API keys was not noted"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An account or key whose id ends with this.
    fn id(last: u8) -> [u8; 16] {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]
    }

    fn principal(user: u8, via: Via) -> Principal {
        Principal {
            user_id: UserId::from_bytes(id(user)),
            user_name: "ada".parse().unwrap(),
            via,
            rate_per_second: None,
        }
    }

    fn with_key(user: u8, key: u8) -> Principal {
        let id = ApiKeyId::from_bytes(id(key));
        let (scopes, functions) = (Vec::new(), Vec::new());
        principal(user, Via::ApiKey { id, scopes, functions, expires_at: None })
    }

    #[test]
    fn a_change_concerns_whom_it_names() {
        let ada = [with_key(1, 11), with_key(1, 12)];
        let session = Via::Session { token_id: "t".into(), expires_at: Timestamp(i64::MAX) };
        let session = principal(1, session);
        let bob = with_key(2, 21);
        let all = [&ada[0], &ada[1], &session, &bob];
        let key = Change::ApiKey(ApiKeyId::from_bytes(id(11)));
        let account = Change::User(UserId::from_bytes(id(1)));
        for (change, expected) in [
            (Some(key), [false, true, true, true]),
            (Some(account), [false, false, false, true]),
            (Some(Change::Token), [true, true, false, true]),
            (Some(Change::Function(FunctionId::new())), [true; 4]),
            (Some(Change::DeploymentQueued), [true; 4]),
            (None, [false; 4]),
        ] {
            let epochs = Epochs::default();
            let hold = |epoch| all.map(|found| epochs.holds(epoch, found.subjects()));
            let before = epochs.now();
            match change {
                Some(change) => tell(&epochs, change),
                None => epochs.change_all(),
            }
            assert_eq!(hold(before), expected, "{change:?}");
            // What is looked up from now on holds, and what comes later is later.
            let after = epochs.now();
            tell(&epochs, Change::ApiKey(ApiKeyId::from_bytes(id(99))));
            assert_eq!(hold(after), [true; 4], "{change:?}");
            assert_eq!(hold(before), expected, "{change:?}");
        }
    }
}
