//! Logins that are remembered, one per server.
//!
//! Invariants: the file is readable by its owner alone, is replaced and never half-written, and
//! what was stored for one server is sent to no other.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use url::Url;

use super::environment;
use super::error::ClientError;

const FILE: &str = "credentials.toml";

/// What was stored for a server.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stored {
    /// Whose it is.
    pub(crate) user: String,
    /// A session's token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    /// An API key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
}

/// All of them.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Credentials {
    /// The server that was logged in to last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    current: Option<Url>,
    #[serde(default)]
    servers: BTreeMap<Url, Stored>,
}

impl Credentials {
    /// What is stored; nothing if there is no file.
    pub(crate) fn load() -> Result<Self, ClientError> {
        match path() {
            Some(path) => Self::load_from(&path),
            None => Ok(Self::default()),
        }
    }

    fn load_from(path: &Path) -> Result<Self, ClientError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(ClientError::File { path: path.to_owned(), source }),
        };
        toml::from_str(&text).map_err(|error| ClientError::Project {
            path: path.to_owned(),
            message: format!("is not what `login` wrote: {}", error.message()),
            hint: Some("remove it and run `cloudserve login`".to_owned()),
        })
    }

    /// The server that was logged in to last.
    pub(crate) fn current(&self) -> Option<&Url> {
        self.current.as_ref()
    }

    /// What was stored for this server.
    pub(crate) fn of(&self, server: &Url) -> Option<&Stored> {
        self.servers.get(server)
    }

    /// Remembers a login; the server becomes the one commands go to.
    pub(crate) fn put(&mut self, server: Url, stored: Stored) {
        self.current = Some(server.clone());
        self.servers.insert(server, stored);
    }

    /// Forgets a login.
    pub(crate) fn remove(&mut self, server: &Url) -> Option<Stored> {
        let removed = self.servers.remove(server);
        if self.current.as_ref() == Some(server) {
            self.current = self.servers.keys().next().cloned();
        }
        removed
    }

    /// Writes the file.
    pub(crate) fn store(&self) -> Result<(), ClientError> {
        let path = path().ok_or_else(|| {
            ClientError::usage(
                "there is no place to remember the login",
                "set HOME or XDG_CONFIG_HOME, or use CLOUDSERVE_API_KEY instead",
            )
        })?;
        self.store_at(&path).map_err(ClientError::file(path))
    }

    fn store_at(&self, path: &Path) -> io::Result<()> {
        let text = toml::to_string(self).map_err(io::Error::other)?;
        let dir = path.parent().unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let temporary = path.with_extension(format!("new-{}", std::process::id()));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        // One that was there before keeps its mode.
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    }
}

/// Where logins are remembered.
pub(crate) fn path() -> Option<PathBuf> {
    Some(environment::config_dir()?.join(FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn session(token: &str) -> Stored {
        Stored { user: "ada".into(), token: Some(token.into()), key: None }
    }

    #[test]
    fn logins_are_private_and_kept_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/credentials.toml");
        let mut stored = Credentials::load_from(&path).unwrap();
        assert!(stored.current().is_none());
        stored.put(url("http://a.example/"), session("1"));
        stored.put(url("http://b.example/"), session("2"));
        stored.store_at(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        stored.store_at(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);

        let mut read = Credentials::load_from(&path).unwrap();
        assert_eq!(read.current(), Some(&url("http://b.example/")));
        assert_eq!(read.of(&url("http://a.example/")).unwrap().token.as_deref(), Some("1"));
        assert!(read.of(&url("http://a.example:81/")).is_none());
        assert!(read.remove(&url("http://b.example/")).is_some());
        assert_eq!(read.current(), Some(&url("http://a.example/")));
    }

    #[test]
    fn a_damaged_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials.toml");
        fs::write(&path, "servers = 7").unwrap();
        let error = Credentials::load_from(&path).err().unwrap();
        assert!(error.to_string().contains("credentials.toml"), "{error}");
        assert!(error.hint().unwrap().contains("cloudserve login"));
    }
}
