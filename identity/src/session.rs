//! Session tokens: JWT, HS256, this issuer, nothing else.

use std::fmt;
use std::time::Duration;

use cloudserve_protocol::ids::UserId;
use cloudserve_store::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::secret::Secret;

/// The cookie that carries a session token for the dashboard.
pub const SESSION_COOKIE: &str = "token";

const ISSUER: &str = "cloudserve";

/// Ours are longer: an id, a time and a signature are in each. A request may hold thousands of words that
/// could be tokens.
const SHORTEST_BYTES: usize = 150;

/// What a session token says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SessionClaims {
    /// Who: a [`UserId`].
    pub(crate) sub: String,
    /// Which token, so that it can be revoked.
    pub(crate) jti: String,
    /// `cloudserve`.
    pub(crate) iss: String,
    /// Issued at: seconds since the epoch.
    pub(crate) iat: i64,
    /// Refused from here on: seconds since the epoch.
    pub(crate) exp: i64,
}

impl SessionClaims {
    /// Who. `None` if the token names nobody we could know.
    pub(crate) fn user_id(&self) -> Option<UserId> {
        self.sub.parse().ok()
    }

    /// When the token ends.
    pub fn expires_at(&self) -> Timestamp {
        Timestamp(self.exp.saturating_mul(1_000))
    }
}

/// Issues and verifies session tokens.
#[derive(Clone)]
pub struct SessionTokens {
    signing: EncodingKey,
    verifying: DecodingKey,
    validation: Validation,
    lifetime: Duration,
}

impl fmt::Debug for SessionTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionTokens").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

impl SessionTokens {
    /// Tokens signed with this secret that live this long.
    #[must_use]
    pub fn new(secret: &Secret, lifetime: Duration) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "iss", "sub"]);
        validation.leeway = 0;
        Self {
            signing: EncodingKey::from_secret(secret.bytes()),
            verifying: DecodingKey::from_secret(secret.bytes()),
            validation,
            lifetime,
        }
    }

    /// How long a token lives.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// A token for this account.
    #[must_use]
    pub fn issue(&self, user_id: UserId) -> String {
        let issued_at = Timestamp::now();
        let claims = SessionClaims {
            sub: user_id.to_string(),
            jti: Uuid::now_v7().to_string(),
            iss: ISSUER.to_owned(),
            iat: issued_at.0 / 1_000,
            exp: issued_at.after(self.lifetime).0 / 1_000,
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.signing)
            .expect("HS256 over string and integer claims cannot fail")
    }

    /// What a token says, if we signed it and it has not ended.
    pub fn verify(&self, token: &str) -> Option<SessionClaims> {
        jsonwebtoken::decode(token, &self.verifying, &self.validation).ok().map(|t| t.claims)
    }

    /// Whether we signed this token, ended or not: then it is ours to keep from user code.
    pub(crate) fn is_ours(&self, token: &str) -> bool {
        if token.len() < SHORTEST_BYTES {
            return false;
        }
        let mut validation = self.validation.clone();
        validation.validate_exp = false;
        jsonwebtoken::decode::<SessionClaims>(token, &self.verifying, &validation).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(lifetime: Duration) -> SessionTokens {
        SessionTokens::new(&Secret::parse(&"ab".repeat(32)).unwrap(), lifetime)
    }

    #[test]
    fn only_our_unexpired_hs256_tokens_verify() {
        let hour = tokens(Duration::from_secs(3_600));
        let user = UserId::new();
        let token = hour.issue(user);
        assert_eq!(hour.verify(&token).unwrap().user_id(), Some(user));

        let other = SessionTokens::new(&Secret::generate().unwrap(), Duration::from_secs(3_600));
        assert!(hour.verify(&other.issue(user)).is_none());
        assert!(!hour.is_ours(&other.issue(user)));

        let claims = |iss: &str, exp: i64| SessionClaims {
            sub: user.to_string(),
            jti: "x".into(),
            iss: iss.into(),
            iat: 0,
            exp,
        };
        let sign = |alg, claims: &SessionClaims| {
            jsonwebtoken::encode(&Header::new(alg), claims, &hour.signing).unwrap()
        };
        let far = i64::MAX / 2_000;
        assert!(hour.verify(&sign(Algorithm::HS256, &claims("cloudserve", far))).is_some());
        assert!(hour.verify(&sign(Algorithm::HS512, &claims("cloudserve", far))).is_none());
        assert!(hour.verify(&sign(Algorithm::HS256, &claims("other", far))).is_none());
        let ended = sign(Algorithm::HS256, &claims("cloudserve", 1));
        assert!(hour.verify(&ended).is_none());
        assert!(hour.is_ours(&ended));

        // `alg: none`, unsigned.
        let payload = token.split('.').nth(1).unwrap();
        assert!(hour.verify(&format!("eyJhbGciOiJub25lIn0.{payload}.")).is_none());
    }
}
