//! The log of one call, bounded by `limits.logBytes`.

use cloudserve_protocol::call::{LogLevel, LogLine, epoch_ms};
use cloudserve_protocol::fault::Fault;
use cloudserve_protocol::wire::{MIN_LOG_LINE_BYTES, log_cut_marker};

/// Collects lines until its bound is reached, then marks that lines are missing.
#[derive(Debug)]
pub(crate) struct LogBuffer {
    lines: Vec<LogLine>,
    limit_bytes: u32,
    left_bytes: usize,
    is_cut: bool,
}

impl LogBuffer {
    pub(crate) fn new(limit_bytes: u32) -> Self {
        Self { lines: Vec::new(), limit_bytes, left_bytes: limit_bytes as usize, is_cut: false }
    }

    /// Adds a line, or as much of it as fits.
    pub(crate) fn push(&mut self, level: LogLevel, timestamp_ms: u64, mut message: String) {
        if self.is_cut {
            return;
        }
        if message.starts_with('[') && message == log_cut_marker(self.limit_bytes) {
            // The worker keeps to the bound itself and has said so.
            self.is_cut = true;
            self.left_bytes = 0;
            self.lines.push(LogLine { level, message, timestamp_ms });
            return;
        }
        let cost = message.len().max(MIN_LOG_LINE_BYTES);
        if cost <= self.left_bytes {
            self.left_bytes -= cost;
            self.lines.push(LogLine { level, message, timestamp_ms });
            return;
        }
        message.truncate(message.floor_char_boundary(self.left_bytes));
        self.is_cut = true;
        self.left_bytes = 0;
        if !message.is_empty() {
            self.lines.push(LogLine { level, message, timestamp_ms });
        }
        let message = log_cut_marker(self.limit_bytes);
        self.lines.push(LogLine { level: LogLevel::Warn, message, timestamp_ms });
    }

    /// Adds lines that were collected elsewhere and puts all in order of time.
    pub(crate) fn merge(&mut self, other: LogBuffer) {
        if other.lines.is_empty() {
            return;
        }
        for line in other.lines {
            self.push(line.level, line.timestamp_ms, line.message);
        }
        self.is_cut |= other.is_cut;
        self.lines.sort_by_key(|line| line.timestamp_ms);
    }

    /// Shows the owner why the call failed, even when the log is full.
    pub(crate) fn push_fault(&mut self, fault: &Fault) {
        let message = fault.detail.clone().unwrap_or_else(|| fault.to_string());
        let timestamp_ms = epoch_ms();
        self.lines.push(LogLine { level: LogLevel::Error, message, timestamp_ms });
    }

    /// Whether more lines would be dropped.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The lines, and whether some are missing.
    pub(crate) fn finish(self) -> (Vec<LogLine>, bool) {
        (self.lines, self.is_cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_is_cut_once_and_marked() {
        let mut log = LogBuffer::new(64);
        log.push(LogLevel::Info, 1, "x".repeat(40));
        log.push(LogLevel::Info, 2, "é".repeat(40));
        log.push(LogLevel::Info, 3, "dropped".to_owned());
        let (lines, is_cut) = log.finish();
        assert!(is_cut);
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[1].message, "é".repeat(12));
        assert_eq!(lines[2].message, log_cut_marker(64));
    }

    #[test]
    fn empty_lines_are_bounded() {
        let mut log = LogBuffer::new(160);
        for _ in 0..1_000 {
            log.push(LogLevel::Info, 1, String::new());
        }
        let (lines, is_cut) = log.finish();
        assert_eq!(lines.len(), 11);
        assert!(is_cut);
    }

    #[test]
    fn the_marker_of_the_worker_counts() {
        let mut log = LogBuffer::new(1_000);
        log.push(LogLevel::Info, 1, log_cut_marker(1_000));
        assert!(log.finish().1);
    }

    #[test]
    fn merged_lines_are_in_order_and_faults_always_fit() {
        let mut log = LogBuffer::new(32);
        log.push(LogLevel::Info, 5, "later".to_owned());
        let mut other = LogBuffer::new(32);
        other.push(LogLevel::Info, 2, "earlier".to_owned());
        log.merge(other);
        log.push_fault(&Fault::timeout(1).with_detail("stack"));
        let (lines, is_cut) = log.finish();
        let messages: Vec<_> = lines.iter().map(|l| l.message.as_str()).collect();
        assert_eq!(messages, ["earlier", "later", "stack"]);
        assert!(!is_cut);
    }
}
