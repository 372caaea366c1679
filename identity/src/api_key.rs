//! API keys: `cs_live_`, 30 random base-62 characters, 6 base-62 characters of CRC-32.
//!
//! The checksum lets a typo or an invented key be refused without asking the database, and lets
//! secret scanners recognise a leaked key.

use std::fmt;

use sha2::{Digest, Sha256};
use zeroize::ZeroizeOnDrop;

use crate::secret::SecretError;

const PREFIX: &str = "cs_live_";
const RANDOM_CHARS: usize = 30;
const CHECKSUM_CHARS: usize = 6;
const SHOWN_CHARS: usize = PREFIX.len() + 4;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A key as its holder has it.
#[derive(Clone, ZeroizeOnDrop)]
pub struct ApiKeySecret(String);

impl ApiKeySecret {
    /// A new key with 178 random bits.
    pub fn generate() -> Result<Self, SecretError> {
        let mut text = String::with_capacity(PREFIX.len() + RANDOM_CHARS + CHECKSUM_CHARS);
        text.push_str(PREFIX);
        let mut pool = [0; 64];
        while text.len() < PREFIX.len() + RANDOM_CHARS {
            getrandom::fill(&mut pool).map_err(SecretError::NoRandomness)?;
            let missing = PREFIX.len() + RANDOM_CHARS - text.len();
            // 248 = 4 * 62: larger bytes would favour the first letters.
            let letters = pool.iter().filter(|b| **b < 248).take(missing);
            text.extend(letters.map(|b| char::from(ALPHABET[usize::from(b % 62)])));
        }
        text.push_str(&checksum(&text));
        Ok(Self(text))
    }

    /// The key this text is, if it has the form and the checksum of one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let random_end = PREFIX.len() + RANDOM_CHARS;
        let well_formed = text.len() == random_end + CHECKSUM_CHARS
            && text.starts_with(PREFIX)
            && text[PREFIX.len()..].bytes().all(|b| b.is_ascii_alphanumeric());
        (well_formed && checksum(&text[..random_end]) == text[random_end..])
            .then(|| Self(text.to_owned()))
    }

    /// Whether this text claims to be one of our keys, valid or not.
    pub(crate) fn looks_like(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    /// The whole key: shown to its owner once.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is stored instead of the key: SHA-256, hex.
    #[must_use]
    pub fn hash(&self) -> String {
        hex::encode(Sha256::digest(self.0.as_bytes()))
    }

    /// The first characters, to tell keys apart in lists.
    #[must_use]
    pub fn shown_prefix(&self) -> String {
        self.0[..SHOWN_CHARS].to_owned()
    }
}

impl fmt::Debug for ApiKeySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKeySecret")
    }
}

fn checksum(text: &str) -> String {
    let mut rest = crc32fast::hash(text.as_bytes());
    let mut letters = [b'0'; CHECKSUM_CHARS];
    for letter in letters.iter_mut().rev() {
        *letter = ALPHABET[(rest % 62) as usize];
        rest /= 62;
    }
    letters.iter().copied().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_carry_a_checksum() {
        let key = ApiKeySecret::generate().unwrap();
        assert_eq!(key.reveal().len(), 44);
        assert_eq!(ApiKeySecret::parse(key.reveal()).unwrap().hash(), key.hash());
        let mut typo = key.reveal().to_owned();
        let last = typo.pop().unwrap();
        typo.push(if last == 'a' { 'b' } else { 'a' });
        assert!(ApiKeySecret::parse(&typo).is_none());
        assert!(ApiKeySecret::looks_like(&typo));
        assert!(ApiKeySecret::parse("cs_live_é").is_none());
        assert_ne!(ApiKeySecret::generate().unwrap().hash(), key.hash());
    }
}
