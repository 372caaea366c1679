//! Which server a command talks to, and as whom.

use clap::Args;
use url::Url;

use super::api::{Api, Credential};
use super::credentials::Credentials;
use super::environment::{self, KEY_VARIABLE, URL_VARIABLE};
use super::error::{ClientError, CredentialKind};
use super::output::Output;

/// Where a server of `cloudserve serve` listens when nobody says otherwise.
const USUAL_URL: &str = "http://127.0.0.1:8080";

/// What every client command understands.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Common options")]
pub(crate) struct Common {
    /// Print JSON on standard output, errors too: for scripts.
    #[arg(long)]
    pub(crate) json: bool,

    /// Where the API is [default: the server of the last login, else port 8080 of this
    /// machine].
    #[arg(long, value_name = "URL", env = URL_VARIABLE)]
    pub(crate) url: Option<String>,
}

impl Common {
    /// How to write.
    pub(crate) fn output(&self) -> Output {
        Output { is_json: self.json }
    }

    /// The server that is meant.
    pub(crate) fn server(&self, credentials: &Credentials) -> Result<Url, ClientError> {
        match self.named() {
            Some(text) => parse_url(text),
            None => Ok(credentials.current().cloned().unwrap_or_else(usual)),
        }
    }

    fn named(&self) -> Option<&str> {
        self.url.as_deref().filter(|text| !text.is_empty())
    }

    /// The server, as nobody yet.
    pub(crate) fn api_as_nobody(&self) -> Result<Api, ClientError> {
        Api::new(self.server(&Credentials::load()?)?, None)
    }

    /// The server, as the key of the environment, else as what was stored for it.
    pub(crate) fn api(&self) -> Result<Api, ClientError> {
        let key = environment::text(KEY_VARIABLE)
            .map(|secret| Credential { secret, kind: CredentialKind::KeyOfEnvironment });
        if let Some(text) = self.named()
            && key.is_some()
        {
            // Nothing is read at home: jobs have homes that are not theirs.
            return Api::new(parse_url(text)?, key);
        }
        let credentials = Credentials::load()?;
        let server = self.server(&credentials)?;
        let credential = key.or_else(|| {
            let stored = credentials.of(&server)?;
            let key = stored.key.clone().map(|secret| (secret, CredentialKind::StoredKey));
            let session = stored.token.clone().map(|secret| (secret, CredentialKind::Session));
            let (secret, kind) = key.or(session)?;
            Some(Credential { secret, kind })
        });
        if credential.is_none() {
            return Err(ClientError::NotLoggedIn { url: server });
        }
        Api::new(server, credential)
    }
}

fn usual() -> Url {
    Url::parse(USUAL_URL).expect("the constant is a URL")
}

/// A base address as people type it.
pub(crate) fn parse_url(text: &str) -> Result<Url, ClientError> {
    let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let wrong = |what: &str| {
        ClientError::usage(
            format!("{text:?} is not the address of a server: {what}"),
            "write it like https://cloudserve.example.org or http://127.0.0.1:8080",
        )
    };
    let mut url = Url::parse(&full).map_err(|error| wrong(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(wrong("it must begin with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // Not repeated.
        return Err(ClientError::usage(
            "an address must not hold a password",
            "write it like https://cloudserve.example.org; `cloudserve login` asks for the password",
        ));
    }
    url.set_query(None);
    url.set_fragment(None);
    // With and without it, it is the same server, and the same login.
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_type_them() {
        for (text, url) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/"),
            ("localhost:8080", "http://localhost:8080/"),
            ("https://example.org/cloud/?x#y", "https://example.org/cloud/"),
            ("https://example.org/cloud", "https://example.org/cloud/"),
        ] {
            assert_eq!(parse_url(text).unwrap().as_str(), url);
        }
        for text in ["ftp://example.org", "https://", "http://user:secret@example.org", "a b"] {
            let error = parse_url(text).unwrap_err();
            assert!(error.hint().unwrap().contains("http"), "{text}");
        }
    }
}
