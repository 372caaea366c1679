//! The audit trail: what was done to an account and what belongs to it, and with which credential.

use cloudserve_identity::{Principal, Via};
use cloudserve_protocol::fault::Chain;
use cloudserve_protocol::ids::{ApiKeyId, AuditId, FunctionId};
use cloudserve_store::Timestamp;
use cloudserve_store::account::{Actor, AuditEntry};
use cloudserve_store::function::{Page, Visibility};

use super::refusal::Refusal;
use super::{App, access};

/// Characters of a detail that are kept.
const MAX_DETAIL_CHARS: usize = 500;

/// Something that was done.
pub(crate) enum Act {
    KeyCreated { id: ApiKeyId, name: String },
    KeyRevoked { id: ApiKeyId },
    Deployed { id: FunctionId, version: u32 },
    VisibilityChanged { id: FunctionId, visibility: Visibility, with: Option<u32> },
    RolledBack { id: FunctionId, version: u32 },
    EnvChanged { id: FunctionId, names: Vec<String> },
    FunctionDeleted { id: FunctionId },
}

impl Act {
    /// Code, subject and detail.
    fn told(self) -> (&'static str, String, String) {
        let version = |version: u32| format!("version {version}");
        match self {
            Self::KeyCreated { id, name } => ("apikey.created", id.to_string(), name),
            Self::KeyRevoked { id } => ("apikey.revoked", id.to_string(), String::new()),
            Self::Deployed { id, version: v } => ("function.deployed", id.to_string(), version(v)),
            Self::VisibilityChanged { id, visibility, with } => {
                let visibility = match visibility {
                    Visibility::Private => "private",
                    Visibility::Public => "public",
                };
                // At once, or when that version is served.
                let with = with.map(|v| format!(" with {}", version(v))).unwrap_or_default();
                ("function.visibility_changed", id.to_string(), format!("{visibility}{with}"))
            }
            Self::RolledBack { id, version: v } => {
                ("function.rolled_back", id.to_string(), version(v))
            }
            Self::EnvChanged { id, names } => {
                ("function.env_changed", id.to_string(), names.join(", "))
            }
            Self::FunctionDeleted { id } => ("function.deleted", id.to_string(), String::new()),
        }
    }
}

impl App {
    /// Notes what was done. The deed stands whether it can be noted or not: what cannot is in the
    /// log.
    pub(super) async fn note(&self, principal: &Principal, act: Act) {
        let actor = match &principal.via {
            Via::Session { .. } => Actor::Session,
            Via::ApiKey { id, .. } => Actor::ApiKey(*id),
        };
        let (action, subject, detail) = act.told();
        let entry = AuditEntry {
            id: AuditId::new(),
            user_id: principal.user_id,
            actor,
            action: action.to_owned(),
            subject: Some(subject),
            detail: detail.chars().take(MAX_DETAIL_CHARS).collect(),
            at: Timestamp::now(),
        };
        if let Err(error) = self.stores.accounts.record_audit(entry.clone()).await {
            tracing::error!(
                ?entry,
                error = %Chain(&error),
                "an entry of the audit trail was not stored"
            );
        }
    }

    /// The account's audit trail, newest first. Not for keys: it tells of all of them.
    pub(crate) async fn audit(
        &self,
        principal: &Principal,
        limit: u32,
        cursor: Option<String>,
    ) -> Result<Page<AuditEntry>, Refusal> {
        access::session(principal)?;
        Ok(self.stores.accounts.audit(principal.user_id, limit, cursor.as_deref()).await?)
    }
}
