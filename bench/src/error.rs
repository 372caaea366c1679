//! Why the harness could not measure.

use std::io;
use std::path::PathBuf;

use crate::client::CallError;

/// An end without figures. The message says what to do about it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    #[error("{what}")]
    Io {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("{} is not there; build it with `cargo build --release --workspace`", .0.display())]
    NotBuilt(PathBuf),
    #[error("{name} ended or did not listen in time; the end of its output:\n{output}")]
    NotStarted { name: String, output: String },
    #[error("{name} answers no call")]
    NoAnswer {
        name: String,
        #[source]
        source: CallError,
    },
    #[error("{name} answers {workload} with {status}: {body}")]
    WrongAnswer { name: String, workload: String, status: u16, body: String },
    #[error("{what}: the API cannot be reached")]
    Unreachable {
        what: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("{what}: the API answers {status}: {body}")]
    Refused { what: String, status: u16, body: String },
    #[error("`{command}` failed with {status}; {advice}\n{output}")]
    Command { command: String, status: String, advice: &'static str, output: String },
    #[error("{} is not a result of this harness", path.display())]
    NotAResult {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("gave up waiting until {0}")]
    Patience(String),
}

/// Names what an I/O error happened to.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl Into<String>) -> Result<T, BenchError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl Into<String>) -> Result<T, BenchError> {
        self.map_err(|source| BenchError::Io { what: what.into(), source })
    }
}

impl BenchError {
    /// The message with its causes, on one line each.
    pub(crate) fn whole(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}
