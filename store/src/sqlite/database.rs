//! One SQLite file: a writer thread with group commit, and a few readers.
//!
//! Invariant: a write is acknowledged, and its changes are announced, after the commit that makes
//! it durable and never before. Announcing is the writer's job, not the caller's: a caller that
//! is cancelled while it waits must not leave caches stale.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use cloudserve_protocol::fault::Chain;
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::columns::storage_failed;
use super::schema::Schema;
use crate::change::LocalFeed;
use crate::{Change, OpenError, StoreError};

/// Connections that read at the same time; more readers wait.
const READERS: usize = 4;
/// Writes that wait for the writer before callers wait to enqueue theirs.
const WRITE_QUEUE_LENGTH: usize = 1_024;
/// Writes in one transaction. Bounds how long the first of them waits.
const MAX_GROUP: usize = 64;
/// How long to wait for another process that writes (`cloudserve admin`).
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Prepared statements kept per connection.
const STATEMENT_CACHE: usize = 64;

/// An open database file. Dropping it finishes queued writes and closes the file.
pub(crate) struct Database {
    feed: LocalFeed,
    /// `None` only while it is dropped.
    queue: Option<mpsc::Sender<Box<dyn Job>>>,
    writer: Option<JoinHandle<()>>,
    readers: Arc<Readers>,
}

impl Database {
    /// Opens or creates the file and brings it to the newest schema.
    pub(super) fn open(path: &Path, schema: &Schema, feed: LocalFeed) -> Result<Self, OpenError> {
        // SQLite gives its -wal and -shm files the mode of the database file.
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)
            .map_err(OpenError::io(path))?;

        let mut connection = connect(path).map_err(OpenError::database(path))?;
        check_origin(&connection, path, schema)?;
        connection
            .execute_batch("PRAGMA journal_mode = WAL;")
            .map_err(OpenError::database(path))?;
        migrate(&mut connection, path, schema)?;

        let mut idle = Vec::with_capacity(READERS);
        for _ in 0..READERS {
            let reader = connect(path).map_err(OpenError::database(path))?;
            reader.execute_batch("PRAGMA query_only = ON;").map_err(OpenError::database(path))?;
            idle.push(reader);
        }
        let readers =
            Arc::new(Readers { idle: Mutex::new(idle), free: Arc::new(Semaphore::new(READERS)) });

        let (queue, jobs) = mpsc::channel(WRITE_QUEUE_LENGTH);
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || write_groups(connection, jobs))
            .map_err(OpenError::io(path))?;
        Ok(Self { feed, queue: Some(queue), writer: Some(writer), readers })
    }

    /// Runs `work` in a transaction and returns its result once that is durable. An `Err` of
    /// `work` undoes what it did, and only that.
    pub(super) async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, &mut Vec<Change>) -> Result<T, StoreError> + Send + 'static,
    {
        let (job, answer) = Write::new(work, self.feed.clone());
        let queue = self.queue.as_ref().ok_or_else(WriterGone::error)?;
        queue.send(Box::new(job)).await.map_err(|_| WriterGone::error())?;
        answer.await.map_err(|_| WriterGone::error())?
    }

    /// [`Self::write`] for start-up, where there is no runtime.
    pub(super) fn write_blocking<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, &mut Vec<Change>) -> Result<T, StoreError> + Send + 'static,
    {
        let (job, mut answer) = Write::new(work, self.feed.clone());
        let queue = self.queue.as_ref().ok_or_else(WriterGone::error)?;
        queue.try_send(Box::new(job)).map_err(|_| WriterGone::error())?;
        loop {
            // Not `blocking_recv`, which panics when start-up happens inside a runtime.
            match answer.try_recv() {
                Ok(result) => return result,
                Err(TryRecvError::Closed) => return Err(WriterGone::error()),
                Err(TryRecvError::Empty) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// Runs `work` on a reader, off the async threads. Each statement sees all that was
    /// acknowledged before it.
    pub(super) async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let free = self.readers.free.clone();
        let permit = free.acquire_owned().await.map_err(StoreError::unavailable)?;
        let readers = self.readers.clone();
        let read = move || {
            // Declared first, so dropped last: the permit is free only when the reader is back.
            let _permit = permit;
            let reader = Borrowed { readers: &readers, connection: readers.idle.lock().pop() };
            match &reader.connection {
                Some(connection) => work(connection),
                None => Err(StoreError::unavailable("no reader is free")),
            }
        };
        tokio::task::spawn_blocking(read).await.map_err(StoreError::unavailable)?
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            // It ends when the queue is empty; a panic in it was reported when it happened.
            let _ = writer.join();
        }
    }
}

/// The writer thread ended, which it does only by a panic that is no write's.
#[derive(Debug, thiserror::Error)]
#[error("the database writer has stopped")]
struct WriterGone;

impl WriterGone {
    fn error() -> StoreError {
        StoreError::unavailable(Self)
    }
}

/// The transaction around a write did not commit.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the transaction failed")]
struct NotCommitted(#[source] Arc<rusqlite::Error>);

/// A queued write.
trait Job: Send {
    fn run(&mut self, connection: &Connection);
    fn acknowledge(self: Box<Self>, committed: Result<(), NotCommitted>);
}

struct Write<T, F> {
    work: Option<F>,
    result: Option<Result<T, StoreError>>,
    changes: Vec<Change>,
    feed: LocalFeed,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Write<T, F> {
    fn new(work: F, feed: LocalFeed) -> (Self, oneshot::Receiver<Result<T, StoreError>>) {
        let (reply, answer) = oneshot::channel();
        let job = Self { work: Some(work), result: None, changes: Vec::new(), feed, reply };
        (job, answer)
    }
}

impl<T, F> Job for Write<T, F>
where
    T: Send,
    F: FnOnce(&Connection, &mut Vec<Change>) -> Result<T, StoreError> + Send,
{
    fn run(&mut self, connection: &Connection) {
        if let Some(work) = self.work.take() {
            self.result = Some(in_savepoint(connection, |c| work(c, &mut self.changes)));
        }
    }

    fn acknowledge(self: Box<Self>, committed: Result<(), NotCommitted>) {
        let result = match (committed, self.result) {
            (Err(lost), _) => Err(StoreError::unavailable(lost)),
            (Ok(()), Some(result)) => result,
            (Ok(()), None) => Err(WriterGone::error()),
        };
        if result.is_ok() {
            self.changes.into_iter().for_each(|change| self.feed.announce(change));
        }
        // The caller may have gone; the write stands.
        let _ = self.reply.send(result);
    }
}

fn in_savepoint<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    connection.execute_batch("SAVEPOINT job").map_err(storage_failed)?;
    // All writes go through one thread: a panic in one of them must not end the others.
    let done = catch_unwind(AssertUnwindSafe(|| work(connection)));
    match done.unwrap_or_else(|_| Err(StoreError::unavailable("the write panicked"))) {
        Ok(value) => {
            connection.execute_batch("RELEASE job").map_err(storage_failed)?;
            Ok(value)
        }
        Err(error) => {
            // Fails only if SQLite has rolled back the whole transaction, which ends the group.
            let _ = connection.execute_batch("ROLLBACK TO job; RELEASE job");
            Err(error)
        }
    }
}

fn write_groups(mut connection: Connection, mut jobs: mpsc::Receiver<Box<dyn Job>>) {
    let mut group = Vec::with_capacity(MAX_GROUP);
    while jobs.blocking_recv_many(&mut group, MAX_GROUP) > 0 {
        let committed =
            commit_group(&mut connection, &mut group).map_err(|e| NotCommitted(Arc::new(e)));
        if let Err(lost) = &committed {
            let (error, writes) = (Chain(&*lost.0), group.len());
            tracing::error!(%error, writes, "database transaction failed");
        }
        for job in group.drain(..) {
            job.acknowledge(committed.clone());
        }
    }
}

/// Runs all writes of the group and commits them: one fsync for as many writes as were waiting.
fn commit_group(
    connection: &mut Connection,
    group: &mut [Box<dyn Job>],
) -> Result<(), rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for job in group {
        job.run(&transaction);
        // After a full disk or an I/O error SQLite rolls back by itself. Going on would run the
        // rest of the group without a transaction.
        if transaction.is_autocommit() {
            return Err(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ABORT_ROLLBACK),
                Some("the transaction was rolled back by SQLite".to_owned()),
            ));
        }
    }
    transaction.commit()
}

/// Readers that are not in use.
struct Readers {
    idle: Mutex<Vec<Connection>>,
    /// As many permits as readers.
    free: Arc<Semaphore>,
}

/// A reader in use; goes back even if the work panics.
struct Borrowed<'a> {
    readers: &'a Readers,
    /// `None` only without a permit, and while it is dropped.
    connection: Option<Connection>,
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        self.readers.idle.lock().extend(self.connection.take());
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        // No mutex: a connection is used by one thread at a time. No URI: the path is a path.
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    connection.execute_batch(
        "PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = ON;
         PRAGMA trusted_schema = OFF;
         PRAGMA journal_size_limit = 67108864;",
    )?;
    Ok(connection)
}

/// Refuses files that are not ours or from a later release, before anything is written.
fn check_origin(connection: &Connection, path: &Path, schema: &Schema) -> Result<(), OpenError> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let read =
        || Ok((pragma("application_id")?, pragma("user_version")?, pragma("schema_version")?));
    let (application_id, version, changes): (i64, i64, i64) =
        read().map_err(|e: rusqlite::Error| OpenError::database(path)(e))?;
    let fresh = changes == 0 && version == 0 && application_id == 0;
    if !fresh && application_id != i64::from(schema.application_id) {
        return Err(OpenError::Foreign { path: path.to_owned() });
    }
    match u32::try_from(version) {
        Ok(found) if found <= schema.version => Ok(()),
        Ok(found) => Err(OpenError::TooNew { path: path.to_owned(), found, known: schema.version }),
        Err(_) => Err(OpenError::Foreign { path: path.to_owned() }),
    }
}

fn migrate(connection: &mut Connection, path: &Path, schema: &Schema) -> Result<(), OpenError> {
    connection
        .pragma_update(None, "application_id", schema.application_id)
        .map_err(OpenError::database(path))?;
    schema.migrations.to_latest(connection).map_err(OpenError::database(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::open_telemetry;

    fn insert_log(c: &Connection, id: u8) -> Result<(), StoreError> {
        c.execute(
            "INSERT INTO logs (execution_id, function_id, timestamp, duration_ms, memory_mb,
                               failed, truncated, lines)
             VALUES (?1, x'00', 0, 0, 0, 0, 0, '')",
            [[id]],
        )
        .map(drop)
        .map_err(storage_failed)
    }

    /// Writes of one group share a transaction but not their failures.
    #[tokio::test]
    async fn a_failed_write_undoes_itself_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("telemetry.db");
        let database = open_telemetry(&path, LocalFeed::new()).unwrap();
        let (started, go_on) = std::sync::mpsc::channel::<()>();
        let first = database.write(move |c, _| {
            // Until the others are queued, so that they are one group.
            let _ = go_on.recv();
            insert_log(c, 1)
        });
        let failing = database.write(|c, changes| {
            changes.push(Change::Token);
            insert_log(c, 2)?;
            Err::<(), _>(StoreError::Conflict)
        });
        let duplicate = database.write(|c, _| insert_log(c, 1));
        let last = database.write(|c, _| insert_log(c, 3));
        let release = async {
            tokio::task::yield_now().await;
            drop(started);
        };
        let mut feed = crate::ChangeFeed::subscribe(&database.feed);
        let (first, failing, duplicate, last, ()) =
            tokio::join!(first, failing, duplicate, last, release);
        assert!(first.is_ok() && last.is_ok());
        assert!(matches!(failing, Err(StoreError::Conflict)));
        assert!(matches!(duplicate, Err(StoreError::Unavailable { .. })));
        assert!(feed.try_recv().is_err(), "an undone change was announced");

        let read = database.read(|c| {
            c.query_row("SELECT group_concat(hex(execution_id)) FROM logs", [], |row| row.get(0))
                .map_err(storage_failed)
        });
        let left: String = read.await.unwrap();
        assert_eq!(left, "01,03");
    }

    #[tokio::test]
    async fn a_write_that_panics_undoes_itself_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("telemetry.db");
        let database = open_telemetry(&path, LocalFeed::new()).unwrap();
        let panicked = database.write(|c, _| -> Result<(), StoreError> {
            insert_log(c, 1)?;
            panic!("as it should here")
        });
        assert!(matches!(panicked.await, Err(StoreError::Unavailable { .. })));
        database.write(|c, _| insert_log(c, 2)).await.unwrap();
        let read = database.read(|c| {
            c.query_row("SELECT group_concat(hex(execution_id)) FROM logs", [], |row| row.get(0))
                .map_err(storage_failed)
        });
        let left: String = read.await.unwrap();
        assert_eq!(left, "02");
    }
}
