//! Logs: newest first by the time of their calls, or as they come in.

use cloudserve_protocol::call::{LogLevel, LogLine};
use cloudserve_protocol::ids::{ExecutionId, FunctionId};
use futures::TryStreamExt;
use mongodb::bson::{DateTime, Document, Uuid, doc};
use serde::{Deserialize, Serialize};

use super::database::{Database, Failed, insert_absent};
use super::schema::LOGS;
use super::values::{Key, date, document, older, parse, time};
use crate::cursor::{Cursor, page_limit};
use crate::telemetry::{
    CallStatus, Filling, LogPage, LogQuery, LogRow, LogTail, MAX_PAGE_TEXT_BYTES, measured,
};
use crate::{StoreError, Timestamp};

/// Text of one log row at most: a document may have 16 MiB. More than a call may log by default,
/// and what is beyond is marked as missing.
const MAX_ROW_TEXT_BYTES: usize = 14 * 1024 * 1024;

/// Rows asked for at a time when rows may be large.
const LOG_BATCH: u32 = 50;

/// How long a row may take from getting its time to being seen. Within it, positions of a tail
/// name the rows that were shown.
const SETTLING_MS: i64 = 5_000;

/// Rows that a position names. With more of them than this within [`SETTLING_MS`], the oldest
/// count as settled.
const NAMED_ROWS: usize = 64;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LogDocument {
    #[serde(rename = "_id")]
    execution_id: Uuid,
    function_id: Uuid,
    logs: Vec<LineDocument>,
    duration: f64,
    memory_used: f64,
    status: CallStatus,
    truncated: bool,
    timestamp: DateTime,
    /// When it came in: the order of a tail.
    recorded_at: DateTime,
}

#[derive(Serialize, Deserialize)]
struct LineDocument {
    level: LogLevel,
    message: String,
    timestamp: DateTime,
}

impl From<LogRow> for LogDocument {
    fn from(row: LogRow) -> Self {
        let (mut text_bytes, mut truncated) = (0, row.truncated);
        let mut logs = Vec::with_capacity(row.lines.len());
        for line in row.lines {
            // A line has fields of its own besides the message.
            text_bytes += line.message.len() + 64;
            if text_bytes > MAX_ROW_TEXT_BYTES {
                truncated = true;
                break;
            }
            logs.push(LineDocument {
                level: line.level,
                message: line.message,
                timestamp: DateTime::from_millis(line.timestamp_ms.cast_signed()),
            });
        }
        Self {
            execution_id: row.execution_id.key(),
            function_id: row.function_id.key(),
            logs,
            duration: measured(row.duration_ms),
            memory_used: measured(row.memory_mb),
            status: row.status,
            truncated,
            timestamp: date(row.timestamp),
            recorded_at: date(Timestamp::now()),
        }
    }
}

impl From<LogDocument> for LogRow {
    fn from(row: LogDocument) -> Self {
        let lines = row.logs.into_iter().map(|line| LogLine {
            level: line.level,
            message: line.message,
            timestamp_ms: line.timestamp.timestamp_millis().cast_unsigned(),
        });
        Self {
            function_id: FunctionId::of(row.function_id),
            execution_id: ExecutionId::of(row.execution_id),
            lines: lines.collect(),
            duration_ms: row.duration,
            memory_mb: row.memory_used,
            status: row.status,
            truncated: row.truncated,
            timestamp: time(row.timestamp),
        }
    }
}

/// Adds the rows that are not there yet.
pub(super) async fn insert(database: &Database, rows: Vec<LogRow>) -> Result<(), StoreError> {
    let rows = rows.into_iter().map(|row| document(&LogDocument::from(row)));
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    insert_absent(database, &database.lightly_acknowledged(LOGS), rows).await
}

/// A page, newest first.
pub(super) async fn read(
    database: &Database,
    query: &LogQuery,
    from: Cursor,
) -> Result<LogPage, StoreError> {
    let mut filling = Filling::of(query);
    let mut filter = doc! { "functionId": query.function_id.key() };
    filter.extend(older("timestamp", from));
    if let Some(execution) = query.execution_id {
        filter = doc! { "$and": [filter, { "_id": execution.key() }] };
    }
    let logs = database.lightly_acknowledged(LOGS);
    let read = async {
        let mut found = logs
            .find(filter)
            .sort(doc! { "timestamp": -1, "_id": -1 })
            .limit(filling.n_asked_for())
            .batch_size(LOG_BATCH)
            .await?;
        while let Some(row) = found.try_next().await? {
            if !filling.has_room(row.as_bytes().len()) {
                break;
            }
            filling.push(parse::<LogDocument>("log", &row)?.into());
        }
        Ok::<_, Failed>(filling.page())
    };
    database.bounded(read).await
}

/// Where a tail is: everything that came in before `from_ms` was shown, and of what came in since
/// the rows named here.
#[derive(Debug, Default, PartialEq)]
struct Position {
    from_ms: i64,
    /// Of that millisecond, rows up to this one were shown, too: many rows may share one.
    through: Option<Uuid>,
    /// The last halves of execution ids, which are random.
    shown: Vec<[u8; 8]>,
}

impl Position {
    /// Without the third part it is of an earlier release, or nothing but a millisecond.
    fn parse(text: &str) -> Result<Self, StoreError> {
        let (from_ms, shown) = text.split_once('.').ok_or(StoreError::BadCursor)?;
        let from_ms = from_ms.parse().map_err(|_| StoreError::BadCursor)?;
        let (shown, through) = match shown.split_once('.') {
            Some((shown, through)) => (shown, Some(parse_id(through)?)),
            None => (shown, None),
        };
        let shown = hex::decode(shown).map_err(|_| StoreError::BadCursor)?;
        let (shown, rest) = shown.as_chunks::<8>();
        if !rest.is_empty() || shown.len() > NAMED_ROWS {
            return Err(StoreError::BadCursor);
        }
        Ok(Self { from_ms, through, shown: shown.to_vec() })
    }

    /// The rows that come after it, and those it names.
    fn filter(&self, function_id: FunctionId) -> Document {
        let from = DateTime::from_millis(self.from_ms);
        let mut filter = doc! { "functionId": function_id.key(), "recordedAt": { "$gte": from } };
        if let Some(through) = self.through {
            filter.extend(doc! {
                "$or": [{ "recordedAt": { "$gt": from } }, { "_id": { "$gt": through } }],
            });
        }
        filter
    }

    /// The position after these rows, the first that its filter found, oldest first. With
    /// `is_whole` there were no more.
    fn after(self, rows: &[(i64, Uuid)], is_whole: bool, settled_ms: i64) -> Self {
        // What was not read yet is not settled, whatever its age.
        let read_until = if is_whole { i64::MAX } else { rows.last().map_or(0, |(at, _)| *at) };
        let mut from_ms = settled_ms.min(read_until).max(self.from_ms);
        let mut through = self.through.filter(|_| from_ms == self.from_ms);
        let mut named: Vec<_> = rows.iter().copied().filter(|(at, _)| *at >= from_ms).collect();
        let mut unread = self.shown;
        unread.retain(|name| !is_whole && !rows.iter().any(|(_, id)| name_of(*id) == *name));
        let beyond = (named.len() + unread.len()).saturating_sub(NAMED_ROWS);
        // Of the last one that goes the id, too: others of its millisecond may not be read yet.
        if let Some((at, id)) = named.drain(..beyond).next_back() {
            (from_ms, through) = (at, Some(id));
        }
        let shown = named.into_iter().map(|(_, id)| name_of(id)).chain(unread).collect();
        Self { from_ms, through, shown }
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.from_ms, hex::encode(self.shown.concat()))?;
        self.through.map_or(Ok(()), |id| write!(f, ".{}", hex::encode(id.bytes())))
    }
}

fn parse_id(text: &str) -> Result<Uuid, StoreError> {
    let mut bytes = [0; 16];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| StoreError::BadCursor)?;
    Ok(Uuid::from_bytes(bytes))
}

fn name_of(execution_id: Uuid) -> [u8; 8] {
    let bytes = execution_id.bytes();
    std::array::from_fn(|n| bytes[8 + n])
}

/// What came in after a position, oldest first.
pub(super) async fn tail(
    database: &Database,
    function_id: FunctionId,
    position: Option<&str>,
    limit: u32,
) -> Result<LogTail, StoreError> {
    let settled_ms = Timestamp::now().0.saturating_sub(SETTLING_MS);
    let begins = position.is_none();
    let position = match position {
        Some(text) => Position::parse(text)?,
        None => Position { from_ms: settled_ms, ..Position::default() },
    };
    let limit = page_limit(limit) as usize;
    let logs = database.lightly_acknowledged(LOGS);
    let read = async {
        let mut found = logs
            .find(position.filter(function_id))
            .sort(doc! { "recordedAt": 1, "_id": 1 })
            .batch_size(LOG_BATCH)
            .await?;
        let (mut rows, mut seen) = (Vec::new(), Vec::new());
        let (mut text_bytes, mut is_whole) = (0, true);
        while let Some(row) = found.try_next().await? {
            let log: LogDocument = parse("log", &row)?;
            let (at, id) = (log.recorded_at.timestamp_millis(), log.execution_id);
            let is_new = !begins && !position.shown.contains(&name_of(id));
            if is_new && (rows.len() >= limit || text_bytes >= MAX_PAGE_TEXT_BYTES) {
                is_whole = false;
                break;
            }
            seen.push((at, id));
            if is_new {
                text_bytes += row.as_bytes().len();
                rows.push(LogRow::from(log));
            }
        }
        Ok::<_, Failed>((rows, seen, is_whole))
    };
    let (rows, seen, is_whole) = database.bounded(read).await?;
    let position = position.after(&seen, is_whole, settled_ms);
    Ok(LogTail { rows, position: position.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u16) -> Uuid {
        let [high, low] = n.to_be_bytes();
        Uuid::from_bytes([high, low, 0, 0, 0, 0, 0, 0, 9, 9, 9, 9, 9, 9, high, low])
    }

    #[test]
    fn positions_round_trip_and_those_of_before_are_read() {
        let shown = vec![[1, 2, 3, 4, 5, 6, 7, 8], [0xff; 8]];
        for through in [None, Some(id(7))] {
            let position = Position { from_ms: 1_700_000_000_007, through, shown: shown.clone() };
            assert_eq!(Position::parse(&position.to_string()).unwrap(), position);
        }
        let before = Position::parse("1700000000007.0102030405060708ffffffffffffffff").unwrap();
        assert_eq!(
            (before.from_ms, before.through, &before.shown),
            (1_700_000_000_007, None, &shown)
        );
        assert!(Position::parse("7.").unwrap().shown.is_empty());
        for text in ["", "7", "x.", "7.01", "7..", "7..07", &format!("7.{}.", "00".repeat(8))] {
            assert!(matches!(Position::parse(text), Err(StoreError::BadCursor)), "{text}");
        }
        let too_many = format!("7.{}", "00".repeat(8 * (NAMED_ROWS + 1)));
        assert!(Position::parse(&too_many).is_err());
    }

    #[test]
    fn a_position_goes_on_within_a_millisecond() {
        let rows: Vec<_> = (0..200).map(|n| (10, id(n))).collect();
        // All of them are of just now, so they are named as far as names go.
        for is_whole in [false, true] {
            let position = Position { from_ms: 5, ..Position::default() };
            let position = position.after(&rows, is_whole, 5);
            let last_unnamed = 200 - 1 - u16::try_from(NAMED_ROWS).unwrap();
            assert_eq!((position.from_ms, position.through), (10, Some(id(last_unnamed))));
            assert_eq!(position.shown.len(), NAMED_ROWS);
            assert_eq!(position.shown.last(), Some(&name_of(id(199))));
        }
        // Once they have settled, the millisecond is past.
        let position = Position { from_ms: 10, through: Some(id(3)), shown: Vec::new() };
        let settled = position.after(&rows[4..], true, 11);
        assert_eq!(settled, Position { from_ms: 11, ..Position::default() });
    }

    #[test]
    fn a_name_that_was_not_read_again_is_kept() {
        let named = Position { from_ms: 5, through: None, shown: vec![name_of(id(9))] };
        let part = named.after(&[(6, id(1)), (6, id(2))], false, 0);
        assert_eq!(part.shown, [1, 2, 9].map(|n| name_of(id(n))));
        let whole = part.after(&[(6, id(1)), (6, id(2)), (7, id(9))], true, 7);
        assert_eq!((whole.from_ms, whole.shown), (7, vec![name_of(id(9))]));
    }
}
