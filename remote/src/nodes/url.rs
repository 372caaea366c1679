//! Where sandboxes are, as the operator says it.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use serde::Deserialize;

/// The port of a sandbox that none is named for.
const DEFAULT_PORT: u16 = 8082;

/// A text is no address of sandboxes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not the URL of a sandbox: http://HOST or http://HOST:PORT")]
pub struct SandboxUrlError {
    text: String,
}

/// The address of one sandbox, or the name of many.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct SandboxUrl {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl FromStr for SandboxUrl {
    type Err = SandboxUrlError;

    fn from_str(text: &str) -> Result<Self, SandboxUrlError> {
        let wrong = || SandboxUrlError { text: text.to_owned() };
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let is_plain = uri.scheme_str() == Some("http")
            && matches!(uri.path(), "" | "/")
            && uri.query().is_none()
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        let host = uri.host().unwrap_or_default();
        let says_no_port = uri.authority().is_some_and(|authority| authority.as_str() == host);
        let port = uri.port_u16().or(says_no_port.then_some(DEFAULT_PORT)).ok_or_else(wrong)?;
        let host = host.trim_matches(['[', ']']);
        if !is_plain || host.is_empty() {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl TryFrom<String> for SandboxUrl {
    type Error = SandboxUrlError;

    fn try_from(text: String) -> Result<Self, SandboxUrlError> {
        text.parse()
    }
}

impl fmt::Display for SandboxUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "http://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "http://{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_a_host_and_nothing_else() {
        for (text, shown) in [
            ("http://127.0.0.1:9", "http://127.0.0.1:9"),
            ("http://sandbox", "http://sandbox:8082"),
            ("http://sandbox.cloudserve.svc:80/", "http://sandbox.cloudserve.svc:80"),
            ("http://[::1]:7", "http://[::1]:7"),
        ] {
            assert_eq!(text.parse::<SandboxUrl>().unwrap().to_string(), shown);
        }
        for text in [
            "",
            "sandbox",
            "sandbox:1",
            "https://a",
            "http://",
            "http://a/b",
            "http://a?b",
            "http://u@a",
            "http://a:99999",
            "http://a:",
        ] {
            let error = text.parse::<SandboxUrl>().unwrap_err();
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
    }
}
