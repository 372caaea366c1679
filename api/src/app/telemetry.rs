//! Logs and usage of one account.

use cloudserve_identity::Principal;
use cloudserve_protocol::ids::{ExecutionId, FunctionId};
use cloudserve_store::StoreError;
use cloudserve_store::function::Page;
use cloudserve_store::telemetry::{LogPage, LogQuery, UsageDay, UsageQuery, UsageRow, UsageTotals};

use super::refusal::Refusal;
use super::{App, access};

impl App {
    /// Log rows of a function, newest first.
    pub(crate) async fn logs(
        &self,
        principal: &Principal,
        function_id: FunctionId,
        limit: u32,
        after: Option<String>,
        execution_id: Option<ExecutionId>,
    ) -> Result<LogPage, Refusal> {
        access::may_read(principal)?;
        self.function(principal, function_id).await?;
        let query = LogQuery { function_id, limit, after, execution_id };
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
        if let Some(id) = query.function_id {
            self.function(principal, id).await?;
        }
        Ok(())
    }
}
