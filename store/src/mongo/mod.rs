//! MongoDB back ends, the same rules as [`crate::sqlite`] for installations of many processes.
//!
//! What must change together changes in a transaction, so a replica set is needed (one member is
//! enough). Accounts, functions and usage are acknowledged when a majority of the members has
//! them; what was acknowledged survives the loss of any minority. Logs are acknowledged by the
//! primary: they are many, and worth less.
//!
//! | collection | holds |
//! |---|---|
//! | `users`, `apikeys`, `audit`, `revokedtokens` | accounts; revoked tokens go with their own end |
//! | `functions`, `versions` | functions; a version with `queuedAt` *is* the deploy queue |
//! | `remains` | functions that are not there, and of which objects may be |
//! | `trees` | dependency trees, and when each was last in use |
//! | `usages`, `usagedays` | calls, and the running sums over them |
//! | `logs` | what calls wrote, removed with age |
//! | `changes` | what changed, for caches of other processes ([`changes`]) |
//! | `meta` | the version of all this ([`schema`]), and whether an import is not finished |

mod accounts;
mod ages;
mod audit;
mod beside;
mod changes;
mod database;
mod documents;
mod functions;
mod holdings;
mod list;
mod logs;
mod queue;
mod remains;
mod route;
mod schema;
mod sweeps;
mod telemetry;
mod transfer;
mod trees;
mod usage;
mod values;
mod versions;

use std::sync::Arc;

use cloudserve_protocol::artifact::ArtifactStore;

use crate::transfer::RecordTransfer;
use crate::{
    AccountStore, ChangeFeed, FunctionStore, OpenError, Stores, TelemetryStore, TreeStore,
};

pub use ages::Ages;

/// How MongoDB is used.
#[derive(Clone)]
pub struct MongoOptions {
    /// `mongodb://` or `mongodb+srv://`, with a database name. May hold a password, so this has
    /// no `Debug`.
    pub uri: String,
    /// Connections to one server at most; more operations wait.
    pub max_connections: u32,
    /// How long to look for a server that can do what is asked, and to connect to it.
    pub connect_timeout_ms: u32,
    /// How long an operation may take, retries and waiting for a connection included.
    pub operation_timeout_ms: u32,
    /// How long what calls leave behind is kept, for those who serve. `None`: as long as before.
    pub ages: Option<Ages>,
    /// How often changes are looked for while the server sends none by itself.
    pub poll_interval_ms: u32,
}

impl Default for MongoOptions {
    fn default() -> Self {
        Self {
            uri: String::new(),
            max_connections: 32,
            connect_timeout_ms: 5_000,
            operation_timeout_ms: 10_000,
            ages: None,
            poll_interval_ms: 1_000,
        }
    }
}

/// The parts of [`crate::Stores`] that live in MongoDB.
pub(crate) struct MongoStores {
    accounts: Arc<dyn AccountStore>,
    functions: Arc<dyn FunctionStore>,
    trees: Arc<dyn TreeStore>,
    telemetry: Arc<dyn TelemetryStore>,
    changes: Arc<dyn ChangeFeed>,
}

/// Connects, brings the database to the newest schema and begins to follow its changes and, where ages
/// are asked for, to bring it to these and to its indexes.
pub(crate) async fn open(options: &MongoOptions) -> Result<MongoStores, OpenError> {
    let database = prepared(options).await?;
    refuse_unfinished(&database).await?;
    let feed = changes::follow(database.clone(), options).await?;
    let beside = options.ages.map(|ages| beside::Beside::begin(database.clone(), ages));
    let telemetry = Arc::new(telemetry::MongoTelemetry::new(database.clone(), beside));
    Ok(MongoStores {
        accounts: Arc::new(accounts::MongoAccounts::new(database.clone())),
        functions: Arc::new(functions::MongoFunctions::new(database.clone(), telemetry.clone())),
        trees: Arc::new(trees::MongoTrees::new(database)),
        telemetry,
        changes: Arc::new(feed),
    })
}

impl MongoStores {
    /// All of an installation, with these objects.
    pub(crate) fn with_objects(self, artifacts: Arc<dyn ArtifactStore>) -> Stores {
        let Self { accounts, functions, trees, telemetry, changes } = self;
        Stores { accounts, functions, trees, telemetry, artifacts, changes }
    }
}

/// Connects to read everything; with `importing`, to write it, also where an import was cut off.
/// Ages stay as they are.
pub(crate) async fn open_transfer(
    options: &MongoOptions,
    importing: bool,
) -> Result<Arc<dyn RecordTransfer>, OpenError> {
    let database = prepared(options).await?;
    if !importing {
        refuse_unfinished(&database).await?;
    }
    Ok(Arc::new(transfer::MongoTransfer::new(database)))
}

async fn prepared(options: &MongoOptions) -> Result<database::Database, OpenError> {
    let database = database::Database::connect(options).await?;
    schema::prepare(&database).await?;
    Ok(database)
}

async fn refuse_unfinished(database: &database::Database) -> Result<(), OpenError> {
    let importing = transfer::is_importing(database).await;
    if importing.map_err(|error| database.unreachable(error))? {
        return Err(OpenError::Importing { place: format!("the database {}", database.name()) });
    }
    Ok(())
}
