//! Logs and usage of one account.

use cloudserve_identity::Principal;
use cloudserve_store::StoreError;
use cloudserve_store::function::Page;
use cloudserve_store::telemetry::{
    LatencyDay, LogPage, LogQuery, UsageDay, UsageOfFunction, UsageQuery, UsageRow, UsageTotals,
};

use super::refusal::Refusal;
use super::{App, access};

impl App {
    /// Log rows of a function, newest first.
    pub(crate) async fn logs(
        &self,
        principal: &Principal,
        query: LogQuery,
    ) -> Result<LogPage, Refusal> {
        access::may_read(principal)?;
        self.function(principal, query.function_id).await?;
        self.more_logs(query).await
    }

    /// A further page for somebody who was shown one.
    pub(crate) async fn more_logs(&self, query: LogQuery) -> Result<LogPage, Refusal> {
        self.stores.telemetry.logs(query).await.map_err(|error| match error {
            StoreError::BadCursor => Refusal::field("after", "is not one that this list gave"),
            error => error.into(),
        })
    }

    pub(crate) async fn usage_totals(
        &self,
        principal: &Principal,
        query: UsageQuery,
    ) -> Result<UsageTotals, Refusal> {
        self.check_usage(principal, &query).await?;
        Ok(self.stores.telemetry.usage_totals(query).await?)
    }

    pub(crate) async fn usage_by_day(
        &self,
        principal: &Principal,
        query: UsageQuery,
    ) -> Result<Vec<UsageDay>, Refusal> {
        self.check_usage(principal, &query).await?;
        Ok(self.stores.telemetry.usage_by_day(query).await?)
    }

    pub(crate) async fn usage_by_function(
        &self,
        principal: &Principal,
        query: UsageQuery,
    ) -> Result<Vec<UsageOfFunction>, Refusal> {
        self.check_usage(principal, &query).await?;
        Ok(self.stores.telemetry.usage_by_function(query).await?)
    }

    pub(crate) async fn latency(
        &self,
        principal: &Principal,
        query: UsageQuery,
    ) -> Result<Vec<LatencyDay>, Refusal> {
        self.check_usage(principal, &query).await?;
        Ok(self.stores.telemetry.latency_by_day(query).await?)
    }

    pub(crate) async fn usage_rows(
        &self,
        principal: &Principal,
        query: UsageQuery,
        limit: u32,
        cursor: Option<String>,
    ) -> Result<Page<UsageRow>, Refusal> {
        self.check_usage(principal, &query).await?;
        Ok(self.stores.telemetry.usage_rows(query, limit, cursor.as_deref()).await?)
    }

    /// Usage outlives its function: the rows of a deleted one stay in the account's sums, but its
    /// id is as unknown as one that never was.
    async fn check_usage(&self, principal: &Principal, query: &UsageQuery) -> Result<(), Refusal> {
        access::may_read(principal)?;
        if let (Some(from), Some(to)) = (query.from, query.to)
            && from > to
        {
            return Err(Refusal::field("from", "must not be after to"));
        }
        match query.function_id {
            Some(id) => self.function(principal, id).await.map(drop),
            None => access::may_use_all(
                principal,
                "this API key is for chosen functions; name one of them with functionId",
            ),
        }
    }
}
