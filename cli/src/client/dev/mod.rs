//! `dev`: the function of a folder on this machine, again after every change.
//!
//! It is the real server, in a process of its own with its data in the project's `.cloudserve`
//! folder: the same runtime, the same limits, the same faults as everywhere else.

mod server;
mod watch;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use cloudserve_protocol::ids::FunctionName;
use dialoguer::console::style as on_stdout;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use self::server::{Server, account};
use self::watch::Watcher;
use super::api::{Api, text};
use super::deploy;
use super::error::ClientError;
use super::logs;
use super::output::{Output, seconds};
use super::project::{Files, Project};

/// The file whose values are the function's environment here.
const ENV_FILE: &str = ".env";

#[derive(Args)]
pub(crate) struct Dev {
    /// A .ts or .js file, or the folder of a project.
    #[arg(default_value = ".")]
    path: PathBuf,

    /// Where calls go: a port of 127.0.0.1 [default: any free one].
    #[arg(long, short, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    port: u16,

    /// File with the function's environment, NAME=value lines [default: .env, if there is one].
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,

    /// A package it imports, like axios@^1; adds to those of package.json.
    #[arg(long, short, value_name = "PACKAGE")]
    dependency: Vec<String>,

    /// Print a line of JSON for each thing that happens.
    #[arg(long, help_heading = "Common options")]
    json: bool,
}

impl Dev {
    pub(crate) fn output(&self) -> Output {
        Output { is_json: self.json }
    }
}

pub(crate) async fn run(args: Dev) -> Result<(), ClientError> {
    let output = args.output();
    let ended = |source| ClientError::Failed {
        code: "signals",
        message: format!("signals cannot be received: {source}"),
        hint: "is something unusual with this machine?".to_owned(),
    };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ended)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(ended)?;

    let mut local = Local::read(&args)?;
    let root = local.project.root.clone();
    let starting = async {
        let server = Server::start(&root, args.port, output).await?;
        let api = account(server.base(), &root).await?;
        Ok::<_, ClientError>((server, api))
    };
    // A server that is given up while it starts ends with what holds it.
    let (mut server, api) = tokio::select! {
        started = starting => started?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    let done = tokio::select! {
        done = serve(&args, &mut local, api, output) => done,
        error = server.ended() => Err(error),
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    server.stop().await;
    done
}

/// The project as it was read last.
struct Local {
    project: Project,
    name: FunctionName,
    files: Files,
    body: Value,
}

impl Local {
    fn read(args: &Dev) -> Result<Self, ClientError> {
        let mut project = Project::at(&args.path)?;
        if !args.dependency.is_empty() {
            project.settings.depend_on(&args.dependency);
        }
        // Nobody else reaches it, and a browser has no key.
        project.settings.set_visibility(Some("public"));
        let name = project.name(None)?;
        let mut files = project.files()?;
        // It may lie elsewhere, and is watched as well. What is named by no folder is in this one.
        let folder = args.env_file.as_deref().and_then(Path::parent);
        let folder = folder.map(|it| if it.as_os_str().is_empty() { Path::new(".") } else { it });
        files.folders.extend(folder.map(Path::to_owned));
        let usual = project.root.join(ENV_FILE);
        let usual = usual.is_file().then_some(usual);
        let env_file: Option<&Path> = args.env_file.as_deref().or(usual.as_deref());
        let mut body = deploy::body(&project, &name, &files, env_file)?;
        if env_file.is_none() {
            body["env"] = json!({});
        }
        Ok(Self { project, name, files, body })
    }
}

/// Deploys, and again after each change, until something that no change mends.
async fn serve(
    args: &Dev,
    local: &mut Local,
    mut api: Api,
    output: Output,
) -> Result<(), ClientError> {
    let mut watcher = Watcher::new()?;
    let mut logs = Logs(None);
    let mut warned = Warned(Vec::new());
    let mut begun = Instant::now();
    // The server took a moment to start, in which nobody listened.
    if let Ok(now) = read_watched(args, &mut watcher, &local.files.folders)? {
        *local = now;
    }
    warned.tell(local, output);
    loop {
        let deployed_now = match deploy(&api, local).await {
            // Sessions end after a week or so.
            Err(ClientError::CredentialRefused { .. }) => {
                api = account(api.base(), &local.project.root).await?;
                deploy(&api, local).await
            }
            deployed_now => deployed_now,
        };
        let view = match deployed_now {
            // A source the server does not take is mended by the next change.
            Err(error @ (ClientError::Refused { .. } | ClientError::DeployFailed { .. })) => {
                report(output, &error)?;
                None
            }
            view => Some(view?),
        };
        if let Some(view) = view {
            let id = text(&view, "id");
            let is_other = !logs.are_of(id);
            deployed(output, &view, begun.elapsed(), is_other)?;
            if is_other {
                logs.begin(&api, &local.project.root, id, output);
            }
        }
        begun = loop {
            let changed = watcher.changed().await?;
            match read_watched(args, &mut watcher, &local.files.folders)? {
                Ok(next) => {
                    let is_same = next.body == local.body;
                    *local = next;
                    // Of what is not sent as well.
                    warned.tell(local, output);
                    if !is_same {
                        break changed;
                    }
                }
                // Half a change, most likely; the next one will tell.
                Err(error) => report(output, &error)?,
            }
        };
    }
}

/// The project, read when all of its folders were watched: what is written to one before that is
/// heard by nobody. `folders` are those it had before. Within: what is wrong with the project.
fn read_watched(
    args: &Dev,
    watcher: &mut Watcher,
    folders: &[PathBuf],
) -> Result<Result<Local, ClientError>, ClientError> {
    watcher.watch(folders)?;
    loop {
        let read = Local::read(args);
        match &read {
            Ok(local) if watcher.watch(&local.files.folders)? => {}
            _ => return Ok(read),
        }
    }
}

async fn deploy(api: &Api, local: &Local) -> Result<Value, ClientError> {
    let view = deploy::send_and_wait(api, &local.body, |_| {}).await?;
    match text(&view, "status") {
        "failed" => Err(deploy::failed(local.name.as_str(), &view)),
        _ => Ok(view),
    }
}

fn deployed(
    output: Output,
    view: &Value,
    took: Duration,
    is_other: bool,
) -> Result<(), ClientError> {
    let document = json!({
        "event": "deployed",
        "name": view["name"],
        "version": view["version"],
        "url": view["url"],
        "durationMs": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    });
    let took = seconds(took);
    output.event(&document, |out| {
        if is_other {
            writeln!(out, "{} is ready after {took}", text(view, "name"))?;
            writeln!(out, "  {}", on_stdout(deploy::url(view)).bold())?;
            writeln!(out, "Changes are taken over as you save them; Ctrl-C ends.")
        } else {
            writeln!(out, "{} v{} after {took}", on_stdout("reloaded").green(), view["version"])
        }
    })
}

/// An error that the next change may mend.
fn report(output: Output, error: &ClientError) -> Result<(), ClientError> {
    if output.is_json {
        let mut document = error.to_json();
        document["event"] = "failed".into();
        return output.event(&document, |_| Ok(()));
    }
    output.error(error);
    Ok(())
}

/// What was warned of last, and is not told again after every change.
struct Warned(Vec<String>);

impl Warned {
    fn tell(&mut self, local: &Local, output: Output) {
        let warnings = local.project.warnings(&local.files);
        for warning in warnings.iter().filter(|warning| !self.0.contains(warning)) {
            output.warn(warning);
        }
        self.0 = warnings;
    }
}

/// The function whose lines are shown, and the task that shows them.
struct Logs(Option<(String, JoinHandle<()>)>);

impl Logs {
    fn are_of(&self, id: &str) -> bool {
        self.0.as_ref().is_some_and(|(shown, _)| shown == id)
    }

    /// Shows those of this function, and of no other any more.
    fn begin(&mut self, api: &Api, root: &Path, id: &str, output: Output) {
        self.end();
        let (mut api, root, path) = (api.clone(), root.to_owned(), format!("/api/logs/{id}?"));
        let task = tokio::spawn(async move {
            let show = |row: &Value| {
                let document = json!({ "event": "log", "row": row });
                output.event(&document, |out| logs::write_row(out, row))
            };
            let error = loop {
                match logs::follow(&api, &path, output, show).await {
                    Ok(never) => match never {},
                    Err(ClientError::CredentialRefused { .. }) => {
                        match account(api.base(), &root).await {
                            Ok(again) => api = again,
                            Err(error) => break error,
                        }
                    }
                    Err(error) => break error,
                }
            };
            // The function is served all the same.
            output.warn(&format!("logs are not shown: {error}"));
        });
        self.0 = Some((id.to_owned(), task));
    }

    fn end(&mut self) {
        if let Some((_, task)) = self.0.take() {
            task.abort();
        }
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        self.end();
    }
}
