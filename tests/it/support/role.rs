//! One role of an installation of many processes, which may be stopped, killed and started again
//! at the same address.

use std::fs;
use std::path::PathBuf;
use std::process::Child;

use tempfile::TempDir;

use super::process::{children_of, cloudserve, signal, spawn};
use super::server::{metric_at, npm_cache, run_dir};
use super::wait_for;

/// A process of one role.
pub(crate) struct RoleProcess {
    role: &'static str,
    dir: TempDir,
    settings: Vec<(&'static str, String)>,
    child: Option<Child>,
    /// `http://host:port`
    pub(crate) url: String,
}

impl RoleProcess {
    /// Starts one. `settings` say where it listens, too: at `address`.
    pub(crate) async fn start(
        role: &'static str,
        address: &str,
        settings: &[(&'static str, &str)],
    ) -> Self {
        let mut process = Self::launch(role, format!("http://{address}"), settings);
        process.wait_until_ready().await;
        process
    }

    fn launch(role: &'static str, url: String, settings: &[(&'static str, &str)]) -> Self {
        let dir = tempfile::Builder::new().prefix("role-").tempdir_in(run_dir()).unwrap();
        let settings = settings.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let mut process = Self { role, dir, settings: settings.collect(), child: None, url };
        process.begin();
        process
    }

    /// What a process says that ends instead of serving.
    pub(crate) async fn start_refused(
        role: &'static str,
        settings: &[(&'static str, &str)],
    ) -> String {
        let mut process = Self::launch(role, String::new(), settings);
        let success = process.ended().await;
        let output = process.output();
        assert!(!success, "{output}");
        output
    }

    /// Starts it again, without waiting for anything.
    pub(crate) fn begin(&mut self) {
        let mut command = cloudserve();
        command
            .arg(self.role)
            .current_dir(self.dir.path())
            .env("CLOUDSERVE_DATA_DIR", self.dir.path().join("data"))
            .env("CLOUDSERVE_NPM_CACHE", npm_cache())
            .env("CLOUDSERVE_NPM_CACHE_BYTES", "0")
            .envs(self.settings.iter().map(|(name, value)| (*name, value)));
        self.child = Some(spawn(command, &self.log()));
    }

    /// Waits until it says that it can serve.
    pub(crate) async fn wait_until_ready(&mut self) {
        let ready = format!("{}/readyz", self.url);
        wait_for(&format!("{} at {} to be ready", self.role, self.url), || {
            let ended =
                self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_some());
            assert!(!ended, "{} ended:\n{}", self.role, self.output());
            let asked = reqwest::get(&ready);
            async move { asked.await.is_ok_and(|answer| answer.status() == 200).then_some(()) }
        })
        .await;
    }

    /// Asks it to end, and waits until it has. Whether it ended well.
    pub(crate) async fn stop(&mut self) -> bool {
        signal(self.pid(), libc::SIGTERM);
        self.ended().await
    }

    /// Ends it in the middle of whatever it does.
    pub(crate) async fn kill(&mut self) {
        signal(self.pid(), libc::SIGKILL);
        self.ended().await;
    }

    /// Takes from it, while it is stopped, what it kept on its disk.
    pub(crate) fn forget(&self) {
        assert!(self.child.is_none(), "it runs");
        fs::remove_dir_all(self.dir.path().join("data")).unwrap();
    }

    async fn ended(&mut self) -> bool {
        let child = self.child.as_mut().expect("it was started");
        let status = wait_for("a role to end", || {
            let status = child.try_wait().unwrap();
            async move { status }
        })
        .await;
        self.child = None;
        status.success()
    }

    /// Process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it was started").id()
    }

    /// Its workers and whatever else it started.
    pub(crate) fn children(&self) -> Vec<u32> {
        children_of(self.pid())
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// What it wrote, in all its lives.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// A metric's value now; 0 if it is not there.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        metric_at(&self.url, name).await
    }
}

impl Drop for RoleProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let output = self.output();
            let tail = output.len().saturating_sub(4_000);
            let tail = output.get(tail..).unwrap_or(&output);
            eprintln!("--- {} at {}\n{tail}", self.role, self.url);
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
