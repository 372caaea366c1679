//! `usage`: what calls took, and what the account may use.

use clap::Args;
use serde_json::Value;

use super::api::{Api, items, text};
use super::error::ClientError;
use super::output::{pairs, table};
use super::project::named_or_current;
use super::session::Common;

#[derive(Args)]
pub(crate) struct Usage {
    /// Name or id; . for the function of this folder [default: all of the account].
    function: Option<String>,

    /// From this time or day on: 2030-01-31
    #[arg(long, value_name = "WHEN")]
    from: Option<String>,

    /// Before this time or day.
    #[arg(long, value_name = "WHEN")]
    to: Option<String>,

    /// A line for each day.
    #[arg(long)]
    by_day: bool,

    #[command(flatten)]
    pub(super) common: Common,
}

pub(crate) async fn run(args: Usage) -> Result<(), ClientError> {
    let api = args.common.api()?;
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    if let Some(function) = &args.function {
        query.append_pair("functionId", &api.id_of(&named_or_current(Some(function))?).await?);
    }
    for (name, value) in [("from", &args.from), ("to", &args.to)] {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    if args.by_day {
        query.append_pair("groupBy", "day");
    }
    let mut answer = api.get(&format!("/api/usage?{}", query.finish())).await?;
    if args.function.is_none() && !args.by_day {
        answer["quota"] = quota(&api).await?;
    }
    args.common.output().result(&answer, |out| {
        if args.by_day {
            let rows: Vec<Vec<String>> = items(&answer, "days")
                .iter()
                .map(|day| [vec![text(day, "day").to_owned()], figures(day)].concat())
                .collect();
            let headings =
                ["DAY", "CALLS", "ERRORS", "COLD", "SECONDS", "CPU SECONDS", "GB-SECONDS"];
            return table(out, &headings, &rows);
        }
        let names = ["calls", "errors", "cold starts", "seconds", "CPU seconds", "GB-seconds"];
        let all: Vec<_> = names.into_iter().zip(figures(&answer["totals"])).collect();
        pairs(out, &all)?;
        if let Some(quota) = answer["quota"].as_object() {
            writeln!(out, "\nWhat the account may use")?;
            let lines: Vec<_> =
                quota.iter().map(|(name, value)| (name.as_str(), limit(value))).collect();
            pairs(out, &lines)?;
        }
        Ok(())
    })
}

fn figures(totals: &Value) -> Vec<String> {
    let number = |field: &str| totals[field].as_u64().unwrap_or(0).to_string();
    let seconds = |field: &str| format!("{:.3}", totals[field].as_f64().unwrap_or(0.0) / 1e3);
    vec![
        number("executed"),
        number("errors"),
        number("cold"),
        seconds("durationMs"),
        seconds("cpuMs"),
        format!("{:.4}", totals["gbSeconds"].as_f64().unwrap_or(0.0)),
    ]
}

/// What the account may use and has used; nothing from a server that does not count.
async fn quota(api: &Api) -> Result<Value, ClientError> {
    match api.get("/api/account/quota").await {
        Err(ClientError::Refused { status: 404, .. }) => Ok(Value::Null),
        Ok(mut answer) if answer["quota"].is_object() => Ok(answer["quota"].take()),
        answer => answer,
    }
}

/// `{limit,used,...}` as `used of limit`; anything else as it is.
fn limit(value: &Value) -> String {
    let Some(fields) = value.as_object() else {
        return if value.is_null() { "no bound".to_owned() } else { value.to_string() };
    };
    let limit = match fields.get("limit") {
        None | Some(Value::Null) => "no bound".to_owned(),
        Some(limit) => limit.to_string(),
    };
    let rest = fields.iter().filter(|(name, _)| !matches!(name.as_str(), "limit" | "used"));
    let rest: Vec<_> = rest
        .map(|(name, value)| {
            format!("{name} {}", value.as_str().map_or(value.to_string(), str::to_owned))
        })
        .collect();
    let used = fields.get("used").map(|used| format!("{used} of ")).unwrap_or_default();
    let rest = if rest.is_empty() { String::new() } else { format!(" ({})", rest.join(", ")) };
    format!("{used}{limit}{rest}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quotas_are_told_with_what_is_used() {
        for (value, expected) in [
            (json!({ "limit": 100, "used": 7 }), "7 of 100"),
            (json!({ "limit": null, "used": 7 }), "7 of no bound"),
            (json!({ "limit": 5, "used": 1, "resetsAt": "x" }), "1 of 5 (resetsAt x)"),
            (json!(3), "3"),
        ] {
            assert_eq!(limit(&value), expected);
        }
    }
}
