//! Instants as the product shows them: RFC 3339, UTC, milliseconds.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Datelike, NaiveDate, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A day.
pub(crate) const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// Milliseconds since the epoch, UTC. Serialises as RFC 3339 with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The present.
    #[must_use]
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// This much later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The day (UTC), counted from the epoch.
    #[must_use]
    pub fn day(self) -> i64 {
        self.0.div_euclid(DAY_MS)
    }

    /// The first instant of this day (UTC), counted as [`Timestamp::day`] does.
    #[must_use]
    pub fn of_day(day: i64) -> Self {
        Self(day.saturating_mul(DAY_MS))
    }

    /// The month (UTC), counted from January of the year 0.
    #[must_use]
    pub fn month(self) -> i64 {
        // It is asked for with each call, and nearly always on the same day: that one's number and its
        // month, in 32 bits each.
        static LAST: AtomicU64 = AtomicU64::new(u64::MAX);
        let day = self.day();
        let last = LAST.load(Relaxed);
        let (last_day, last_month) = (last >> 32, last & u64::from(u32::MAX));
        if u64::try_from(day) == Ok(last_day)
            && let Ok(month) = i64::try_from(last_month)
        {
            return month;
        }
        let time = DateTime::<Utc>::from_timestamp_millis(self.0).unwrap_or_default();
        let month = i64::from(time.year()) * 12 + i64::from(time.month0());
        if let (Ok(day), Ok(month)) = (u32::try_from(day), u32::try_from(month)) {
            LAST.store(u64::from(day) << 32 | u64::from(month), Relaxed);
        }
        month
    }

    /// The first instant of this month (UTC), counted as [`Timestamp::month`] does.
    #[must_use]
    pub fn of_month(month: i64) -> Self {
        let year = i32::try_from(month.div_euclid(12)).unwrap_or(i32::MAX);
        let month = u32::try_from(month.rem_euclid(12)).unwrap_or(0) + 1;
        let first = NaiveDate::from_ymd_opt(year, month, 1).unwrap_or(NaiveDate::MAX);
        Self(first.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_millis())
    }

    /// Reads RFC 3339, with or without a zone other than UTC.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        DateTime::parse_from_rfc3339(text).ok().map(|t| Self(t.timestamp_millis()))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::<Utc>::from_timestamp_millis(self.0) {
            Some(time) => f.write_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true)),
            None => f.write_str("out of range"),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom("must be an RFC 3339 time with a zone"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_keeps_milliseconds() {
        let time = Timestamp(1_700_000_000_007);
        assert_eq!(time.to_string(), "2023-11-14T22:13:20.007Z");
        assert_eq!(Timestamp::parse(&time.to_string()), Some(time));
        assert_eq!(Timestamp::parse("2023-11-14T23:13:20.007+01:00"), Some(time));
    }

    #[test]
    fn days_and_months_begin_where_they_do() {
        let time = Timestamp::parse("2023-12-31T23:59:59.999Z").unwrap();
        for (begin, expected) in [
            (Timestamp::of_day(time.day()), "2023-12-31T00:00:00.000Z"),
            (Timestamp::of_day(time.day() + 1), "2024-01-01T00:00:00.000Z"),
            (Timestamp::of_month(time.month()), "2023-12-01T00:00:00.000Z"),
            (Timestamp::of_month(time.month() + 1), "2024-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(begin.to_string(), expected);
        }
    }

    #[test]
    fn a_day_has_its_month_whatever_was_asked_for_before() {
        let of = |text| Timestamp::parse(text).unwrap().month() - 12 * 2024;
        for _ in 0..2 {
            assert_eq!(of("2024-02-29T23:59:59.999Z"), 1);
            assert_eq!(of("2024-03-01T00:00:00.000Z"), 2);
            assert_eq!(of("2024-03-01T23:59:59.999Z"), 2);
            assert_eq!(of("1969-12-31T23:59:59.999Z"), 12 * (1969 - 2024) + 11);
            assert_eq!(of("1970-01-01T00:00:00.000Z"), 12 * (1970 - 2024));
        }
    }
}
