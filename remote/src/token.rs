//! The secret by which roles know each other.

use std::fmt;

use http::HeaderValue;
use subtle::ConstantTimeEq;

/// Fewer characters can be guessed.
const MIN_CHARS: usize = 32;
const MAX_CHARS: usize = 512;

/// A text is no internal token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an internal token is {MIN_CHARS} to {MAX_CHARS} visible ASCII characters")]
pub struct TokenError;

/// The internal token. Shared by all roles of an installation; in no `Debug` output.
#[derive(Clone)]
pub struct InternalToken(HeaderValue);

impl InternalToken {
    /// Takes a token; white space around it is ignored.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let is_visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_visible || !(MIN_CHARS..=MAX_CHARS).contains(&text.len()) {
            return Err(TokenError);
        }
        let mut value = HeaderValue::from_str(&format!("Bearer {text}")).map_err(|_| TokenError)?;
        value.set_sensitive(true);
        Ok(Self(value))
    }

    /// What a request has in `authorization`.
    pub(crate) fn header(&self) -> HeaderValue {
        self.0.clone()
    }

    /// Whether a request shows this token. Takes as long for a wrong one as for the right one.
    pub(crate) fn is_shown_by(&self, authorization: Option<&HeaderValue>) -> bool {
        authorization.is_some_and(|shown| bool::from(shown.as_bytes().ct_eq(self.0.as_bytes())))
    }
}

impl fmt::Debug for InternalToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InternalToken")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_long_and_kept_out_of_debug_output() {
        let text = "0123456789abcdef0123456789abcdef";
        let token = InternalToken::parse(&format!(" {text}\n")).unwrap();
        assert_eq!(format!("{token:?}"), "InternalToken");
        assert!(!format!("{:?}", token.header()).contains(text));
        assert!(token.is_shown_by(Some(&token.header())));
        let other = InternalToken::parse(&text.replace('0', "1")).unwrap();
        assert!(!token.is_shown_by(Some(&other.header())));
        assert!(!token.is_shown_by(None));
        for wrong in ["", "short", &"x".repeat(513), &format!("{text} {text}"), &"é".repeat(20)] {
            assert_eq!(InternalToken::parse(wrong).unwrap_err(), TokenError, "{wrong}");
        }
    }
}
