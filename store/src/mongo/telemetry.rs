//! Usage and logs. Sums over usage are in [`super::usage`], the logs in [`super::logs`].

use async_trait::async_trait;
use cloudserve_protocol::ids::{FunctionId, UserId};
use mongodb::bson::doc;

use super::beside::Beside;
use super::database::Database;
use super::schema::LOGS;
use super::values::{Key, date};
use super::{logs, usage};
use crate::cursor::Cursor;
use crate::function::Page;
use crate::telemetry::{
    FunctionStats, LatencyDay, LogPage, LogQuery, LogRow, LogTail, UsageDay, UsageOfFunction,
    UsageQuery, UsageRow, UsageTotals,
};
use crate::{StoreError, TelemetryStore, Timestamp};

/// [`TelemetryStore`] over MongoDB.
pub(crate) struct MongoTelemetry {
    database: Database,
    shard: i32,
    /// Goes on for as long as these stores are open.
    _beside: Option<Beside>,
}

impl MongoTelemetry {
    pub(super) fn new(database: Database, beside: Option<Beside>) -> Self {
        Self { database, shard: usage::shard(), _beside: beside }
    }
}

#[async_trait]
impl TelemetryStore for MongoTelemetry {
    async fn record(&self, usage: Vec<UsageRow>, logs: Vec<LogRow>) -> Result<(), StoreError> {
        usage::insert(&self.database, self.shard, &usage).await?;
        logs::insert(&self.database, logs).await
    }

    async fn logs(&self, query: LogQuery) -> Result<LogPage, StoreError> {
        let from = Cursor::parse(query.after.as_deref())?;
        logs::read(&self.database, &query, from).await
    }

    async fn log_tail(
        &self,
        function_id: FunctionId,
        position: Option<&str>,
        limit: u32,
    ) -> Result<LogTail, StoreError> {
        logs::tail(&self.database, function_id, position, limit).await
    }

    async fn usage_totals(&self, query: UsageQuery) -> Result<UsageTotals, StoreError> {
        usage::totals(&self.database, &query).await
    }

    async fn usage_by_day(&self, query: UsageQuery) -> Result<Vec<UsageDay>, StoreError> {
        usage::by_day(&self.database, &query).await
    }

    async fn usage_by_function(
        &self,
        query: UsageQuery,
    ) -> Result<Vec<UsageOfFunction>, StoreError> {
        usage::by_function(&self.database, &query).await
    }

    async fn latency_by_day(&self, query: UsageQuery) -> Result<Vec<LatencyDay>, StoreError> {
        usage::latency_by_day(&self.database, &query).await
    }

    async fn usage_rows(
        &self,
        query: UsageQuery,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<Page<UsageRow>, StoreError> {
        usage::rows(&self.database, &query, limit, Cursor::parse(cursor)?).await
    }

    async fn function_stats(
        &self,
        functions: &[FunctionId],
    ) -> Result<Vec<(FunctionId, FunctionStats)>, StoreError> {
        usage::function_stats(&self.database, functions).await
    }

    async fn delete_logs(&self, function_id: FunctionId) -> Result<(), StoreError> {
        let logs = self.database.lightly_acknowledged(LOGS);
        let delete = logs.delete_many(doc! { "functionId": function_id.key() });
        self.database.bounded(delete).await.map(drop)
    }

    async fn expire_logs(&self, older_than: Timestamp) -> Result<u64, StoreError> {
        let logs = self.database.lightly_acknowledged(LOGS);
        let delete = logs.delete_many(doc! { "timestamp": { "$lt": date(older_than) } });
        Ok(self.database.bounded(delete).await?.deleted_count)
    }

    /// The server itself does ([`super::Ages`]); by any other way it would look through all of them.
    async fn expire_usage(&self, _older_than: Timestamp) -> Result<u64, StoreError> {
        Ok(0)
    }
}

/// Whose usage, as a condition.
pub(super) fn of(user_id: UserId, function_id: Option<FunctionId>) -> mongodb::bson::Document {
    let mut filter = doc! { "userId": user_id.key() };
    if let Some(id) = function_id {
        filter.insert("functionId", id.key());
    }
    filter
}
