//! How a page of logs is filled, by all back ends alike.

use super::{LogFilter, LogPage, LogQuery, LogRow, MAX_PAGE_TEXT_BYTES, MAX_SCANNED_ROWS};
use crate::cursor::{Cursor, page_limit};

/// A page that rows go into, newest first.
pub(crate) struct Filling<'a> {
    filter: &'a LogFilter,
    limit: u32,
    max_scanned: u32,
    scanned: u32,
    text_bytes: usize,
    last: Option<Cursor>,
    page: LogPage,
}

impl<'a> Filling<'a> {
    pub(crate) fn of(query: &'a LogQuery) -> Self {
        let limit = page_limit(query.limit);
        Self {
            filter: &query.filter,
            limit,
            max_scanned: if query.filter.is_empty() { limit } else { MAX_SCANNED_ROWS },
            scanned: 0,
            text_bytes: 0,
            last: None,
            page: LogPage { rows: Vec::new(), next: None },
        }
    }

    /// Rows to ask for: one more than are looked through tells whether there are more.
    pub(crate) fn n_asked_for(&self) -> i64 {
        i64::from(self.max_scanned) + 1
    }

    /// Whether the next row, with so much text, is looked at. If it is not, the page ends before it.
    pub(crate) fn has_room(&mut self, text_bytes: usize) -> bool {
        self.text_bytes += text_bytes;
        let is_full = self.page.rows.len() >= self.limit as usize
            || self.scanned >= self.max_scanned
            || (self.scanned > 0 && self.text_bytes > MAX_PAGE_TEXT_BYTES);
        if is_full {
            self.page.next = self.last.map(|last| last.to_string());
        }
        !is_full
    }

    /// The row there was room for, if the filter keeps it.
    pub(crate) fn push(&mut self, mut log: LogRow) {
        self.scanned += 1;
        self.last = Some(Cursor { time: log.timestamp, id: *log.execution_id.as_bytes() });
        if self.filter.keep(&mut log) {
            self.page.rows.push(log);
        }
    }

    pub(crate) fn page(self) -> LogPage {
        self.page
    }
}
