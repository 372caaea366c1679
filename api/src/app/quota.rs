//! What an account may use and has used. Enforced where calls come in; told here.

use cloudserve_identity::Principal;
use cloudserve_store::Timestamp;
use cloudserve_store::account::Quota;
use cloudserve_store::function::Holdings;
use cloudserve_store::telemetry::UsageQuery;

use super::refusal::Refusal;
use super::{App, access};

/// Bounds and how much of each is used.
pub(crate) struct Standing {
    /// Of the account, with the installation's where it has none of its own.
    pub(crate) quota: Quota,
    pub(crate) calls_today: u64,
    pub(crate) gb_seconds_this_month: f64,
    pub(crate) day_ends: Timestamp,
    pub(crate) month_ends: Timestamp,
    pub(crate) api_keys: usize,
    pub(crate) max_api_keys: usize,
    pub(crate) held: Holdings,
    pub(crate) max_functions: Option<u32>,
    pub(crate) max_stored_bytes: Option<u64>,
    pub(crate) concurrency: u32,
}

impl App {
    pub(crate) async fn quota(&self, principal: &Principal) -> Result<Standing, Refusal> {
        access::may_read(principal)?;
        let otherwise = "this API key is for chosen functions; this is of all of them";
        access::may_use_all(principal, otherwise)?;
        let user_id = principal.user_id;
        let mut quota = self.me(principal).await?.quota;
        quota.rate_per_second.get_or_insert(self.options.rate_per_second);
        let now = Timestamp::now();
        let since = |from| {
            let query = UsageQuery { user_id, function_id: None, from: Some(from), to: None };
            self.stores.telemetry.usage_totals(query)
        };
        let today = since(Timestamp::of_day(now.day())).await?;
        let this_month = since(Timestamp::of_month(now.month())).await?;
        Ok(Standing {
            quota,
            calls_today: today.executed,
            gb_seconds_this_month: this_month.gb_seconds,
            day_ends: Timestamp::of_day(now.day() + 1),
            month_ends: Timestamp::of_month(now.month() + 1),
            api_keys: self.stores.accounts.api_keys(user_id).await?.len(),
            max_api_keys: self.options.api_keys_per_user,
            held: self.stores.functions.holdings(user_id).await?,
            max_functions: self.options.limits.max_functions(),
            max_stored_bytes: self.options.limits.max_stored_bytes(),
            concurrency: self.options.limits.user_concurrency,
        })
    }
}
