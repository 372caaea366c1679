//! `deploy`: a file or a folder becomes what is served.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use cloudserve_protocol::ids::FunctionName;
use reqwest::Method;
use reqwest_tls as reqwest;
use serde_json::{Value, json};

use super::api::{Api, text};
use super::env_file::read_env_file;
use super::error::ClientError;
use super::output::{Output, bytes, count, pairs, printable, seconds};
use super::project::{Files, Project};
use super::session::Common;

/// How long the server waits for the end before it says how far it is, in seconds.
const WAIT_S: u32 = 1;
/// Wait before a server that did not answer is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long a server may give no answer while a deploy is waited for: it may be starting again.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Args)]
pub(crate) struct Deploy {
    /// A .ts or .js file, or the folder of a project.
    #[arg(default_value = ".")]
    path: PathBuf,

    /// The function's name [default: of cloudserve.toml, else of the folder or file].
    #[arg(long, short, value_name = "NAME")]
    name: Option<String>,

    /// A package it imports, like axios@^1; adds to those of package.json.
    #[arg(long, short, value_name = "PACKAGE")]
    dependency: Vec<String>,

    /// Who may call it: private (you, with a key) or public (everyone).
    #[arg(long, value_name = "WHO", value_parser = ["private", "public"])]
    visibility: Option<String>,

    /// Replace the function's environment by this file's NAME=value lines.
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,

    /// Answer once it is accepted, before it is built.
    #[arg(long)]
    no_wait: bool,

    #[command(flatten)]
    pub(super) common: Common,
}

pub(crate) async fn run(args: Deploy) -> Result<(), ClientError> {
    let output = args.common.output();
    let api = args.common.api()?;
    let begun = Instant::now();
    let mut steps = output.steps();

    let mut project = Project::at(&args.path)?;
    project.settings.set_visibility(args.visibility.as_deref());
    if !args.dependency.is_empty() {
        project.settings.depend_on(&args.dependency);
    }
    let name = project.name(args.name.as_deref())?;
    let files = project.files()?;
    for warning in project.warnings(&files) {
        output.warn(&warning);
    }
    let body = body(&project, &name, &files, args.env_file.as_deref())?;
    let size = format!("{}, {}", count(files.sent.len(), "file"), bytes(files.bytes()));
    steps.begin(&format!("Sending {name}: {size}"));

    let view = if args.no_wait {
        api.send(Method::POST, "/api/function/deploy", Some(&body)).await?
    } else {
        send_and_wait(&api, &body, |step| steps.begin(step)).await?
    };
    let took = begun.elapsed();
    if text(&view, "status") == "failed" {
        steps.stop();
        return Err(failed(name.as_str(), &view));
    }
    if !args.no_wait
        && let Err(error) = is_served(&view)
    {
        steps.stop();
        return Err(error);
    }
    steps.end();
    steps.stop();
    show(output, &view, &files, took, args.no_wait)
}

/// The body of a deploy, with its environment if there is a file of one.
pub(crate) fn body(
    project: &Project,
    name: &FunctionName,
    files: &Files,
    env_file: Option<&Path>,
) -> Result<Value, ClientError> {
    let mut body = project.body(name, files)?;
    if let Some(path) = env_file {
        body["env"] = Value::Object(read_env_file(path)?);
    }
    Ok(body)
}

/// Deploys and waits for the end, in steps that no proxy cuts off: the same question again, so that
/// neither a server that starts again nor a long build ends it. `step` is told what happens.
pub(crate) async fn send_and_wait(
    api: &Api,
    body: &Value,
    mut step: impl FnMut(&'static str),
) -> Result<Value, ClientError> {
    let accepted = api.send(Method::POST, "/api/function/deploy", Some(body)).await?;
    let (id, version) = (text(&accepted, "id"), &accepted["version"]);
    let path = format!("/api/function/{id}/versions/{version}/deploy?wait={WAIT_S}");
    let mut silent_since: Option<Instant> = None;
    loop {
        let view = match api.get(&path).await {
            Ok(view) => view,
            Err(error) if may_pass(&error) => {
                if silent_since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                    return Err(error);
                }
                tokio::time::sleep(ASK_AGAIN).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        silent_since = None;
        match text(&view, "status") {
            "pending" => step("Waiting for a free builder"),
            "deploying" => step("Building: packages, bundle, trial load"),
            _ => return Ok(view),
        }
    }
}

/// Whether the same question may be answered in a moment.
fn may_pass(error: &ClientError) -> bool {
    matches!(
        error,
        ClientError::Unreachable { .. }
            | ClientError::Behind { .. }
            | ClientError::Refused { status: 429 | 503, .. }
    )
}

/// What a failed deploy tells.
pub(crate) fn failed(name: &str, view: &Value) -> ClientError {
    let error = &view["deployError"];
    ClientError::DeployFailed {
        function: name.to_owned(),
        version: view["version"].as_u64().unwrap_or(0),
        code: text(error, "code").to_owned(),
        message: printable(text(error, "message")).into_owned(),
    }
}

fn show(
    output: Output,
    view: &Value,
    files: &Files,
    took: Duration,
    is_accepted_only: bool,
) -> Result<(), ClientError> {
    let cache = view["dependencyCache"].as_str();
    let bundle_bytes = view["bundleBytes"].as_u64();
    let document = json!({
        "function": view,
        "url": view["url"],
        "version": view["version"],
        "status": view["status"],
        "sourceFiles": files.sent.len(),
        "sourceBytes": files.bytes(),
        "bundleBytes": bundle_bytes,
        "dependencyCache": cache,
        "durationMs": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    });
    let name = text(view, "name");
    let n_packages = view["dependencies"].as_object().map_or(0, serde_json::Map::len);
    let cache = match cache {
        Some("hit") => "cache hit",
        Some("miss") => "cache miss: installed now, shared from now on",
        _ => "",
    };
    let packages = match (n_packages, cache) {
        (0, _) => "none".to_owned(),
        (n, "") => count(n, "package"),
        (n, cache) => format!("{} ({cache})", count(n, "package")),
    };
    output.result(&document, |out| {
        if is_accepted_only {
            let version = &view["version"];
            writeln!(
                out,
                "{name} v{version} is accepted; `cloudserve info {name}` tells how it goes"
            )?;
        } else {
            writeln!(out, "{name} v{} is live after {}", view["version"], seconds(took))?;
        }
        pairs(
            out,
            &[
                ("url", url(view).to_owned()),
                (
                    "source",
                    format!("{}, {}", count(files.sent.len(), "file"), bytes(files.bytes())),
                ),
                ("bundle", bundle_bytes.map(bytes).unwrap_or_default()),
                ("packages", packages),
                ("visibility", text(view, "visibility").to_owned()),
                ("call it", format!("cloudserve invoke {name}")),
            ],
        )
    })
}

/// An error if the version that was built is not the one that is served: what a script does next would be
/// done to another one.
fn is_served(view: &Value) -> Result<(), ClientError> {
    let (name, version) = (text(view, "name"), view["version"].as_u64().unwrap_or(0));
    let why = match view["activeVersion"].as_u64() {
        Some(active) if active == version => return Ok(()),
        Some(active) if active < version => format!("the function was rolled back to v{active}"),
        Some(active) => format!("v{active} is, which was deployed after it"),
        None => "no version is".to_owned(),
    };
    let message = format!("v{version} of {name} is built but not served: {why}");
    Err(ClientError::Superseded { function: name.to_owned(), version, message })
}

/// Where a function is called.
pub(crate) fn url(view: &Value) -> &str {
    view["url"].as_str().unwrap_or_else(|| text(view, "endpoint"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_is_not_served_is_an_error() {
        let error = |active: u32| {
            let view = json!({ "name": "f", "version": 3, "activeVersion": active });
            is_served(&view).err().map(|error| error.to_json()["error"].clone())
        };
        assert_eq!(error(3), None);
        for (active, why) in
            [(4, "v4 is, which was deployed after it"), (1, "the function was rolled back to v1")]
        {
            let told = error(active).unwrap();
            assert_eq!((&told["code"], &told["version"]), (&json!("superseded"), &json!(3)));
            let next = told["hint"].as_str().unwrap();
            assert!(next.contains("`cloudserve rollback f --to 3`"), "{next}");
            assert_eq!(told["message"], format!("v3 of f is built but not served: {why}"));
        }
    }
}
