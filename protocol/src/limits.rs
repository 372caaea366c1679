//! Every bound, with its default and its unit in its name.
//!
//! [`Limits`] belongs to a function and its owner may change it within [`Limits::MAX`];
//! [`PlatformLimits`] belongs to the operator.

use serde::{Deserialize, Serialize};

/// Bounds on one function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// Wall-clock time of one invocation, queueing included.
    pub timeout_ms: u32,
    /// CPU time of one invocation, all threads together.
    pub cpu_ms: u32,
    /// V8 heap plus array buffers.
    pub memory_mb: u32,
    /// Calls of this function at the same time.
    pub concurrency: u32,
    /// Request body.
    pub request_body_bytes: u64,
    /// Response body that is sent whole.
    pub response_body_bytes: u64,
    /// Response body that is streamed; over a WebSocket, each direction.
    pub streamed_response_bytes: u64,
    /// Log text kept of one call; what is beyond is dropped and marked.
    pub log_bytes: u32,
    /// What `event.body` is.
    pub event_format: EventFormat,
}

/// What the handler form `(event, context)` finds in `event.body`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventFormat {
    /// `Lambda` if the bundle carries an adapter made for AWS, else `Parsed`.
    #[default]
    Auto,
    /// Parsed when the content type is JSON or a form, else a string.
    Parsed,
    /// Always the raw string, as on AWS.
    Lambda,
    /// The event of API Gateway's REST APIs, payload format 1.0.
    LambdaV1,
}

const MB: u64 = 1024 * 1024;

impl Default for Limits {
    fn default() -> Self {
        Self {
            timeout_ms: 5_000,
            cpu_ms: 30_000,
            memory_mb: 128,
            concurrency: 10,
            request_body_bytes: 6 * MB,
            response_body_bytes: 6 * MB,
            streamed_response_bytes: 100 * MB,
            log_bytes: 256 * 1024,
            event_format: EventFormat::Auto,
        }
    }
}

/// A limit outside what the platform allows. The message is fit for users.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("limits.{name} must be between {min} and {max}, not {value}")]
pub struct LimitOutOfRange {
    /// The field, as users spell it.
    pub name: &'static str,
    /// What was asked for.
    pub value: u64,
    /// Smallest allowed value.
    pub min: u64,
    /// Largest allowed value.
    pub max: u64,
}

impl Limits {
    /// The smallest values an owner may set.
    pub const MIN: Self = Self {
        timeout_ms: 10,
        cpu_ms: 10,
        memory_mb: 32,
        concurrency: 1,
        request_body_bytes: 0,
        response_body_bytes: 0,
        streamed_response_bytes: 0,
        log_bytes: 0,
        event_format: EventFormat::Auto,
    };

    /// The largest values an owner may set.
    pub const MAX: Self = Self {
        timeout_ms: 900_000,
        cpu_ms: 900_000,
        memory_mb: 1_024,
        concurrency: 100,
        request_body_bytes: 100 * MB,
        response_body_bytes: 100 * MB,
        streamed_response_bytes: 1_024 * MB,
        log_bytes: 1024 * 1024,
        event_format: EventFormat::Auto,
    };

    /// How much a caller may send.
    #[must_use]
    pub fn upload_bytes(&self, is_upgrade: bool) -> u64 {
        if is_upgrade { self.streamed_response_bytes } else { self.request_body_bytes }
    }

    /// Every bound that is a number, under the name that users spell.
    #[must_use]
    pub fn numbers(&self) -> [(&'static str, u64); 8] {
        [
            ("timeoutMs", self.timeout_ms.into()),
            ("cpuMs", self.cpu_ms.into()),
            ("memoryMb", self.memory_mb.into()),
            ("concurrency", self.concurrency.into()),
            ("requestBodyBytes", self.request_body_bytes),
            ("responseBodyBytes", self.response_body_bytes),
            ("streamedResponseBytes", self.streamed_response_bytes),
            ("logBytes", self.log_bytes.into()),
        ]
    }

    /// These limits if each is within [`Limits::MIN`] and [`Limits::MAX`].
    pub fn validated(self) -> Result<Self, LimitOutOfRange> {
        let bounds = Self::MIN.numbers().into_iter().zip(Self::MAX.numbers());
        for ((name, value), ((_, min), (_, max))) in self.numbers().into_iter().zip(bounds) {
            if value < min || value > max {
                return Err(LimitOutOfRange { name, value, min, max });
            }
        }
        Ok(self)
    }
}

/// Bounds the operator sets for the whole installation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlatformLimits {
    /// Calls in flight of one account.
    pub user_concurrency: u32,
    /// Longest time a call waits for an isolate.
    pub queue_wait_ms: u32,
    /// Calls of one function that may wait.
    pub queue_length: u32,
    /// Environment of one function, names and values together.
    pub env_bytes: u32,
    /// A deployed bundle.
    pub bundle_bytes: u64,
    /// Source of one deploy, all files together.
    pub source_bytes: u64,
    /// Files in one deploy.
    pub source_files: u32,
    /// An extracted dependency tree.
    pub dependency_tree_bytes: u64,
    /// Files of one worker in `/tmp`, all together.
    pub tmp_bytes: u64,
    /// Files in an extracted dependency tree.
    pub dependency_tree_files: u32,
    /// Time npm may take to resolve one dependency set, and again to install it, however often it is run
    /// for either.
    pub dependency_build_ms: u32,
    /// Time esbuild may take for one bundle.
    pub bundle_build_ms: u32,
    /// Time a new version may take to load once before it is activated.
    pub load_ms: u32,
    /// JSON body of an API request other than a deploy.
    pub api_body_bytes: u64,
    /// Versions of one function that are kept of those that were built, the newest; older ones go when
    /// a deploy ends. The served one and those that wait stay in any case; of those that failed the
    /// newest five do.
    pub versions_kept: u32,
    /// Functions of one account. 0 sets no bound.
    pub functions_per_user: u32,
    /// What the versions of one account's functions take of storage, all together. 0 sets no bound.
    pub stored_bytes_per_user: u64,
    /// Log text of one account's functions that is stored in a day (UTC), by each gateway. 0 sets no
    /// bound.
    pub log_bytes_per_user_per_day: u64,
    /// What deploys of one account add to the stored dependency trees in a day (UTC), packed. 0 sets no
    /// bound.
    pub dependency_bytes_per_user_per_day: u64,
}

impl Default for PlatformLimits {
    fn default() -> Self {
        Self {
            user_concurrency: 50,
            queue_wait_ms: 10_000,
            queue_length: 1_000,
            env_bytes: 64 * 1024,
            bundle_bytes: 10 * MB,
            source_bytes: 20 * MB,
            source_files: 2_000,
            dependency_tree_bytes: 250 * MB,
            tmp_bytes: 64 * MB,
            dependency_tree_files: 50_000,
            dependency_build_ms: 180_000,
            bundle_build_ms: 30_000,
            load_ms: 10_000,
            api_body_bytes: 256 * 1024,
            versions_kept: 20,
            functions_per_user: 1_000,
            stored_bytes_per_user: 10 * 1_024 * MB,
            log_bytes_per_user_per_day: 1_024 * MB,
            dependency_bytes_per_user_per_day: 2 * 1_024 * MB,
        }
    }
}

impl PlatformLimits {
    /// Functions that one account may have, if there is a bound.
    #[must_use]
    pub fn max_functions(&self) -> Option<u32> {
        Some(self.functions_per_user).filter(|max| *max != 0)
    }

    /// What the versions of one account may take of storage, if there is a bound. Bytes.
    #[must_use]
    pub fn max_stored_bytes(&self) -> Option<u64> {
        Some(self.stored_bytes_per_user).filter(|max| *max != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_out_of_range_are_named() {
        assert!(Limits::default().validated().is_ok());
        let err = Limits { memory_mb: 4_096, ..Limits::default() }.validated().unwrap_err();
        assert_eq!(err.to_string(), "limits.memoryMb must be between 32 and 1024, not 4096");
    }
}
