//! Single calls of an account or of one function, newest first.
//!
//! They are stored in the order of functions, so a page over an account is merged from those of its
//! functions. Days are gone back through, twice as many each time, until the page is full: what is
//! looked at are the functions of the days the page reaches into, a few rows of each, and no others
//! of the account or of the installation.

use std::collections::BTreeMap;
use std::vec::IntoIter;

use cloudserve_protocol::ids::{ExecutionId, FunctionId, UserId};
use rusqlite::{Connection, params};

use crate::cursor::{Cursor, finish_page, page_limit};
use crate::function::Page;
use crate::sqlite::columns::{reading, storage_failed};
use crate::sqlite::statements::all;
use crate::sqlite::telemetry::read_usage;
use crate::telemetry::{UsageQuery, UsageRow};
use crate::{StoreError, Timestamp};

/// Rows read of a function at a time, at least: most of a small read is finding the place.
const FEWEST_ROWS: usize = 4;

pub(in crate::sqlite) const ROWS_OF_FUNCTION: &str =
    "SELECT function_id, user_id, execution_id, version, duration_ms, cpu_ms, memory_mb, failed,
            code, cold, timestamp
     FROM usage
     WHERE function_id = ?1 AND user_id = ?2
           AND timestamp >= ?3 AND (timestamp, execution_id) < (?4, ?5)
     ORDER BY timestamp DESC, execution_id DESC LIMIT ?6";

pub(in crate::sqlite) const NEWEST_DAY: &str =
    "SELECT max(day) FROM usage_days WHERE user_id = ?1 AND day >= ?2 AND day <= ?3";

pub(in crate::sqlite) const FUNCTIONS_OF_DAYS: &str = "SELECT DISTINCT function_id FROM usage_days
     WHERE user_id = ?1 AND day >= ?2 AND day <= ?3";

pub(in crate::sqlite) fn page(
    c: &Connection,
    query: &UsageQuery,
    limit: u32,
    cursor: Cursor,
) -> Result<Page<UsageRow>, StoreError> {
    let before = cursor.no_newer_than(query.to);
    let from = query.from.unwrap_or(Timestamp(i64::MIN));
    let limit = page_limit(limit);
    let one_more = limit as usize + 1;
    // Rows, and the sums they are found by, of one moment.
    let tx = c.unchecked_transaction().map_err(storage_failed)?;
    let calls = Calls { c: &tx, user_id: query.user_id };
    let rows = match query.function_id {
        Some(id) => calls.of_function(id, from, before, one_more)?,
        None => calls.of_account(from, before, one_more)?,
    };
    let (items, next) = finish_page(rows, limit, place);
    Ok(Page { items, next })
}

fn place(row: &UsageRow) -> Cursor {
    Cursor { time: row.timestamp, id: *row.execution_id.as_bytes() }
}

/// Rows that were read ahead, by the newest of each function. An execution id is of one function;
/// nothing would be lost if it were not.
type Ahead = BTreeMap<(Timestamp, ExecutionId, FunctionId), (UsageRow, Rest)>;

/// What comes after the newest row of a function.
struct Rest {
    rows: IntoIter<UsageRow>,
    /// There is nothing after these.
    is_last: bool,
}

/// The calls that an account is billed for.
struct Calls<'a> {
    c: &'a Connection,
    user_id: UserId,
}

impl Calls<'_> {
    /// The newest of one function.
    fn of_function(
        &self,
        id: FunctionId,
        from: Timestamp,
        before: Cursor,
        limit: usize,
    ) -> Result<Vec<UsageRow>, StoreError> {
        let (function_id, user_id) = (id.as_bytes(), self.user_id.as_bytes());
        let values = params![function_id, user_id, from.0, before.time.0, before.id, limit];
        all(self.c, ROWS_OF_FUNCTION, values, "usage row", read_usage)
    }

    /// The newest of all functions.
    fn of_account(
        &self,
        from: Timestamp,
        mut before: Cursor,
        limit: usize,
    ) -> Result<Vec<UsageRow>, StoreError> {
        let mut rows = Vec::new();
        let (first_day, mut last_day) = (from.day(), before.time.day());
        let mut n_days: i64 = 1;
        while rows.len() < limit
            && let Some(newest) = self.newest_day(first_day, last_day)?
        {
            let oldest = newest.saturating_sub(n_days - 1).max(first_day);
            let since = from.max(Timestamp::of_day(oldest));
            let functions = self.functions(oldest, newest)?;
            self.merge(&functions, since, before, limit, &mut rows)?;
            before = Cursor { time: since, id: [0; 16] };
            last_day = oldest - 1;
            n_days = n_days.saturating_mul(2);
        }
        Ok(rows)
    }

    /// Adds the newest rows of these functions, until there are `limit` in all.
    fn merge(
        &self,
        functions: &[FunctionId],
        since: Timestamp,
        before: Cursor,
        limit: usize,
        merged: &mut Vec<UsageRow>,
    ) -> Result<(), StoreError> {
        let missing = limit.saturating_sub(merged.len());
        // Twice its share of each, so that few are read of twice, and few rows in vain.
        let at_once = (2 * missing / functions.len().max(1)).max(FEWEST_ROWS).min(missing);
        let read = |id, before| -> Result<Rest, StoreError> {
            let rows = self.of_function(id, since, before, at_once)?;
            Ok(Rest { is_last: rows.len() < at_once, rows: rows.into_iter() })
        };
        let mut ahead = Ahead::new();
        for id in functions {
            push(&mut ahead, read(*id, before)?);
        }
        while merged.len() < limit
            && let Some((_, (row, mut rest))) = ahead.pop_last()
        {
            let is_full = merged.len() + 1 == limit;
            if rest.rows.as_slice().is_empty() && !rest.is_last && !is_full {
                rest = read(row.function_id, place(&row))?;
            }
            push(&mut ahead, rest);
            merged.push(row);
        }
        Ok(())
    }

    /// The newest of these days on which the account's functions were called.
    fn newest_day(&self, first: i64, last: i64) -> Result<Option<i64>, StoreError> {
        self.c
            .prepare_cached(NEWEST_DAY)
            .and_then(|mut select| {
                select.query_row(params![self.user_id.as_bytes(), first, last], |row| row.get(0))
            })
            .map_err(reading("usage sum"))
    }

    /// Those of the account's functions that were called on these days.
    fn functions(&self, first: i64, last: i64) -> Result<Vec<FunctionId>, StoreError> {
        all(
            self.c,
            FUNCTIONS_OF_DAYS,
            params![self.user_id.as_bytes(), first, last],
            "usage sum",
            |row| row.get(0).map(FunctionId::from_bytes),
        )
    }
}

/// Puts what is left of a function in its place.
fn push(ahead: &mut Ahead, mut rest: Rest) {
    if let Some(row) = rest.rows.next() {
        ahead.insert((row.timestamp, row.execution_id, row.function_id), (row, rest));
    }
}
