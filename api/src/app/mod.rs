//! The rules: who may, what is kept, what is refused. Knows neither HTTP nor SQL.

pub(crate) mod access;
pub(crate) mod accounts;
mod ahead;
mod attempts;
pub(crate) mod audit;
pub(crate) mod deployments;
pub(crate) mod follow;
pub(crate) mod functions;
pub(crate) mod invoke;
pub(crate) mod keys;
pub(crate) mod limits;
mod passwords;
mod places;
pub(crate) mod quota;
pub(crate) mod refusal;
mod registrations;
pub(crate) mod series;
pub(crate) mod telemetry;
pub(crate) mod uploads;
mod version_source;
pub(crate) mod versions;

use std::sync::Arc;
use std::time::Duration;

use cloudserve_identity::{Authenticator, Sealer};
use cloudserve_protocol::call::VersionLoader;
use cloudserve_store::Stores;

use self::attempts::Attempts;
use self::follow::Followers;
use self::passwords::Passwords;
use self::refusal::Refusal;
use self::registrations::Registrations;
use self::uploads::Uploads;
use crate::options::ApiOptions;

/// Does something to its end even if the request is given up: half of it would leave objects that belong to
/// nothing, or a change of which the audit trail does not know.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::spawn(work).await.map_err(Refusal::internal)?
}

/// What the rules work with.
pub(crate) struct App {
    pub(crate) options: Arc<ApiOptions>,
    pub(crate) stores: Stores,
    pub(crate) authenticator: Authenticator,
    pub(crate) sealer: Sealer,
    pub(crate) uploads: Uploads,
    loader: Arc<dyn VersionLoader>,
    followers: Followers,
    caller: invoke::Caller,
    passwords: Passwords,
    registrations: Registrations,
    logins_by_account: Attempts,
    logins_by_address: Attempts,
}

impl App {
    pub(crate) fn new(
        options: Arc<ApiOptions>,
        stores: Stores,
        authenticator: Authenticator,
        sealer: Sealer,
        loader: Arc<dyn VersionLoader>,
    ) -> Self {
        let attempts = |free| {
            Attempts::new(
                free,
                Duration::from_millis(options.login_backoff_ms.into()),
                Duration::from_millis(options.login_backoff_max_ms.into()),
            )
        };
        Self {
            passwords: Passwords::new(
                options.password_hashes_in_parallel,
                options.password_hashes_waiting,
                options.registrations_waiting,
            ),
            registrations: Registrations::new(options.registrations_per_hour),
            logins_by_account: attempts(options.login_failures_per_account),
            logins_by_address: attempts(options.login_failures_per_address),
            followers: Followers::new(options.log_followers_per_user),
            uploads: Uploads::new(options.uploads_in_parallel, options.upload_wait()),
            caller: invoke::Caller::new(&options),
            options,
            stores,
            authenticator,
            sealer,
            loader,
        }
    }
}
