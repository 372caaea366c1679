//! `register`, `login`, `logout`, `whoami`.

use clap::Args;
use reqwest::Method;
use reqwest_tls as reqwest;
use serde_json::{Value, json};

use super::api::{Api, Credential, is_local, text};
use super::credentials::{self, Credentials, Stored};
use super::environment::{self, KEY_VARIABLE, PASSWORD_VARIABLE};
use super::error::{ClientError, CredentialKind};
use super::output::{Output, pairs};
use super::prompt;
use super::session::Common;

#[derive(Args)]
pub(crate) struct Login {
    /// E-mail address or user name; asked for if it is left out.
    #[arg(long, short, value_name = "NAME")]
    user: Option<String>,

    /// Log in with an API key instead of a password.
    #[arg(long, conflicts_with = "user")]
    key: bool,

    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Args)]
pub(crate) struct Register {
    /// The name in your functions' addresses: /run/NAME/...
    #[arg(long, value_name = "NAME")]
    user_name: Option<String>,

    /// E-mail address.
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,

    /// What people call you.
    #[arg(long, value_name = "NAME")]
    full_name: Option<String>,

    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Args)]
pub(crate) struct Logout {
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Args)]
pub(crate) struct WhoAmI {
    #[command(flatten)]
    pub(super) common: Common,
}

pub(crate) async fn login(args: Login) -> Result<(), ClientError> {
    let api = args.common.api_as_nobody()?;
    let output = args.common.output();
    warn_if_readable_by_others(&api, output);
    if args.key {
        return login_with_key(&api, output).await;
    }
    let who = match args.user {
        Some(who) => who,
        None => prompt::line("E-mail or user name", "name it with --user")?,
    };
    let password = match environment::value(PASSWORD_VARIABLE) {
        Some(password) => password,
        None => prompt::secret("Password")?,
    };
    let field = if who.contains('@') { "email" } else { "userName" };
    let answer =
        api.post_as_nobody("/api/auth/login", &json!({ field: who, "password": password })).await;
    remember_session(&api, output, &answer?)
}

async fn login_with_key(api: &Api, output: Output) -> Result<(), ClientError> {
    let secret = match environment::text(KEY_VARIABLE) {
        Some(key) => key,
        None => prompt::secret("API key")?,
    };
    let credential = Credential { secret: secret.clone(), kind: CredentialKind::StoredKey };
    let shown = Api::new(api.base().clone(), Some(credential))?;
    let answer = match shown.get("/api/auth/me").await {
        Err(ClientError::CredentialRefused { url, .. }) => {
            return Err(ClientError::Failed {
                code: "unauthorized",
                message: format!("{url} does not accept this API key"),
                hint: "is it complete, not expired, and this server's?".to_owned(),
            });
        }
        // The key is good; its scopes do not include reading.
        Err(ClientError::Refused { status: 403, .. }) => Value::Null,
        answer => answer?,
    };
    let user = text(&answer["user"], "userName").to_owned();
    remember(api, output, &answer["user"], Stored { user, token: None, key: Some(secret) })
}

pub(crate) async fn register(args: Register) -> Result<(), ClientError> {
    let api = args.common.api_as_nobody()?;
    let output = args.common.output();
    warn_if_readable_by_others(&api, output);
    let given = |given: Option<String>, what, instead| match given {
        Some(text) => Ok(text),
        None => prompt::line(what, instead),
    };
    let full_name = given(args.full_name, "Full name", "name it with --full-name")?;
    let user_name = given(args.user_name, "User name", "name it with --user-name")?;
    let email = given(args.email, "E-mail", "name it with --email")?;
    let password = match environment::value(PASSWORD_VARIABLE) {
        Some(password) => password,
        None => prompt::new_secret("Password")?,
    };
    let body = json!({
        "fullName": full_name, "userName": user_name, "email": email, "password": password,
    });
    let answer = api.post_as_nobody("/api/auth/register", &body).await?;
    remember_session(&api, output, &answer)
}

fn remember_session(api: &Api, output: Output, answer: &Value) -> Result<(), ClientError> {
    let user = &answer["user"];
    let stored = Stored {
        user: text(user, "userName").to_owned(),
        token: Some(text(answer, "token").to_owned()),
        key: None,
    };
    remember(api, output, user, stored)
}

fn remember(api: &Api, output: Output, user: &Value, stored: Stored) -> Result<(), ClientError> {
    let mut credentials = Credentials::load()?;
    let name = if stored.user.is_empty() { "a key".to_owned() } else { stored.user.clone() };
    credentials.put(api.base().clone(), stored);
    credentials.store()?;
    let place = credentials::path().map(|path| path.display().to_string()).unwrap_or_default();
    let document = json!({ "url": api.base(), "user": user, "storedIn": place });
    output.result(&document, |out| {
        writeln!(out, "Logged in at {} as {name}.", api.base())?;
        writeln!(out, "Stored in {place}, readable by you alone.")
    })?;
    if environment::text(KEY_VARIABLE).is_some() {
        output.warn(&format!("{KEY_VARIABLE} is set; commands use it instead of this login"));
    }
    Ok(())
}

fn warn_if_readable_by_others(api: &Api, output: Output) {
    if api.base().scheme() == "http" && !is_local(api.base()) {
        output.warn("the connection is not encrypted: others may read what you send; use https://");
    }
}

pub(crate) async fn logout(args: Logout) -> Result<(), ClientError> {
    let mut credentials = Credentials::load()?;
    let server = args.common.server(&credentials)?;
    let removed = credentials.remove(&server);
    let was_logged_in = removed.is_some();
    if let Some(stored) = removed {
        credentials.store()?;
        if let Some(secret) = stored.token {
            let credential = Credential { secret, kind: CredentialKind::Session };
            let api = Api::new(server.clone(), Some(credential))?;
            let ended = api.send(Method::POST, "/api/auth/logout", None).await;
            // A session that has ended already is what was wanted.
            if let Err(error) = ended
                && !matches!(error, ClientError::CredentialRefused { .. })
            {
                args.common.output().warn(&format!(
                    "the login is forgotten here, but the server was not told ({error}); the \
                     session ends by itself"
                ));
            }
        }
    }
    let document = json!({ "url": server, "wasLoggedIn": was_logged_in });
    args.common.output().result(&document, |out| {
        if was_logged_in {
            writeln!(out, "Logged out at {server}.")
        } else {
            writeln!(out, "You were not logged in at {server}.")
        }
    })
}

pub(crate) async fn whoami(args: WhoAmI) -> Result<(), ClientError> {
    let api = args.common.api()?;
    let answer = api.get("/api/auth/me").await?;
    let user = &answer["user"];
    let via = match api.credential()?.kind {
        CredentialKind::KeyOfEnvironment => "key of the environment",
        CredentialKind::StoredKey => "stored key",
        CredentialKind::Session | CredentialKind::Dev => "session",
    };
    let document = json!({ "url": api.base(), "via": via, "user": user });
    args.common.output().result(&document, |out| {
        writeln!(out, "{}", text(user, "userName"))?;
        pairs(
            out,
            &[
                ("name", text(user, "fullName").to_owned()),
                ("email", text(user, "email").to_owned()),
                ("server", api.base().to_string()),
                ("by", via.to_owned()),
            ],
        )
    })
}
