//! The two secrets of an installation: the session signing key and the master key.
//!
//! From the environment, else from `<data>/secrets/`, where `serve` makes them once. Never from an
//! argument: the process list is public. Invariant: a secret that was used is durable first, so a
//! crash cannot leave tokens or environments behind that nothing opens any more; and no master key is
//! made, or used, beside environments that need another one, unless the operator says that it is lost.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use cloudserve_identity::{SealError, Sealer, Secret, SecretError};
use cloudserve_protocol::fault::Chain;
use cloudserve_remote::{InternalToken, TokenError};
use cloudserve_store::function::{SealedEnv, SealedVersion};
use cloudserve_store::{StoreError, Stores};

/// Variables that hold secrets. They are taken out of the environment before anything starts.
pub(crate) const VARIABLES: [&str; 9] = [
    JWT_VARIABLE,
    MASTER_VARIABLE,
    PREVIOUS_VARIABLE,
    LOST_VARIABLE,
    MONGODB_VARIABLE,
    S3_ACCESS_VARIABLE,
    S3_SECRET_VARIABLE,
    INTERNAL_VARIABLE,
    INTERNAL_PREVIOUS_VARIABLE,
];

const JWT_VARIABLE: &str = "CLOUDSERVE_JWT_SECRET";
const MASTER_VARIABLE: &str = "CLOUDSERVE_MASTER_KEY";
/// Master keys of before, with commas between: what they sealed still opens.
const PREVIOUS_VARIABLE: &str = "CLOUDSERVE_MASTER_KEY_PREVIOUS";
/// Ids of master keys that nobody has any more, with commas between.
const LOST_VARIABLE: &str = "CLOUDSERVE_MASTER_KEY_LOST";
/// May hold a password.
pub(crate) const MONGODB_VARIABLE: &str = "CLOUDSERVE_MONGODB_URI";
pub(crate) const S3_ACCESS_VARIABLE: &str = "CLOUDSERVE_S3_ACCESS_KEY";
pub(crate) const S3_SECRET_VARIABLE: &str = "CLOUDSERVE_S3_SECRET_KEY";
/// By which roles know each other.
const INTERNAL_VARIABLE: &str = "CLOUDSERVE_INTERNAL_TOKEN";
/// Another one that a sandbox takes: while it is changed, roles have either.
const INTERNAL_PREVIOUS_VARIABLE: &str = "CLOUDSERVE_INTERNAL_TOKEN_PREVIOUS";
const JWT_FILE: &str = "jwt-secret";
const MASTER_FILE: &str = "master-key";
/// Master keys of before, one a line. There while a rotation is not finished.
const PREVIOUS_FILE: &str = "master-key-previous";

/// Why the secrets could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretsError {
    #[error("{variable} is not usable; `openssl rand -hex 32` makes a good value")]
    Variable {
        variable: &'static str,
        #[source]
        source: SecretError,
    },
    #[error("{} does not hold a secret; restore it from a backup", path.display())]
    Content {
        path: PathBuf,
        #[source]
        source: SecretError,
    },
    #[error("cannot use {}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "{variable} is not set, and a role of its own makes no secrets; all roles of an \
         installation need the same (`openssl rand -hex 32` makes a good value)"
    )]
    Missing { variable: &'static str },
    #[error("{variable} is not usable; `openssl rand -hex 32` makes a good value")]
    Internal {
        variable: &'static str,
        #[source]
        source: TokenError,
    },
    #[error("a new secret could not be made")]
    Generate(#[source] SecretError),
    #[error(
        "environments are sealed under a master key that is not known here ({key_id}); give it in \
         CLOUDSERVE_MASTER_KEY or CLOUDSERVE_MASTER_KEY_PREVIOUS, or put it into \
         secrets/master-key of the data directory; if nobody has it any more, set \
         CLOUDSERVE_MASTER_KEY_LOST={key_id}: versions with these environments then answer 503 until \
         they are deployed again; nothing was changed"
    )]
    UnknownMaster { key_id: String },
    #[error("no master key is known here, and whether environments need one cannot be read")]
    Unchecked(#[source] StoreError),
}

/// Environments that are looked at before a server starts.
const LOOKED_AT: u32 = 100;

/// What the environment held.
#[derive(Default)]
pub(crate) struct FromEnvironment {
    jwt: Option<OsString>,
    master: Option<OsString>,
    previous: Option<OsString>,
    internal: Option<OsString>,
    internal_previous: Option<OsString>,
    pub(crate) lost: LostKeys,
    pub(crate) storage: StorageSecrets,
}

/// The ids of master keys that the operator says are lost. What is sealed under one is closed for good,
/// and stays as it is: the key may be found.
#[derive(Debug, Clone, Default)]
pub(crate) struct LostKeys(Vec<String>);

impl LostKeys {
    fn parse(given: Option<&OsString>) -> Self {
        let text = given.map(|given| given.to_string_lossy()).unwrap_or_default();
        let ids = text.split(',').map(|id| id.trim().to_lowercase());
        Self(ids.filter(|id| !id.is_empty()).collect())
    }

    /// Whether this is sealed under one.
    pub(crate) fn sealed(&self, env: &SealedEnv) -> bool {
        !self.0.is_empty() && self.0.contains(&key_id(env))
    }
}

/// The id of the master key that this is sealed under, as it is told and given.
pub(crate) fn key_id(env: &SealedEnv) -> String {
    Sealer::key_id(env).unwrap_or_else(|| "unnamed".to_owned())
}

/// What opens the servers that records and objects are kept in.
#[derive(Default)]
pub(crate) struct StorageSecrets {
    pub(crate) mongodb_uri: Option<OsString>,
    pub(crate) s3_access_key: Option<OsString>,
    pub(crate) s3_secret_key: Option<OsString>,
}

impl FromEnvironment {
    /// Takes the secrets out of the environment, so that no child process inherits them.
    pub(crate) fn take() -> Self {
        let take = |name| {
            let value = std::env::var_os(name);
            // SAFETY: called first thing in `main`, while this thread is the only one.
            unsafe { std::env::remove_var(name) };
            value.filter(|value| !value.is_empty())
        };
        Self {
            jwt: take(JWT_VARIABLE),
            master: take(MASTER_VARIABLE),
            previous: take(PREVIOUS_VARIABLE),
            internal: take(INTERNAL_VARIABLE),
            internal_previous: take(INTERNAL_PREVIOUS_VARIABLE),
            lost: LostKeys::parse(take(LOST_VARIABLE).as_ref()),
            storage: StorageSecrets {
                mongodb_uri: take(MONGODB_VARIABLE),
                s3_access_key: take(S3_ACCESS_VARIABLE),
                s3_secret_key: take(S3_SECRET_VARIABLE),
            },
        }
    }

    /// Whether the master key is the operator's to change, and not ours.
    pub(crate) fn has_master_key(&self) -> bool {
        self.master.is_some()
    }

    /// The token by which roles know each other.
    pub(crate) fn internal_token(&self) -> Result<InternalToken, SecretsError> {
        let variable = INTERNAL_VARIABLE;
        let given = self.internal.as_ref().ok_or(SecretsError::Missing { variable })?;
        token(variable, given)
    }

    /// Another one that a sandbox takes, if there is one.
    pub(crate) fn previous_internal_token(&self) -> Result<Option<InternalToken>, SecretsError> {
        let given = self.internal_previous.as_ref();
        given.map(|given| token(INTERNAL_PREVIOUS_VARIABLE, given)).transpose()
    }

    #[cfg(test)]
    pub(crate) fn of_storage(storage: StorageSecrets) -> Self {
        Self { storage, ..Self::default() }
    }

    #[cfg(test)]
    pub(crate) fn of_lost(ids: &str) -> Self {
        let lost = LostKeys::parse(Some(&OsString::from(ids)));
        Self { lost, ..Self::default() }
    }
}

fn token(variable: &'static str, given: &OsString) -> Result<InternalToken, SecretsError> {
    InternalToken::parse(&given.to_string_lossy())
        .map_err(|source| SecretsError::Internal { variable, source })
}

/// The secrets of an installation.
pub(crate) struct Secrets {
    pub(crate) jwt: Secret,
    pub(crate) master: Secret,
    /// Master keys of before, to open what they sealed.
    pub(crate) previous: Vec<Secret>,
}

impl Secrets {
    /// The secrets of the installation in this directory, made now if it has none. The caller
    /// holds the directory's lock.
    pub(crate) fn load(data_dir: &Path, given: &FromEnvironment) -> Result<Self, SecretsError> {
        let dir = data_dir.join("secrets");
        Ok(Self {
            jwt: load_one(&dir, JWT_FILE, JWT_VARIABLE, given.jwt.as_ref())?,
            master: load_one(&dir, MASTER_FILE, MASTER_VARIABLE, given.master.as_ref())?,
            previous: load_previous(&dir, given.previous.as_ref())?,
        })
    }

    /// [`Secrets::load`] for the installation that this is of. Refused, and nothing made, if what is
    /// sealed there needs a master key that is not known.
    pub(crate) async fn load_for(
        stores: &Stores,
        data_dir: &Path,
        given: &FromEnvironment,
    ) -> Result<Self, SecretsError> {
        let known = Self::known_masters(Some(data_dir), given)?;
        let known = known.split_first();
        let sealer = known.map(|(current, previous)| Sealer::with_previous(current, previous));
        check(stores, sealer.as_ref(), &given.lost).await?;
        Self::load(data_dir, given)
    }

    /// Refused if what is sealed there needs a master key that is not known.
    pub(crate) async fn check(
        &self,
        stores: &Stores,
        given: &FromEnvironment,
    ) -> Result<(), SecretsError> {
        let sealer = Sealer::with_previous(&self.master, &self.previous);
        check(stores, Some(&sealer), &given.lost).await
    }

    /// The secrets of an installation of many processes: from the environment alone.
    pub(crate) fn given(given: &FromEnvironment) -> Result<Self, SecretsError> {
        let one = |variable, value: Option<&OsString>| {
            from_variable(variable, value.ok_or(SecretsError::Missing { variable })?)
        };
        Ok(Self {
            jwt: one(JWT_VARIABLE, given.jwt.as_ref())?,
            master: one(MASTER_VARIABLE, given.master.as_ref())?,
            previous: given.previous.as_ref().map_or(Ok(Vec::new()), parse_previous)?,
        })
    }

    /// The master keys that are known, the one of now first. None is made. Without a directory they
    /// are from the environment alone.
    pub(crate) fn known_masters(
        data_dir: Option<&Path>,
        given: &FromEnvironment,
    ) -> Result<Vec<Secret>, SecretsError> {
        let dir = data_dir.map(|data_dir| data_dir.join("secrets"));
        let mut keys = Vec::new();
        match (&given.master, &dir) {
            (Some(given), _) => keys.push(from_variable(MASTER_VARIABLE, given)?),
            (None, Some(dir)) => keys.extend(find_one(&dir.join(MASTER_FILE))?),
            (None, None) => {}
        }
        keys.extend(match (&given.previous, &dir) {
            (Some(given), _) => parse_previous(given)?,
            (None, Some(dir)) => load_previous(dir, None)?,
            (None, None) => Vec::new(),
        });
        Ok(keys)
    }

    /// Makes a new master key and keeps the one of now beside it until [`Secrets::forget_previous`].
    /// The caller holds the directory's lock, and has the key from its file.
    pub(crate) fn renew_master(&mut self, data_dir: &Path) -> Result<(), SecretsError> {
        let dir = data_dir.join("secrets");
        let new = Secret::generate().map_err(SecretsError::Generate)?;
        let old = std::mem::replace(&mut self.master, new);
        self.previous.insert(0, old);
        // The old ones first: with neither written, nothing has changed.
        let path = dir.join(PREVIOUS_FILE);
        write_durably(&dir, &path, &self.previous)
            .map_err(|source| SecretsError::Io { path, source })?;
        let path = dir.join(MASTER_FILE);
        write_durably(&dir, &path, std::slice::from_ref(&self.master))
            .map_err(|source| SecretsError::Io { path, source })
    }

    /// Removes the master keys of before from the directory: nothing is sealed under them any more.
    pub(crate) fn forget_previous(&mut self, data_dir: &Path) -> Result<(), SecretsError> {
        let path = data_dir.join("secrets").join(PREVIOUS_FILE);
        self.previous.clear();
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(SecretsError::Io { path, source })
            }
            _ => Ok(()),
        }
    }
}

/// Looks at some environments.
async fn check(
    stores: &Stores,
    sealer: Option<&Sealer>,
    lost: &LostKeys,
) -> Result<(), SecretsError> {
    let some = match stores.functions.sealed_envs(None, LOOKED_AT).await {
        Ok(page) => page,
        // Storage that is slow is no reason to end, but a key that is made is there for good.
        Err(error) if sealer.is_some() => {
            tracing::warn!(
                error = %Chain(&error),
                "whether the master key opens what is stored could not be looked at"
            );
            Vec::new()
        }
        Err(error) => return Err(SecretsError::Unchecked(error)),
    };
    are_known(&some, sealer, lost)
}

/// Whether the key is known of an installation that has these. One that it opens is enough: others
/// may be left from a key that was lost, which is a matter of those versions. Where it opens none, the
/// operator has to say of each that it is lost.
fn are_known(
    some: &[SealedVersion],
    sealer: Option<&Sealer>,
    lost: &LostKeys,
) -> Result<(), SecretsError> {
    let closed = |sealed| is_known(sealed, sealer).err().map(|error| (sealed, error));
    let mut closed: Vec<(&SealedVersion, _)> = some.iter().filter_map(closed).collect();
    let opens_none = closed.len() == some.len();
    let unsaid = closed.iter().position(|(sealed, _)| opens_none && !lost.sealed(&sealed.env));
    if let Some(unsaid) = unsaid {
        return Err(closed.swap_remove(unsaid).1);
    }
    if let Some((sealed, _)) = closed.first() {
        let master_key = key_id(&sealed.env);
        tracing::warn!(
            %master_key,
            "some environments are sealed under a master key that is not known here; their versions \
             are answered 503 until they are deployed again"
        );
    }
    Ok(())
}

/// Whether the key is known that this is sealed under.
fn is_known(sealed: &SealedVersion, sealer: Option<&Sealer>) -> Result<(), SecretsError> {
    let opened = sealer.map(|sealer| sealer.open(sealed.function_id, &sealed.env));
    match (opened, Sealer::key_id(&sealed.env)) {
        // With a key that is known, bytes that do not open are damaged: a matter of one version.
        (Some(Ok(_)), _) | (Some(Err(SealError::DoesNotOpen)), Some(_)) => Ok(()),
        _ => Err(SecretsError::UnknownMaster { key_id: key_id(&sealed.env) }),
    }
}

fn load_previous(dir: &Path, given: Option<&OsString>) -> Result<Vec<Secret>, SecretsError> {
    if let Some(given) = given {
        return parse_previous(given);
    }
    let path = dir.join(PREVIOUS_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let keys = text.lines().map(Secret::parse).collect::<Result<_, _>>();
            keys.map_err(|source| SecretsError::Content { path, source })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(SecretsError::Io { path, source }),
    }
}

fn parse_previous(given: &OsString) -> Result<Vec<Secret>, SecretsError> {
    let text = given.to_string_lossy();
    let keys = text.split(',').map(Secret::parse).collect::<Result<_, _>>();
    keys.map_err(|source| SecretsError::Variable { variable: PREVIOUS_VARIABLE, source })
}

fn from_variable(variable: &'static str, given: &OsString) -> Result<Secret, SecretsError> {
    // Text that is not Unicode is no hexadecimal number either.
    Secret::parse(&given.to_string_lossy())
        .map_err(|source| SecretsError::Variable { variable, source })
}

fn load_one(
    dir: &Path,
    file: &str,
    variable: &'static str,
    given: Option<&OsString>,
) -> Result<Secret, SecretsError> {
    if let Some(given) = given {
        return from_variable(variable, given);
    }
    let path = dir.join(file);
    if let Some(secret) = find_one(&path)? {
        return Ok(secret);
    }
    let secret = Secret::generate().map_err(SecretsError::Generate)?;
    write_durably(dir, &path, std::slice::from_ref(&secret))
        .map_err(|source| SecretsError::Io { path, source })?;
    Ok(secret)
}

/// The secret in a file, if there is one.
fn find_one(path: &Path) -> Result<Option<Secret>, SecretsError> {
    let at = || path.to_owned();
    match fs::read_to_string(path) {
        Ok(text) => Secret::parse(&text)
            .map(Some)
            .map_err(|source| SecretsError::Content { path: at(), source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SecretsError::Io { path: at(), source }),
    }
}

fn write_durably(dir: &Path, path: &Path, secrets: &[Secret]) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let temporary = path.with_extension("new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    for secret in secrets {
        writeln!(file, "{}", secret.to_hex())?;
    }
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(dir)?.sync_all()?;
    // The name of `secrets` itself.
    dir.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use cloudserve_protocol::call::Env;
    use cloudserve_protocol::ids::FunctionId;

    use super::*;

    fn given(jwt: Option<&str>) -> FromEnvironment {
        FromEnvironment { jwt: jwt.map(OsString::from), ..FromEnvironment::default() }
    }

    #[test]
    fn secrets_are_made_once_and_private() {
        let data = tempfile::tempdir().unwrap();
        let first = Secrets::load(data.path(), &given(None)).unwrap();
        let second = Secrets::load(data.path(), &given(None)).unwrap();
        assert_eq!(first.jwt.to_hex(), second.jwt.to_hex());
        assert_eq!(first.master.to_hex(), second.master.to_hex());
        assert_ne!(first.jwt.to_hex(), first.master.to_hex());
        for file in [JWT_FILE, MASTER_FILE] {
            let mode = fs::metadata(data.path().join("secrets").join(file)).unwrap().permissions();
            assert_eq!(mode.mode() & 0o777, 0o600, "{file}");
        }
    }

    #[test]
    fn a_role_of_its_own_names_the_secret_it_lacks() {
        let hex = "ab".repeat(32);
        let nothing = given(None);
        let error = Secrets::given(&nothing).err().unwrap().to_string();
        assert!(error.contains(JWT_VARIABLE), "{error}");
        let error = Secrets::given(&given(Some(&hex))).err().unwrap().to_string();
        assert!(error.contains(MASTER_VARIABLE), "{error}");
        let error = nothing.internal_token().err().unwrap().to_string();
        assert!(error.contains(INTERNAL_VARIABLE), "{error}");
        let short = FromEnvironment { internal: Some("hunter2".into()), ..given(None) };
        let error = short.internal_token().err().unwrap();
        assert!(error.to_string().contains(INTERNAL_VARIABLE), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"));
        assert!(nothing.previous_internal_token().unwrap().is_none());
        let short = FromEnvironment { internal_previous: Some("x".into()), ..given(Some(&hex)) };
        let error = short.previous_internal_token().err().unwrap().to_string();
        assert!(error.contains(INTERNAL_PREVIOUS_VARIABLE), "{error}");
    }

    #[test]
    fn a_rotation_keeps_the_old_key_until_it_is_forgotten() {
        let data = tempfile::tempdir().unwrap();
        let mut secrets = Secrets::load(data.path(), &given(None)).unwrap();
        let first = secrets.master.to_hex();
        secrets.renew_master(data.path()).unwrap();
        let second = secrets.master.to_hex();
        secrets.renew_master(data.path()).unwrap();
        let again = Secrets::load(data.path(), &given(None)).unwrap();
        assert_eq!(again.master.to_hex(), secrets.master.to_hex());
        let previous: Vec<_> = again.previous.iter().map(Secret::to_hex).collect();
        assert_eq!(previous, [second, first]);
        secrets.forget_previous(data.path()).unwrap();
        secrets.forget_previous(data.path()).unwrap();
        assert!(Secrets::load(data.path(), &given(None)).unwrap().previous.is_empty());
    }

    #[test]
    fn known_master_keys_are_found_and_none_is_made() {
        let data = tempfile::tempdir().unwrap();
        let known = |data_dir: Option<&Path>, given: &FromEnvironment| {
            let keys = Secrets::known_masters(data_dir, given).unwrap();
            keys.iter().map(Secret::to_hex).collect::<Vec<_>>()
        };
        let nothing = given(None);
        assert!(known(Some(data.path()), &nothing).is_empty());
        assert!(known(None, &nothing).is_empty());
        assert!(!data.path().join("secrets").exists());

        let mut secrets = Secrets::load(data.path(), &nothing).unwrap();
        let first = secrets.master.to_hex();
        secrets.renew_master(data.path()).unwrap();
        assert_eq!(known(Some(data.path()), &nothing), [secrets.master.to_hex(), first]);
        let hex = "cd".repeat(32);
        let both = FromEnvironment {
            master: Some(OsString::from(&hex)),
            previous: Some(OsString::from(format!("{hex},{hex}"))),
            ..given(None)
        };
        assert_eq!(known(Some(data.path()), &both), vec![hex.clone(); 3]);
        assert_eq!(known(None, &both), vec![hex; 3]);
    }

    #[test]
    fn a_master_key_that_is_missing_is_named_by_its_id() {
        let (needed, other) = (Secret::generate().unwrap(), Secret::generate().unwrap());
        let function_id = FunctionId::new();
        let plain = Env([("TOKEN".to_owned(), "s3cret".to_owned())].into());
        let env = Sealer::new(&needed).seal(function_id, &plain).unwrap();
        let id = Sealer::key_id(&env).unwrap();
        let mut sealed = SealedVersion { function_id, version: 1, env };
        let rotating = Sealer::with_previous(&other, std::slice::from_ref(&needed));
        let (needed, other) = (Sealer::new(&needed), Sealer::new(&other));
        for sealer in [&needed, &rotating] {
            is_known(&sealed, Some(sealer)).unwrap();
        }
        for sealer in [None, Some(&other)] {
            let error = is_known(&sealed, sealer).err().unwrap().to_string();
            assert!(error.contains(&id) && error.contains(PREVIOUS_VARIABLE), "{error}");
        }
        let of_a_lost_key = other.seal(function_id, &plain).unwrap();
        let mut both = vec![SealedVersion { function_id, version: 0, env: of_a_lost_key }];
        let none = LostKeys::default();
        assert!(are_known(&both, Some(&needed), &none).is_err(), "none opens");
        both.push(sealed.clone());
        are_known(&both, Some(&needed), &none).unwrap();
        assert!(are_known(&both, None, &none).is_err() && are_known(&[], None, &none).is_ok());
        // Each has to be said to be lost, by the id that is told.
        let lost = |ids: &str| LostKeys::parse(Some(&OsString::from(ids)));
        let of_both = both.iter().map(|sealed| key_id(&sealed.env)).collect::<Vec<_>>().join(", ");
        are_known(&both, None, &lost(&of_both)).unwrap();
        for ids in [id.as_str(), "another", "", ","] {
            assert!(are_known(&both, None, &lost(ids)).is_err(), "{ids}");
        }

        sealed.env.0.pop();
        is_known(&sealed, Some(&needed)).unwrap();
    }

    #[test]
    fn the_environment_wins_and_bad_values_are_named_but_not_repeated() {
        let data = tempfile::tempdir().unwrap();
        let hex = "ab".repeat(32);
        let secrets = Secrets::load(data.path(), &given(Some(&hex))).unwrap();
        assert_eq!(secrets.jwt.to_hex(), hex);

        let error = Secrets::load(data.path(), &given(Some("hunter2"))).err().unwrap();
        assert!(error.to_string().contains(JWT_VARIABLE), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"));

        fs::write(data.path().join("secrets").join(MASTER_FILE), "garbage").unwrap();
        let error = Secrets::load(data.path(), &given(None)).err().unwrap();
        assert!(error.to_string().contains(MASTER_FILE), "{error}");
    }
}
