//! Who may do what: sessions may do everything with what is their account's, keys what their
//! scopes say, and no key may manage keys or sessions. What belongs to others is never looked up:
//! every query names the account.

use cloudserve_identity::{Principal, Via};
use cloudserve_protocol::ids::FunctionId;
use cloudserve_store::Timestamp;
use cloudserve_store::account::Scope;

use super::refusal::Refusal;

/// Read functions, logs and usage.
pub(crate) fn may_read(principal: &Principal) -> Result<(), Refusal> {
    has(principal, Scope::Read, "this API key does not have the scope read")
}

/// Deploy, change and delete functions.
pub(crate) fn may_deploy(principal: &Principal) -> Result<(), Refusal> {
    has(principal, Scope::Deploy, "this API key does not have the scope deploy")
}

/// Call functions.
pub(crate) fn may_invoke(principal: &Principal) -> Result<(), Refusal> {
    has(principal, Scope::Invoke, "this API key does not have the scope invoke")
}

/// Touch this function. What a key is not for is as unknown to it as what is another's.
pub(crate) fn may_use(principal: &Principal, function: FunctionId) -> Result<(), Refusal> {
    if principal.may_use(function) { Ok(()) } else { Err(Refusal::FunctionNotFound) }
}

/// Touch what concerns the account as a whole.
pub(crate) fn may_use_all(principal: &Principal, otherwise: &'static str) -> Result<(), Refusal> {
    if principal.is_limited() { Err(Refusal::Forbidden(otherwise)) } else { Ok(()) }
}

fn has(principal: &Principal, scope: Scope, otherwise: &'static str) -> Result<(), Refusal> {
    if principal.may(scope) { Ok(()) } else { Err(Refusal::Forbidden(otherwise)) }
}

/// The session that asks: its id and its end.
pub(crate) fn session(principal: &Principal) -> Result<(&str, Timestamp), Refusal> {
    match &principal.via {
        Via::Session { token_id, expires_at } => Ok((token_id, *expires_at)),
        Via::ApiKey { .. } => {
            Err(Refusal::Forbidden("an API key cannot manage keys or sessions; log in"))
        }
    }
}
