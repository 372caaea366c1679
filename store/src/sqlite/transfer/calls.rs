//! Calls in the order of their ids, which is that of an archive and not that of the table.
//!
//! Ids are sorted here, a bounded number at a time. They grow with time (UUID version 7), so those
//! that come next are of a few days, and only these are looked through: a walk over all calls reads
//! each about three times, and more often where a day has many millions. Only how fast it is depends
//! on that.

use std::collections::{BinaryHeap, HashMap};
use std::vec::IntoIter;

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::sqlite::columns::{reading, storage_failed};
use crate::sqlite::telemetry::read_usage;
use crate::transfer::{PAGE_ROWS, Record};
use crate::{StoreError, Timestamp};

/// Calls sorted at a time: 40 MB.
const SORTED_CALLS: usize = 1_000_000;

const KEYS: &str = "SELECT execution_id, function_id, timestamp FROM usage
     ORDER BY function_id, timestamp, execution_id";

pub(in crate::sqlite) const KEYS_OF_DAY: &str =
    "SELECT execution_id, function_id, timestamp FROM usage
     WHERE function_id = ?1 AND timestamp >= ?2 AND timestamp <= ?3";

pub(in crate::sqlite) const CALL: &str = "SELECT function_id, user_id, execution_id, version,
            duration_ms, cpu_ms, memory_mb, failed, code, cold, timestamp
     FROM usage WHERE function_id = ?1 AND timestamp = ?2 AND execution_id = ?3";

type Id = [u8; 16];

/// What a call is found by, in the order of ids.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    id: Id,
    function: Id,
    timestamp: i64,
}

fn read_key(row: &Row<'_>) -> rusqlite::Result<Key> {
    Ok(Key { id: row.get(0)?, function: row.get(1)?, timestamp: row.get(2)? })
}

/// The calls of a day (UTC): from which id and time to which.
struct Day {
    ids: (Id, Id),
    times: (i64, i64),
}

impl Day {
    fn of(call: &Key) -> Self {
        Self { ids: (call.id, call.id), times: (call.timestamp, call.timestamp) }
    }

    fn add(&mut self, call: &Key) {
        self.ids = (self.ids.0.min(call.id), self.ids.1.max(call.id));
        self.times = (self.times.0.min(call.timestamp), self.times.1.max(call.timestamp));
    }
}

/// A walk over all calls that were there when it began.
#[derive(Default)]
pub(super) struct Walk {
    functions: Vec<Id>,
    /// By their first ids.
    days: Vec<Day>,
    /// The call that the page before ended with.
    last: Option<Id>,
    /// What comes after it, as far as it is sorted.
    next: IntoIter<Key>,
}

impl Walk {
    /// The page after this id; one that is not the page after the one before begins a new walk.
    pub(super) fn page(
        &mut self,
        c: &Connection,
        after: Option<Id>,
    ) -> Result<Vec<Record>, StoreError> {
        if after.is_none() || after != self.last {
            *self = Self::begin(c, after)?;
        }
        let mut select = c.prepare_cached(CALL).map_err(storage_failed)?;
        let mut records = Vec::new();
        // A page without any would be the last one.
        while records.is_empty() {
            if self.next.as_slice().is_empty() {
                self.sort(c, SORTED_CALLS)?;
            }
            if self.next.as_slice().is_empty() {
                break;
            }
            while records.len() < PAGE_ROWS as usize
                && let Some(call) = self.next.next()
            {
                let row = select
                    .query_row(params![call.function, call.timestamp, call.id], read_usage)
                    .optional()
                    .map_err(reading("usage row"))?;
                // It may have gone with age meanwhile.
                if let Some(row) = row {
                    records.push(Record::Usage(row));
                    self.last = Some(call.id);
                }
            }
        }
        if records.is_empty() {
            // Its memory is not needed any more.
            *self = Self::default();
        }
        Ok(records)
    }

    /// Learns which functions and days there are.
    fn begin(c: &Connection, after: Option<Id>) -> Result<Self, StoreError> {
        let mut select = c.prepare_cached(KEYS).map_err(storage_failed)?;
        let mut found = select.query([]).map_err(storage_failed)?;
        let mut functions: Vec<Id> = Vec::new();
        let mut days: HashMap<i64, Day> = HashMap::new();
        while let Some(row) = found.next().map_err(storage_failed)? {
            let call = read_key(row).map_err(reading("usage row"))?;
            if functions.last() != Some(&call.function) {
                functions.push(call.function);
            }
            let day = Timestamp(call.timestamp).day();
            days.entry(day).or_insert_with(|| Day::of(&call)).add(&call);
        }
        let mut days: Vec<Day> = days.into_values().collect();
        days.sort_unstable_by_key(|day| day.ids.0);
        Ok(Self { functions, days, last: after, next: IntoIter::default() })
    }

    /// Sorts what comes next, at most so many.
    fn sort(&mut self, c: &Connection, most: usize) -> Result<(), StoreError> {
        let mut select = c.prepare_cached(KEYS_OF_DAY).map_err(storage_failed)?;
        let mut next: BinaryHeap<Key> = BinaryHeap::new();
        for day in self.days.iter().filter(|day| Some(day.ids.1) > self.last) {
            if next.len() == most && next.peek().is_some_and(|last| last.id < day.ids.0) {
                // Nor is anything of the days behind it among them.
                break;
            }
            for function in &self.functions {
                let mut found = select
                    .query(params![function, day.times.0, day.times.1])
                    .map_err(storage_failed)?;
                while let Some(row) = found.next().map_err(storage_failed)? {
                    let call = read_key(row).map_err(reading("usage row"))?;
                    if Some(call.id) <= self.last {
                        continue;
                    }
                    if next.len() == most {
                        if next.peek() < Some(&call) {
                            continue;
                        }
                        next.pop();
                    }
                    next.push(call);
                }
            }
        }
        self.next = next.into_sorted_vec().into_iter();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::schema::TELEMETRY_FILES;
    use crate::time::DAY_MS;

    fn database() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        for file in TELEMETRY_FILES {
            connection.execute_batch(file).unwrap();
        }
        connection
    }

    fn insert(connection: &Connection, id: Id, function: Id, timestamp: i64) {
        connection
            .execute(
                "INSERT INTO usage (execution_id, function_id, user_id, version, duration_ms,
                                    cpu_ms, memory_mb, failed, code, cold, timestamp)
                 VALUES (?1, ?2, ?2, 1, 1, 1, 1, 0, 'ok', 0, ?3)",
                params![id, function, timestamp],
            )
            .unwrap();
    }

    /// Whatever ids have to do with times.
    #[test]
    fn calls_are_walked_by_id_however_few_are_sorted_at_a_time() {
        let connection = database();
        let mut expected = Vec::new();
        for n in 0..200_u8 {
            let mut id = [0; 16];
            // Most grow with time, some are anywhere.
            id[0] = if n.is_multiple_of(9) { n.wrapping_mul(77) } else { n };
            id[1] = n;
            let timestamp = 1_700_000_000_000 + i64::from(n) * DAY_MS / 20;
            insert(&connection, id, [n % 3; 16], timestamp);
            expected.push(id);
        }
        expected.sort_unstable();
        for most in [1, 7, 200, 1_000] {
            for after in [None, Some(expected[100])] {
                let mut walk = Walk::begin(&connection, after).unwrap();
                let mut walked = Vec::new();
                loop {
                    walk.sort(&connection, most).unwrap();
                    walked.extend(walk.next.by_ref().map(|call| call.id));
                    if walk.last == walked.last().copied() || walked.is_empty() {
                        break;
                    }
                    walk.last = walked.last().copied();
                }
                let begin = after.map_or(0, |_| 101);
                assert_eq!(walked, expected[begin..], "{most}");
            }
        }
    }

    #[test]
    fn calls_that_go_during_a_walk_are_passed_over() {
        for (gone, left) in [("timestamp % 3 = 0", 6), ("timestamp >= 500", 0)] {
            let connection = database();
            for n in 0..i64::from(PAGE_ROWS) + 9 {
                let mut id = [0; 16];
                id[..8].copy_from_slice(&n.to_be_bytes());
                insert(&connection, id, [1; 16], n);
            }
            let mut walk = Walk::default();
            let first = walk.page(&connection, None).unwrap();
            let Some(Record::Usage(last)) = first.last() else { panic!("no calls") };
            connection.execute(&format!("DELETE FROM usage WHERE {gone}"), []).unwrap();
            let after = Some(*last.execution_id.as_bytes());
            assert_eq!(walk.page(&connection, after).unwrap().len(), left, "{gone}");
        }
    }
}
