//! `/api/function/{id}/versions/{version}`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::caller::Caller;
use super::describe::ReadErrors;
use super::problem::Problem;
use super::query::OfVersion;
use super::views::{SourceView, VersionView};
use crate::app::App;

/// A version with its source.
#[derive(Serialize, ToSchema)]
#[schema(as = InspectedVersion)]
pub(super) struct InspectedView {
    #[serde(flatten)]
    version: VersionView,
    dependencies: BTreeMap<String, String>,
    source: SourceView,
}

/// A version with its source.
#[utoipa::path(
    get, path = "/api/function/{id}/versions/{version}", tag = "functions",
    params(
        ("id" = String, Path, description = "The function."),
        ("version" = u32, Path, description = "Its version."),
    ),
    responses((status = 200, body = InspectedView, description = "The version."), ReadErrors),
)]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    OfVersion(id, number): OfVersion,
) -> Result<Json<InspectedView>, Problem> {
    let (version, active, files) = app.version_source(&principal, id, number).await?;
    Ok(Json(InspectedView {
        source: SourceView::new(version.source.entry.clone(), &files),
        dependencies: version.source.dependencies.clone(),
        version: VersionView::new(version, active),
    }))
}
