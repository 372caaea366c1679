//! What changed, from one process to the caches of all others.
//!
//! A transaction that changes something writes what it changed into `changes`, so the notice
//! commits with the change or not at all. Every process follows that collection by a change
//! stream; while there is none (the server is restarting, or sends no streams) it asks for the
//! newest notices at an interval. A process announces its own changes as soon as they are
//! committed and does not repeat them when they come back: each notice has an id.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cloudserve_protocol::fault::Chain;
use cloudserve_protocol::ids::{ApiKeyId, FunctionId, UserId};
use futures::TryStreamExt;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{DateTime, RawDocumentBuf, Uuid, doc};
use mongodb::change_stream::ChangeStream;
use mongodb::change_stream::event::ChangeStreamEvent;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

use super::MongoOptions;
use super::database::{Database, Failed};
use super::schema::CHANGES;
use super::values::{Key, date, parse};
use crate::change::LocalFeed;
use crate::{Change, ChangeFeed, OpenError, StoreError, Timestamp};

/// Notices remembered as announced; forgetting one only repeats it.
const REMEMBERED: usize = 8_192;

/// How far back notices are looked for after a silence. Covers transactions that were begun
/// before it and clocks that differ; caches bound the age of what they hold by less.
const LOOK_BACK: Duration = Duration::from_mins(2);

/// How long the server holds an empty answer of a change stream back.
const STREAM_WAIT: Duration = Duration::from_secs(1);

/// A notice.
#[derive(Serialize, Deserialize)]
pub(super) struct ChangeDocument {
    #[serde(rename = "_id")]
    id: ObjectId,
    at: DateTime,
    kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<Uuid>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Kind {
    Function,
    DeploymentQueued,
    ApiKey,
    User,
    Token,
    /// Of a later release; nothing here depends on it.
    #[serde(other)]
    Unknown,
}

impl ChangeDocument {
    pub(super) fn new(id: ObjectId, change: Change) -> Self {
        let (kind, subject) = match change {
            Change::Function(id) => (Kind::Function, Some(id.key())),
            Change::DeploymentQueued => (Kind::DeploymentQueued, None),
            Change::ApiKey(id) => (Kind::ApiKey, Some(id.key())),
            Change::User(id) => (Kind::User, Some(id.key())),
            Change::Token => (Kind::Token, None),
        };
        Self { id, at: date(Timestamp::now()), kind, subject }
    }

    fn change(&self) -> Option<Change> {
        Some(match (self.kind, self.subject) {
            (Kind::Function, Some(id)) => Change::Function(FunctionId::of(id)),
            (Kind::ApiKey, Some(id)) => Change::ApiKey(ApiKeyId::of(id)),
            (Kind::User, Some(id)) => Change::User(UserId::of(id)),
            (Kind::DeploymentQueued, _) => Change::DeploymentQueued,
            (Kind::Token, _) => Change::Token,
            _ => return None,
        })
    }
}

/// The feed of this process, and which notices it has announced.
#[derive(Clone)]
pub(super) struct SharedFeed {
    feed: LocalFeed,
    announced: Arc<Mutex<Announced>>,
}

#[derive(Default)]
struct Announced {
    ids: HashSet<ObjectId>,
    oldest_first: VecDeque<ObjectId>,
}

impl SharedFeed {
    pub(super) fn new() -> Self {
        Self { feed: LocalFeed::new(), announced: Arc::default() }
    }

    /// Announces a change unless its notice was announced before. Both the transaction that made
    /// it and the stream come here, in either order.
    pub(super) fn announce_once(&self, id: ObjectId, change: Change) {
        let mut announced = self.announced.lock();
        if !announced.ids.insert(id) {
            return;
        }
        announced.oldest_first.push_back(id);
        if announced.oldest_first.len() > REMEMBERED
            && let Some(oldest) = announced.oldest_first.pop_front()
        {
            announced.ids.remove(&oldest);
        }
        self.feed.announce(change);
    }

    fn announce(&self, found: &RawDocumentBuf) {
        match parse::<ChangeDocument>("change", found) {
            Ok(notice) => {
                if let Some(change) = notice.change() {
                    self.announce_once(notice.id, change);
                }
            }
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "unreadable change");
            }
        }
    }
}

/// [`ChangeFeed`] over MongoDB. Follows as long as it lives.
pub(super) struct MongoFeed {
    feed: SharedFeed,
    follower: JoinHandle<()>,
}

impl ChangeFeed for MongoFeed {
    fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.feed.feed.subscribe()
    }
}

impl Drop for MongoFeed {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

/// Begins to follow. When this returns, every later change will be announced.
pub(super) async fn follow(
    database: Database,
    options: &MongoOptions,
) -> Result<MongoFeed, OpenError> {
    let poll_interval = Duration::from_millis(options.poll_interval_ms.max(1).into());
    let now = Timestamp::now();
    let stream = match open_stream(&database).await {
        Ok(stream) => Some(stream),
        Err(error) => {
            tracing::warn!(
                error = %Chain(&error),
                "MongoDB sends no change stream; changes are polled for"
            );
            None
        }
    };
    let feed = database.feed().clone();
    let follower = Follower { database, poll_interval, seen_until: now };
    Ok(MongoFeed { feed, follower: tokio::spawn(follower.run(stream)) })
}

type Stream = ChangeStream<ChangeStreamEvent<RawDocumentBuf>>;

async fn open_stream(database: &Database) -> Result<Stream, StoreError> {
    let changes = database.collection(CHANGES);
    let open = changes
        .watch()
        .pipeline([doc! { "$match": { "operationType": "insert" } }])
        .max_await_time(STREAM_WAIT);
    database.bounded(open).await
}

struct Follower {
    database: Database,
    poll_interval: Duration,
    /// Up to when all notices are known to have come.
    seen_until: Timestamp,
}

impl Follower {
    async fn run(mut self, mut stream: Option<Stream>) {
        loop {
            if let Some(open) = stream.take() {
                let error = self.read(open).await;
                tracing::warn!(
                    error = %Chain(&error),
                    "the change stream ended; changes are polled for"
                );
            }
            tokio::time::sleep(self.poll_interval).await;
            // First the stream, then what came before it: so nothing falls in between.
            let opened = open_stream(&self.database).await;
            if let Err(error) = self.poll().await {
                tracing::debug!(error = %Chain(&error), "no changes polled");
            } else if let Ok(opened) = opened {
                tracing::info!("following MongoDB's change stream");
                stream = Some(opened);
            }
        }
    }

    /// Reads until the stream fails.
    async fn read(&mut self, mut stream: Stream) -> StoreError {
        loop {
            match self.database.bounded(stream.next_if_any()).await {
                Ok(Some(event)) => {
                    if let Some(found) = &event.full_document {
                        self.database.feed().announce(found);
                    }
                }
                Ok(None) if stream.is_alive() => self.seen_until = Timestamp::now(),
                Ok(None) => return StoreError::unavailable("the server closed the change stream"),
                Err(error) => return error,
            }
        }
    }

    /// Announces the notices that came since the last look, and some before it.
    async fn poll(&mut self) -> Result<(), StoreError> {
        let now = Timestamp::now();
        let look_back_ms = i64::try_from(LOOK_BACK.as_millis()).unwrap_or(i64::MAX);
        let from = Timestamp(self.seen_until.0.saturating_sub(look_back_ms));
        let changes = self.database.collection(CHANGES);
        let read = async {
            let mut found =
                changes.find(doc! { "at": { "$gte": date(from) } }).sort(doc! { "at": 1 }).await?;
            while let Some(notice) = found.try_next().await? {
                self.database.feed().announce(&notice);
            }
            Ok::<_, Failed>(())
        };
        self.database.bounded(read).await?;
        self.seen_until = now;
        Ok(())
    }
}
