//! `cloudserve admin quota`: what an account may use.

use clap::Args;
use cloudserve_protocol::ids::{AuditId, UserName};
use cloudserve_store::account::{Actor, AuditEntry, Quota, User};
use cloudserve_store::telemetry::UsageQuery;
use cloudserve_store::{Stores, Timestamp};
use serde_json::json;

use super::{AdminError, Place};

pub(super) const EXAMPLES: &str = "\
Examples:
  cloudserve admin quota ada                                # show
  cloudserve admin quota ada --calls-per-day 100000 --gb-seconds-per-month 5000
  cloudserve admin quota ada --rate-per-second none         # the installation's bound again

Days and months are of UTC. A running server acts on it within 5 seconds.";

/// Whose quota, and what it is to be.
#[derive(Args)]
pub(crate) struct QuotaOptions {
    /// The account's userName or email.
    user: String,

    /// Calls of all its functions in one day; `none` sets no bound.
    #[arg(long, value_name = "N", value_parser = bound::<u64>)]
    calls_per_day: Option<NewBound<u64>>,

    /// Memory times wall-clock time in one month; `none` sets no bound.
    #[arg(long, value_name = "N", value_parser = gb_seconds)]
    gb_seconds_per_month: Option<NewBound<f64>>,

    /// Calls per second of each of its credentials; 0 sets no bound, `none` the installation's.
    #[arg(long, value_name = "N", value_parser = bound::<u32>)]
    rate_per_second: Option<NewBound<u32>>,

    /// Print JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    pub(super) place: Place,
}

/// A bound to set; `None` removes it.
#[derive(Debug, Clone, Copy)]
struct NewBound<T>(Option<T>);

fn bound<T: std::str::FromStr>(text: &str) -> Result<NewBound<T>, String> {
    match text {
        "none" => Ok(NewBound(None)),
        number => number
            .parse()
            .map(|number| NewBound(Some(number)))
            .map_err(|_| "must be a whole number, or none".to_owned()),
    }
}

fn gb_seconds(text: &str) -> Result<NewBound<f64>, String> {
    let parsed = match text {
        "none" => return Ok(NewBound(None)),
        number => number.parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0),
    };
    parsed
        .map(|number| NewBound(Some(number)))
        .ok_or_else(|| "must be a number, or none".to_owned())
}

async fn find(stores: &Stores, user: &str) -> Result<User, AdminError> {
    let user = user.trim().to_lowercase();
    let found = match user.parse::<UserName>() {
        Ok(name) => stores.accounts.user_by_name(&name).await?,
        Err(_) => stores.accounts.user_by_email(&user).await?,
    };
    found.ok_or(AdminError::NoAccount { user })
}

/// Shows it, or sets it first.
pub(super) async fn run(stores: &Stores, options: &QuotaOptions) -> Result<String, AdminError> {
    let user = find(stores, &options.user).await?;
    let mut quota = user.quota;
    if let Some(NewBound(calls)) = options.calls_per_day {
        quota.calls_per_day = calls;
    }
    if let Some(NewBound(gb_seconds)) = options.gb_seconds_per_month {
        quota.gb_seconds_per_month = gb_seconds;
    }
    if let Some(NewBound(rate)) = options.rate_per_second {
        quota.rate_per_second = rate;
    }
    if quota != user.quota {
        stores.accounts.set_quota(user.id, quota).await?;
        let entry = AuditEntry {
            id: AuditId::new(),
            user_id: user.id,
            actor: Actor::Operator,
            action: "quota.changed".to_owned(),
            subject: None,
            detail: told(&quota),
            at: Timestamp::now(),
        };
        stores.accounts.record_audit(entry).await?;
    }
    let now = Timestamp::now();
    let since = |from| {
        let query = UsageQuery { user_id: user.id, function_id: None, from: Some(from), to: None };
        stores.telemetry.usage_totals(query)
    };
    let calls = since(Timestamp::of_day(now.day())).await?.executed;
    let gb_seconds = since(Timestamp::of_month(now.month())).await?.gb_seconds;
    if options.json {
        let said = json!({
            "userName": user.user_name,
            "quota": quota,
            "used": { "callsToday": calls, "gbSecondsThisMonth": gb_seconds },
        });
        return Ok(said.to_string());
    }
    Ok(format!(
        "{}: {}\nused: {calls} calls today, {gb_seconds:.3} GB-seconds this month",
        user.user_name,
        told(&quota)
    ))
}

fn told(quota: &Quota) -> String {
    fn shown<T: ToString>(bound: Option<T>, otherwise: &str) -> String {
        bound.map_or_else(|| otherwise.to_owned(), |bound| bound.to_string())
    }
    format!(
        "calls per day {}, GB-seconds per month {}, calls per second {}",
        shown(quota.calls_per_day, "unlimited"),
        shown(quota.gb_seconds_per_month, "unlimited"),
        match quota.rate_per_second {
            Some(0) => "unlimited".to_owned(),
            rate => shown(rate, "as the installation's"),
        },
    )
}
