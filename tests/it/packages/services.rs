//! The servers that packages talk to: real ones, on loopback, on free ports, ended with the test.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::{env, fs};

use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::table::{self, Case};
use crate::servers;
use crate::support::{npm_cache, spawn, wait_for};

/// `DynamoDB`'s interface, as an npm package.
const DYNALITE: &str = "dynalite@4.0.0";

/// The servers that run, and the variables that say where.
pub(super) struct Services {
    variables: BTreeMap<String, String>,
    running: Vec<Child>,
    home: TempDir,
}

impl Drop for Services {
    fn drop(&mut self) {
        for child in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Services {
    /// Starts what the cases need, as far as it is installed.
    pub(super) async fn start(cases: &[Case]) -> Self {
        // Below the system's directory, which servers can reach that run as another user.
        let home = tempfile::Builder::new().prefix("cloudserve-services-").tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut this = Self { variables: BTreeMap::new(), running: Vec::new(), home };
        let needs =
            |name: &str| cases.iter().any(|case| case.needs.iter().any(|need| need == name));
        if needs("upstream") || needs("smtp") {
            this.upstream().await;
        }
        for (name, is_there) in [
            ("postgres", this.postgres()),
            ("redis", this.redis()),
            ("mariadb", this.mariadb()),
            ("mongod", this.mongod().await),
            ("s3", this.s3().await),
            ("dynamodb", this.dynamodb()),
        ] {
            if is_there.is_none() {
                super::say(&format!(
                    "{name} is not installed: tools/test-servers, tools/package-servers"
                ));
            }
        }
        this.ready().await;
        this
    }

    /// Whether all of these run.
    pub(super) fn has(&self, names: &[String]) -> bool {
        names.iter().all(|name| self.variables.contains_key(name))
    }

    /// Variables with `{name}` replaced by where that server is.
    pub(super) fn fill(&self, env: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let fill = |text: &String| {
            let mut text = text.clone();
            for (name, value) in &self.variables {
                text = text.replace(&format!("{{{name}}}"), value);
            }
            text
        };
        env.iter().map(|(name, value)| (name.clone(), fill(value))).collect()
    }

    fn directory(&self, name: &str) -> PathBuf {
        let directory = self.home.path().join(name);
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    fn run(&mut self, name: &str, command: Command) {
        let log = self.home.path().join(format!("{name}.log"));
        self.running.push(spawn(command, &log));
    }

    fn is_at(&mut self, name: &str, address: String) {
        self.variables.insert(name.to_owned(), address);
    }

    async fn upstream(&mut self) {
        let log = self.home.path().join("upstream.log");
        let mut command = Command::new("node");
        command.arg(table::upstream());
        self.running.push(spawn(command, &log));
        let addresses = wait_for("the upstream servers", || {
            let line = fs::read_to_string(&log).ok();
            async move { serde_json::from_str::<Value>(line?.lines().next()?).ok() }
        })
        .await;
        for (name, address) in addresses.as_object().unwrap() {
            self.is_at(name, address.as_str().unwrap().to_owned());
        }
    }

    fn postgres(&mut self) -> Option<()> {
        let programs = newest("/usr/lib/postgresql")?.join("bin");
        let directory = owned_by("postgres", self.directory("postgres"));
        let [port] = servers::free_ports();
        let mut init = as_user("postgres", &programs.join("initdb"));
        init.args(["-A", "trust", "-U", "postgres", "--no-sync", "-D"]).arg(&directory);
        finish(init)?;
        let mut command = as_user("postgres", &programs.join("postgres"));
        command
            .arg("-D")
            .arg(&directory)
            .args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"])
            .args([
                "-c",
                "unix_socket_directories=",
                "-c",
                "fsync=off",
                "-c",
                "max_connections=20",
            ]);
        self.run("postgres", command);
        self.is_at("postgres", format!("postgres://postgres@127.0.0.1:{port}/postgres"));
        Some(())
    }

    fn redis(&mut self) -> Option<()> {
        let program = installed("redis-server")?;
        let [port] = servers::free_ports();
        let mut command = Command::new(program);
        command
            .current_dir(self.directory("redis"))
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"]);
        self.run("redis", command);
        self.is_at("redis", format!("redis://127.0.0.1:{port}"));
        Some(())
    }

    fn mariadb(&mut self) -> Option<()> {
        let (init, program) = (installed("mariadb-install-db")?, installed("mariadbd")?);
        let directory = owned_by("mysql", self.directory("mariadb"));
        let [port] = servers::free_ports();
        let mut init = as_user("mysql", &init);
        init.arg("--no-defaults")
            .arg(format!("--datadir={}", directory.display()))
            .args(["--auth-root-authentication-method=normal", "--skip-test-db"]);
        finish(init)?;
        let mut command = as_user("mysql", &program);
        command
            .arg("--no-defaults")
            .arg(format!("--datadir={}", directory.display()))
            .arg(format!("--socket={}", directory.join("socket").display()))
            .arg(format!("--pid-file={}", directory.join("pid").display()))
            .args(["--bind-address=127.0.0.1", &format!("--port={port}")]);
        self.run("mariadb", command);
        self.is_at("mariadb", format!("mysql://root@127.0.0.1:{port}/mysql"));
        Some(())
    }

    async fn mongod(&mut self) -> Option<()> {
        servers::program("mongod")?;
        let server = servers::mongod().await;
        self.is_at("mongod", format!("mongodb://{}/?directConnection=true", server.address));
        Some(())
    }

    async fn s3(&mut self) -> Option<()> {
        servers::program("weed")?;
        let server = servers::s3().await;
        self.is_at("s3Key", servers::ACCESS_KEY.to_owned());
        self.is_at("s3Secret", servers::SECRET_KEY.to_owned());
        self.is_at("s3", format!("http://{}", server.address));
        Some(())
    }

    fn dynamodb(&mut self) -> Option<()> {
        let [port] = servers::free_ports();
        let directory = self.directory("dynamodb");
        fs::write(directory.join("package.json"), "{}").unwrap();
        let mut install = Command::new(installed("npm")?);
        install
            .current_dir(&directory)
            .args(["install", "--ignore-scripts", "--no-audit", "--no-fund", DYNALITE, "--cache"])
            .arg(npm_cache());
        finish(install)?;
        let mut command = Command::new("node");
        command.arg(directory.join("node_modules/dynalite/cli.js")).args([
            "--host",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--createTableMs",
            "0",
        ]);
        self.run("dynamodb", command);
        self.is_at("dynamodb", format!("http://127.0.0.1:{port}"));
        Some(())
    }

    /// Waits until all of them take connections.
    async fn ready(&self) {
        for (name, address) in &self.variables {
            let Some((_, rest)) = address.split_once("://") else { continue };
            let host = rest.split('/').next().unwrap_or_default();
            let host = host.rsplit('@').next().unwrap_or_default().to_owned();
            wait_for(name, || async { TcpStream::connect(&host).await.ok() }).await;
        }
    }
}

fn installed(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// The directory with the highest number for a name.
fn newest(folder: &str) -> Option<PathBuf> {
    let versions = fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    versions.max_by_key(|path| path.file_name()?.to_str()?.parse::<u32>().ok())
}

fn is_root() -> bool {
    // SAFETY: it takes and touches no memory.
    unsafe { libc::geteuid() == 0 }
}

/// These servers refuse to run as root.
fn as_user(user: &str, program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", user, "--regid", user, "--clear-groups"])
        .args(["--pdeathsig", "KILL", "--"])
        .arg(program);
    command.current_dir("/");
    command
}

fn owned_by(user: &str, directory: PathBuf) -> PathBuf {
    if is_root() {
        let owned = Command::new("chown").arg(user).arg(&directory).status().unwrap();
        assert!(owned.success(), "chown {user} {}", directory.display());
    }
    directory
}

/// Runs a program to its end; `None`, with what it said, if it fails.
fn finish(mut command: Command) -> Option<()> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    if !output.status.success() {
        super::say(&format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)));
        return None;
    }
    Some(())
}
