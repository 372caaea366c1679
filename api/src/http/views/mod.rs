//! What callers see of what is stored. Secrets have no field here.

mod accounts;
mod functions;
mod telemetry;

pub(super) use self::accounts::{
    ApiKeyView, ApiKeysView, AuditView, MeView, QuotaView, SessionView,
};
pub(super) use self::functions::{EnvView, FunctionView, FunctionsView, SourceView, VersionView};
pub(super) use self::telemetry::{LatencyView, LogRowView, LogsView, UsageView};
