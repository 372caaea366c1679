//! What an account may use: calls per day and memory times wall-clock time per month, of all its
//! functions together.
//!
//! Usage is the one count of both. It is read when an account is first seen, then kept in memory:
//! a call is counted when it is admitted and takes no lock and no round trip for it. After its rows
//! are stored, the sums in storage are compared with what this process has stored; the difference
//! is what other gateways did.
//!
//! Invariant: within one process exactly as many calls are admitted as the quota says. With several
//! gateways each admits at most what reaches it until it learns of the others' rows: that takes one
//! batch of theirs, one of its own and [`GatewayOptions::quota_refresh_ms`]. Memory time is known
//! when a call has ended, so the calls in flight may go beyond it.
//!
//! [`GatewayOptions::quota_refresh_ms`]: crate::GatewayOptions::quota_refresh_ms

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use cloudserve_protocol::fault::Chain;
use cloudserve_protocol::ids::UserId;
use cloudserve_store::account::Quota;
use cloudserve_store::telemetry::UsageQuery;
use cloudserve_store::{StoreError, TelemetryStore, Timestamp};
use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::unread::Unread;

/// Accounts whose use is known at the same time; the least active is forgotten first, and read
/// again when it is back.
const MAX_ACCOUNTS: u64 = 100_000;
/// A day: what an account has logged on it is known nowhere else.
const FORGET_AFTER: Duration = Duration::from_hours(24);
/// Accounts whose sums are read after one batch. Storing usage must not wait for more.
const MAX_RECONCILED: usize = 16;

const NO_LIMIT: u64 = u64::MAX;

/// What a call has used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    /// When it began: that decides the day and the month.
    pub(crate) began: Timestamp,
    /// Memory time, as it is summed in storage.
    pub(crate) micro_gb_s: u64,
}

/// Memory time of what is stored of a call.
pub(crate) fn micro_gb_s(memory_mb: f64, duration_ms: f64) -> u64 {
    micro(memory_mb / 1_024.0 * (duration_ms / 1_000.0))
}

/// Rows of calls of one account that began on one day.
struct Rows<'a> {
    allowance: &'a Arc<Allowance>,
    first: Timestamp,
    calls: u64,
    micro_gb_s: u64,
}

/// Why a call is not admitted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Exceeded {
    /// Which bound.
    pub(crate) what: Bound,
    /// What it is.
    pub(crate) limit: f64,
    /// When it counts from 0 again.
    pub(crate) resets_at: Timestamp,
}

/// A bound of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    CallsPerDay,
    GbSecondsPerMonth,
}

/// What all accounts may use.
pub(crate) struct Allowances {
    telemetry: Arc<dyn TelemetryStore>,
    refresh_ms: i64,
    unread: Unread,
    known: Cache<UserId, Arc<OnceCell<Arc<Allowance>>>>,
}

impl Allowances {
    pub(crate) fn new(telemetry: Arc<dyn TelemetryStore>, refresh_ms: u32) -> Self {
        let known = Cache::builder().max_capacity(MAX_ACCOUNTS).time_to_idle(FORGET_AFTER).build();
        Self { telemetry, refresh_ms: refresh_ms.into(), unread: Unread::default(), known }
    }

    /// What an account may use, its quota as it was just read.
    pub(crate) async fn of(
        &self,
        user: UserId,
        quota: Quota,
    ) -> Result<Arc<Allowance>, StoreError> {
        let slot = self.known.get_with(user, Arc::default);
        let now = Timestamp::now();
        let mut is_new = false;
        let allowance = slot
            .get_or_try_init(|| async {
                is_new = true;
                let allowance = Allowance::new(user, Unread::beside(&self.unread));
                let sums = self.sums(user, now).await?;
                allowance.reconcile(now, sums);
                Ok::<_, StoreError>(Arc::new(allowance))
            })
            .await?;
        allowance.set(quota);
        if !is_new && allowance.is_bounded() && allowance.is_due(now, self.refresh_ms) {
            self.refresh_idle(allowance, now).await?;
        }
        Ok(allowance.clone())
    }

    /// Reads the sums of an account of which this process has no call in flight and no row to
    /// store: only then is it known which rows are in them.
    async fn refresh_idle(&self, allowance: &Allowance, now: Timestamp) -> Result<(), StoreError> {
        let before = allowance.admitted.load(Relaxed);
        if before != allowance.stored.load(Relaxed) {
            return Ok(());
        }
        let sums = self.sums(allowance.user, now).await?;
        if before == allowance.admitted.load(Relaxed) {
            allowance.reconcile(now, sums);
        }
        Ok(())
    }

    /// Notes that the rows of these calls are stored. To be called by the one task that stores them, and
    /// awaited before it stores more: what is read here must hold just those.
    pub(crate) async fn stored<'a>(
        &self,
        calls: impl Iterator<Item = (&'a Arc<Allowance>, Spent)>,
    ) {
        let now = Timestamp::now();
        let mut due: Vec<&Arc<Allowance>> = Vec::new();
        // Rows that follow each other are mostly of the same: they are counted together.
        let mut sum: Option<Rows<'a>> = None;
        for (allowance, Spent { began, micro_gb_s }) in calls {
            if let Some(rows) = sum.as_mut().filter(|rows| rows.hold(allowance, began)) {
                rows.calls += 1;
                rows.micro_gb_s = rows.micro_gb_s.saturating_add(micro_gb_s);
                continue;
            }
            let rows = Rows { allowance, first: began, calls: 1, micro_gb_s };
            if let Some(before) = sum.replace(rows) {
                before.count();
            }
            if due.len() < MAX_RECONCILED
                && allowance.is_bounded()
                && allowance.is_due(now, self.refresh_ms)
                && !due.iter().any(|other| Arc::ptr_eq(other, allowance))
            {
                due.push(allowance);
            }
        }
        if let Some(last) = sum {
            last.count();
        }
        for allowance in due {
            match self.sums(allowance.user, now).await {
                Ok(sums) => allowance.reconcile(now, sums),
                Err(error) => tracing::warn!(
                    user = %allowance.user,
                    error = %Chain(&error),
                    "what other gateways counted was not read; it is tried again"
                ),
            }
        }
    }

    async fn sums(&self, user_id: UserId, now: Timestamp) -> Result<Sums, StoreError> {
        let since = |from| {
            let query = UsageQuery { user_id, function_id: None, from: Some(from), to: None };
            self.telemetry.usage_totals(query)
        };
        let today = since(Timestamp::of_day(now.day())).await?;
        let this_month = since(Timestamp::of_month(now.month())).await?;
        Ok(Sums { calls: today.executed, micro_gb_s: micro(this_month.gb_seconds) })
    }
}

impl Rows<'_> {
    /// Whether a row of this account, of a call that began then, is one of them.
    fn hold(&self, allowance: &Arc<Allowance>, began: Timestamp) -> bool {
        Arc::ptr_eq(self.allowance, allowance) && self.first.day() == began.day()
    }

    /// Notes that they are stored.
    fn count(&self) {
        let allowance = self.allowance;
        allowance.calls.stored(self.first.day(), self.calls);
        allowance.micro_gb_s.stored(self.first.month(), self.micro_gb_s);
        allowance.stored.fetch_add(self.calls, Relaxed);
    }
}

#[derive(Clone, Copy)]
struct Sums {
    calls: u64,
    micro_gb_s: u64,
}

/// What one account may use and has used.
#[derive(Debug)]
pub(crate) struct Allowance {
    user: UserId,
    max_calls: AtomicU64,
    max_micro_gb_s: AtomicU64,
    calls: Window,
    micro_gb_s: Window,
    /// Bytes of log text that were stored here.
    logged: Window,
    /// Calls admitted here, and rows stored here: equal while the account is idle.
    admitted: AtomicU64,
    stored: AtomicU64,
    reconciled_at: AtomicI64,
    unread: Unread,
}

impl Allowance {
    pub(crate) fn new(user: UserId, unread: Unread) -> Self {
        Self {
            user,
            max_calls: AtomicU64::new(NO_LIMIT),
            max_micro_gb_s: AtomicU64::new(NO_LIMIT),
            calls: Window::default(),
            micro_gb_s: Window::default(),
            logged: Window::default(),
            admitted: AtomicU64::new(0),
            stored: AtomicU64::new(0),
            reconciled_at: AtomicI64::new(0),
            unread,
        }
    }

    fn set(&self, quota: Quota) {
        self.max_calls.store(quota.calls_per_day.unwrap_or(NO_LIMIT), Relaxed);
        self.max_micro_gb_s.store(quota.gb_seconds_per_month.map_or(NO_LIMIT, micro), Relaxed);
    }

    fn is_bounded(&self) -> bool {
        self.max_calls.load(Relaxed) != NO_LIMIT || self.max_micro_gb_s.load(Relaxed) != NO_LIMIT
    }

    fn is_due(&self, now: Timestamp, every_ms: i64) -> bool {
        let since = now.0.saturating_sub(self.reconciled_at.load(Relaxed));
        // Less than nothing when the clock was set back.
        !(0..every_ms).contains(&since)
    }

    /// Counts a call that begins now, if it may.
    pub(crate) fn admit(&self, now: Timestamp) -> Result<(), Exceeded> {
        let max_micro_gb_s = self.max_micro_gb_s.load(Relaxed);
        if max_micro_gb_s != NO_LIMIT && self.micro_gb_s.used(now.month()) >= max_micro_gb_s {
            return Err(Exceeded {
                what: Bound::GbSecondsPerMonth,
                limit: gb_seconds(max_micro_gb_s),
                resets_at: Timestamp::of_month(now.month() + 1),
            });
        }
        let max_calls = self.max_calls.load(Relaxed);
        if self.calls.take(now.day(), 1, max_calls) {
            self.admitted.fetch_add(1, Relaxed);
            return Ok(());
        }
        #[allow(clippy::cast_precision_loss)] // Shown to people; exact up to 2^53.
        let limit = max_calls as f64;
        let resets_at = Timestamp::of_day(now.day() + 1);
        Err(Exceeded { what: Bound::CallsPerDay, limit, resets_at })
    }

    /// Counts the memory time of a call that has ended.
    pub(crate) fn used(&self, spent: Spent) {
        self.micro_gb_s.add(spent.began.month(), spent.micro_gb_s);
    }

    /// Counts log text of a call that began then, if any more is to be stored.
    pub(crate) fn admit_log(&self, began: Timestamp, bytes: u64, max_bytes: u64) -> bool {
        self.logged.take(began.day(), bytes, max_bytes)
    }

    /// Answers of its functions that their callers are still to read.
    pub(crate) fn unread(&self) -> &Unread {
        &self.unread
    }

    fn reconcile(&self, now: Timestamp, sums: Sums) {
        self.calls.reconcile(now.day(), sums.calls);
        self.micro_gb_s.reconcile(now.month(), sums.micro_gb_s);
        self.reconciled_at.store(now.0, Relaxed);
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Saturates; NaN is 0.
fn micro(gb_seconds: f64) -> u64 {
    ((gb_seconds * 1e6).round() as u64).min(Window::MAX_USED)
}

#[allow(clippy::cast_precision_loss)] // Below 2^48.
fn gb_seconds(micro_gb_s: u64) -> f64 {
    micro_gb_s as f64 / 1e6
}

/// A count that begins at 0 with each period (a day, a month).
#[derive(Debug, Default)]
struct Window {
    /// Period (16 bits) and count (48 bits), so that both change at once.
    state: AtomicU64,
    /// What storage holds as far as this process knows: what it read last and what it has stored
    /// since. Touched by the task that stores and by the first load alone.
    known: Mutex<(u16, u64)>,
}

impl Window {
    const COUNT_BITS: u32 = 48;
    const MAX_USED: u64 = (1 << Self::COUNT_BITS) - 1;

    /// Days from the epoch do so until 2149, months of our calendar longer.
    fn fit(period: i64) -> u16 {
        u16::try_from(period).unwrap_or(u16::MAX)
    }

    fn unpack(state: u64) -> (u16, u64) {
        let period = u16::try_from(state >> Self::COUNT_BITS).unwrap_or(u16::MAX);
        (period, state & Self::MAX_USED)
    }

    fn pack(period: u16, used: u64) -> u64 {
        (u64::from(period) << Self::COUNT_BITS) | used.min(Self::MAX_USED)
    }

    /// Which period is counted when the clock says this one. The one after it may have begun: a call
    /// of before has just ended, or the clock was set back a little. What is later is of a clock that
    /// was wrong, and forgotten.
    fn goes_on(counted: u16, period: u16) -> bool {
        counted == period || counted == period.saturating_add(1)
    }

    /// What is counted, and how much of it there is, when the clock says this period.
    fn counted(state: u64, period: u16) -> (u16, u64) {
        let (of, used) = Self::unpack(state);
        if Self::goes_on(of, period) { (of, used) } else { (period, 0) }
    }

    fn used(&self, period: i64) -> u64 {
        Self::counted(self.state.load(Relaxed), Self::fit(period)).1
    }

    /// Changes the count of a period; one that is over stays as it is.
    fn update(&self, period: u16, change: impl Fn(u64) -> u64) {
        let change = |state| {
            let (of, used) = Self::counted(state, period);
            Some(if of == period { Self::pack(of, change(used)) } else { state })
        };
        // It is always changed, so this is no error.
        let _ = self.state.fetch_update(Relaxed, Relaxed, change);
    }

    /// Counts so much, unless there is as much as there may be.
    fn take(&self, period: i64, amount: u64, max: u64) -> bool {
        let take = |state| {
            let (of, used) = Self::counted(state, Self::fit(period));
            (used < max).then(|| Self::pack(of, used.saturating_add(amount)))
        };
        self.state.fetch_update(Relaxed, Relaxed, take).is_ok()
    }

    fn add(&self, period: i64, amount: u64) {
        self.update(Self::fit(period), |used| used.saturating_add(amount));
    }

    fn stored(&self, period: i64, amount: u64) {
        let period = Self::fit(period);
        let mut known = self.known.lock();
        if !Self::goes_on(known.0, period) {
            *known = (period, 0);
        }
        if known.0 == period {
            known.1 = known.1.saturating_add(amount);
        }
    }

    /// Takes in what storage holds: what is more than what is known of was done by others.
    fn reconcile(&self, period: i64, sum: u64) {
        let period = Self::fit(period);
        let mut known = self.known.lock();
        let expected = if known.0 == period { known.1 } else { 0 };
        self.update(period, |used| (used + sum).saturating_sub(expected));
        *known = (period, sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_counts_its_own_period() {
        let window = Window::default();
        assert_eq!((0..5).filter(|_| window.take(7, 1, 3)).count(), 3);
        assert_eq!((window.used(7), window.used(8)), (3, 0));
        assert!(window.take(8, 1, 3));
        // What is late of the day before does not count today.
        window.add(7, 100);
        assert_eq!(window.used(8), 1);
        assert!(!window.take(8, 1, 0));
    }

    #[test]
    fn the_rows_of_others_are_what_is_not_ours() {
        let window = Window::default();
        window.reconcile(7, 10);
        assert_eq!(window.used(7), 10);
        // Three begin here, two of them are stored; elsewhere four were.
        assert_eq!((0..3).filter(|_| window.take(7, 1, 100)).count(), 3);
        window.stored(7, 2);
        window.reconcile(7, 16);
        assert_eq!(window.used(7), 17);
        window.stored(7, 1);
        window.reconcile(7, 17);
        assert_eq!(window.used(7), 17);
        // A new day, which others began.
        window.reconcile(8, 5);
        assert_eq!(window.used(8), 5);
        window.stored(7, 1);
        window.reconcile(8, 5);
        assert_eq!(window.used(8), 5);
    }

    #[test]
    fn a_clock_that_was_wrong_bounds_nobody_more_or_less() {
        let window = Window::default();
        assert!(window.take(20_000, 1, 3));
        window.stored(20_000, 1);
        assert_eq!((0..5).filter(|_| window.take(7, 1, 3)).count(), 3);
        window.stored(7, 2);
        window.reconcile(7, 12);
        assert_eq!(window.used(7), 13);
        // Back over midnight.
        assert!(window.take(8, 1, 2) && window.take(7, 1, 2) && !window.take(7, 1, 2));
        assert_eq!((window.used(7), window.used(8)), (2, 2));

        let allowance = Allowance::new(UserId::new(), Unread::default());
        let sums = Sums { calls: 0, micro_gb_s: 0 };
        allowance.reconcile(Timestamp(5_000), sums);
        for (now, is_due) in [(5_999, false), (6_000, true), (4_999, true)] {
            assert_eq!(allowance.is_due(Timestamp(now), 1_000), is_due, "{now}");
        }
    }

    #[test]
    fn at_most_the_quota_is_admitted_at_once() {
        let allowance = Arc::new(Allowance::new(UserId::new(), Unread::default()));
        allowance.set(Quota { calls_per_day: Some(1_000), ..Quota::default() });
        let now = Timestamp::now();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let allowance = allowance.clone();
                std::thread::spawn(move || {
                    (0..500).filter(|_| allowance.admit(now).is_ok()).count()
                })
            })
            .collect();
        let admitted: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(admitted, 1_000);
        let refused = allowance.admit(now).unwrap_err();
        assert_eq!((refused.what, refused.limit), (Bound::CallsPerDay, 1_000.0));
        assert!(refused.resets_at > now);

        allowance.set(Quota { gb_seconds_per_month: Some(0.5), ..Quota::default() });
        assert!(allowance.admit(now).is_ok());
        allowance.micro_gb_s.add(now.month(), 500_000);
        assert_eq!(allowance.admit(now).unwrap_err().what, Bound::GbSecondsPerMonth);
    }
}
