//! Calls that go with age. Their sums stay.
//!
//! Calls are in the order of functions, and of each the oldest comes first: what is looked at is what
//! goes, and one call of each function.

use rusqlite::{Connection, OptionalExtension, params};

use super::Turn;
use crate::sqlite::columns::{reading, storage_failed};
use crate::sqlite::statements::execute;
use crate::{StoreError, Timestamp};

/// The oldest call of the function that comes next.
pub(in crate::sqlite) const OLDEST_OF_NEXT: &str = "SELECT function_id, timestamp FROM usage
     WHERE function_id > ?1 ORDER BY function_id, timestamp LIMIT 1";

pub(in crate::sqlite) const REMOVE: &str =
    "DELETE FROM usage WHERE (function_id, timestamp, execution_id) IN
         (SELECT function_id, timestamp, execution_id FROM usage
          WHERE function_id = ?1 AND timestamp < ?2 LIMIT ?3)";

/// Rows removed by one statement, between looks at the clock.
const ROWS_AT_ONCE: usize = 100;

/// The id of a function.
type Id = [u8; 16];

/// The functions that have older calls than this.
pub(in crate::sqlite) fn functions(
    c: &Connection,
    older_than: Timestamp,
) -> Result<Vec<Id>, StoreError> {
    let mut oldest_of_next = c.prepare_cached(OLDEST_OF_NEXT).map_err(storage_failed)?;
    let mut functions = Vec::new();
    let mut last: Id = [0; 16];
    loop {
        let next = oldest_of_next
            .query_row(params![last], |row| Ok((row.get::<_, Id>(0)?, row.get::<_, i64>(1)?)))
            .optional()
            .map_err(reading("usage row"))?;
        let Some((id, oldest)) = next else { return Ok(functions) };
        if oldest < older_than.0 {
            functions.push(id);
        }
        last = id;
    }
}

/// Removes so many of a function's older calls at most; how many there were.
pub(in crate::sqlite) fn remove(
    c: &Connection,
    function: Id,
    older_than: Timestamp,
    most: usize,
) -> Result<usize, StoreError> {
    let mut turn = Turn::begin();
    let mut removed = 0;
    while removed < most {
        let at_once = ROWS_AT_ONCE.min(most - removed);
        let n = execute(c, REMOVE, params![function, older_than.0, at_once])?;
        removed += n;
        if n < at_once {
            break;
        }
        turn.end_if_over();
    }
    Ok(removed)
}
