//! Accounts and sessions.

use std::net::IpAddr;

use cloudserve_identity::{Network, Principal};
use cloudserve_protocol::ids::{UserId, UserName};
use cloudserve_store::account::{Quota, User};
use cloudserve_store::{Change, StoreError, Timestamp};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::refusal::Refusal;
use super::{App, access};

pub(crate) use super::passwords::NewPassword;

/// What people call something, without white space around it.
pub(super) fn one_line(text: &str) -> Result<String, &'static str> {
    let text = text.trim();
    let length_ok = (1..=100).contains(&text.chars().take(101).count());
    if length_ok && !text.chars().any(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err("must have 1 to 100 characters, none of them a control character")
    }
}

/// A name as people write it.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct FullName(String);

impl TryFrom<String> for FullName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        one_line(&text).map(Self)
    }
}

/// A mail address, lower case. Whether mail arrives there is not known.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Email(String);

impl Email {
    /// RFC 5321, 4.5.3.1.3, without the angle brackets.
    const MAX_BYTES: usize = 254;
}

impl TryFrom<String> for Email {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let text = text.trim();
        let parts = text.rsplit_once('@').filter(|(local, domain)| {
            !local.is_empty()
                && local.len() <= 64
                && !local.contains('@')
                && domain.split('.').count() >= 2
                && domain.split('.').all(|label| !label.is_empty())
        });
        let is_plain = !text.chars().any(|c| c.is_whitespace() || c.is_control());
        if text.len() <= Self::MAX_BYTES && is_plain && parts.is_some() {
            Ok(Self(text.to_lowercase()))
        } else {
            Err("must be a mail address like name@example.org")
        }
    }
}

/// A user name somebody chose. Upper case is taken as lower case.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct NewUserName(pub(crate) UserName);

impl TryFrom<String> for NewUserName {
    type Error = cloudserve_protocol::ids::ParseIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.trim().to_ascii_lowercase().parse().map(Self)
    }
}

/// What an account begins with.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) full_name: FullName,
    pub(crate) user_name: NewUserName,
    pub(crate) email: Email,
    pub(crate) password: NewPassword,
    /// Where it comes from, if that is known.
    pub(crate) address: Option<IpAddr>,
}

/// What a login shows.
pub(crate) struct Login {
    /// A mail address or a user name.
    pub(crate) who: String,
    pub(crate) password: Zeroizing<String>,
    /// Where it comes from, if that is known.
    pub(crate) address: Option<IpAddr>,
}

/// A session that has begun.
pub(crate) struct Session {
    pub(crate) token: String,
    pub(crate) user: User,
}

impl App {
    pub(crate) async fn register(&self, new: Registration) -> Result<Session, Refusal> {
        if new.password.is(&new.email.0) || new.password.is(new.user_name.0.as_str()) {
            return Err(Refusal::field("password", "must not be the email or the userName"));
        }
        // What is sure to be refused costs no hash.
        let from = new.address.map(Network::of);
        self.registrations.admit(from)?;
        let accounts = &self.stores.accounts;
        if accounts.user_by_name(&new.user_name.0).await?.is_some() {
            return Err(Refusal::UserExists { what: "userName" });
        }
        if accounts.user_by_email(&new.email.0).await?.is_some() {
            return Err(Refusal::UserExists { what: "email" });
        }
        let user = User {
            id: UserId::new(),
            full_name: new.full_name.0,
            user_name: new.user_name.0,
            email: new.email.0,
            password_hash: self.passwords.hash(new.password, from).await?,
            quota: Quota::default(),
            created_at: Timestamp::now(),
        };
        self.registrations.begin(from)?;
        match accounts.create_user(user.clone()).await {
            Ok(()) => {
                tracing::info!(user = %user.user_name, "registered");
                Ok(self.begin_session(user))
            }
            Err(StoreError::Taken { what }) => Err(Refusal::UserExists { what }),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) async fn login(&self, login: Login) -> Result<Session, Refusal> {
        let who = login.who.trim().to_lowercase();
        let from = login.address.map(Network::of);
        let network = from.map(|network| network.to_string());
        let too_many = |retry_after| Refusal::TooManyAttempts { retry_after };
        self.logins_by_account.begin(&who).map_err(too_many)?;
        if let Some(network) = &network
            && let Err(retry_after) = self.logins_by_address.begin(network)
        {
            self.logins_by_account.take_back(&who);
            return Err(too_many(retry_after));
        }
        let checked = self.check_password(&who, login.password, from).await;
        if !matches!(checked, Err(Refusal::InvalidCredentials)) {
            if checked.is_ok() {
                self.logins_by_account.forgive(&who);
            } else {
                self.logins_by_account.take_back(&who);
            }
            // Not forgiven: who has one account of their own could guess on at others.
            if let Some(network) = &network {
                self.logins_by_address.take_back(network);
            }
        }
        checked.map(|user| self.begin_session(user))
    }

    async fn check_password(
        &self,
        who: &str,
        password: Zeroizing<String>,
        from: Option<Network>,
    ) -> Result<User, Refusal> {
        let user = if who.contains('@') {
            self.stores.accounts.user_by_email(who).await?
        } else {
            match who.parse() {
                Ok(name) => self.stores.accounts.user_by_name(&name).await?,
                Err(_) => None,
            }
        };
        let stored = user.as_ref().map(|user| user.password_hash.clone());
        let is_right = self.passwords.verify(stored, password, from).await?;
        user.filter(|_| is_right).ok_or(Refusal::InvalidCredentials)
    }

    fn begin_session(&self, user: User) -> Session {
        Session { token: self.authenticator.tokens().issue(user.id), user }
    }

    /// Ends the session that asks: its token is refused from now on.
    pub(crate) async fn logout(&self, principal: &Principal) -> Result<(), Refusal> {
        let (token_id, expires_at) = access::session(principal)?;
        self.stores.accounts.revoke_token(token_id, expires_at).await?;
        self.authenticator.forget(Change::Token);
        Ok(())
    }

    /// The account that asks.
    pub(crate) async fn me(&self, principal: &Principal) -> Result<User, Refusal> {
        let user = self.stores.accounts.user(principal.user_id).await?;
        user.ok_or_else(|| Refusal::internal("an authenticated account does not exist"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_and_lower_cased() {
        let parsed = |text: &str| Email::try_from(text.to_owned());
        assert_eq!(parsed(" Ada@Example.ORG ").unwrap().0, "ada@example.org");
        let long = format!("{}@example.org", "x".repeat(300));
        for bad in ["", "no-address", "a@", "@b.c", "a@b", "a b@c.d", "a@b..c", "a@b@c.d", &long] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_checked() {
        assert_eq!(FullName::try_from(" Ada ".to_owned()).unwrap().0, "Ada");
        for bad in ["", "  ", "a\0b", &"x".repeat(101)] {
            assert!(FullName::try_from(bad.to_owned()).is_err(), "{bad}");
        }
        assert_eq!(NewUserName::try_from("Ada".to_owned()).unwrap().0.as_str(), "ada");
    }
}
