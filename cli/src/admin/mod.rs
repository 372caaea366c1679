//! `cloudserve admin`: what the operator of an installation does.
//!
//! Works on the data directory itself or, if the environment names them, on the servers, so it
//! needs no credential but access to them. Quotas and exports are made beside a running server,
//! which acts on a quota within 5 seconds.

mod archive;
mod export;
mod import;
mod master_key;
mod progress;
mod quota;
mod summary;
mod unnamed;
mod verify;

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use cloudserve_identity::SealError;
use cloudserve_store::{OpenError, StoreError, Stores, open_embedded, open_production};
use tokio::runtime::Runtime;

use crate::config;
use crate::secrets::{FromEnvironment, Secrets, SecretsError};
use crate::storage::Storage;

/// What to do.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Show or set what an account may use. Bounds that are not named stay.
    #[command(after_long_help = quota::EXAMPLES)]
    Quota(quota::QuotaOptions),
    /// Seal all environments under a new master key.
    #[command(after_long_help = master_key::EXAMPLES)]
    RotateMasterKey(Place),
    /// Write everything the installation holds into one file.
    #[command(after_long_help = export::EXAMPLES)]
    Export(export::ExportOptions),
    /// Put what was exported into an empty installation.
    #[command(after_long_help = import::EXAMPLES)]
    Import(import::ImportOptions),
    /// Check that an exported file is whole, byte by byte.
    Verify(verify::VerifyOptions),
}

/// Where the installation is.
#[derive(Args)]
pub(crate) struct Place {
    /// Its data directory [default: as `serve` finds it].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// File with settings [default: cloudserve.toml, if there is one].
    #[arg(long, value_name = "FILE", env = config::FILE_VARIABLE)]
    config: Option<PathBuf>,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdminError {
    #[error("there is no installation in {}; name its --data-dir", data_dir.display())]
    NoInstallation { data_dir: PathBuf },
    #[error("there is no account {user:?}")]
    NoAccount { user: String },
    #[error("the data directory cannot be used")]
    DataDir(#[from] OpenError),
    #[error("the secrets cannot be used")]
    Secrets(#[from] SecretsError),
    #[error(
        "CLOUDSERVE_MASTER_KEY_PREVIOUS is not set; over MongoDB the new master key is in \
         CLOUDSERVE_MASTER_KEY and the old one there"
    )]
    NoPrevious,
    #[error(
        "somebody goes on sealing under the old master key; restart all processes with the new one \
         and run this again"
    )]
    StillSealing,
    #[error("storage failed")]
    Store(#[from] StoreError),
    #[error(
        "the environment of version {version} of function {function} does not open; nothing is \
         lost: the old key is kept, and the command may be run again"
    )]
    DoesNotOpen {
        function: String,
        version: u32,
        #[source]
        source: SealError,
    },
}

/// Does it.
pub(crate) fn run(command: Command, given: &FromEnvironment) -> Result<ExitCode, Box<dyn Error>> {
    // The thread that compresses is not the one that keeps connections alive.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let said = match command {
        Command::Quota(options) => {
            let stores = runtime.block_on(open(&options.place, given))?;
            runtime.block_on(quota::run(&stores, &options))?
        }
        Command::RotateMasterKey(place) => rotate(&runtime, &place, given)?,
        Command::Export(options) => export::run(&runtime, &options, given)?,
        Command::Import(options) => import::run(&runtime, &options, given)?,
        Command::Verify(options) => verify::run(&options)?,
    };
    writeln!(std::io::stdout(), "{said}")?;
    Ok(ExitCode::SUCCESS)
}

fn rotate(
    runtime: &Runtime,
    place: &Place,
    given: &FromEnvironment,
) -> Result<String, Box<dyn Error>> {
    let (storage, data_dir) = place.storage(given)?;
    Ok(match storage {
        Storage::Embedded => runtime.block_on(master_key::rotate(&installed(data_dir)?, given))?,
        Storage::Production(servers) => {
            let secrets = Secrets::given(given)?;
            let stores = runtime.block_on(open_production(&servers.mongo, &servers.s3))?;
            runtime.block_on(master_key::rotate_shared(&stores, &secrets, &given.lost))?
        }
    })
}

impl Place {
    /// What keeps the installation, and its data directory if it is that.
    fn storage(&self, given: &FromEnvironment) -> Result<(Storage, PathBuf), Box<dyn Error>> {
        let settings = config::load_without_flags(self.config.as_deref())?;
        let storage = Storage::choose(&settings, given)?.for_operator();
        Ok((storage, self.data_dir.clone().unwrap_or(settings.data_dir)))
    }
}

/// The directory, if it has an installation.
fn installed(data_dir: PathBuf) -> Result<PathBuf, AdminError> {
    // Opening would make a new one.
    if data_dir.join("meta.db").is_file() {
        Ok(data_dir)
    } else {
        Err(AdminError::NoInstallation { data_dir })
    }
}

/// The storage of the installation, beside whoever serves it.
async fn open(place: &Place, given: &FromEnvironment) -> Result<Stores, Box<dyn Error>> {
    let (storage, data_dir) = place.storage(given)?;
    Ok(match storage {
        Storage::Embedded => open_embedded(&installed(data_dir)?)?,
        Storage::Production(servers) => open_production(&servers.mongo, &servers.s3).await?,
    })
}
