//! API keys. The key is shown once; only its hash is kept.

use std::sync::Arc;

use cloudserve_identity::{ApiKeySecret, Principal};
use cloudserve_protocol::ids::{ApiKeyId, FunctionId};
use cloudserve_store::account::{ApiKey, Scope};
use cloudserve_store::{Change, Timestamp};
use serde::Deserialize;

use super::accounts::one_line;
use super::audit::Act;
use super::refusal::Refusal;
use super::{App, access, detached};

/// Functions one key can be limited to.
const MAX_FUNCTIONS_OF_KEY: usize = 100;

/// What the owner calls a key.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct KeyName(String);

impl TryFrom<String> for KeyName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        one_line(&text).map(Self)
    }
}

/// What a key may be used for: at least one thing, each once.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Vec<Scope>")]
pub(crate) struct Scopes(Vec<Scope>);

impl Default for Scopes {
    fn default() -> Self {
        Self(Scope::ALL.to_vec())
    }
}

impl TryFrom<Vec<Scope>> for Scopes {
    type Error = &'static str;

    fn try_from(mut scopes: Vec<Scope>) -> Result<Self, Self::Error> {
        scopes.sort_unstable();
        scopes.dedup();
        if scopes.is_empty() {
            Err("must name at least one of invoke, deploy, read")
        } else {
            Ok(Self(scopes))
        }
    }
}

/// A key somebody asks for.
#[derive(Debug)]
pub(crate) struct NewApiKey {
    pub(crate) name: KeyName,
    pub(crate) scopes: Scopes,
    /// Names or ids of the functions it is to be limited to; all if there are none.
    pub(crate) functions: Vec<String>,
    pub(crate) expires_at: Option<Timestamp>,
}

impl App {
    pub(crate) async fn api_keys(&self, principal: &Principal) -> Result<Vec<ApiKey>, Refusal> {
        access::session(principal)?;
        Ok(self.stores.accounts.api_keys(principal.user_id).await?)
    }

    pub(crate) async fn create_api_key(
        self: Arc<Self>,
        principal: Arc<Principal>,
        new: NewApiKey,
    ) -> Result<(ApiKey, ApiKeySecret), Refusal> {
        access::session(&principal)?;
        let now = Timestamp::now();
        if new.expires_at.is_some_and(|end| end <= now) {
            return Err(Refusal::field("expiresAt", "must be in the future"));
        }
        let functions = self.functions_of_key(&principal, &new.functions).await?;
        let secret = ApiKeySecret::generate().map_err(Refusal::internal)?;
        let key = ApiKey {
            id: ApiKeyId::new(),
            user_id: principal.user_id,
            name: new.name.0,
            key_hash: secret.hash(),
            prefix: secret.shown_prefix(),
            scopes: new.scopes.0,
            functions,
            expires_at: new.expires_at,
            last_used_at: None,
            created_at: now,
        };
        detached(async move {
            let max = self.options.api_keys_per_user;
            self.stores.accounts.create_api_key_within(key.clone(), Some(max)).await?;
            let name = key.name.clone();
            self.note(&principal, Act::KeyCreated { id: key.id, name }).await;
            Ok((key, secret))
        })
        .await
    }

    pub(crate) async fn delete_api_key(
        self: Arc<Self>,
        principal: Arc<Principal>,
        id: ApiKeyId,
    ) -> Result<(), Refusal> {
        access::session(&principal)?;
        detached(async move {
            if !self.stores.accounts.delete_api_key(principal.user_id, id).await? {
                return Err(Refusal::ApiKeyNotFound);
            }
            self.authenticator.forget(Change::ApiKey(id));
            self.note(&principal, Act::KeyRevoked { id }).await;
            Ok(())
        })
        .await
    }

    async fn functions_of_key(
        &self,
        principal: &Principal,
        named: &[String],
    ) -> Result<Vec<FunctionId>, Refusal> {
        if named.len() > MAX_FUNCTIONS_OF_KEY {
            let wrong = format!("must name at most {MAX_FUNCTIONS_OF_KEY} functions");
            return Err(Refusal::field("functions", wrong));
        }
        let functions = &self.stores.functions;
        let mut ids = Vec::with_capacity(named.len());
        for text in named {
            // An id is a name, too; a function of that name is not what was meant.
            let found = match (text.parse::<FunctionId>(), text.parse()) {
                (Ok(id), _) => functions.function(principal.user_id, id).await?,
                (_, Ok(name)) => functions.function_by_name(principal.user_id, &name).await?,
                _ => None,
            };
            let shown: String = text.chars().take(64).collect();
            let found = found.ok_or_else(|| {
                Refusal::field("functions", format!("{shown:?} is none of your functions"))
            })?;
            ids.push(found.function.id);
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }
}
