//! What can go wrong in a client command, and what to do then.
//!
//! Invariant: an error says what was wrong, and a hint says the next step, if there is one.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use reqwest::StatusCode;
use reqwest_tls as reqwest;
use serde_json::{Value, json};
use url::Url;

use super::environment::{GATEWAY_VARIABLE, KEY_VARIABLE, URL_VARIABLE};

/// The command did not do what it was asked to do.
const FAILED: u8 = 1;
/// The command line makes no sense; clap ends with the same code.
const USAGE: u8 = 2;
/// There is no credential, or the server does not take it.
const NOT_LOGGED_IN: u8 = 3;
/// No server could be reached.
const UNREACHABLE: u8 = 4;

/// What a credential is and where it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CredentialKind {
    /// `CLOUDSERVE_API_KEY`.
    KeyOfEnvironment,
    /// An API key that was stored by `login --key`.
    StoredKey,
    /// A session of `login`.
    Session,
    /// The account of a `dev` server.
    Dev,
}

/// Why a client command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("you are not logged in at {url}")]
    NotLoggedIn { url: Url },
    #[error("{url} does not accept {}", credential_text(*kind))]
    CredentialRefused { url: Url, kind: CredentialKind },
    #[error("{message}")]
    Refused { status: u16, code: String, message: String, retry_after_s: Option<u64> },
    #[error("{url} does not answer")]
    Unreachable {
        url: Url,
        #[source]
        source: reqwest::Error,
    },
    #[error("{url} does not answer: what stands before it says {status}")]
    Behind { url: Url, status: StatusCode },
    #[error("{url}, where calls go, does not answer")]
    NoGateway {
        url: Url,
        #[source]
        source: reqwest::Error,
    },
    #[error("this machine has no certificates by which https servers are known")]
    NoCertificates {
        #[source]
        source: reqwest::Error,
    },
    #[error("what answers at {url} is not a CloudServe API: {what}")]
    NotTheApi { url: Url, what: String },
    #[error("the answer of {url} is longer than {max_bytes} bytes")]
    TooLong { url: Url, max_bytes: usize },
    #[error("there is no function called {name:?}")]
    NoSuchFunction { name: String, others: Vec<String> },
    #[error("{message}")]
    Usage { message: String, hint: String },
    #[error("{}: {message}", path.display())]
    Project { path: PathBuf, message: String, hint: Option<String> },
    #[error("cannot use {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the deploy of {function} failed ({code}): {message}")]
    DeployFailed { function: String, version: u64, code: String, message: String },
    /// A version that is there and that no call sees.
    #[error("{message}")]
    Superseded { function: String, version: u64, message: String },
    #[error("{message}")]
    Failed { code: &'static str, message: String, hint: String },
    #[error("{what} is needed, and there is no terminal to ask for it")]
    NoTerminal { what: &'static str, instead: &'static str },
    #[error("nothing was changed")]
    Cancelled,
    #[error("cannot read what you type")]
    Prompt(#[source] io::Error),
    #[error("cannot write the output")]
    Output(#[source] io::Error),
}

impl ClientError {
    /// Something wrong with the command line that clap cannot see.
    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: hint.into() }
    }

    /// A file that cannot be read or written.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        |source| Self::File { path, source }
    }

    /// The code the process ends with.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::NotLoggedIn { .. } | Self::CredentialRefused { .. } => NOT_LOGGED_IN,
            Self::Unreachable { .. }
            | Self::Behind { .. }
            | Self::NoGateway { .. }
            | Self::NotTheApi { .. } => UNREACHABLE,
            Self::Usage { .. } | Self::NoTerminal { .. } => USAGE,
            _ => FAILED,
        })
    }

    /// A stable name: the server's where it said one.
    fn code(&self) -> &str {
        match self {
            Self::NotLoggedIn { .. } => "not_logged_in",
            Self::CredentialRefused { .. } => "unauthorized",
            Self::Refused { code, .. } | Self::DeployFailed { code, .. } => code,
            Self::Superseded { .. } => "superseded",
            Self::Failed { code, .. } => code,
            Self::Unreachable { .. } | Self::Behind { .. } | Self::NoGateway { .. } => {
                "unreachable"
            }
            Self::NoCertificates { .. } => "no_certificates",
            Self::NotTheApi { .. } => "not_the_api",
            Self::TooLong { .. } => "answer_too_long",
            Self::NoSuchFunction { .. } => "function_not_found",
            Self::Usage { .. } => "usage",
            Self::Project { .. } => "project",
            Self::File { .. } => "file",
            Self::NoTerminal { .. } => "no_terminal",
            Self::Cancelled => "cancelled",
            Self::Prompt(_) | Self::Output(_) => "io",
        }
    }

    /// What to do next.
    pub(crate) fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NotLoggedIn { .. } => {
                format!("run `cloudserve login`, or set {KEY_VARIABLE} (and {URL_VARIABLE})")
            }
            Self::CredentialRefused { kind, .. } => match kind {
                CredentialKind::KeyOfEnvironment => format!(
                    "was the key in {KEY_VARIABLE} revoked, has it expired, or is it another \
                     server's? `cloudserve keys create NAME` makes one"
                ),
                CredentialKind::StoredKey | CredentialKind::Session => {
                    "log in again: `cloudserve login`".to_owned()
                }
                CredentialKind::Dev => "remove .cloudserve/dev and start again".to_owned(),
            },
            Self::Refused { code, retry_after_s, message, .. } => {
                return refusal_hint(code, message, *retry_after_s);
            }
            Self::Unreachable { url, .. } => unreachable_hint(url, &self.causes()),
            Self::Behind { .. } => "is the server running behind it? While it starts again, try \
                                    again in a moment; `cloudserve versions` tells whether a deploy \
                                    was accepted"
                .to_owned(),
            Self::NoGateway { .. } => format!(
                "is the server running, and do calls reach it there? --gateway or \
                 {GATEWAY_VARIABLE} names another address than the API does"
            ),
            Self::NoCertificates { .. } => {
                "install ca-certificates, or name a file of certificates in SSL_CERT_FILE".to_owned()
            }
            Self::NotTheApi { .. } => {
                format!("--url or {URL_VARIABLE} must name the API, by default port 8080")
            }
            Self::TooLong { .. } => "ask for less of it: with `logs`, by a smaller -n, or by --level \
                                     and --containing"
                .to_owned(),
            Self::NoSuchFunction { others, .. } if others.is_empty() => {
                "you have none yet; `cloudserve deploy` makes one".to_owned()
            }
            Self::NoSuchFunction { others, .. } => {
                format!("`cloudserve list` shows yours: {}", others.join(", "))
            }
            Self::Usage { hint, .. } | Self::Failed { hint, .. } => hint.clone(),
            Self::Project { hint, .. } => return hint.clone(),
            Self::DeployFailed { code, message, .. } => deploy_hint(code, message)?,
            Self::Superseded { function, version, .. } => format!(
                "say it again, or serve v{version}: `cloudserve rollback {function} --to {version}`"
            ),
            Self::NoTerminal { instead, .. } => (*instead).to_owned(),
            Self::File { .. } | Self::Cancelled | Self::Prompt(_) | Self::Output(_) => return None,
        };
        Some(hint)
    }

    /// What it comes from, the nearest first.
    pub(crate) fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            causes.push(error.to_string().trim_end().to_owned());
            cause = error.source();
        }
        causes
    }

    /// The error for scripts.
    pub(crate) fn to_json(&self) -> Value {
        let mut error = json!({ "code": self.code(), "message": self.to_string() });
        let causes = self.causes();
        if !causes.is_empty() {
            error["because"] = causes.join(": ").into();
        }
        if let Some(hint) = self.hint() {
            error["hint"] = hint.into();
        }
        match self {
            Self::Refused { status, .. } => error["status"] = (*status).into(),
            Self::DeployFailed { version, .. } | Self::Superseded { version, .. } => {
                error["version"] = (*version).into();
            }
            _ => {}
        }
        json!({ "error": error })
    }
}

fn credential_text(kind: CredentialKind) -> &'static str {
    match kind {
        CredentialKind::KeyOfEnvironment => "the key in CLOUDSERVE_API_KEY",
        CredentialKind::StoredKey => "the stored API key",
        CredentialKind::Session => "your session any more",
        CredentialKind::Dev => "the account of this project",
    }
}

fn unreachable_hint(url: &Url, causes: &[String]) -> String {
    // So TLS says that it has not come to an agreement over one.
    if causes.iter().any(|cause| cause.contains("peer certificate")) {
        return "this machine does not trust the server's certificate. One of an authority of your \
                own is known when SSL_CERT_FILE names the authority's certificate"
            .to_owned();
    }
    format!(
        "is the server running (`cloudserve serve`), and is {url} its API? --url or \
         {URL_VARIABLE} says where it is"
    )
}

fn refusal_hint(code: &str, message: &str, retry_after_s: Option<u64>) -> Option<String> {
    Some(match code {
        "forbidden" if message.contains("scope") => {
            "make a key that may: `cloudserve keys create NAME --scope ...`, or log in".to_owned()
        }
        "forbidden" if message.contains("log in") => {
            format!("unset {KEY_VARIABLE} and run `cloudserve login`")
        }
        "user_exists" => "choose another name, or log in: `cloudserve login`".to_owned(),
        "payload_too_large" => "what is not needed can be left out by .gitignore or \
                                .cloudserveignore"
            .to_owned(),
        "route_not_found" => "this server does not offer it; is it older than this program?".into(),
        _ => format!("try again in {} s", retry_after_s?),
    })
}

fn deploy_hint(code: &str, message: &str) -> Option<String> {
    Some(match code {
        "bundle_error" if message.contains("resolve") => {
            "every package that is imported must be in package.json's dependencies, or be named \
             with --dependency"
                .to_owned()
        }
        "startup_error" => {
            "the version before, if there is one, is still served; `cloudserve dev` \
                            shows what the module writes while it loads"
                .to_owned()
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_is_not_trusted_is_no_missing_server() {
        let url = Url::parse("https://a.example").unwrap();
        for (cause, hint) in [
            ("invalid peer certificate: UnknownIssuer", "SSL_CERT_FILE"),
            ("tcp connect error: Connection refused", "--url"),
        ] {
            let causes = ["client error (Connect)".to_owned(), cause.to_owned()];
            assert!(unreachable_hint(&url, &causes).contains(hint), "{cause}");
        }
    }

    #[test]
    fn scripts_are_told_why() {
        let error = ClientError::file("/a")(io::Error::other("the disk is on fire"));
        let told = error.to_json();
        assert_eq!(told["error"]["message"], "cannot use /a");
        assert_eq!(told["error"]["because"], "the disk is on fire");
        assert!(ClientError::Cancelled.to_json()["error"].get("because").is_none());
    }
}
