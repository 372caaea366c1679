//! The server of a project: `cloudserve serve` in a process of its own.
//!
//! Invariants: it listens on this machine alone, it has none of the user's credentials, and it
//! ends with this process, however this one ends.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use cloudserve_identity::Secret;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use url::Url;

use crate::client::api::{Api, Credential, text};
use crate::client::environment::{self, NPM_CACHE_VARIABLE};
use crate::client::error::{ClientError, CredentialKind};
use crate::client::output::Output;
use crate::client::project::OWN_DIR;
use crate::config;

/// Time to listen; a disk that is slow to make databases is the slow part.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for calls that have begun, in milliseconds.
const DRAIN_MS: &str = "1000";
/// Time to end; then it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Workers kept ready: one is in use, one is for the next version.
const POOL_SIZE: &str = "2";
/// Lines of its log that are shown when it does not start.
const SHOWN_LINES: usize = 12;
/// The only account.
const USER: &str = "dev";
/// Settings of servers for others, which this one is none of. With them it would listen elsewhere as
/// well, or not start.
const OF_OTHERS: [&str; 3] =
    [config::FILE_VARIABLE, "CLOUDSERVE_OPS_LISTEN", "CLOUDSERVE_S3_BUCKET"];

/// A server that runs.
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
    base: Url,
}

impl Server {
    /// Starts it over the project's own data.
    pub(crate) async fn start(root: &Path, port: u16, output: Output) -> Result<Self, ClientError> {
        let dir = own_dir(root)?;
        let log = dir.join("server.log");
        let mut child = spawn(&dir, &log, port)?;
        let mut lines = BufReader::new(child.stdout.take().ok_or_else(|| no_start(&log))?).lines();
        let listening = async {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(base) = api_address(&line) {
                    return Some(base);
                }
            }
            None
        };
        let mut steps = output.steps();
        steps.begin("Starting a server for this project");
        let base = tokio::time::timeout(START_TIMEOUT, listening).await.ok().flatten();
        steps.stop();
        let Some(base) = base else {
            let _ = child.start_kill();
            let _ = child.wait().await;
            return Err(no_start(&log));
        };
        tokio::spawn(drain(lines.into_inner()));
        Ok(Self { child, log, base })
    }

    /// Where its API is.
    pub(crate) fn base(&self) -> &Url {
        &self.base
    }

    /// Waits until it has ended by itself, which it should not.
    pub(crate) async fn ended(&mut self) -> ClientError {
        let _ = self.child.wait().await;
        no_start(&self.log)
    }

    /// Ends it.
    pub(crate) async fn stop(&mut self) {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // It may have ended just now.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        if tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

/// The project's account at its server, made at the first time, with a session of its own.
pub(crate) async fn account(base: &Url, root: &Path) -> Result<Api, ClientError> {
    let path = own_dir(root)?.join("password");
    let nobody = Api::new(base.clone(), None)?;
    let email = format!("{USER}@localhost.invalid");
    let answer = match fs::read_to_string(&path) {
        Ok(password) => {
            let login = json!({ "userName": USER, "password": password.trim() });
            nobody.post_as_nobody("/api/auth/login", &login).await
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let secret = Secret::generate().map_err(|error| ClientError::Failed {
                code: "internal",
                message: format!("a password could not be made: {error}"),
                hint: "start again".to_owned(),
            })?;
            let password = secret.to_hex();
            write_private(&path, &password).map_err(ClientError::file(&path))?;
            let account = json!({
                "fullName": "Developer", "userName": USER, "email": email,
                "password": password.as_str(),
            });
            nobody.post_as_nobody("/api/auth/register", &account).await
        }
        Err(source) => return Err(ClientError::File { path, source }),
    };
    let answer = match answer {
        Err(ClientError::Refused { status: 401 | 409, .. }) => {
            return Err(ClientError::CredentialRefused {
                url: base.clone(),
                kind: CredentialKind::Dev,
            });
        }
        answer => answer?,
    };
    let secret = text(&answer, "token").to_owned();
    let credential = Credential { secret, kind: CredentialKind::Dev };
    Api::new(base.clone(), Some(credential))
}

fn spawn(dir: &Path, log: &Path, port: u16) -> Result<Child, ClientError> {
    let program = std::env::current_exe().map_err(ClientError::file("cloudserve"))?;
    let stderr = File::create(log).map_err(ClientError::file(log))?;
    let mut command = std::process::Command::new(&program);
    command
        .arg("serve")
        .arg("--data-dir")
        .arg(dir.join("data"))
        .args(["--api-listen", "127.0.0.1:0", "--pool-size", POOL_SIZE])
        .args(["--gateway-listen", &format!("127.0.0.1:{port}")])
        .args(["--drain-timeout-ms", DRAIN_MS])
        // The project's settings are not the server's.
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(stderr)
        // Ctrl-C is for this process, which then ends that one.
        .process_group(0);
    for variable in environment::SECRETS.into_iter().chain(OF_OTHERS) {
        command.env_remove(variable);
    }
    // Downloads are worth sharing between projects.
    if environment::text(NPM_CACHE_VARIABLE).is_none()
        && let Some(cache) = environment::cache_dir()
    {
        command.env(NPM_CACHE_VARIABLE, cache.join("npm"));
    }
    // SAFETY: `prctl` is async-signal-safe and touches no memory. The thread whose end counts is
    // this one: commands run on the main thread.
    unsafe {
        command.pre_exec(|| set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from));
    }
    Command::from(command).kill_on_drop(true).spawn().map_err(ClientError::file(program))
}

/// The project's folder for us. git does not see it.
fn own_dir(root: &Path) -> Result<PathBuf, ClientError> {
    let own = root.join(OWN_DIR);
    let dir = own.join("dev");
    let make = || -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        fs::write(own.join(".gitignore"), "*\n")
    };
    make().map_err(ClientError::file(&dir))?;
    Ok(dir)
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

/// `listening api=http://... gateway=http://...`
fn api_address(line: &str) -> Option<Url> {
    let fields = line.strip_prefix("listening ")?.split(' ');
    fields.filter_map(|field| field.strip_prefix("api=")).find_map(|url| Url::parse(url).ok())
}

/// Nobody waits for a server that cannot write.
async fn drain(mut stdout: BufReader<ChildStdout>) {
    let _ = tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await;
}

fn no_start(log: &Path) -> ClientError {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let shown = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n  ");
    ClientError::Failed {
        code: "dev_server",
        message: format!("the project's server does not run:\n  {shown}"),
        hint: format!("{} has all it wrote", log.display()),
    }
}
