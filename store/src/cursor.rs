//! The place in a list where a page ended: an instant and an id, newest first.
//!
//! Lists are ordered by both, so a cursor stays good when rows before or after it come or go.

use crate::{StoreError, Timestamp};

/// Rows of one page at most, whatever the caller asks for.
const MAX_PAGE_ROWS: u32 = 1_000;

/// The rows a page may have when this many were asked for.
pub(crate) fn page_limit(asked: u32) -> u32 {
    asked.min(MAX_PAGE_ROWS)
}

const LENGTH: usize = 24;

/// Where a page ended. Its text form is opaque to callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) time: Timestamp,
    pub(crate) id: [u8; 16],
}

impl Cursor {
    /// Before everything: the first page starts here.
    const NEWEST: Self = Self { time: Timestamp(i64::MAX), id: [0xff; 16] };

    pub(crate) fn parse(text: Option<&str>) -> Result<Self, StoreError> {
        let Some(text) = text else { return Ok(Self::NEWEST) };
        let mut bytes = [0; LENGTH];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| StoreError::BadCursor)?;
        let (time, id) = bytes.split_first_chunk::<8>().ok_or(StoreError::BadCursor)?;
        let id = id.try_into().map_err(|_| StoreError::BadCursor)?;
        Ok(Self { time: Timestamp(i64::from_be_bytes(*time)), id })
    }

    /// The same place, or where what is older than `end` begins if that comes later in the list.
    pub(crate) fn no_newer_than(self, end: Option<Timestamp>) -> Self {
        // `end` is exclusive, so nothing at that instant sorts before the all-zero id.
        let end = end.map(|time| Self { time, id: [0; 16] });
        end.filter(|end| (end.time, end.id) < (self.time, self.id)).unwrap_or(self)
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut bytes = [0; LENGTH];
        bytes[..8].copy_from_slice(&self.time.0.to_be_bytes());
        bytes[8..].copy_from_slice(&self.id);
        f.write_str(&hex::encode(bytes))
    }
}

/// Cuts the row that was read beyond `limit` to learn whether there is more, and makes the cursor.
pub(crate) fn finish_page<T>(
    mut rows: Vec<T>,
    limit: u32,
    place: impl Fn(&T) -> Cursor,
) -> (Vec<T>, Option<String>) {
    let limit = limit as usize;
    if rows.len() <= limit {
        return (rows, None);
    }
    rows.truncate(limit);
    let next = rows.last().map(|row| place(row).to_string());
    (rows, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_round_trip_and_nonsense_is_refused() {
        let cursor = Cursor { time: Timestamp(1_700_000_000_007), id: [7; 16] };
        assert_eq!(Cursor::parse(Some(&cursor.to_string())).unwrap(), cursor);
        for text in ["", "zz", "00", &"0".repeat(49), &"0".repeat(50), "' OR 1=1"] {
            assert!(matches!(Cursor::parse(Some(text)), Err(StoreError::BadCursor)), "{text}");
        }
    }
}
