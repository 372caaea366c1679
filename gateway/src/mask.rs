//! Values of a function's environment do not go into its logs.
//!
//! A value is masked where it is written as it is; what a function encodes or cuts first is not
//! recognised. Short values are left: `true` or `8080` is no secret, and masking it would make logs
//! unreadable.

use std::sync::Arc;

use cloudserve_protocol::call::{Env, LogLine, Target};

/// Log text that is copied and masked in less time than it takes to wake another thread.
pub(crate) const INLINE_LOG_BYTES: usize = 16 * 1024;

/// Shorter values are not masked.
const MIN_SECRET_BYTES: usize = 8;
/// Values that are looked for, the longest first: bounds the time one call's log takes.
const MAX_SECRETS: usize = 64;

const MASK: &str = "***";

/// [`mask`] with the environment of this function, long logs by a thread that serves nobody: each value
/// is looked for in all of the text.
pub(crate) async fn masked(mut lines: Vec<LogLine>, target: Arc<Target>) -> Vec<LogLine> {
    let bytes: usize = lines.iter().map(|line| line.message.len()).sum();
    if bytes <= INLINE_LOG_BYTES || target.env.0.is_empty() {
        mask(&mut lines, &target.env);
        return lines;
    }
    let masked = tokio::task::spawn_blocking(move || {
        mask(&mut lines, &target.env);
        lines
    });
    // An error says that the runtime ends.
    masked.await.unwrap_or_default()
}

/// Masks the values of this environment.
pub(crate) fn mask(lines: &mut [LogLine], env: &Env) {
    if lines.is_empty() || env.0.is_empty() {
        return;
    }
    let mut secrets: Vec<&str> =
        env.0.values().map(|value| value.trim()).filter(|v| v.len() >= MIN_SECRET_BYTES).collect();
    // One that holds another one goes first, or its rest would stay.
    secrets.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets.truncate(MAX_SECRETS);
    for line in lines {
        for secret in &secrets {
            if line.message.contains(secret) {
                line.message = line.message.replace(secret, MASK);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cloudserve_protocol::call::LogLevel;

    use super::*;

    #[test]
    fn values_are_masked_and_short_ones_stay() {
        let env = [("A", "s3cret-token"), ("B", "s3cret-token-longer"), ("C", "true")];
        let env = Env(env.map(|(n, v)| (n.to_owned(), v.to_owned())).into());
        for (message, expected) in [
            ("with s3cret-token and true", "with *** and true"),
            ("s3cret-token-longers3cret-token", "******"),
            ("s3cret", "s3cret"),
        ] {
            let mut lines =
                [LogLine { level: LogLevel::Info, message: message.to_owned(), timestamp_ms: 0 }];
            mask(&mut lines, &env);
            assert_eq!(lines[0].message, expected);
        }
    }
}
