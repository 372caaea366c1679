//! Logs as they come in.
//!
//! A follower asks storage for what is new, often enough that a line is seen well within a quarter
//! of a second. Bounded: followers of an account, and how long one may go on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use cloudserve_identity::{AuthError, Credential, Principal};
use cloudserve_protocol::ids::{ExecutionId, FunctionId, UserId};
use cloudserve_store::StoreError;
use cloudserve_store::telemetry::{LogFilter, LogQuery, LogRow};
use tokio::sync::OwnedSemaphorePermit;

use super::places::Places;
use super::refusal::Refusal;
use super::{App, access};

/// How often storage is asked.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often it is checked that the credential still holds and the function is still there.
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// Rows of one look.
const MAX_ROWS: u32 = 200;

/// Followers by account.
pub(crate) struct Followers {
    places: Places<UserId>,
    are_ending: AtomicBool,
}

impl Followers {
    pub(crate) fn new(per_account: usize) -> Self {
        Self { places: Places::new(per_account), are_ending: AtomicBool::new(false) }
    }

    fn place(&self, user_id: UserId) -> Result<OwnedSemaphorePermit, Refusal> {
        let max = self.places.each();
        self.places.of(user_id).try_acquire_owned().map_err(|_| Refusal::TooManyFollowers { max })
    }
}

/// Where a follower begins.
pub(crate) enum Start {
    /// With what comes from now on, after this many of the rows before.
    Now { history: u32 },
    /// After a position that a follower has told.
    After(String),
}

/// Reads the log of a function as it grows.
pub(crate) struct Follower {
    app: Arc<App>,
    credential: Credential,
    function_id: FunctionId,
    /// Of all calls, or of this one.
    execution_id: Option<ExecutionId>,
    filter: LogFilter,
    position: String,
    ready: VecDeque<LogRow>,
    checked: Instant,
    ends: Instant,
    _place: OwnedSemaphorePermit,
}

impl App {
    /// Ends all that is followed, now and from now on: a shutdown waits for requests to end, and these
    /// would not.
    pub(crate) fn end_following(&self) {
        self.followers.are_ending.store(true, Relaxed);
    }

    /// Begins to follow. The credential is the one of the principal.
    pub(crate) async fn follow(
        self: Arc<Self>,
        principal: &Principal,
        credential: Credential,
        function_id: FunctionId,
        execution_id: Option<ExecutionId>,
        filter: LogFilter,
        start: Start,
    ) -> Result<Follower, Refusal> {
        access::may_read(principal)?;
        self.function(principal, function_id).await?;
        let place = self.followers.place(principal.user_id)?;
        let telemetry = &self.stores.telemetry;
        let (position, ready) = match start {
            Start::After(position) => (position, VecDeque::new()),
            Start::Now { history } => {
                // The position first: a row of between the two is rather shown twice than never.
                let position = telemetry.log_tail(function_id, None, 0).await?.position;
                let mut ready = VecDeque::new();
                if history > 0 {
                    let filter = filter.clone();
                    let after = None;
                    let query =
                        LogQuery { function_id, limit: history, after, execution_id, filter };
                    ready.extend(telemetry.logs(query).await?.rows.into_iter().rev());
                }
                (position, ready)
            }
        };
        let now = Instant::now();
        let ends = now + self.options.log_follow();
        let mut follower = Follower {
            app: self,
            credential,
            function_id,
            execution_id,
            filter,
            position,
            ready,
            checked: now,
            ends,
            _place: place,
        };
        // A position that is none is an answer, not the end of a stream.
        follower.look().await?;
        Ok(follower)
    }
}

impl Follower {
    /// The next row and, where one can go on after it, the position; `None` when following has come
    /// to its end: after its time, with the function, the credential or this process, or when storage
    /// is out of reach.
    pub(crate) async fn next(&mut self) -> Option<(LogRow, Option<String>)> {
        loop {
            if let Some(row) = self.ready.pop_front() {
                return Some((row, self.ready.is_empty().then(|| self.position.clone())));
            }
            if Instant::now() >= self.ends || self.app.followers.are_ending.load(Relaxed) {
                return None;
            }
            if self.checked.elapsed() >= CHECK_EVERY {
                self.check().await.ok()?;
                self.checked = Instant::now();
            }
            tokio::time::sleep(LOOK_EVERY).await;
            self.look().await.ok()?;
        }
    }

    async fn look(&mut self) -> Result<(), Refusal> {
        let telemetry = &self.app.stores.telemetry;
        let tail = telemetry.log_tail(self.function_id, Some(&self.position), MAX_ROWS).await;
        let tail = tail.map_err(|error| match error {
            StoreError::BadCursor => {
                Refusal::field("last-event-id", "is not one that this stream gave")
            }
            error => error.into(),
        })?;
        self.position = tail.position;
        let (filter, only) = (&self.filter, self.execution_id);
        let rows = tail.rows.into_iter().filter(|row| only.is_none_or(|id| row.execution_id == id));
        self.ready.extend(rows.filter_map(|mut row| filter.keep(&mut row).then_some(row)));
        Ok(())
    }

    async fn check(&self) -> Result<(), Refusal> {
        // It was valid when this began, so it is asked about whatever comes from its address.
        let principal = match self.app.authenticator.check(&self.credential, || None).await {
            Ok(principal) => principal,
            Err(AuthError::Invalid) => return Err(Refusal::InvalidCredentials),
            Err(error) => return Err(Refusal::Unavailable(error.into())),
        };
        access::may_read(&principal)?;
        self.app.function(&principal, self.function_id).await.map(drop)
    }
}
