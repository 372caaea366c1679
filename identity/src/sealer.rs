//! Environments at rest: AES-256-GCM under the master key, bound to their function.
//!
//! Layout: format 2 (1 byte), id of the key (8 bytes), nonce (12 bytes), ciphertext and tag. The
//! function's id is associated data, so a sealed environment moved to another function does not
//! open. Format 1 has no id of the key; it opens under any key that is known. To rotate the master
//! key, the one before is known beside it until everything is sealed under the new one.

use std::fmt;
use std::sync::Arc;

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit, Nonce};
use cloudserve_protocol::call::Env;
use cloudserve_protocol::ids::FunctionId;
use cloudserve_store::function::SealedEnv;
use sha2::{Digest, Sha256};

use crate::secret::{Secret, SecretError};

const FORMAT_WITHOUT_KEY: u8 = 1;
const FORMAT: u8 = 2;
const KEY_ID_BYTES: usize = 8;
const NONCE_BYTES: usize = 12;

/// Why an environment could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// It was sealed under a key that is not known here.
    #[error("an environment is sealed under the master key {key_id}, which is not known here")]
    UnknownKey {
        /// The id of the key, hex.
        key_id: String,
    },
    /// The bytes are not what we sealed for this function under this key.
    #[error("a sealed environment does not open; the master key or the stored bytes changed")]
    DoesNotOpen,
    /// No nonce could be made.
    #[error("an environment cannot be sealed")]
    NoRandomness(#[source] SecretError),
}

/// A master key, ready to use.
struct Key {
    id: [u8; KEY_ID_BYTES],
    cipher: Aes256Gcm,
}

impl Key {
    fn new(secret: &Secret) -> Self {
        let mut digest = Sha256::new();
        digest.update(b"cloudserve master key id");
        digest.update(secret.bytes());
        let digest: [u8; 32] = digest.finalize().into();
        let mut id = [0; KEY_ID_BYTES];
        id.copy_from_slice(&digest[..KEY_ID_BYTES]);
        Self { id, cipher: Aes256Gcm::new(secret.bytes().into()) }
    }

    fn open(&self, function: FunctionId, nonce: &[u8], cipher: &[u8]) -> Result<Env, SealError> {
        let payload = Payload { msg: cipher, aad: function.as_bytes() };
        let plain = self
            .cipher
            .decrypt(Nonce::from_slice(nonce), payload)
            .map_err(|_| SealError::DoesNotOpen)?;
        serde_json::from_slice(&plain).map_err(|_| SealError::DoesNotOpen)
    }
}

/// Seals and opens environments. Cheap to clone.
#[derive(Clone)]
pub struct Sealer {
    current: Arc<Key>,
    previous: Arc<[Key]>,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    /// A sealer with this master key.
    #[must_use]
    pub fn new(master_key: &Secret) -> Self {
        Self::with_previous(master_key, &[])
    }

    /// A sealer that seals with this master key and opens with the ones before, too.
    #[must_use]
    pub fn with_previous(master_key: &Secret, previous: &[Secret]) -> Self {
        let previous = previous.iter().map(Key::new).collect();
        Self { current: Arc::new(Key::new(master_key)), previous }
    }

    /// Encrypts an environment for this function. An empty one stays empty.
    pub fn seal(&self, function: FunctionId, env: &Env) -> Result<SealedEnv, SealError> {
        if env.0.is_empty() {
            return Ok(SealedEnv::default());
        }
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce)
            .map_err(|e| SealError::NoRandomness(SecretError::NoRandomness(e)))?;
        let plain = serde_json::to_vec(env).expect("a map of strings serialises");
        let payload = Payload { msg: &plain, aad: function.as_bytes() };
        let sealed = self
            .current
            .cipher
            .encrypt(Nonce::from_slice(&nonce), payload)
            .expect("AES-GCM fails only past 64 GB of plain text");
        Ok(SealedEnv([&[FORMAT][..], &self.current.id, &nonce, &sealed].concat()))
    }

    /// Decrypts an environment that was sealed for this function.
    pub fn open(&self, function: FunctionId, sealed: &SealedEnv) -> Result<Env, SealError> {
        let keys = || std::iter::once(&*self.current).chain(self.previous.iter());
        match sealed.0.split_first() {
            None => Ok(Env::default()),
            Some((&FORMAT, rest)) => {
                let (key_id, rest) =
                    rest.split_at_checked(KEY_ID_BYTES).ok_or(SealError::DoesNotOpen)?;
                let (nonce, cipher) =
                    rest.split_at_checked(NONCE_BYTES).ok_or(SealError::DoesNotOpen)?;
                keys()
                    .find(|key| key.id[..] == *key_id)
                    .ok_or_else(|| SealError::UnknownKey { key_id: hex::encode(key_id) })?
                    .open(function, nonce, cipher)
            }
            Some((&FORMAT_WITHOUT_KEY, rest)) => {
                let (nonce, cipher) =
                    rest.split_at_checked(NONCE_BYTES).ok_or(SealError::DoesNotOpen)?;
                keys()
                    .find_map(|key| key.open(function, nonce, cipher).ok())
                    .ok_or(SealError::DoesNotOpen)
            }
            Some(_) => Err(SealError::DoesNotOpen),
        }
    }

    /// The same environment, sealed under the current master key. Not opened if it is already.
    pub fn renew(&self, function: FunctionId, sealed: &SealedEnv) -> Result<SealedEnv, SealError> {
        if self.is_current(sealed) {
            return Ok(sealed.clone());
        }
        self.seal(function, &self.open(function, sealed)?)
    }

    /// The id (hex) of the master key this is sealed under; `None` if it is empty, or of the format
    /// that does not say.
    #[must_use]
    pub fn key_id(sealed: &SealedEnv) -> Option<String> {
        let rest = sealed.0.strip_prefix(&[FORMAT])?;
        rest.get(..KEY_ID_BYTES).map(hex::encode)
    }

    /// Whether this is sealed under the current master key, or empty.
    #[must_use]
    pub fn is_current(&self, sealed: &SealedEnv) -> bool {
        let id = sealed.0.strip_prefix(&[FORMAT]).and_then(|rest| rest.get(..KEY_ID_BYTES));
        sealed.0.is_empty() || id == Some(&self.current.id[..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_opens_only_for_its_function_and_key() {
        let sealer = Sealer::new(&Secret::generate().unwrap());
        let function = FunctionId::new();
        let env = Env([("TOKEN".to_owned(), "s3cret".to_owned())].into());
        let sealed = sealer.seal(function, &env).unwrap();
        assert!(!sealed.0.windows(6).any(|w| w == b"s3cret"));
        assert!(sealer.open(function, &sealed).unwrap() == env);
        assert!(sealer.open(FunctionId::new(), &sealed).is_err());
        assert!(Sealer::new(&Secret::generate().unwrap()).open(function, &sealed).is_err());
        for cut in 1..sealed.0.len() {
            assert!(sealer.open(function, &SealedEnv(sealed.0[..cut].to_vec())).is_err());
        }
    }
    #[test]
    fn after_a_rotation_old_and_new_open_until_the_old_key_is_gone() {
        let (old, new) = (Secret::generate().unwrap(), Secret::generate().unwrap());
        let function = FunctionId::new();
        let env = Env([("TOKEN".to_owned(), "s3cret".to_owned())].into());
        let before = Sealer::new(&old).seal(function, &env).unwrap();
        let mut unnamed = vec![FORMAT_WITHOUT_KEY];
        unnamed.extend_from_slice(&before.0[1 + KEY_ID_BYTES..]);
        let unnamed = SealedEnv(unnamed);

        let rotating = Sealer::with_previous(&new, std::slice::from_ref(&old));
        let after = rotating.seal(function, &env).unwrap();
        for sealed in [&before, &unnamed, &after] {
            assert!(rotating.open(function, sealed).unwrap() == env);
        }
        let current = [&before, &unnamed, &after].map(|sealed| rotating.is_current(sealed));
        assert_eq!(current, [false, false, true]);
        assert!(rotating.is_current(&SealedEnv::default()));
        // What is copied on is sealed under the new key, and the old one is needed no more.
        for sealed in [&before, &unnamed, &after] {
            let renewed = rotating.renew(function, sealed).unwrap();
            assert!(Sealer::new(&new).open(function, &renewed).unwrap() == env);
            assert_eq!(renewed == *sealed, rotating.is_current(sealed));
        }
        assert!(Sealer::new(&new).renew(function, &before).is_err());
        assert_eq!(rotating.renew(function, &SealedEnv::default()).unwrap(), SealedEnv::default());
        let ids = [&before, &unnamed, &after].map(Sealer::key_id);
        assert!(ids[0].is_some() && ids[1].is_none() && ids[2].is_some() && ids[0] != ids[2]);
        assert_eq!(Sealer::key_id(&SealedEnv::default()), None);

        let rotated = Sealer::new(&new);
        assert!(rotated.open(function, &after).unwrap() == env);
        assert!(matches!(rotated.open(function, &before), Err(SealError::UnknownKey { .. })));
        assert!(matches!(rotated.open(function, &unnamed), Err(SealError::DoesNotOpen)));
    }
}
