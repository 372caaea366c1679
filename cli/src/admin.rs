//! `cloudserve admin`: what the operator of an installation does.
//!
//! Works on the data directory itself or, if the environment names them, on the servers, so it
//! needs no credential but access to them. A quota is set beside a running server, which acts on it within 5 seconds.

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use cloudserve_identity::{SealError, Sealer};
use cloudserve_protocol::ids::{AuditId, UserName};
use cloudserve_store::account::{Actor, AuditEntry, Quota, User};
use cloudserve_store::telemetry::UsageQuery;
use cloudserve_store::{
    DataDirLock, OpenError, StoreError, Stores, Timestamp, open_embedded, open_embedded_exclusive,
    open_production,
};
use serde_json::json;

use crate::config;
use crate::secrets::{FromEnvironment, Secrets, SecretsError};
use crate::storage::Storage;

/// Environments sealed again in one step.
const RESEAL_PAGE: u32 = 100;

/// How often it is looked whether anything is sealed under the old key.
const RESEAL_LOOKS: u32 = 10;

/// What to do.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Show or set what an account may use. Bounds that are not named stay.
    #[command(after_long_help = QUOTA_EXAMPLES)]
    Quota(QuotaOptions),
    /// Seal all environments under a new master key.
    #[command(after_long_help = ROTATE_EXAMPLES)]
    RotateMasterKey(Place),
}

const QUOTA_EXAMPLES: &str = "\
Examples:
  cloudserve admin quota ada                                # show
  cloudserve admin quota ada --calls-per-day 100000 --gb-seconds-per-month 5000
  cloudserve admin quota ada --rate-per-second none         # the installation's bound again

Days and months are of UTC. A running server acts on it within 5 seconds.";

const ROTATE_EXAMPLES: &str = "\
A data directory: stop the server, run this, start it. Cut off, it may be run again.

MongoDB: while servers run, all of which have the new key in CLOUDSERVE_MASTER_KEY and the old one in
CLOUDSERVE_MASTER_KEY_PREVIOUS, run this with the same two. When it has ended, the old key opens
nothing any more and may be taken away.";

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

/// Whose quota, and what it is to be.
#[derive(Args)]
pub(crate) struct QuotaOptions {
    /// The account's userName or email.
    user: String,

    /// Calls of all its functions in one day; `none` sets no bound.
    #[arg(long, value_name = "N", value_parser = bound::<u64>)]
    calls_per_day: Option<NewBound<u64>>,

    /// Memory times wall-clock time in one month; `none` sets no bound.
    #[arg(long, value_name = "N", value_parser = gb_seconds)]
    gb_seconds_per_month: Option<NewBound<f64>>,

    /// Calls per second of each of its credentials; 0 sets no bound, `none` the installation's.
    #[arg(long, value_name = "N", value_parser = bound::<u32>)]
    rate_per_second: Option<NewBound<u32>>,

    /// Print JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    place: Place,
}

/// A bound to set; `None` removes it.
#[derive(Debug, Clone, Copy)]
struct NewBound<T>(Option<T>);

fn bound<T: std::str::FromStr>(text: &str) -> Result<NewBound<T>, String> {
    match text {
        "none" => Ok(NewBound(None)),
        number => number
            .parse()
            .map(|number| NewBound(Some(number)))
            .map_err(|_| "must be a whole number, or none".to_owned()),
    }
}

fn gb_seconds(text: &str) -> Result<NewBound<f64>, String> {
    let parsed = match text {
        "none" => return Ok(NewBound(None)),
        number => number.parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0),
    };
    parsed
        .map(|number| NewBound(Some(number)))
        .ok_or_else(|| "must be a number, or none".to_owned())
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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let said = match command {
        Command::Quota(options) => {
            let stores = runtime.block_on(open(&options.place, given))?;
            runtime.block_on(quota(&stores, &options))?
        }
        Command::RotateMasterKey(place) => {
            let settings = config::load_without_flags(place.config.as_deref())?;
            match Storage::choose(&settings, given)? {
                Storage::Embedded => runtime.block_on(rotate(&data_dir(&place)?, given))?,
                Storage::Production(servers) => {
                    let secrets = Secrets::given(given)?;
                    let opened = open_production(&servers.0, &servers.1);
                    let stores = runtime.block_on(opened)?;
                    runtime.block_on(rotate_shared(&stores, &secrets))?
                }
            }
        }
    };
    writeln!(std::io::stdout(), "{said}")?;
    Ok(ExitCode::SUCCESS)
}

fn data_dir(place: &Place) -> Result<PathBuf, Box<dyn Error>> {
    let data_dir = config::data_dir(place.data_dir.clone(), place.config.as_deref())?;
    // Opening would make a new one.
    if data_dir.join("meta.db").is_file() {
        Ok(data_dir)
    } else {
        Err(AdminError::NoInstallation { data_dir }.into())
    }
}

/// The storage of the installation, beside whoever serves it.
async fn open(place: &Place, given: &FromEnvironment) -> Result<Stores, Box<dyn Error>> {
    let settings = config::load_without_flags(place.config.as_deref())?;
    Ok(match Storage::choose(&settings, given)? {
        Storage::Embedded => open_embedded(&data_dir(place)?)?,
        Storage::Production(servers) => open_production(&servers.0, &servers.1).await?,
    })
}

async fn find(stores: &Stores, user: &str) -> Result<User, AdminError> {
    let user = user.trim().to_lowercase();
    let found = match user.parse::<UserName>() {
        Ok(name) => stores.accounts.user_by_name(&name).await?,
        Err(_) => stores.accounts.user_by_email(&user).await?,
    };
    found.ok_or(AdminError::NoAccount { user })
}

async fn quota(stores: &Stores, options: &QuotaOptions) -> Result<String, AdminError> {
    let user = find(stores, &options.user).await?;
    let mut quota = user.quota;
    if let Some(NewBound(calls)) = options.calls_per_day {
        quota.calls_per_day = calls;
    }
    if let Some(NewBound(gb_seconds)) = options.gb_seconds_per_month {
        quota.gb_seconds_per_month = gb_seconds;
    }
    if let Some(NewBound(rate)) = options.rate_per_second {
        quota.rate_per_second = rate;
    }
    if quota != user.quota {
        stores.accounts.set_quota(user.id, quota).await?;
        let entry = AuditEntry {
            id: AuditId::new(),
            user_id: user.id,
            actor: Actor::Operator,
            action: "quota.changed".to_owned(),
            subject: None,
            detail: told(&quota),
            at: Timestamp::now(),
        };
        stores.accounts.record_audit(entry).await?;
    }
    let now = Timestamp::now();
    let since = |from| {
        let query = UsageQuery { user_id: user.id, function_id: None, from: Some(from), to: None };
        stores.telemetry.usage_totals(query)
    };
    let calls = since(Timestamp::of_day(now.day())).await?.executed;
    let gb_seconds = since(Timestamp::of_month(now.month())).await?.gb_seconds;
    if options.json {
        let said = json!({
            "userName": user.user_name,
            "quota": quota,
            "used": { "callsToday": calls, "gbSecondsThisMonth": gb_seconds },
        });
        return Ok(said.to_string());
    }
    Ok(format!(
        "{}: {}\nused: {calls} calls today, {gb_seconds:.3} GB-seconds this month",
        user.user_name,
        told(&quota)
    ))
}

fn told(quota: &Quota) -> String {
    fn shown<T: ToString>(bound: Option<T>, otherwise: &str) -> String {
        bound.map_or_else(|| otherwise.to_owned(), |bound| bound.to_string())
    }
    format!(
        "calls per day {}, GB-seconds per month {}, calls per second {}",
        shown(quota.calls_per_day, "unlimited"),
        shown(quota.gb_seconds_per_month, "unlimited"),
        match quota.rate_per_second {
            Some(0) => "unlimited".to_owned(),
            rate => shown(rate, "as the installation's"),
        },
    )
}

/// Both keys are known before anything is sealed under the new one, and until all is: whenever
/// this is cut off, everything opens, and it may be run again.
async fn rotate(data_dir: &Path, given: &FromEnvironment) -> Result<String, AdminError> {
    let lock = DataDirLock::acquire(data_dir)?;
    let mut secrets = Secrets::load(data_dir, given)?;
    let is_ours = !given.has_master_key();
    if is_ours {
        secrets.renew_master(data_dir)?;
    }
    let stores = open_embedded_exclusive(&lock)?;
    let sealer = Sealer::with_previous(&secrets.master, &secrets.previous);
    let resealed = reseal(&stores, &sealer).await?;
    if is_ours {
        secrets.forget_previous(data_dir)?;
    }
    Ok(format!("{resealed} environments are sealed under the new master key"))
}

/// Over servers that others use meanwhile. What they seal while this runs is found by the next
/// look.
async fn rotate_shared(stores: &Stores, secrets: &Secrets) -> Result<String, AdminError> {
    if secrets.previous.is_empty() {
        return Err(AdminError::NoPrevious);
    }
    let sealer = Sealer::with_previous(&secrets.master, &secrets.previous);
    let mut resealed = 0;
    for _ in 0..RESEAL_LOOKS {
        match reseal(stores, &sealer).await? {
            0 => {
                return Ok(format!(
                    "{resealed} environments are sealed under the new master key; when no process \
                     seals under the old one any more, it may be taken away"
                ));
            }
            more => resealed += more,
        }
    }
    Err(AdminError::StillSealing)
}

async fn reseal(stores: &Stores, sealer: &Sealer) -> Result<u64, AdminError> {
    let (mut after, mut resealed) = (None, 0);
    loop {
        let page = stores.functions.sealed_envs(after, RESEAL_PAGE).await?;
        let Some(last) = page.last() else { return Ok(resealed) };
        after = Some((last.function_id, last.version));
        for sealed in page.into_iter().filter(|sealed| !sealer.is_current(&sealed.env)) {
            let (id, version) = (sealed.function_id, sealed.version);
            let again = sealer.open(id, &sealed.env).and_then(|env| sealer.seal(id, &env));
            let again = again.map_err(|source| AdminError::DoesNotOpen {
                function: id.to_string(),
                version,
                source,
            })?;
            if stores.functions.replace_env(id, version, sealed.env, again).await? {
                resealed += 1;
            }
        }
    }
}
