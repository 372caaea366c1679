//! One connection pool, and transactions over it.
//!
//! Invariant: no operation waits without end. Each has one deadline over retries, the wait for a
//! connection and the server's own time; a server that hangs looks like one that is gone. Only what
//! makes an index over records that are there has none, and nobody waits for it ([`super::beside`]).

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cloudserve_protocol::fault::Chain;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Document, RawDocumentBuf, doc};
use mongodb::error::{ErrorKind, TRANSIENT_TRANSACTION_ERROR, UNKNOWN_TRANSACTION_COMMIT_RESULT};
use mongodb::options::{
    Acknowledgment, ClientOptions, CollectionOptions, ReadConcern, SelectionCriteria, WriteConcern,
};
use mongodb::{Client, ClientSession, Collection};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::MongoOptions;
use super::changes::{ChangeDocument, SharedFeed};
use super::values::{document, is_duplicate, is_only_duplicates};
use crate::{Change, OpenError, StoreError};

/// How often a commit is asked for whose outcome is unknown.
const COMMIT_ATTEMPTS: u32 = 3;

/// How long a server keeps a transaction that nobody ends (its default, and a margin).
const TRANSACTION_LIFETIME: Duration = Duration::from_secs(90);

/// Sessions remembered that were given up; the oldest is forgotten first.
const MAX_LOST: usize = 1_000;

/// The database of an installation. Cheap to clone.
#[derive(Clone)]
#[allow(clippy::struct_field_names, reason = "the driver calls it so, too")]
pub(super) struct Database {
    database: mongodb::Database,
    place: Arc<str>,
    timeout: Duration,
    feed: SharedFeed,
    lost: Arc<Lost>,
}

/// The server did not answer in time.
#[derive(Debug, thiserror::Error)]
#[error("MongoDB did not answer within {timeout_ms} ms")]
struct TimedOut {
    timeout_ms: u128,
}

/// The URI does not say which database.
#[derive(Debug, thiserror::Error)]
#[error("the URI names no database; it ends in `/<name>`")]
struct NoDatabase;

impl Database {
    /// Connects and asks the server for a sign of life.
    pub(super) async fn connect(options: &MongoOptions) -> Result<Self, OpenError> {
        // What the driver says of a malformed URI does not repeat the password.
        let invalid = |source: Box<dyn StdError + Send + Sync>| OpenError::Unreachable {
            server: "MongoDB",
            place: "CLOUDSERVE_MONGODB_URI".to_owned(),
            source,
        };
        let mut client = ClientOptions::parse(&options.uri).await.map_err(|e| invalid(e.into()))?;
        let hosts: Vec<_> = client.hosts.iter().map(ToString::to_string).collect();
        let place = hosts.join(",");
        let connect = Duration::from_millis(options.connect_timeout_ms.into());
        let timeout = Duration::from_millis(options.operation_timeout_ms.into());
        client.app_name.get_or_insert_with(|| "cloudserve".to_owned());
        client.connect_timeout = Some(connect);
        client.server_selection_timeout = Some(connect);
        client.max_pool_size = Some(options.max_connections.max(1));
        client.retry_reads = Some(true);
        client.retry_writes = Some(true);
        client.selection_criteria =
            Some(SelectionCriteria::ReadPreference(mongodb::options::ReadPreference::Primary));
        client.read_concern = Some(ReadConcern::majority());
        client.write_concern = Some(
            WriteConcern::builder()
                .w(Acknowledgment::Majority)
                .journal(true)
                .w_timeout(timeout)
                .build(),
        );
        let client = Client::with_options(client).map_err(|e| invalid(e.into()))?;
        let database = client.default_database().ok_or_else(|| invalid(NoDatabase.into()))?;
        let place = place.into();
        let database =
            Self { database, place, timeout, feed: SharedFeed::new(), lost: Arc::default() };
        let ping = database.database.run_command(doc! { "ping": 1 });
        database.bounded(ping).await.map_err(|error| database.unreachable(error))?;
        Ok(database)
    }

    /// What it means when the server fails while an installation is opened.
    pub(super) fn unreachable(
        &self,
        error: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> OpenError {
        OpenError::Unreachable {
            server: "MongoDB",
            place: self.place.to_string(),
            source: error.into(),
        }
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        self.database.name()
    }

    pub(super) fn handle(&self) -> &mongodb::Database {
        &self.database
    }

    pub(super) fn feed(&self) -> &SharedFeed {
        &self.feed
    }

    pub(super) fn collection(&self, name: &str) -> Collection<RawDocumentBuf> {
        self.database.collection(name)
    }

    /// A collection whose writes the primary alone acknowledges, and alone is asked for: a majority
    /// may not have them yet.
    pub(super) fn lightly_acknowledged(&self, name: &str) -> Collection<RawDocumentBuf> {
        let options = CollectionOptions::builder()
            .write_concern(WriteConcern::builder().w(Acknowledgment::Nodes(1)).build())
            .read_concern(ReadConcern::local())
            .build();
        self.database.collection_with_options(name, options)
    }

    /// Runs an operation under the deadline.
    pub(super) async fn bounded<T, E>(
        &self,
        operation: impl IntoFuture<Output = Result<T, E>>,
    ) -> Result<T, StoreError>
    where
        E: Into<Failed>,
    {
        match tokio::time::timeout(self.timeout, operation.into_future()).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(error.into().into()),
            Err(_) => {
                let timeout_ms = self.timeout.as_millis();
                Err(StoreError::unavailable(TimedOut { timeout_ms }))
            }
        }
    }

    /// Begins a transaction; [`in_transaction`] is the way to use one.
    pub(super) async fn begin(&self) -> Result<Transaction, Failed> {
        let mut session = self.database.client().start_session().await?;
        session.start_transaction().read_concern(ReadConcern::snapshot()).await?;
        let outbox = self.collection(super::schema::CHANGES);
        Ok(Transaction {
            session: Some(session),
            outbox,
            feed: self.feed.clone(),
            changes: Vec::new(),
            lost: self.lost.clone(),
            is_known: false,
        })
    }

    /// Ends transactions that were given up before the server had seen all of them: it may have
    /// gone on with one, which then is in the way of others, and of doing the same again, for as
    /// long as it lives. To be called when something is in the way.
    pub(super) async fn end_lost(&self) {
        let lost = self.lost.take();
        if lost.is_empty() {
            return;
        }
        let sessions: Vec<_> = lost.iter().map(|given_up| given_up.id.clone()).collect();
        let admin = self.database.client().database("admin");
        if let Err(error) = admin.run_command(doc! { "killSessions": sessions }).await {
            tracing::warn!(error = %Chain(&error),
                "transactions that were given up may go on for a minute");
            self.lost.put_back(lost);
        }
    }
}

/// Sessions whose transactions were given up while an operation of theirs was under way.
#[derive(Default)]
struct Lost(Mutex<Vec<GivenUp>>);

/// The session stays here until the server has nothing of it any more: the driver would let another
/// operation have it, which would be killed along with what was lost.
struct GivenUp {
    id: Document,
    since: Instant,
    /// `None` while the server is asked to end the transaction.
    session: Option<ClientSession>,
}

impl Lost {
    /// Asks the server to end the transaction, and remembers it: it may not hear of that.
    fn give_up(self: Arc<Self>, mut session: ClientSession) {
        // Without a runtime nobody is in the way of anybody any more.
        let Ok(runtime) = Handle::try_current() else { return };
        let id = session.id().clone();
        {
            let mut lost = self.0.lock();
            if lost.len() == MAX_LOST {
                lost.remove(0);
            }
            lost.push(GivenUp { id: id.clone(), since: Instant::now(), session: None });
        }
        runtime.spawn(async move {
            let _ = session.abort_transaction().await;
            let mut lost = self.0.lock();
            if let Some(given_up) = lost.iter_mut().find(|given_up| given_up.id == id) {
                given_up.session = Some(session);
            }
        });
    }

    /// Those whose transactions may be there still.
    fn take(&self) -> Vec<GivenUp> {
        let mut lost = std::mem::take(&mut *self.0.lock());
        lost.retain(|given_up| given_up.since.elapsed() < TRANSACTION_LIFETIME);
        lost
    }

    fn put_back(&self, lost: Vec<GivenUp>) {
        self.0.lock().splice(0..0, lost);
    }
}

/// Why an operation ended early: the rules of the domain, or the driver.
#[derive(Debug)]
pub(super) enum Failed {
    Store(StoreError),
    Driver(mongodb::error::Error),
    /// Another transaction was in the way, without the driver's saying so.
    Again,
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<mongodb::error::Error> for Failed {
    fn from(error: mongodb::error::Error) -> Self {
        Self::Driver(error)
    }
}

impl From<Failed> for StoreError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Store(error) => error,
            Failed::Driver(error) => Self::unavailable(error),
            Failed::Again => Self::Conflict,
        }
    }
}

/// What an error of an insert means: `Conflict`, if what is inserted is there already.
pub(super) fn inserting(error: mongodb::error::Error) -> Failed {
    if is_duplicate(&error) { StoreError::Conflict.into() } else { error.into() }
}

/// A transaction, and the changes to announce once it is committed.
pub(super) struct Transaction {
    /// `None` once it is dropped.
    session: Option<ClientSession>,
    outbox: Collection<RawDocumentBuf>,
    feed: SharedFeed,
    changes: Vec<(ObjectId, Change)>,
    lost: Arc<Lost>,
    /// Whether the server has said how it ended.
    is_known: bool,
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(session) = self.session.take().filter(|_| !self.is_known) {
            self.lost.clone().give_up(session);
        }
    }
}

impl Transaction {
    /// What its operations are made with.
    pub(super) fn session(&mut self) -> &mut ClientSession {
        self.session.as_mut().expect("it is taken when the transaction is dropped")
    }

    /// Announces a change when, and only when, the transaction commits.
    pub(super) fn announce(&mut self, change: Change) {
        self.changes.push((ObjectId::new(), change));
    }

    /// Commits if the work went well. `None`: others were in the way, do it all again.
    pub(super) async fn end<T>(mut self, outcome: Result<T, Failed>) -> Option<Result<T, Failed>> {
        let ended = self.try_end(outcome).await;
        // What the server has said, it knows.
        if !matches!(&ended, Err(Failed::Driver(error)) if !matches!(*error.kind, ErrorKind::Command(_)))
        {
            self.is_known = true;
        }
        match ended {
            Err(Failed::Again) => None,
            Err(Failed::Driver(error)) if error.contains_label(TRANSIENT_TRANSACTION_ERROR) => None,
            ended => Some(ended),
        }
    }

    async fn try_end<T>(&mut self, outcome: Result<T, Failed>) -> Result<T, Failed> {
        let value = match outcome {
            Ok(value) => value,
            Err(failed) => {
                // If this does not arrive, the server gives up by itself after a minute.
                let _ = self.session().abort_transaction().await;
                return Err(failed);
            }
        };
        if !self.changes.is_empty() {
            let rows = self
                .changes
                .iter()
                .map(|(id, change)| document(&ChangeDocument::new(*id, *change)));
            let rows = rows.collect::<Result<Vec<_>, _>>()?;
            let outbox = self.outbox.clone();
            outbox.insert_many(rows).session(self.session()).await?;
        }
        let mut attempt = 1;
        while let Err(error) = self.session().commit_transaction().await {
            let is_unknown = error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT);
            if !is_unknown || attempt == COMMIT_ATTEMPTS {
                return Err(error.into());
            }
            attempt += 1;
        }
        for (id, change) in self.changes.drain(..) {
            self.feed.announce_once(id, change);
        }
        Ok(value)
    }
}

/// Waits a little longer each time, and not as long as the others that wait.
pub(super) async fn back_off(attempt: u32) {
    let longest_us = 5_000_u64 << attempt.min(6);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let wait_us = u64::from(now.subsec_nanos()) % longest_us;
    tokio::time::sleep(Duration::from_micros(wait_us)).await;
}

/// Runs `$work`, an expression that uses `$tx: Transaction`, until it commits or fails for good,
/// under the deadline of one operation. The work is run again when another transaction was in its
/// way, so it must not keep anything between runs.
macro_rules! in_transaction {
    ($database:expr, |$tx:ident| $work:expr) => {{
        let database = &$database;
        let attempts = async {
            let mut attempt = 0_u32;
            loop {
                let mut $tx = match database.begin().await {
                    Ok(tx) => tx,
                    Err(failed) => break Err(failed),
                };
                let outcome = $work.await;
                if let Some(ended) = $tx.end(outcome).await {
                    break ended;
                }
                database.end_lost().await;
                $crate::mongo::database::back_off(attempt).await;
                attempt += 1;
            }
        };
        database.bounded(attempts).await
    }};
}
pub(super) use in_transaction;

/// Adds the documents that are not in the collection yet.
pub(super) async fn insert_absent(
    database: &Database,
    collection: &Collection<RawDocumentBuf>,
    rows: Vec<RawDocumentBuf>,
) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let insert = async {
        match collection.insert_many(rows).ordered(false).await {
            Err(error) if !is_only_duplicates(&error) => Err(Failed::Driver(error)),
            _ => Ok(()),
        }
    };
    database.bounded(insert).await
}

/// `updates` as one command: the driver's own bulk write needs a newer server.
pub(super) async fn update_all(
    database: &Database,
    tx: &mut Transaction,
    collection: &str,
    updates: Vec<Document>,
) -> Result<(), Failed> {
    let command = doc! { "update": collection, "updates": updates };
    let reply = database.database.run_command(command).session(tx.session()).await?;
    // Upserts that met each other.
    if reply.contains_key("writeErrors") { Err(Failed::Again) } else { Ok(()) }
}
