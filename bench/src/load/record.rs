//! What is written down of calls.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::client::{Answer, CallError};

/// Longest latency that is told from longer ones: two minutes.
const MAX_NS: u64 = 120_000_000_000;
/// Significant digits of a recorded latency.
const DIGITS: u8 = 3;
/// `server-timing` is parsed of one call in so many: it costs, and means need no more.
pub(crate) const TIMINGS_EVERY: u64 = 16;

/// An empty histogram of nanoseconds.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_NS, DIGITS).expect("the bounds are valid constants")
}

/// The time in which this share of calls was answered, in microseconds.
pub(crate) fn us_at(histogram: &Histogram<u64>, share: f64) -> f64 {
    histogram.value_at_quantile(share) as f64 / 1e3
}

/// Whether a call loaded its function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Temperature {
    Cold,
    Warm,
    /// Both are wanted.
    Any,
}

/// What a good answer is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    pub(crate) status: u16,
    /// Length of the body; `None` takes any.
    pub(crate) body_bytes: Option<u64>,
    pub(crate) temperature: Temperature,
}

impl Expected {
    /// 200, warm, a body of this length.
    pub(crate) fn warm(body_bytes: u64) -> Self {
        Self { status: 200, body_bytes: Some(body_bytes), temperature: Temperature::Warm }
    }
}

/// When a call happened, in nanoseconds of the clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct When {
    /// When it should have been sent; the same as `sent` where nobody said when.
    pub(crate) scheduled: u64,
    pub(crate) sent: u64,
    pub(crate) done: u64,
}

/// Everything about the calls of one phase.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    /// From the scheduled instant: what a caller waits who does not know that we are late.
    pub(crate) corrected: Histogram<u64>,
    /// From the instant of sending: what coordinated omission makes of it.
    pub(crate) uncorrected: Histogram<u64>,
    /// From sending to the first byte of the answer.
    pub(crate) first_byte: Histogram<u64>,
    /// The latency of those that said they were cold.
    pub(crate) cold_latency: Histogram<u64>,
    /// How late calls were sent.
    pub(crate) lag: Histogram<u64>,
    /// Parts by `server-timing`, one call in [`TIMINGS_EVERY`].
    pub(crate) parts: BTreeMap<String, Histogram<u64>>,
    /// Good answers that arrived while the phase lasted: what throughput is made of.
    pub(crate) completed: u64,
    /// Calls that should have been made.
    pub(crate) offered: u64,
    /// Bad ends by name.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Answers that were right but of the other temperature: no samples.
    pub(crate) wrong_temperature: u64,
    /// Answers that said they were cold, samples or not.
    pub(crate) cold: u64,
    /// How long the phase lasted.
    pub(crate) elapsed_ns: u64,
}

impl Record {
    fn new() -> Self {
        Self {
            corrected: histogram(),
            uncorrected: histogram(),
            first_byte: histogram(),
            cold_latency: histogram(),
            lag: histogram(),
            parts: BTreeMap::new(),
            completed: 0,
            offered: 0,
            errors: BTreeMap::new(),
            wrong_temperature: 0,
            cold: 0,
            elapsed_ns: 0,
        }
    }

    /// Good answers per second.
    pub(crate) fn rate(&self) -> f64 {
        if self.elapsed_ns == 0 {
            return 0.0;
        }
        self.completed as f64 * 1e9 / self.elapsed_ns as f64
    }

    /// Adds this phase to those of the same kind before it, if there were any.
    pub(crate) fn add_to(self, all: &mut Option<Self>) {
        match all {
            Some(all) => all.merge(&self),
            None => *all = Some(self),
        }
    }

    fn merge(&mut self, other: &Self) {
        for (into, from) in [
            (&mut self.corrected, &other.corrected),
            (&mut self.uncorrected, &other.uncorrected),
            (&mut self.first_byte, &other.first_byte),
            (&mut self.cold_latency, &other.cold_latency),
            (&mut self.lag, &other.lag),
        ] {
            into.add(from).expect("all histograms have the same bounds");
        }
        for (name, from) in &other.parts {
            let into = self.parts.entry(name.clone()).or_insert_with(histogram);
            into.add(from).expect("all histograms have the same bounds");
        }
        for (name, n) in &other.errors {
            *self.errors.entry(name.clone()).or_default() += n;
        }
        self.completed += other.completed;
        self.offered += other.offered;
        self.wrong_temperature += other.wrong_temperature;
        self.cold += other.cold;
        self.elapsed_ns += other.elapsed_ns;
    }
}

/// Writes a [`Record`].
#[derive(Debug)]
pub(crate) struct Recorder {
    record: Record,
    expected: Expected,
    /// The phase ends here; what arrives later is a sample, but no throughput.
    end: u64,
    calls: u64,
}

impl Recorder {
    pub(crate) fn new(expected: Expected, end: u64) -> Self {
        Self { record: Record::new(), expected, end, calls: 0 }
    }

    /// Whether the next call is one whose `server-timing` is looked at.
    pub(crate) fn wants_timings(&mut self) -> bool {
        self.calls += 1;
        self.calls % TIMINGS_EVERY == 1
    }

    pub(crate) fn offered(&mut self) {
        self.record.offered += 1;
    }

    /// A call that came to nothing, under this name.
    pub(crate) fn error(&mut self, code: &str) {
        if let Some(n) = self.record.errors.get_mut(code) {
            *n += 1;
        } else {
            self.record.errors.insert(code.to_owned(), 1);
        }
    }

    /// The end of a call.
    pub(crate) fn call(&mut self, when: When, result: Result<&Answer, CallError>) {
        let answer = match result {
            Ok(answer) => answer,
            Err(error) => return self.error(error.code()),
        };
        self.record.cold += u64::from(answer.cold == Some(true));
        if answer.status != self.expected.status {
            return self.error(&format!("status_{}", answer.status));
        }
        if self.expected.body_bytes.is_some_and(|length| length != answer.body_bytes) {
            return self.error("wrong_body");
        }
        let is_wrong = match self.expected.temperature {
            Temperature::Any => false,
            Temperature::Cold => answer.cold == Some(false),
            Temperature::Warm => answer.cold == Some(true),
        };
        if is_wrong {
            self.record.wrong_temperature += 1;
            return;
        }
        let record = &mut self.record;
        record.corrected.saturating_record(when.done.saturating_sub(when.scheduled));
        if answer.cold == Some(true) {
            record.cold_latency.saturating_record(when.done.saturating_sub(when.scheduled));
        }
        record.uncorrected.saturating_record(when.done.saturating_sub(when.sent));
        record.lag.saturating_record(when.sent.saturating_sub(when.scheduled));
        record.first_byte.saturating_record(answer.first_byte_ns);
        record.completed += u64::from(when.done <= self.end);
        let mut told = 0.0;
        for (name, ms) in &answer.timings {
            told += ms;
            add_part(record, name, ms * 1e6);
        }
        if !answer.timings.is_empty() {
            let total = when.done.saturating_sub(when.sent) as f64;
            add_part(record, "rest", (total - told * 1e6).max(0.0));
        }
    }

    /// The record of a phase that lasted from `begin` to its planned end.
    pub(crate) fn finish(mut self, begin: u64) -> Record {
        self.record.elapsed_ns = self.end.saturating_sub(begin);
        self.record
    }
}

fn add_part(record: &mut Record, name: &str, ns: f64) {
    if !record.parts.contains_key(name) {
        record.parts.insert(name.to_owned(), histogram());
    }
    if let Some(part) = record.parts.get_mut(name) {
        part.saturating_record(ns as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, cold: Option<bool>, body_bytes: u64) -> Answer {
        Answer { status, cold, body_bytes, ..Answer::default() }
    }

    #[test]
    fn only_good_answers_of_the_right_temperature_are_samples() {
        let expected = Expected::warm(2);
        let mut recorder = Recorder::new(expected, 1_000);
        let when = When { scheduled: 0, sent: 100, done: 500 };
        recorder.call(when, Ok(&answer(200, None, 2)));
        recorder.call(when, Ok(&answer(200, Some(false), 2)));
        recorder.call(when, Ok(&answer(200, Some(true), 2)));
        recorder.call(when, Ok(&answer(200, Some(false), 3)));
        recorder.call(when, Ok(&answer(503, Some(false), 2)));
        recorder.call(when, Err(CallError::Broken));
        recorder.call(When { done: 1_001, ..when }, Ok(&answer(200, None, 2)));
        let record = recorder.finish(0);
        assert_eq!(record.corrected.len(), 3);
        assert_eq!((record.completed, record.wrong_temperature, record.cold), (2, 1, 1));
        let errors: Vec<_> = record.errors.iter().map(|(k, n)| (k.as_str(), *n)).collect();
        assert_eq!(errors, [("connection_broken", 1), ("status_503", 1), ("wrong_body", 1)]);
        assert_eq!((record.corrected.min(), record.uncorrected.min()), (500, 400));
    }

    #[test]
    fn what_the_server_does_not_tell_of_is_the_rest() {
        let mut recorder = Recorder::new(Expected::warm(0), 1);
        let timings = vec![("queue".to_owned(), 1.0), ("exec".to_owned(), 2.0)];
        let told = Answer { timings, ..answer(200, None, 0) };
        recorder.call(When { scheduled: 0, sent: 0, done: 5_000_000 }, Ok(&told));
        let record = recorder.finish(0);
        let parts: Vec<_> =
            record.parts.iter().map(|(k, h)| (k.as_str(), h.max() / 1_000_000)).collect();
        assert_eq!(parts, [("exec", 2), ("queue", 1), ("rest", 2)]);
    }
}
