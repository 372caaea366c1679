//! Where records and objects are kept: in the data directory, or in MongoDB and S3.
//!
//! Which of the two is decided by whether the variables of the servers are set: all or none.

use std::ffi::OsString;
use std::time::Duration;

use cloudserve_store::{
    Ages, DataDirLock, MongoOptions, OpenError, S3Options, Stores, open_embedded_exclusive,
    open_production,
};

use crate::config::Config;
use crate::secrets::{FromEnvironment, MONGODB_VARIABLE, S3_ACCESS_VARIABLE, S3_SECRET_VARIABLE};

const BUCKET_VARIABLE: &str = "CLOUDSERVE_S3_BUCKET";

const DAY: Duration = Duration::from_hours(24);

/// Why storage cannot be chosen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StorageError {
    #[error("{given} is set but {missing} is not; MongoDB and S3 are used together")]
    Incomplete { given: &'static str, missing: &'static str },
    #[error("{variable} is not set; this role keeps nothing itself and needs it")]
    Missing { variable: &'static str },
    #[error("{variable} is not Unicode")]
    NotUnicode { variable: &'static str },
}

/// Where records and objects are kept.
pub(crate) enum Storage {
    /// SQLite and local files, in the data directory.
    Embedded,
    /// Servers that any number of processes may share.
    Production(Box<Servers>),
}

/// The servers, by what they keep.
pub(crate) struct Servers {
    /// Records.
    pub(crate) mongo: MongoOptions,
    /// Objects.
    pub(crate) s3: S3Options,
}

impl Storage {
    /// The storage that settings and environment ask for.
    pub(crate) fn choose(config: &Config, given: &FromEnvironment) -> Result<Self, StorageError> {
        let secrets = &given.storage;
        let needed = [
            (MONGODB_VARIABLE, secrets.mongodb_uri.is_some()),
            (BUCKET_VARIABLE, config.s3.bucket.is_some()),
            (S3_ACCESS_VARIABLE, secrets.s3_access_key.is_some()),
            (S3_SECRET_VARIABLE, secrets.s3_secret_key.is_some()),
        ];
        let Some((present, _)) = needed.iter().find(|(_, is_set)| *is_set) else {
            return Ok(Self::Embedded);
        };
        if let Some((missing, _)) = needed.iter().find(|(_, is_set)| !is_set) {
            return Err(StorageError::Incomplete { given: present, missing });
        }
        let mongo = mongo_options(config, given)?;
        let s3 = s3_options(config, given)?;
        Ok(Self::Production(Box::new(Servers { mongo, s3 })))
    }

    /// The same for a command of the operator. How long logs and calls are kept is a setting of the
    /// servers, which the command need not have.
    pub(crate) fn for_operator(mut self) -> Self {
        if let Self::Production(servers) = &mut self {
            servers.mongo.ages = None;
        }
        self
    }

    /// Opens it to serve.
    pub(crate) async fn open(&self, lock: &DataDirLock) -> Result<Stores, OpenError> {
        match self {
            Self::Embedded => open_embedded_exclusive(lock),
            Self::Production(servers) => open_production(&servers.mongo, &servers.s3).await,
        }
    }
}

/// The database that settings and environment name.
pub(crate) fn mongo_options(
    config: &Config,
    given: &FromEnvironment,
) -> Result<MongoOptions, StorageError> {
    Ok(MongoOptions {
        uri: text(MONGODB_VARIABLE, given.storage.mongodb_uri.as_ref())?,
        max_connections: config.mongodb.max_connections,
        operation_timeout_ms: config.mongodb.operation_timeout_ms,
        ages: Some(Ages {
            logs: DAY.saturating_mul(config.log_retention_days),
            usages: (config.usage_retention_days > 0)
                .then(|| DAY.saturating_mul(config.usage_retention_days)),
        }),
        ..MongoOptions::default()
    })
}

/// The object store that they name.
pub(crate) fn s3_options(
    config: &Config,
    given: &FromEnvironment,
) -> Result<S3Options, StorageError> {
    let secrets = &given.storage;
    let missing = StorageError::Missing { variable: BUCKET_VARIABLE };
    Ok(S3Options {
        endpoint: config.s3.endpoint.clone(),
        region: config.s3.region.clone(),
        bucket: config.s3.bucket.clone().ok_or(missing)?,
        access_key: text(S3_ACCESS_VARIABLE, secrets.s3_access_key.as_ref())?,
        secret_key: text(S3_SECRET_VARIABLE, secrets.s3_secret_key.as_ref())?,
        checksums: config.s3.checksums,
        ..S3Options::default()
    })
}

fn text(variable: &'static str, value: Option<&OsString>) -> Result<String, StorageError> {
    let text = value.ok_or(StorageError::Missing { variable })?.to_str();
    text.map(str::to_owned).ok_or(StorageError::NotUnicode { variable })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load_without_flags;
    use crate::secrets::StorageSecrets;

    fn choose(bucket: bool, secrets: StorageSecrets) -> Result<Storage, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(&file, if bucket { "[s3]\nbucket = 'b'\n" } else { "" }).unwrap();
        let config = load_without_flags(Some(&file)).unwrap();
        let given = FromEnvironment::of_storage(secrets);
        Storage::choose(&config, &given).map_err(|error| error.to_string())
    }

    #[test]
    fn servers_are_used_together_or_not_at_all() {
        let some = |text: &str| Some(OsString::from(text));
        let all = || StorageSecrets {
            mongodb_uri: some("mongodb://h/db"),
            s3_access_key: some("a"),
            s3_secret_key: some("s"),
        };
        assert!(matches!(choose(false, StorageSecrets::default()), Ok(Storage::Embedded)));
        let Ok(Storage::Production(servers)) = choose(true, all()) else { panic!("refused") };
        assert_eq!(
            (servers.mongo.uri.as_str(), servers.s3.bucket.as_str()),
            ("mongodb://h/db", "b")
        );
        assert_eq!(servers.mongo.ages, Some(Ages { logs: DAY * 30, usages: None }));
        let for_operator = Storage::Production(servers).for_operator();
        let Storage::Production(servers) = for_operator else { panic!("embedded") };
        assert_eq!(servers.mongo.ages, None);

        let without_secret = StorageSecrets { s3_secret_key: None, ..all() };
        for (outcome, names) in [
            (choose(true, StorageSecrets::default()), [BUCKET_VARIABLE, MONGODB_VARIABLE]),
            (choose(false, all()), [MONGODB_VARIABLE, BUCKET_VARIABLE]),
            (choose(true, without_secret), [MONGODB_VARIABLE, S3_SECRET_VARIABLE]),
        ] {
            let message = outcome.err().unwrap();
            assert!(names.iter().all(|name| message.contains(name)), "{message}");
        }
    }
}
