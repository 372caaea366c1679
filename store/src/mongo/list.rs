//! The functions of an account, as a list shows them.

use std::collections::BTreeMap;

use cloudserve_protocol::ids::{SourceHash, UserId};
use cloudserve_protocol::limits::Limits;
use futures::TryStreamExt;
use mongodb::bson::{Binary, RawDocumentBuf, doc};
use mongodb::options::ReadConcern;
use serde::Deserialize;

use super::database::{Database, Failed};
use super::documents::{FunctionDocument, function, records};
use super::schema::FUNCTIONS;
use super::values::{Key, older, parse};
use crate::StoreError;
use crate::cursor::{Cursor, finish_page, page_limit};
use crate::function::{
    BuiltVersion, DeployError, DeployStatus, Listed, ListedSource, Page, SealedEnv, only,
};

/// A function and what a list shows of the two versions that matter.
#[derive(Deserialize)]
struct ListedDocument {
    function: FunctionDocument,
    latest: LatestDocument,
    active: Option<ActiveDocument>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LatestDocument {
    status: DeployStatus,
    error: Option<DeployError>,
    source: SourceDocument,
    source_hash: SourceHash,
    env: Binary,
    limits: Limits,
    built: Option<BuiltVersion>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SourceDocument {
    stored_version: u32,
    /// The first two.
    files: Vec<FileDocument>,
    dependencies: BTreeMap<String, String>,
    external: Vec<String>,
}

#[derive(Deserialize)]
struct FileDocument {
    path: String,
}

#[derive(Deserialize)]
struct ActiveDocument {
    built: Option<BuiltVersion>,
}

impl From<ListedDocument> for Listed {
    fn from(ListedDocument { function: of, latest, active }: ListedDocument) -> Self {
        let SourceDocument { stored_version, files, dependencies, external } = latest.source;
        let only_file = only(files).map(|file| file.path);
        Self {
            function: function(of, latest.status, latest.error),
            source: ListedSource { stored_version, only_file, dependencies, external },
            source_hash: latest.source_hash,
            env: SealedEnv(latest.env.bytes),
            limits: latest.limits,
            built: latest.built.or_else(|| active.and_then(|active| active.built)),
        }
    }
}

pub(super) async fn page(
    database: &Database,
    user_id: UserId,
    limit: u32,
    cursor: Option<&str>,
) -> Result<Page<Listed>, StoreError> {
    let (limit, from) = (page_limit(limit), Cursor::parse(cursor)?);
    let mut filter = doc! { "user": user_id.key() };
    filter.extend(older("createdAt", from));
    let newest =
        [doc! { "$sort": { "createdAt": -1, "_id": -1 } }, doc! { "$limit": i64::from(limit) + 1 }];
    let mut stages = records(filter, newest);
    // A source may hold a large lock file and the names of many files.
    stages.extend([
        doc! { "$set": { "latest.source.files": { "$slice": ["$latest.source.files", 2] } } },
        doc! { "$project": {
            "latest.source.packageLock": 0, "active.source": 0, "active.env": 0,
        } },
    ]);
    let functions = database.collection(FUNCTIONS);
    let read = async {
        functions
            .aggregate(stages)
            .with_type::<RawDocumentBuf>()
            .read_concern(ReadConcern::snapshot())
            .await?
            .map_err(Failed::Driver)
            .and_then(async |row| Ok(parse::<ListedDocument>("function", &row).map(Listed::from)?))
            .try_collect()
            .await
    };
    let rows: Vec<Listed> = database.bounded(read).await?;
    let (items, next) = finish_page(rows, limit, |listed: &Listed| Cursor {
        time: listed.function.created_at,
        id: *listed.function.id.as_bytes(),
    });
    Ok(Page { items, next })
}
