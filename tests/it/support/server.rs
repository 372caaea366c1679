//! The server under test: the real program over a directory of its own, on free ports.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::OnceLock;

use tempfile::TempDir;

use super::account::Account;
use super::process::{children_of, cloudserve, is_alive, signal, spawn};
use super::wait_for;

/// A running server.
pub(crate) struct TestServer {
    child: Child,
    /// `None` once it was handed on.
    home: Option<Home>,
    pub(crate) api: String,
    pub(crate) gateway: String,
}

/// What outlives a server that is stopped and started again.
pub(crate) struct Home {
    dir: TempDir,
    extra: Vec<(&'static str, String)>,
}

/// The server most tests share. It starts with the first and dies with the last.
pub(crate) async fn server() -> &'static TestServer {
    static SHARED: tokio::sync::OnceCell<TestServer> = tokio::sync::OnceCell::const_new();
    SHARED.get_or_init(TestServer::start).await
}

impl TestServer {
    /// A server of one's own.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// A server of one's own with these settings in its environment.
    pub(crate) async fn start_with(settings: &[(&'static str, &str)]) -> Self {
        let dir = tempfile::Builder::new().prefix("server-").tempdir_in(run_dir()).unwrap();
        let home = Home {
            dir,
            extra: settings.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
        };
        write_npm_wrapper(&home.npm_wrapper(), &home.npm_calls_file());
        Self::start_at(home).await
    }

    /// A server of one's own with this text in its file of settings.
    pub(crate) async fn start_with_file(text: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("server-").tempdir_in(run_dir()).unwrap();
        fs::write(dir.path().join("cloudserve.toml"), text).unwrap();
        let home = Home { dir, extra: Vec::new() };
        write_npm_wrapper(&home.npm_wrapper(), &home.npm_calls_file());
        Self::start_at(home).await
    }

    /// What a server says that ends instead of serving with these settings.
    pub(crate) async fn start_refused(settings: &[(&'static str, &str)]) -> String {
        let dir = tempfile::Builder::new().prefix("server-").tempdir_in(run_dir()).unwrap();
        let log = dir.path().join("server.log");
        let mut command = cloudserve();
        command
            .arg("serve")
            .current_dir(dir.path())
            .env("CLOUDSERVE_DATA_DIR", dir.path().join("data"))
            .env("CLOUDSERVE_API_LISTEN", "127.0.0.1:0")
            .env("CLOUDSERVE_GATEWAY_LISTEN", "127.0.0.1:0")
            .envs(settings.iter().copied());
        let mut child = spawn(command, &log);
        let status = wait_for("the server to end", || {
            let status = child.try_wait().unwrap();
            async move { status }
        })
        .await;
        let output = fs::read_to_string(&log).unwrap_or_default();
        assert!(!status.success(), "{output}");
        output
    }

    /// A server over what another one left.
    pub(crate) async fn start_at(home: Home) -> Self {
        let log = home.log_file();
        let _ = fs::remove_file(&log);
        let mut command = cloudserve();
        command
            .arg("serve")
            .current_dir(home.dir.path())
            .env("CLOUDSERVE_DATA_DIR", home.data_dir())
            .env("CLOUDSERVE_API_LISTEN", "127.0.0.1:0")
            .env("CLOUDSERVE_GATEWAY_LISTEN", "127.0.0.1:0")
            // All accounts of all tests begin at one address.
            .env("CLOUDSERVE_REGISTRATIONS_PER_HOUR", "0")
            .env("CLOUDSERVE_NPM", home.npm_wrapper())
            .env("CLOUDSERVE_NPM_CACHE", npm_cache())
            .env("CLOUDSERVE_NPM_CACHE_BYTES", "0")
            .envs(home.extra.iter().map(|(name, value)| (*name, value)));
        let mut child = spawn(command, &log);
        let (api, gateway) = wait_for("the server to listen", || {
            let output = fs::read_to_string(&log).unwrap_or_default();
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the server ended with {status}:\n{output}");
            }
            let addresses = output.lines().find_map(parse_listening);
            async move { addresses }
        })
        .await;
        Self { child, home: Some(home), api, gateway }
    }

    fn home(&self) -> &Home {
        self.home.as_ref().expect("only `wait`, which consumes the server, takes it")
    }

    /// Process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its workers and whatever else it started.
    pub(crate) fn children(&self) -> Vec<u32> {
        children_of(self.pid())
    }

    /// Its data directory.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.home().data_dir()
    }

    /// The npm command lines it ran so far.
    pub(crate) fn npm_calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.home().npm_calls_file()).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    /// What it wrote.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(self.home().log_file()).unwrap_or_default()
    }

    /// Where its probes are, if its settings give them a listener of their own.
    pub(crate) fn ops(&self) -> Option<String> {
        self.output().lines().find_map(|line| listener_of(line, "ops"))
    }

    /// Registers a new account.
    pub(crate) async fn register(&self) -> Account {
        Account::register(&self.api, &self.gateway).await
    }

    /// The value of a metric now; 0 if it was never set.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        metric_at(&self.gateway, name).await
    }

    /// The value of a metric of the workers now.
    pub(crate) async fn sandbox_metric(&self, name: &str) -> u64 {
        metric_at(&self.api, &format!("cloudserve_sandbox_{name}")).await
    }

    /// Waits until a metric is at least this much.
    pub(crate) async fn wait_for_metric(&self, name: &str, at_least: u64) {
        wait_for(name, || async { (self.metric(name).await >= at_least).then_some(()) }).await;
    }

    /// Sends a signal to the server itself.
    pub(crate) fn signal(&self, number: i32) {
        signal(self.pid(), number);
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn wait(mut self) -> (ExitStatus, Home) {
        let child = &mut self.child;
        let status = wait_for("the server to end", || {
            let status = child.try_wait().unwrap();
            async move { status }
        })
        .await;
        (status, self.home.take().expect("`wait` consumes the server"))
    }

    /// Asks it to end and waits until it has.
    pub(crate) async fn stop(self) -> (ExitStatus, Home) {
        self.signal(libc::SIGTERM);
        self.wait().await
    }

    /// Kills it in the middle of whatever it does; waits until its workers are gone, too.
    pub(crate) async fn kill(self) -> Home {
        let children = self.children();
        self.signal(libc::SIGKILL);
        let (_, home) = self.wait().await;
        wait_for("stray processes to end", || {
            let any_alive = children.iter().any(|pid| is_alive(*pid));
            async move { (!any_alive).then_some(()) }
        })
        .await;
        home
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if self.home.is_some() && std::thread::panicking() {
            let output = self.output();
            let tail = output.len().saturating_sub(8_000);
            eprintln!("--- server output\n{}", output.get(tail..).unwrap_or(&output));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Home {
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("server.log")
    }

    fn npm_wrapper(&self) -> PathBuf {
        self.dir.path().join("npm")
    }

    fn npm_calls_file(&self) -> PathBuf {
        self.dir.path().join("npm-calls")
    }
}

/// A metric's value now; 0 if it is not there.
pub(crate) async fn metric_at(base: &str, name: &str) -> u64 {
    let text = reqwest::get(format!("{base}/metrics")).await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().unwrap())
}

/// `listening api=http://... gateway=http://...`
fn parse_listening(line: &str) -> Option<(String, String)> {
    Some((listener_of(line, "api")?, listener_of(line, "gateway")?))
}

fn listener_of(line: &str, name: &str) -> Option<String> {
    let mut listeners = line.strip_prefix("listening ")?.split(' ');
    listeners.find_map(|listener| listener.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
}

/// Stands in for npm: writes down that it was called, then becomes npm.
fn write_npm_wrapper(path: &Path, calls: &Path) {
    // The one that comes with Node may be too old.
    let npm =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/node_modules/npm/bin/npm-cli.js");
    let npm = if npm.is_file() { npm } else { PathBuf::from("npm") };
    let script = format!(
        "#!/bin/sh\nprintf '%s\\n' \"$*\" >> '{}'\nexec '{}' \"$@\"\n",
        calls.display(),
        npm.display()
    );
    fs::write(path, script).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Downloads are shared between servers and between runs: so none of them empties the directory.
pub(crate) fn npm_cache() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or("/tmp".into())).join(".cache"),
        PathBuf::from,
    );
    base.join("cloudserve/npm")
}

/// Directory of this run. The shared server is never dropped, so each run removes what runs that
/// have ended left behind.
pub(crate) fn run_dir() -> &'static Path {
    static RUN: OnceLock<PathBuf> = OnceLock::new();
    RUN.get_or_init(|| {
        let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
        for entry in fs::read_dir(base).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let owner = name.to_str().and_then(|name| name.strip_prefix("it-")?.parse().ok());
            if owner.is_some_and(|pid| !is_alive(pid)) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let dir = base.join(format!("it-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        dir
    })
}
