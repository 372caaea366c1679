//! `list`, `info`, `versions`, `rollback`, `delete`, `open`.

use std::process::{Command, Stdio};

use clap::Args;
use reqwest::Method;
use reqwest_tls as reqwest;
use serde_json::{Value, json};

use super::api::{text, texts};
use super::deploy::url;
use super::environment;
use super::error::ClientError;
use super::output::{bytes, count, pairs, printable, table};
use super::project::named_or_current;
use super::prompt;
use super::session::Common;

#[derive(Args)]
pub(crate) struct List {
    #[command(flatten)]
    pub(super) common: Common,
}

/// A command about one function.
#[derive(Args)]
pub(crate) struct OfFunction {
    /// Name or id [default: the function of this folder].
    pub(crate) function: Option<String>,

    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Args)]
pub(crate) struct Rollback {
    /// Name or id [default: the function of this folder].
    function: Option<String>,

    /// The version to serve [default: the one before that which is served].
    #[arg(long, value_name = "VERSION")]
    to: Option<u64>,

    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Args)]
pub(crate) struct Delete {
    /// Name or id.
    function: String,

    /// Do not ask.
    #[arg(long, short)]
    yes: bool,

    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Args)]
pub(crate) struct Open {
    /// Name or id [default: the function of this folder].
    function: Option<String>,

    /// Open the dashboard instead of the function.
    #[arg(long, conflicts_with = "function")]
    dashboard: bool,

    /// Only print the address.
    #[arg(long)]
    print: bool,

    #[command(flatten)]
    pub(super) common: Common,
}

pub(crate) async fn list(args: List) -> Result<(), ClientError> {
    let functions = args.common.api()?.functions().await?;
    let rows: Vec<Vec<String>> = functions
        .iter()
        .map(|view| {
            vec![
                text(view, "name").to_owned(),
                state(view),
                view["activeVersion"].as_u64().map_or("-".into(), |version| format!("v{version}")),
                text(view, "visibility").to_owned(),
                view["stats"]["executed"].as_u64().unwrap_or(0).to_string(),
                view["stats"]["errors"].as_u64().unwrap_or(0).to_string(),
                instant(text(view, "updatedAt")),
                url(view).to_owned(),
            ]
        })
        .collect();
    args.common.output().result(&json!({ "functions": functions }), |out| {
        if rows.is_empty() {
            return writeln!(
                out,
                "No functions yet. `cloudserve init` writes one, `cloudserve deploy` deploys it."
            );
        }
        let headings =
            ["NAME", "STATUS", "SERVED", "VISIBILITY", "CALLS", "ERRORS", "CHANGED", "URL"];
        table(out, &headings, &rows)
    })
}

fn state(view: &Value) -> String {
    match (text(view, "status"), view["activeVersion"].as_u64(), view["version"].as_u64()) {
        ("failed", Some(_), Some(version)) => format!("active, v{version} failed"),
        (status, ..) => status.to_owned(),
    }
}

/// A time of an answer, to the second.
pub(crate) fn instant(text: &str) -> String {
    text.split('.').next().unwrap_or_default().replace('T', " ")
}

pub(crate) async fn info(args: OfFunction) -> Result<(), ClientError> {
    let api = args.common.api()?;
    let id = api.id_of(&named_or_current(args.function.as_deref())?).await?;
    let view = api.get(&format!("/api/function/{id}")).await?;
    args.common.output().result(&view, |out| {
        writeln!(out, "{}", text(&view, "name"))?;
        let number = |field: &str| view[field].as_u64().map(|n| n.to_string()).unwrap_or_default();
        let names = |value: &Value| {
            let all = value.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
            all.collect::<Vec<_>>().join(", ")
        };
        let fields = |value: &Value| {
            let all = value.as_object().into_iter().flatten();
            let shown = all.map(|(name, value)| match value {
                Value::String(text) => format!("{name} {text}"),
                value => format!("{name} {value}"),
            });
            shown.collect::<Vec<_>>().join(", ")
        };
        let error = &view["deployError"];
        let error = match text(error, "code") {
            "" => String::new(),
            code => format!("{code}: {}", printable(text(error, "message"))),
        };
        let stats = &view["stats"];
        pairs(
            out,
            &[
                ("id", text(&view, "id").to_owned()),
                ("url", url(&view).to_owned()),
                ("status", state(&view)),
                ("error", error),
                ("served", number("activeVersion")),
                ("newest", number("version")),
                ("visibility", text(&view, "visibility").to_owned()),
                ("handler", text(&view, "handlerKind").to_owned()),
                ("entry", text(&view["source"], "entry").to_owned()),
                ("files", names(&view["source"]["files"])),
                ("packages", fields(&view["dependencies"])),
                ("bundle", view["bundleBytes"].as_u64().map(bytes).unwrap_or_default()),
                ("environment", texts(&view, "envNames").join(", ")),
                ("limits", fields(&view["limits"])),
                (
                    "calls",
                    format!(
                        "{} ({}), {:.1} ms and {:.1} MB on average",
                        stats["executed"],
                        count(
                            usize::try_from(stats["errors"].as_u64().unwrap_or(0)).unwrap_or(0),
                            "error"
                        ),
                        stats["avgLatency"].as_f64().unwrap_or(0.0),
                        stats["avgMemory"].as_f64().unwrap_or(0.0),
                    ),
                ),
                ("created", instant(text(&view, "createdAt"))),
                ("deployed", instant(text(&view, "deployedAt"))),
            ],
        )
    })
}

pub(crate) async fn versions(args: OfFunction) -> Result<(), ClientError> {
    let api = args.common.api()?;
    let id = api.id_of(&named_or_current(args.function.as_deref())?).await?;
    let versions = api.get(&format!("/api/function/{id}/versions")).await?;
    let hash = |version: &Value, field: &str| text(version, field).chars().take(12).collect();
    let rows: Vec<Vec<String>> = versions
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
        .iter()
        .map(|version| {
            vec![
                format!("v{}", version["version"]),
                if version["active"] == true { "served".into() } else { String::new() },
                text(version, "status").to_owned(),
                instant(text(version, "createdAt")),
                hash(version, "sourceHash"),
                hash(version, "bundleHash"),
            ]
        })
        .collect();
    args.common.output().result(&json!({ "versions": versions }), |out| {
        table(out, &["VERSION", "", "STATUS", "CREATED", "SOURCE", "BUNDLE"], &rows)
    })
}

pub(crate) async fn rollback(args: Rollback) -> Result<(), ClientError> {
    let api = args.common.api()?;
    let name = named_or_current(args.function.as_deref())?;
    let id = api.id_of(&name).await?;
    let version = if let Some(version) = args.to {
        version
    } else {
        let versions = api.get(&format!("/api/function/{id}/versions")).await?;
        before_the_served(&versions).ok_or_else(|| ClientError::Failed {
            code: "no_version",
            message: format!("no version of {name} was served before"),
            hint: format!("`cloudserve versions {name}` shows what there is"),
        })?
    };
    let path = format!("/api/function/{id}/rollback");
    let view = api.send(Method::POST, &path, Some(&json!({ "version": version }))).await?;
    args.common.output().result(&view, |out| {
        writeln!(out, "{name} serves v{version} now; the next deploy replaces it.")
    })
}

/// The newest version below the served one that was built.
fn before_the_served(versions: &Value) -> Option<u64> {
    let versions = versions.as_array()?;
    let served = versions.iter().find(|v| v["active"] == true)?["version"].as_u64()?;
    versions
        .iter()
        .filter(|version| matches!(text(version, "status"), "active" | "superseded"))
        .filter_map(|version| version["version"].as_u64())
        .filter(|version| *version < served)
        .max()
}

pub(crate) async fn delete(args: Delete) -> Result<(), ClientError> {
    let api = args.common.api()?;
    let view = api.function(&args.function).await?;
    let (id, name) = (text(&view, "id"), text(&view, "name"));
    if !args.yes {
        prompt::confirm(&format!(
            "Delete {name} at {}, with all its versions and logs?",
            api.base()
        ))?;
    }
    api.send(Method::DELETE, &format!("/api/function/{id}"), None).await?;
    let document = json!({ "deleted": { "id": id, "name": name } });
    args.common.output().result(&document, |out| writeln!(out, "{name} is deleted."))
}

pub(crate) async fn open(args: Open) -> Result<(), ClientError> {
    let output = args.common.output();
    let api = args.common.api()?;
    let address = if args.dashboard {
        api.base().to_string()
    } else {
        let view = api.function(&named_or_current(args.function.as_deref())?).await?;
        if text(&view, "visibility") == "private" {
            output.warn(
                "the function is private: a browser, which shows no key, gets 401; \
                 `cloudserve deploy --visibility public` opens it to everyone",
            );
        }
        url(&view).to_owned()
    };
    // What is handed to another program must not be read by it as something else.
    if !address.starts_with("http://") && !address.starts_with("https://") {
        return Err(ClientError::NotTheApi {
            url: api.base().clone(),
            what: format!("{address:?} is no web address"),
        });
    }
    if !args.print && !output.is_json {
        browse(&address)?;
    }
    output.result(&json!({ "url": address }), |out| writeln!(out, "{address}"))
}

fn browse(address: &str) -> Result<(), ClientError> {
    let browser = environment::browser();
    let mut command = Command::new(&browser);
    command.arg(address).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    for secret in environment::SECRETS {
        command.env_remove(secret);
    }
    command.spawn().map(drop).map_err(|error| ClientError::Failed {
        code: "no_browser",
        message: format!("{browser} does not start: {error}"),
        hint: format!("set BROWSER to a program that opens web pages, or open {address}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_before_the_served_one_is_found() {
        let version = |number: u64, status: &str, active: bool| json!({ "version": number, "status": status, "active": active });
        let some = json!([
            version(5, "failed", false),
            version(4, "active", true),
            version(3, "failed", false),
            version(2, "superseded", false),
            version(1, "active", false),
        ]);
        assert_eq!(before_the_served(&some), Some(2));
        assert_eq!(before_the_served(&json!([version(1, "active", true)])), None);
        assert_eq!(before_the_served(&json!([version(1, "failed", false)])), None);
    }
}
