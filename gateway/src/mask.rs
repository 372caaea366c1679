//! Values of a function's environment do not go into its logs.

use std::sync::Arc;

use cloudserve_identity::Mask;
use cloudserve_protocol::call::{LogLine, Target};
use cloudserve_protocol::wire::log_cut_marker;

/// Log text and environments that are copied and masked in less time than it takes to wake another
/// thread, in bytes.
pub(crate) const INLINE_BYTES: usize = 16 * 1024;

/// What masks a byte of an environment takes as long to make as masking so many bytes of a log.
const BYTES_PER_SECRET_BYTE: usize = 16;

/// How much work it is to mask a log of this length: as much as looking at so many bytes.
pub(crate) fn bytes_to_mask(log_bytes: usize, target: &Target) -> usize {
    if log_bytes == 0 {
        return 0;
    }
    let secret_bytes: usize = target.env.0.values().map(String::len).sum();
    log_bytes + BYTES_PER_SECRET_BYTE * secret_bytes
}

/// [`mask`] with the environment of this function, long logs by a thread that serves nobody.
pub(crate) async fn masked(mut lines: Vec<LogLine>, target: Arc<Target>) -> Vec<LogLine> {
    let log_bytes: usize = lines.iter().map(LogLine::counted_bytes).sum();
    if log_bytes == 0 || target.env.0.is_empty() {
        return lines;
    }
    let is_long = bytes_to_mask(log_bytes, &target) > INLINE_BYTES;
    let work = move || {
        mask(&mut lines, &Mask::of(&target.env), target.limits.log_bytes);
        lines
    };
    if !is_long {
        return work();
    }
    // An error says that the runtime ends.
    tokio::task::spawn_blocking(work).await.unwrap_or_default()
}

/// Masks what is to be masked in the log of one call, which may have this many bytes.
pub(crate) fn mask(lines: &mut [LogLine], mask: &Mask, limit_bytes: u32) {
    let marker = log_cut_marker(limit_bytes);
    for n in 0..lines.len() {
        let is_cut = lines.get(n + 1).is_some_and(|next| next.message == marker);
        let text = &mut lines[n].message;
        if is_cut { mask.apply_to_cut(text) } else { mask.apply(text) }
    }
}

#[cfg(test)]
mod tests {
    use cloudserve_protocol::call::{Env, LogLevel};

    use super::*;

    #[test]
    fn a_line_that_was_cut_ends_with_no_part_of_a_value() {
        let env = Env([("TOKEN".to_owned(), "s3cret-token".to_owned())].into());
        let marker = log_cut_marker(64);
        let said = ["s3", "a s3cret-token", "a s3", &marker, "s3"];
        let mut lines = said.map(|message| LogLine {
            level: LogLevel::Info,
            message: message.to_owned(),
            timestamp_ms: 0,
        });
        mask(&mut lines, &Mask::of(&env), 64);
        let messages = lines.map(|line| line.message);
        assert_eq!(messages, ["s3", "a ***", "a ***", &marker, "s3"]);
    }
}
