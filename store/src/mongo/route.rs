//! What the gateway serves under a name.

use cloudserve_protocol::ids::{FunctionId, FunctionName, UserId, UserName};
use cloudserve_protocol::limits::Limits;
use futures::TryStreamExt;
use mongodb::bson::{Binary, RawDocumentBuf, Uuid, doc};
use mongodb::options::ReadConcern;
use serde::Deserialize;

use super::database::Database;
use super::documents::{FunctionDocument, VersionKey, records};
use super::schema::{FUNCTIONS, USERS};
use super::values::{Key, parse};
use crate::StoreError;
use crate::account::Quota;
use crate::function::{BuiltVersion, DeployStatus, Route, SealedEnv, Served};

#[derive(Deserialize)]
struct OwnerDocument {
    #[serde(rename = "_id")]
    id: Uuid,
    #[serde(default)]
    quota: Quota,
}

/// A function and the two versions that matter, without what it does not take to serve them.
#[derive(Deserialize)]
struct RouteDocument {
    function: FunctionDocument,
    latest: ServedDocument,
    active: Option<ServedDocument>,
}

#[derive(Deserialize)]
struct ServedDocument {
    #[serde(rename = "_id")]
    id: VersionKey,
    status: DeployStatus,
    env: Binary,
    limits: Limits,
    built: Option<BuiltVersion>,
}

impl From<ServedDocument> for Served {
    fn from(version: ServedDocument) -> Self {
        Self {
            version: version.id.version,
            env: SealedEnv(version.env.bytes),
            limits: version.limits,
            built: version.built,
        }
    }
}

pub(super) async fn find(
    database: &Database,
    user_name: &UserName,
    function_name: &FunctionName,
) -> Result<Option<Route>, StoreError> {
    let users = database.collection(USERS);
    let owner =
        users.find_one(doc! { "userName": user_name.as_str() }).projection(doc! { "quota": 1 });
    let Some(owner) = database.bounded(owner).await? else { return Ok(None) };
    let owner: OwnerDocument = parse("user", &owner)?;
    let mut stages = records(doc! { "user": owner.id, "name": function_name.as_str() }, None);
    // A source may hold a large lock file.
    stages.push(doc! { "$project": { "latest.source": 0, "active.source": 0 } });
    let functions = database.collection(FUNCTIONS);
    let read = async {
        let mut found = functions
            .aggregate(stages)
            .with_type::<RawDocumentBuf>()
            .read_concern(ReadConcern::snapshot())
            .await?;
        found.try_next().await
    };
    let Some(found) = database.bounded(read).await? else { return Ok(None) };
    let RouteDocument { function, latest, active } = parse("function", &found)?;
    let status = latest.status;
    let active =
        if function.active_version == Some(latest.id.version) { Some(latest) } else { active };
    Ok(Some(Route {
        function_id: FunctionId::of(function.id),
        owner_id: UserId::of(function.user),
        owner_name: user_name.clone(),
        owner_quota: owner.quota,
        function_name: function.name,
        visibility: function.visibility,
        status,
        active: active.map(Served::from),
    }))
}
