//! A span of time cut at midnight (UTC): whole days, for which there are sums, and the cut days at
//! its two ends, for which there are rows.

use std::ops::Range;

use chrono::DateTime;

use crate::Timestamp;
use crate::telemetry::UsageQuery;
use crate::time::DAY_MS;

/// `YYYY-MM-DD` of a day counted from the epoch; `None` beyond what has a name.
pub(crate) fn name_of_day(day: i64) -> Option<String> {
    let midnight = DateTime::from_timestamp_millis(day.checked_mul(DAY_MS)?)?;
    Some(midnight.format("%Y-%m-%d").to_string())
}

/// The first and the last day that a query reaches into.
pub(crate) fn days_of(query: &UsageQuery) -> (i64, i64) {
    let first = query.from.map_or(i64::MIN, Timestamp::day);
    let last = query.to.map_or(i64::MAX, |to| Timestamp(to.0.saturating_sub(1)).day());
    (first, last)
}

/// Which days of a query are read from the sums and which times from the rows.
pub(crate) struct Span {
    pub(crate) days: Range<i64>,
    pub(crate) head: Range<i64>,
    pub(crate) tail: Range<i64>,
}

impl Span {
    pub(crate) fn of(query: &UsageQuery) -> Self {
        let from = query.from.map_or(i64::MIN, |t| t.0);
        let to = query.to.map_or(i64::MAX, |t| t.0);
        let first_whole = from.div_euclid(DAY_MS) + i64::from(from.rem_euclid(DAY_MS) != 0);
        let first_cut = to.div_euclid(DAY_MS);
        if first_whole > first_cut {
            // Within one day.
            return Self { days: 0..0, head: from..to, tail: 0..0 };
        }
        Self {
            days: first_whole..first_cut,
            head: from..first_whole.saturating_mul(DAY_MS),
            tail: first_cut.saturating_mul(DAY_MS)..to,
        }
    }
}

#[cfg(test)]
mod tests {
    use cloudserve_protocol::ids::UserId;

    use super::*;

    fn span(from: Option<i64>, to: Option<i64>) -> (Range<i64>, Range<i64>, Range<i64>) {
        let query = UsageQuery {
            user_id: UserId::new(),
            function_id: None,
            from: from.map(Timestamp),
            to: to.map(Timestamp),
        };
        let Span { days, head, tail } = Span::of(&query);
        (days, head, tail)
    }

    #[test]
    fn spans_are_cut_at_midnight() {
        let day = DAY_MS;
        assert_eq!(span(Some(day), Some(3 * day)), (1..3, day..day, 3 * day..3 * day));
        assert_eq!(span(Some(5), Some(3 * day + 7)), (1..3, 5..day, 3 * day..3 * day + 7));
        assert_eq!(span(Some(5), Some(9)), (0..0, 5..9, 0..0));
        assert_eq!(span(Some(5), Some(day)), (1..1, 5..day, day..day));
        assert_eq!(span(Some(5), Some(day + 1)), (1..1, 5..day, day..day + 1));
        let (days, head, tail) = span(None, None);
        assert!(days.contains(&0) && days.contains(&30_000));
        assert!(head.end < 0 && tail.start > 30_000 * day);
    }
}
