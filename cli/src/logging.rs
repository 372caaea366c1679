//! The server's own log: standard error, as text for people or JSON for machines.

use std::io;

use serde::Deserialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One object per line.
    Json,
}

/// The filter cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "log.filter (CLOUDSERVE_LOG) {filter:?} is no filter; write for example \"info\" or \
     \"warn,cloudserve_gateway=debug\""
)]
pub(crate) struct BadFilter {
    filter: String,
    #[source]
    source: ParseError,
}

/// Starts logging. Once per process.
pub(crate) fn start(filter: &str, format: LogFormat) -> Result<(), BadFilter> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|source| BadFilter { filter: filter.to_owned(), source })?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Text => log.with_target(false).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    Ok(())
}
