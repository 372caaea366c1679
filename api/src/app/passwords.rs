//! Passwords: argon2id, off the async threads, a few at a time. Who registers and who logs in wait in
//! rooms of their own: anybody can register, as often as they like, and must not keep people out. Nor may
//! anybody take all of a room from one address.
//!
//! A password is checked in the same time whether there is such an account or not. Invariant: a
//! password is in no log, no error and no `Debug` output.

use std::fmt;
use std::sync::Arc;

use argon2::password_hash::{Salt, SaltString};
use argon2::{Argon2, PasswordHash, PasswordHasher, PasswordVerifier};
use cloudserve_identity::Network;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zeroize::Zeroizing;

use super::places::Places;
use super::refusal::Refusal;

const MIN_CHARS: usize = 8;
const MAX_CHARS: usize = 256;

/// Of no password: checked when there is no account, with the parameters of [`Argon2::default`].
const NOBODYS_HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IGlzIGhlcmUuLg\
                            $Y2xvdWRzZXJ2ZSBub2JvZHkncyBwYXNzd29yZCBoYXM";

/// A password somebody chose; it keeps the rules on length.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct NewPassword(Zeroizing<String>);

impl TryFrom<String> for NewPassword {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let text = Zeroizing::new(text);
        if (MIN_CHARS..=MAX_CHARS).contains(&text.chars().take(MAX_CHARS + 1).count()) {
            Ok(Self(text))
        } else {
            Err(format!("must have {MIN_CHARS} to {MAX_CHARS} characters"))
        }
    }
}

impl NewPassword {
    /// Whether it is this, in whatever case.
    pub(crate) fn is(&self, text: &str) -> bool {
        self.0.to_lowercase() == text.to_lowercase()
    }
}

impl fmt::Debug for NewPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewPassword")
    }
}

/// Hashes and checks passwords.
pub(crate) struct Passwords {
    running: Arc<Semaphore>,
    logins: Room,
    registrations: Room,
}

/// Those that wait, and those whose turn it is.
struct Room {
    all: Arc<Semaphore>,
    /// Half of them at most. All whose address is not known are one.
    by_network: Places<Option<Network>>,
}

impl Room {
    fn new(places: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(places)), by_network: Places::new((places / 2).max(1)) }
    }

    fn admit(&self, from: Option<Network>) -> Result<[OwnedSemaphorePermit; 2], Refusal> {
        let place = |of: Arc<Semaphore>| of.try_acquire_owned().map_err(|_| Refusal::Busy);
        Ok([place(self.by_network.of(from))?, place(self.all.clone())?])
    }
}

impl Passwords {
    /// `parallel` at once; of logins and of registrations so many more may wait, half of them from one
    /// address.
    pub(crate) fn new(
        parallel: usize,
        logins_waiting: usize,
        registrations_waiting: usize,
    ) -> Self {
        let parallel = parallel.max(1);
        Self {
            running: Arc::new(Semaphore::new(parallel)),
            logins: Room::new(parallel + logins_waiting),
            registrations: Room::new(parallel + registrations_waiting),
        }
    }

    /// What is stored instead of the password, in PHC form.
    pub(crate) async fn hash(
        &self,
        password: NewPassword,
        from: Option<Network>,
    ) -> Result<String, Refusal> {
        self.off_thread(&self.registrations, from, move || {
            let mut salt = [0; Salt::RECOMMENDED_LENGTH];
            getrandom::fill(&mut salt)?;
            let salt = SaltString::encode_b64(&salt)?;
            Ok(Argon2::default().hash_password(password.0.as_bytes(), &salt)?.to_string())
        })
        .await
    }

    /// Whether this is the password of this hash. Without a hash it never is, after the same time.
    pub(crate) async fn verify(
        &self,
        stored: Option<String>,
        password: Zeroizing<String>,
        from: Option<Network>,
    ) -> Result<bool, Refusal> {
        self.off_thread(&self.logins, from, move || {
            let is_known = stored.is_some();
            let stored = stored.as_deref().unwrap_or(NOBODYS_HASH);
            let parsed = PasswordHash::new(stored)?;
            // No stored password is longer; the length of the text must not cost time.
            let end = password.char_indices().nth(MAX_CHARS + 1).map_or(password.len(), |(i, _)| i);
            let checked = Argon2::default().verify_password(&password.as_bytes()[..end], &parsed);
            match checked {
                Ok(()) => Ok(is_known),
                Err(argon2::password_hash::Error::Password) => Ok(false),
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    async fn off_thread<T: Send + 'static>(
        &self,
        room: &Room,
        from: Option<Network>,
        work: impl FnOnce() -> Result<T, HashError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let admitted = room.admit(from)?;
        let running =
            self.running.clone().acquire_owned().await.expect("the semaphore is never closed");
        tokio::task::spawn_blocking(move || {
            // Held to the end even if the request is given up: the work goes on then, too.
            let _permits = (admitted, running);
            work()
        })
        .await
        .map_err(Refusal::internal)?
        .map_err(Refusal::internal)
    }
}

#[derive(Debug, thiserror::Error)]
enum HashError {
    #[error("the operating system gave no random bytes: {0}")]
    NoRandomness(getrandom::Error),
    #[error("a password hash cannot be made or read: {0}")]
    Hash(argon2::password_hash::Error),
}

impl From<getrandom::Error> for HashError {
    fn from(error: getrandom::Error) -> Self {
        Self::NoRandomness(error)
    }
}

impl From<argon2::password_hash::Error> for HashError {
    fn from(error: argon2::password_hash::Error) -> Self {
        Self::Hash(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.to_owned())
    }

    #[tokio::test]
    async fn passwords_verify_and_nobody_has_one() {
        let passwords = Passwords::new(1, 8, 0);
        let chosen = NewPassword::try_from("correct horse".to_owned()).unwrap();
        let stored = passwords.hash(chosen, None).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        let verify = async |stored: Option<&String>, password: &str| {
            passwords.verify(stored.cloned(), text(password), None).await.unwrap()
        };
        assert!(verify(Some(&stored), "correct horse").await);
        assert!(!verify(Some(&stored), "wrong horse").await);
        assert!(!verify(None, "correct horse").await);
        assert!(!verify(None, &"x".repeat(1_000)).await);
    }

    #[tokio::test]
    async fn nobodys_hash_costs_what_any_other_does() {
        let chosen = NewPassword::try_from("correct horse".to_owned()).unwrap();
        let made = Passwords::new(1, 0, 0).hash(chosen, None).await.unwrap();
        let cost = |hash: &str| {
            let hash = PasswordHash::new(hash).unwrap();
            let salt = hash.salt.unwrap().as_str().len();
            let length = hash.hash.unwrap().len();
            (hash.algorithm.to_string(), hash.version, hash.params.to_string(), salt, length)
        };
        assert_eq!(cost(NOBODYS_HASH), cost(&made));
    }

    #[tokio::test]
    async fn more_than_may_wait_are_turned_away_and_others_are_not() {
        let passwords = Passwords::new(1, 0, 0);
        let chosen = || NewPassword::try_from("correct horse".to_owned()).unwrap();
        let held = passwords.logins.admit(None).unwrap();
        let refused = passwords.verify(None, text("x"), None).await;
        assert!(matches!(refused, Err(Refusal::Busy)));
        assert!(passwords.hash(chosen(), None).await.is_ok());
        drop(held);
        let held = passwords.registrations.admit(None).unwrap();
        assert!(matches!(passwords.hash(chosen(), None).await, Err(Refusal::Busy)));
        assert!(passwords.verify(None, text("x"), None).await.is_ok());
        drop(held);
        assert!(passwords.hash(chosen(), None).await.is_ok());
    }

    #[tokio::test]
    async fn nobody_takes_all_the_room_from_one_address() {
        let passwords = Passwords::new(1, 3, 3);
        let network = |text: &str| Some(Network::of(text.parse().unwrap()));
        let (here, near) = (network("2001:db8::1"), network("2001:db8::2"));
        let elsewhere = network("2001:db8:0:1::1");
        let chosen = || NewPassword::try_from("correct horse".to_owned()).unwrap();
        for room in [&passwords.logins, &passwords.registrations] {
            let _held = [room.admit(here).unwrap(), room.admit(here).unwrap()];
            assert!(matches!(room.admit(near), Err(Refusal::Busy)));
            assert!(room.admit(elsewhere).is_ok() && room.admit(None).is_ok());
        }
        let _held = [(); 2].map(|()| passwords.registrations.admit(here).unwrap());
        assert!(matches!(passwords.hash(chosen(), near).await, Err(Refusal::Busy)));
        assert!(passwords.hash(chosen(), elsewhere).await.is_ok());
        assert!(passwords.verify(None, text("x"), near).await.is_ok());
    }

    #[test]
    fn lengths_are_checked() {
        for (length, ok) in [(7, false), (8, true), (256, true), (257, false)] {
            assert_eq!(NewPassword::try_from("é".repeat(length)).is_ok(), ok, "{length}");
        }
    }
}
