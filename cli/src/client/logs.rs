//! `logs`: what functions wrote.

use std::convert::Infallible;
use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use dialoguer::console::style;
use eventsource_stream::Eventsource;
use futures::StreamExt;
use serde_json::Value;

use super::api::{Api, items, text};
use super::error::ClientError;
use super::output::{Output, printable};
use super::project::named_or_current;
use super::session::Common;

/// Wait before a stream that broke is asked for again; grows to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// A stream that broke this often in a row without a row between is given up.
const MAX_FAILURES: u32 = 20;

#[derive(Args)]
pub(crate) struct Logs {
    /// Name or id [default: the function of this folder].
    function: Option<String>,

    /// Go on showing what is written, until Ctrl-C.
    #[arg(long, short)]
    follow: bool,

    /// Calls to show, the newest ones.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20)]
    limit: u32,

    /// Only the call with this id.
    #[arg(long, value_name = "ID")]
    execution: Option<String>,

    /// Only lines of these levels: warn,error
    #[arg(long, value_name = "LEVELS")]
    level: Option<String>,

    /// Only lines that contain this text, whatever the case.
    #[arg(long, value_name = "TEXT")]
    containing: Option<String>,

    #[command(flatten)]
    pub(super) common: Common,
}

pub(crate) async fn run(args: Logs) -> Result<(), ClientError> {
    let output = args.common.output();
    let api = args.common.api()?;
    let name = named_or_current(args.function.as_deref())?;
    let id = api.id_of(&name).await?;
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("limit", &args.limit.to_string());
    let filters =
        [("executionId", &args.execution), ("level", &args.level), ("q", &args.containing)];
    for (name, value) in filters {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    let path = format!("/api/logs/{id}?{}", query.finish());
    if args.follow {
        let show = |row: &Value| output.event(row, |out| write_row(out, row));
        return follow(&api, &path, output, show).await.map(|never| match never {});
    }
    let answer = api.get(&path).await?;
    output.result(&answer, |out| {
        let rows = items(&answer, "logs");
        if rows.is_empty() {
            return writeln!(
                out,
                "Nothing yet. What a function writes with console.log appears here; \
                 `cloudserve invoke {name}` calls it."
            );
        }
        // The server tells the newest first; people read downwards.
        rows.iter().rev().try_for_each(|row| write_row(out, row))
    })
}

/// Hands over rows as they are written, until an error; a broken connection is made again. `path`
/// ends within its query.
pub(crate) async fn follow(
    api: &Api,
    path: &str,
    output: Output,
    mut each: impl FnMut(&Value) -> Result<(), ClientError>,
) -> Result<Infallible, ClientError> {
    let path = format!("{path}&follow=true");
    let mut failures = 0;
    let mut last = String::new();
    loop {
        match api.events(&path, &last).await {
            Ok(response) => {
                let mut events = response.bytes_stream().eventsource();
                while let Some(Ok(event)) = events.next().await {
                    // Of rows that came together the last one alone has an id.
                    if !event.id.is_empty() {
                        last.clone_from(&event.id);
                    }
                    let Ok(row) = serde_json::from_str::<Value>(&event.data) else { continue };
                    if row["logs"].is_array() {
                        failures = 0;
                        each(&row)?;
                    }
                }
            }
            Err(error @ (ClientError::Unreachable { .. } | ClientError::Behind { .. }))
                if failures == 0 =>
            {
                return Err(error);
            }
            Err(
                ClientError::Unreachable { .. }
                | ClientError::Behind { .. }
                | ClientError::Refused { status: 503, .. },
            ) => {}
            Err(error) => return Err(error),
        }
        failures += 1;
        if failures > MAX_FAILURES {
            return Err(ClientError::Failed {
                code: "cut_off",
                message: "the stream of logs broke and cannot be had again".to_owned(),
                hint: "is the server running?".to_owned(),
            });
        }
        if failures == 2 {
            output.note("the stream of logs broke; trying again");
        }
        tokio::time::sleep((FIRST_WAIT * failures).min(LONGEST_WAIT)).await;
    }
}

/// What one call wrote.
pub(crate) fn write_row(out: &mut dyn Write, row: &Value) -> io::Result<()> {
    for line in items(row, "logs") {
        write_line(out, line)?;
    }
    if row["truncated"] == true {
        writeln!(out, "{}", style("  (more was written than is kept)").dim())?;
    }
    Ok(())
}

/// `12:00:00.123 error  message`
pub(crate) fn write_line(out: &mut dyn Write, line: &Value) -> io::Result<()> {
    let time = text(line, "timestamp");
    let time = time.split_once('T').map_or(time, |(_, time)| time.trim_end_matches('Z'));
    let level = text(line, "level");
    let shown = style(format!("{level:5}"));
    let shown = match level {
        "error" => shown.red(),
        "warn" => shown.yellow(),
        "debug" | "trace" => shown.dim(),
        _ => shown.cyan(),
    };
    let message = printable(text(line, "message").trim_end());
    writeln!(out, "{} {shown} {message}", style(time).dim())
}
