//! Logs: newest first by the time of their calls, or as they come in.

use cloudserve_protocol::call::{LogLevel, LogLine};
use cloudserve_protocol::ids::{ExecutionId, FunctionId};
use futures::TryStreamExt;
use mongodb::bson::{DateTime, Uuid, doc};
use serde::{Deserialize, Serialize};

use super::database::{Database, Failed, insert_absent};
use super::schema::LOGS;
use super::telemetry::{StoredStatus, measured};
use super::values::{Key, date, document, older, parse, time};
use crate::cursor::{Cursor, page_limit};
use crate::telemetry::{LogPage, LogQuery, LogRow, LogTail, MAX_PAGE_TEXT_BYTES, MAX_SCANNED_ROWS};
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
    status: StoredStatus,
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
            status: row.status.into(),
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
            status: row.status.into(),
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
    let limit = page_limit(query.limit);
    let n_scanned = if query.filter.is_empty() { limit } else { MAX_SCANNED_ROWS };
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
            .limit(i64::from(n_scanned) + 1)
            .batch_size(LOG_BATCH)
            .await?;
        let mut page = LogPage { rows: Vec::new(), next: None };
        let (mut text_bytes, mut scanned, mut last) = (0, 0, None);
        while let Some(row) = found.try_next().await? {
            text_bytes += row.as_bytes().len();
            let is_full = page.rows.len() >= limit as usize
                || scanned >= n_scanned
                || (scanned > 0 && text_bytes > MAX_PAGE_TEXT_BYTES);
            if is_full {
                page.next = last.map(|last: Cursor| last.to_string());
                break;
            }
            let mut log = LogRow::from(parse::<LogDocument>("log", &row)?);
            scanned += 1;
            last = Some(Cursor { time: log.timestamp, id: *log.execution_id.as_bytes() });
            if query.filter.keep(&mut log) {
                page.rows.push(log);
            }
        }
        Ok::<_, Failed>(page)
    };
    database.bounded(read).await
}

/// Where a tail is: everything that came in before `from_ms` was shown, and of what came in since
/// the rows named here.
#[derive(Default)]
struct Position {
    from_ms: i64,
    /// The last halves of execution ids, which are random.
    shown: Vec<[u8; 8]>,
}

impl Position {
    fn parse(text: &str) -> Result<Self, StoreError> {
        let (from_ms, shown) = text.split_once('.').ok_or(StoreError::BadCursor)?;
        let from_ms = from_ms.parse().map_err(|_| StoreError::BadCursor)?;
        let shown = hex::decode(shown).map_err(|_| StoreError::BadCursor)?;
        let (shown, rest) = shown.as_chunks::<8>();
        if !rest.is_empty() || shown.len() > NAMED_ROWS {
            return Err(StoreError::BadCursor);
        }
        Ok(Self { from_ms, shown: shown.to_vec() })
    }

    /// The position after these rows, of which all since `self` are given, oldest first.
    fn after(self, rows: &[(i64, [u8; 8])], settled_ms: i64) -> Self {
        let unsettled = rows.iter().filter(|(at, _)| *at >= settled_ms.max(self.from_ms));
        let mut named: Vec<_> = unsettled.copied().collect();
        let mut from_ms = settled_ms.max(self.from_ms);
        if named.len() > NAMED_ROWS {
            named.drain(..named.len() - NAMED_ROWS);
            from_ms = named[0].0;
        }
        Self { from_ms, shown: named.into_iter().map(|(_, name)| name).collect() }
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.from_ms, hex::encode(self.shown.concat()))
    }
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
        None => Position { from_ms: settled_ms, shown: Vec::new() },
    };
    let limit = page_limit(limit) as usize;
    let filter = doc! {
        "functionId": function_id.key(),
        "recordedAt": { "$gte": DateTime::from_millis(position.from_ms) },
    };
    let logs = database.lightly_acknowledged(LOGS);
    let read = async {
        let mut found = logs
            .find(filter)
            .sort(doc! { "recordedAt": 1, "_id": 1 })
            .batch_size(LOG_BATCH)
            .await?;
        let (mut rows, mut seen) = (Vec::new(), Vec::new());
        let (mut text_bytes, mut is_whole) = (0, true);
        while let Some(row) = found.try_next().await? {
            let log: LogDocument = parse("log", &row)?;
            let (at, name) = (log.recorded_at.timestamp_millis(), name_of(log.execution_id));
            let is_new = !begins && !position.shown.contains(&name);
            if is_new && (rows.len() >= limit || text_bytes >= MAX_PAGE_TEXT_BYTES) {
                is_whole = false;
                break;
            }
            seen.push((at, name));
            if is_new {
                text_bytes += row.as_bytes().len();
                rows.push(LogRow::from(log));
            }
        }
        Ok::<_, Failed>((rows, seen, is_whole))
    };
    let (rows, seen, is_whole) = database.bounded(read).await?;
    // What was not read yet is not settled, whatever its age.
    let read_until = if is_whole { i64::MAX } else { seen.last().map_or(0, |(at, _)| *at) };
    let position = position.after(&seen, settled_ms.min(read_until));
    Ok(LogTail { rows, position: position.to_string() })
}
