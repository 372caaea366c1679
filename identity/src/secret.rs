//! 32 bytes nobody else may know.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

/// A 256-bit secret: the session signing key or the master key. Written as 64 hexadecimal digits.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; 32]);

/// Why a secret could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The text is not 64 hexadecimal digits. The text itself is not repeated.
    #[error("a secret must be 64 hexadecimal digits (32 random bytes)")]
    Malformed,
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes: {0}")]
    NoRandomness(getrandom::Error),
}

impl Secret {
    /// A new random secret.
    pub fn generate() -> Result<Self, SecretError> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(SecretError::NoRandomness)?;
        Ok(Self(bytes))
    }

    /// Reads 64 hexadecimal digits; white space around them is ignored.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text.trim(), &mut bytes).map_err(|_| SecretError::Malformed)?;
        Ok(Self(bytes))
    }

    /// As 64 hexadecimal digits, to be written to a file of mode 0600 and nowhere else.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}
