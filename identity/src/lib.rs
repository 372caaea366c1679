//! Who is asking, and what only we may read.
//!
//! Session tokens, API keys, the credentials of a request, the one place where a credential
//! becomes a [`Principal`], the address of a caller, how often somebody may do something, the sealing
//! of environments and the masking of their values. Used by the API and the gateway, so that both
//! decide alike. Invariant: a secret is in no `Debug` output, no log and no error.

mod address;
mod api_key;
mod authenticator;
mod buckets;
mod credential;
mod mask;
mod sealer;
mod secret;
mod session;
mod shown;
mod strangers;

pub use address::{Network, client_address};
pub use api_key::ApiKeySecret;
pub use authenticator::{AuthError, Authenticator, Principal, Via};
pub use buckets::Buckets;
pub use credential::{Credential, Presented, strip_platform_credentials};
pub use mask::Mask;
pub use sealer::{SealError, Sealer};
pub use secret::{Secret, SecretError};
pub use session::{SESSION_COOKIE, SessionClaims, SessionTokens};
pub use shown::ShownLast;
pub use strangers::TooManyUnknown;
