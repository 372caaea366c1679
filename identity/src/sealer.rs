//! Environments at rest: AES-256-GCM under the master key, bound to their function.
//!
//! Layout: format (1 byte), nonce (12 bytes), ciphertext and tag. The function's id is associated
//! data, so a sealed environment moved to another function does not open.

use std::fmt;

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit, Nonce};
use cloudserve_protocol::call::Env;
use cloudserve_protocol::ids::FunctionId;
use cloudserve_store::function::SealedEnv;

use crate::secret::{Secret, SecretError};

const FORMAT: u8 = 1;
const NONCE_BYTES: usize = 12;

/// Why an environment could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The bytes are not what we sealed for this function under this key.
    #[error("a sealed environment does not open; the master key or the stored bytes changed")]
    DoesNotOpen,
    /// No nonce could be made.
    #[error("an environment cannot be sealed")]
    NoRandomness(#[source] SecretError),
}

/// Seals and opens environments.
#[derive(Clone)]
pub struct Sealer(Aes256Gcm);

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    /// A sealer with this master key.
    #[must_use]
    pub fn new(master_key: &Secret) -> Self {
        Self(Aes256Gcm::new(master_key.bytes().into()))
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
            .0
            .encrypt(Nonce::from_slice(&nonce), payload)
            .expect("AES-GCM fails only past 64 GB of plain text");
        Ok(SealedEnv([&[FORMAT][..], &nonce, &sealed].concat()))
    }

    /// Decrypts an environment that was sealed for this function.
    pub fn open(&self, function: FunctionId, sealed: &SealedEnv) -> Result<Env, SealError> {
        if sealed.0.is_empty() {
            return Ok(Env::default());
        }
        let (nonce, cipher) = sealed
            .0
            .strip_prefix(&[FORMAT])
            .and_then(|rest| rest.split_at_checked(NONCE_BYTES))
            .ok_or(SealError::DoesNotOpen)?;
        let payload = Payload { msg: cipher, aad: function.as_bytes() };
        let plain = self
            .0
            .decrypt(Nonce::from_slice(nonce), payload)
            .map_err(|_| SealError::DoesNotOpen)?;
        serde_json::from_slice(&plain).map_err(|_| SealError::DoesNotOpen)
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
}
