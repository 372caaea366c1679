//! Load: how calls are issued, and what is written down of them.
//!
//! Generic over clock and connection, so that the arithmetic is tested in virtual time against a
//! server whose delays are known.

mod closed;
mod open;
mod record;
mod schedule;
#[cfg(test)]
mod virtual_time;

pub(crate) use closed::{ClosedPlan, closed};
pub(crate) use open::{OpenPlan, open};
pub(crate) use record::{Expected, Record, Recorder, Temperature, When, histogram, us_at};
pub(crate) use schedule::{Arrival, fixed, poisson};

/// A second, in the unit of the clocks.
pub(crate) const SECOND: u64 = 1_000_000_000;
/// A millisecond, in the unit of the clocks.
pub(crate) const MS: u64 = 1_000_000;
