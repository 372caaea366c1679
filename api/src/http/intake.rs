//! What a deploy says, out of a JSON object or an archive.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::Request;
use base64::prelude::{BASE64_STANDARD, Engine};
use cloudserve_protocol::build::is_package_name;
use cloudserve_protocol::call::Env;
use cloudserve_protocol::ids::{FunctionName, UserId};
use cloudserve_store::function::Visibility;
use serde_json::Value;

use super::fields::{Fields, require_json};
use super::problem::Problem;
use super::{body, query};
use crate::app::App;
use crate::app::deployments::{Deploy, NewSource};
use crate::app::limits::LimitsPatch;
use crate::app::refusal::Refusal;
use crate::app::uploads::Room;
use crate::build::dependencies::{Dependencies, Manifest, PackageLock, max_lock_values};
use crate::build::source::{SourceBounds, SourceError, SourceFiles, is_code};

/// Nearly all JavaScript is TypeScript, so this fits code that comes without a name.
const UNNAMED: &str = "index.ts";

/// Values of a deploy beside those of its lock file, which has most of them, as `json::read` counts them.
const MAX_VALUES: usize = 200_000;

const MAX_EXTERNAL: usize = 100;
const MAX_ENV_NAME_BYTES: usize = 128;
/// Characters of a name that are told.
const MAX_SHOWN_CHARS: usize = 100;

const ARCHIVES: [&str; 4] =
    ["application/gzip", "application/x-gzip", "application/x-tgz", "application/x-compressed-tar"];

/// Fields of a function that no request sets.
const READ_ONLY: [&str; 26] = [
    "name",
    "id",
    "_id",
    "user",
    "userName",
    "status",
    "deployError",
    "version",
    "activeVersion",
    "sourceHash",
    "bundleHash",
    "depHash",
    "dependencyCache",
    "handlerKind",
    "endpoint",
    "url",
    "envNames",
    "stats",
    "sourcePath",
    "bundlePath",
    "bundleBytes",
    "source",
    "createdAt",
    "updatedAt",
    "deployedAt",
    "usage",
];

/// A deploy: the name and all the rest.
pub(crate) struct Deployment {
    pub(crate) name: FunctionName,
    pub(crate) deploy: Deploy,
}

/// A change of a function that is there: all but the name, and nothing of it must be there.
pub(crate) struct Update(pub(crate) Deploy);

impl Deployment {
    /// Receives what this account sends.
    pub(super) async fn receive(
        request: Request,
        app: &App,
        user_id: UserId,
    ) -> Result<Self, Problem> {
        let name = query_name(&request)?;
        let (received, room) = receive(request, app, user_id, &["name", "wait"]).await?;
        let (name, deploy) = match received {
            Received::Archive(bytes) => {
                let name = name.ok_or_else(|| {
                    Problem::from(Refusal::field("name", "is missing: deploy?name=..."))
                })?;
                let name = name
                    .parse::<FunctionName>()
                    .map_err(|e| Refusal::field("name", format!("is no name: {e}")))?;
                (name, from_archive(app, bytes).await?)
            }
            Received::Json(mut fields) => {
                let name = fields.required("name");
                let sent = Sent::read(app, &mut fields, true);
                let (name, sent) = fields.finish(name.map(|name| (name, sent)))?;
                (name, sent.into_deploy(app).await?)
            }
        };
        Ok(Self { name, deploy: Deploy { _room: Some(Arc::new(room)), ..deploy } })
    }
}

impl Update {
    /// Receives what this account sends.
    pub(super) async fn receive(
        request: Request,
        app: &App,
        user_id: UserId,
    ) -> Result<Self, Problem> {
        let (received, room) = receive(request, app, user_id, &["wait"]).await?;
        let deploy = match received {
            Received::Archive(bytes) => from_archive(app, bytes).await?,
            Received::Json(mut fields) => {
                for name in READ_ONLY {
                    fields.refuse(name, "cannot be changed");
                }
                let sent = Sent::read(app, &mut fields, false);
                fields.finish(Some(sent))?.into_deploy(app).await?
            }
        };
        Ok(Self(Deploy { _room: Some(Arc::new(room)), ..deploy }))
    }
}

fn query_name(request: &Request) -> Result<Option<String>, Problem> {
    let parameters = query::Parameters::of(request.uri())?;
    Ok(parameters.text("name").map(str::to_owned))
}

enum Received {
    Json(Fields),
    Archive(Bytes),
}

/// `beside_archive` are the parameters that may come with an archive.
async fn receive(
    request: Request,
    app: &App,
    user_id: UserId,
    beside_archive: &[&str],
) -> Result<(Received, Room), Problem> {
    let (parts, body) = request.into_parts();
    let is_archive =
        body::media_type(&parts.headers).is_some_and(|kind| ARCHIVES.contains(&kind.as_str()));
    if !is_archive && require_json(&parts.headers).is_err() {
        return Err(Problem::unsupported_media_type("application/json or application/gzip"));
    }
    if is_archive {
        // A field of a deploy has no other place there, and would be lost without a word.
        let otherwise = "is not taken with an archive; fields are set by a PUT of JSON";
        query::Parameters::of(&parts.uri)?.only(beside_archive, otherwise)?;
    }
    let options = &app.options;
    let room = app.uploads.room(user_id).await?;
    let bytes = body::read(body, options.deploy_body_bytes(), options.body_read()).await?;
    let received = if is_archive {
        Received::Archive(bytes)
    } else {
        let of_lock = max_lock_values(options.package_lock_bytes);
        Received::Json(Fields::parse(bytes, of_lock.saturating_add(MAX_VALUES)).await?)
    };
    Ok((received, room))
}

fn bounds(app: &App) -> SourceBounds {
    let limits = &app.options.limits;
    SourceBounds { bytes: limits.source_bytes, files: limits.source_files }
}

/// Everything a project says about itself is in its archive.
async fn from_archive(app: &App, bytes: Bytes) -> Result<Deploy, Problem> {
    let (bounds, max_lock_bytes) = (bounds(app), app.options.package_lock_bytes);
    let deploy = move || {
        let files =
            SourceFiles::unpack(&bytes, bounds).map_err(|error| source_refused("body", error))?;
        let (manifest, lock) = manifest_and_lock(&files, "body", max_lock_bytes)?;
        let has_manifest = manifest.is_some();
        let manifest = manifest.unwrap_or_default();
        Ok(Deploy {
            source: Some(examined(files, &manifest.entries)),
            has_manifest,
            dependencies: has_manifest.then_some(manifest.dependencies),
            optional: manifest.optional,
            overrides: manifest.overrides,
            package_lock: lock,
            ..Deploy::default()
        })
    };
    off_thread(deploy).await
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await.map_err(Refusal::internal)?;
    Ok(done?)
}

fn examined(files: SourceFiles, preferred: &[String]) -> NewSource {
    let listing = files.listing();
    let hash = SourceFiles::hash_of(&listing, &files);
    NewSource { usual_entry: files.entry(preferred), listing, hash, files, is_unnamed: false }
}

fn source_refused(field: &str, error: SourceError) -> Refusal {
    match error {
        SourceError::TooLarge { max_bytes } => Refusal::TooLarge { what: "the source", max_bytes },
        error => Refusal::field(field, error.to_string()),
    }
}

type ManifestAndLock = (Option<Manifest>, Option<PackageLock>);

/// npm's lock files, the one that counts first.
const LOCK_FILES: [&str; 2] = ["npm-shrinkwrap.json", "package-lock.json"];

/// What `package.json` and the lock file among the files say.
fn manifest_and_lock(
    files: &SourceFiles,
    field: &str,
    max_lock_bytes: u64,
) -> Result<ManifestAndLock, Refusal> {
    let named = |name: &str, error: String| Refusal::field(field, format!("{name} {error}"));
    let manifest = files
        .get("package.json")
        .map(|text| Manifest::parse(text).map_err(|error| named("package.json", error)));
    let lock = LOCK_FILES.into_iter().find_map(|name| {
        let text = String::from_utf8_lossy(files.get(name)?).into_owned();
        Some(PackageLock::parse(text, max_lock_bytes).map_err(|error| named(name, error)))
    });
    Ok((manifest.transpose()?, lock.transpose()?))
}

/// The fields of a deploy, each checked by itself.
struct Sent {
    files: Option<SentFiles>,
    manifest: Option<Manifest>,
    dependencies: Option<Dependencies>,
    rest: Deploy,
}

/// Files and the field they came in.
struct SentFiles {
    field: &'static str,
    files: BTreeMap<String, Bytes>,
    /// Whether it is code without a file name.
    is_unnamed: bool,
}

impl Sent {
    fn read(app: &App, fields: &mut Fields, needs_source: bool) -> Self {
        let files = read_files(fields, needs_source);
        let manifest = fields.value("packageJson").and_then(|value| {
            Manifest::from_value(value).map_err(|e| fields.wrong("packageJson", e)).ok()
        });
        let dependencies = fields.optional("dependencies");
        let max_lock_bytes = app.options.package_lock_bytes;
        let package_lock = fields.value("packageLock").and_then(|value| {
            let lock = PackageLock::from_value(value, max_lock_bytes);
            lock.map_err(|e| fields.wrong("packageLock", e)).ok()
        });
        let rest = Deploy {
            entry: fields
                .optional::<String>("entry")
                .map(|entry| entry.trim_start_matches("./").to_owned()),
            package_lock,
            external: read_external(fields),
            env: read_variables(fields, "env", app.options.limits.env_bytes),
            visibility: fields.optional::<Visibility>("visibility"),
            limits: fields.optional("limits").map(LimitsPatch),
            ..Deploy::default()
        };
        Self { files, manifest, dependencies, rest }
    }

    async fn into_deploy(self, app: &App) -> Result<Deploy, Problem> {
        let Self { files, mut manifest, dependencies, rest: mut deploy } = self;
        if let Some(SentFiles { field, files, is_unnamed }) = files {
            let (bounds, max_lock_bytes) = (bounds(app), app.options.package_lock_bytes);
            let preferred = manifest.as_ref().map(|m| m.entries.clone()).unwrap_or_default();
            let (source, own_manifest, own_lock) = off_thread(move || {
                let files = SourceFiles::check(files, bounds)
                    .map_err(|error| source_refused(field, error))?;
                let (own, lock) = manifest_and_lock(&files, field, max_lock_bytes)?;
                let own_entries = own.iter().flat_map(|own| own.entries.clone());
                let preferred: Vec<_> = preferred.into_iter().chain(own_entries).collect();
                Ok((examined(files, &preferred), own, lock))
            })
            .await?;
            deploy.source = Some(NewSource { is_unnamed, ..source });
            manifest = manifest.or(own_manifest);
            deploy.package_lock = deploy.package_lock.or(own_lock);
        }
        deploy.has_manifest = manifest.is_some();
        deploy.dependencies = match manifest {
            None => dependencies,
            Some(Manifest { dependencies: mut all, mut optional, overrides, .. }) => {
                let named = dependencies.unwrap_or_default();
                optional.0.retain(|name, _| !named.0.contains_key(name));
                all.0.extend(named.0);
                (deploy.optional, deploy.overrides) = (optional, overrides);
                Some(all)
            }
        };
        Ok(deploy)
    }
}

fn read_files(fields: &mut Fields, is_needed: bool) -> Option<SentFiles> {
    let has_files = fields.has("files");
    if fields.has("code") {
        if has_files {
            fields.value("files");
            fields.wrong("files", "cannot be sent together with code");
        }
        let is_unnamed = !fields.has("filename");
        let filename = fields.optional::<String>("filename").unwrap_or_else(|| UNNAMED.into());
        if !is_code(&filename) {
            fields.wrong("filename", "must end in .js, .mjs, .cjs, .jsx, .ts, .mts, .cts or .tsx");
        }
        let code = fields.optional::<String>("code")?;
        if code.trim().is_empty() {
            fields.wrong("code", "is empty");
        }
        return Some(SentFiles {
            field: "filename",
            files: BTreeMap::from([(filename, Bytes::from(code))]),
            is_unnamed,
        });
    }
    if fields.value("filename").is_some() {
        fields.wrong("filename", "names the file of code, which is missing");
    }
    if !has_files {
        if is_needed {
            fields.wrong("code", "is missing (or files)");
        }
        return None;
    }
    let Some(Value::Object(sent)) = fields.value("files") else {
        fields.wrong("files", "must be an object {\"path\": \"text\"}");
        return None;
    };
    let mut files = BTreeMap::new();
    for (path, content) in sent {
        if let Some(content) = content_of(content) {
            files.insert(path, content);
        } else {
            let shown: String = path.chars().take(MAX_SHOWN_CHARS).collect();
            let rule = "must be a text, or {\"base64\": \"...\"} for what is none";
            fields.wrong("files", format!("{shown:?} {rule}"));
        }
    }
    Some(SentFiles { field: "files", files, is_unnamed: false })
}

/// A text, or `{"base64": "..."}`.
fn content_of(value: Value) -> Option<Bytes> {
    match value {
        Value::String(text) => Some(Bytes::from(text)),
        Value::Object(fields) if fields.len() == 1 => {
            let encoded = fields.get("base64")?.as_str()?;
            BASE64_STANDARD.decode(encoded).ok().map(Bytes::from)
        }
        _ => None,
    }
}

fn read_external(fields: &mut Fields) -> Option<Vec<String>> {
    let external = fields.optional::<Vec<String>>("external")?;
    if external.len() > MAX_EXTERNAL {
        fields.wrong("external", format!("must name at most {MAX_EXTERNAL} packages"));
    }
    if let Some(name) = external.iter().find(|name| !is_package_name(name)) {
        let shown: String = name.chars().take(MAX_SHOWN_CHARS).collect();
        fields.wrong("external", format!("{shown:?} is not the name of a package"));
    }
    Some(external)
}

/// An object of variables.
pub(super) fn read_variables(
    fields: &mut Fields,
    field: &'static str,
    max_bytes: u32,
) -> Option<Env> {
    let Value::Object(sent) = fields.value(field)? else {
        fields.wrong(field, "must be an object {\"NAME\": \"value\"}");
        return None;
    };
    let mut env = BTreeMap::new();
    let mut total = 0;
    for (name, value) in sent {
        let shown: String = name.chars().take(MAX_ENV_NAME_BYTES).collect();
        if !is_env_name(&name) {
            fields.wrong(
                field,
                format!("{shown:?} is no name: letters, digits and '_', no digit first"),
            );
            continue;
        }
        match value {
            Value::String(value) if !value.contains('\0') => {
                total += name.len() + value.len();
                env.insert(name, value);
            }
            _ => fields.wrong(field, format!("{shown} must be a string without NUL")),
        }
    }
    if total > max_bytes as usize {
        fields.wrong(field, format!("must have at most {max_bytes} bytes, names and values"));
    }
    Some(Env(env))
}

fn is_env_name(name: &str) -> bool {
    name.len() <= MAX_ENV_NAME_BYTES
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn content_is_text_or_base64() {
        assert_eq!(content_of(json!("a")).unwrap(), "a");
        assert_eq!(content_of(json!({ "base64": "/wA=" })).unwrap(), &[0xff, 0][..]);
        for wrong in [
            json!(7),
            json!({}),
            json!({ "base64": 7 }),
            json!({ "base64": "?" }),
            json!({ "base64": "/wA=", "x": 1 }),
        ] {
            assert_eq!(content_of(wrong.clone()), None, "{wrong}");
        }
    }
}
