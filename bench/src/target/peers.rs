//! The servers CloudServe is measured against, as `bench/peers/package-lock.json` pins them.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::process::{Process, free_address};
use crate::client::Request;
use crate::error::{BenchError, Doing};
use crate::workload::Workload;

/// A kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum PeerKind {
    /// Bare `node:http`.
    Node,
    /// Cloudflare's runtime.
    Workerd,
    /// `deno serve`.
    Deno,
    /// A Node server that downloads, unpacks and forks for each call.
    Fork,
    /// The harness itself, answering without looking: what the client can see at best.
    Null,
}

impl PeerKind {
    pub(crate) const ALL: [Self; 5] =
        [Self::Node, Self::Workerd, Self::Deno, Self::Fork, Self::Null];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Workerd => "workerd",
            Self::Deno => "deno",
            Self::Fork => "fork-per-call",
            Self::Null => "null",
        }
    }

    /// Whether it has this workload.
    pub(crate) fn can(self, workload: &Workload) -> bool {
        match self {
            Self::Node => workload.name != "hello-fetch",
            Self::Workerd | Self::Deno => true,
            Self::Fork => matches!(workload.name, "hello" | "packages"),
            Self::Null => workload.name == "hello",
        }
    }
}

/// A running peer with one workload.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
}

impl Peer {
    pub(crate) async fn stop(self) {
        self.process.stop().await;
    }

    /// A call of it.
    pub(crate) fn request(&self, workload: &Workload) -> Request {
        // As long as the key a call of ours carries.
        let key = "x".repeat(40);
        workload.request(&self.address.to_string(), "/", &key)
    }
}

/// Where the peers are, and where they may write.
#[derive(Debug)]
pub(crate) struct Peers {
    /// `bench/peers`, installed.
    source: PathBuf,
    scratch: PathBuf,
}

impl Peers {
    /// Installs them unless what the lock file pins is there.
    pub(crate) fn install(source: &Path, scratch: &Path) -> Result<Self, BenchError> {
        let lock = source.join("package-lock.json");
        // npm writes down what it installed; the harness, from which lock file.
        let stamp = source.join("node_modules/.cloudserve-bench-lock");
        let wanted = fs::read(&lock).doing(format!("cannot read {}", lock.display()))?;
        if fs::read(&stamp).ok().as_ref() != Some(&wanted) {
            let mut npm = Command::new("npm");
            npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(source);
            run(npm, "check that the npm registry can be reached (`npm ping`)")?;
            fs::write(&stamp, &wanted).doing(format!("cannot write {}", stamp.display()))?;
        }
        let scratch = scratch.join("peers");
        fs::create_dir_all(&scratch).doing(format!("cannot make {}", scratch.display()))?;
        // Absolute: each peer runs in a directory of its own.
        let source = source.canonicalize().doing(format!("cannot resolve {}", source.display()))?;
        Ok(Self { source, scratch })
    }

    /// What `--version` says.
    pub(crate) fn version(&self, kind: PeerKind) -> Option<String> {
        let program = match kind {
            PeerKind::Node | PeerKind::Fork => PathBuf::from("node"),
            PeerKind::Workerd => self.workerd(),
            PeerKind::Deno => self.deno(),
            PeerKind::Null => return Some(env!("CARGO_PKG_VERSION").to_owned()),
        };
        let output = Command::new(program).arg("--version").output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        Some(text.lines().next()?.trim().to_owned())
    }

    fn workerd(&self) -> PathBuf {
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "64" };
        self.source.join(format!("node_modules/@cloudflare/workerd-linux-{arch}/bin/workerd"))
    }

    fn deno(&self) -> PathBuf {
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
        self.source.join(format!("node_modules/@deno/linux-{arch}-glibc/deno"))
    }

    /// The command that starts `node` with this workload, for timing how long that takes.
    pub(crate) fn node_command(&self, workload: &Workload, address: SocketAddr) -> Command {
        self.script("node.mjs", workload, address)
    }

    fn script(&self, file: &str, workload: &Workload, address: SocketAddr) -> Command {
        let mut node = Command::new("node");
        node.arg(self.source.join(file)).arg(workload.name).arg(address.port().to_string());
        node
    }

    /// Starts a peer and waits until it listens.
    pub(crate) async fn start(
        &self,
        kind: PeerKind,
        workload: &Workload,
    ) -> Result<Peer, BenchError> {
        let address = free_address()?;
        let dir = self.scratch.join(format!("{}-{}", kind.name(), workload.name));
        fs::create_dir_all(&dir).doing(format!("cannot make {}", dir.display()))?;
        let command = match kind {
            PeerKind::Node => self.node_command(workload, address),
            PeerKind::Fork => self.script("fork.mjs", workload, address),
            PeerKind::Workerd => {
                self.bundle(workload, &dir, &["--conditions=workerd,worker,browser"])?;
                write(&dir.join("config.capnp"), workerd_config(address).as_bytes())?;
                let mut workerd = Command::new(self.workerd());
                workerd.arg("serve").arg(dir.join("config.capnp"));
                workerd
            }
            PeerKind::Deno => {
                self.bundle(workload, &dir, &["--platform=node", NODE_BANNER])?;
                let mut deno = Command::new(self.deno());
                deno.args(["serve", "--no-lock", "--no-config", "--allow-all"])
                    .args(["--host", "127.0.0.1", "--port", &address.port().to_string()])
                    .arg(dir.join("worker.mjs"))
                    .env("DENO_DIR", dir.join("cache"))
                    .env("DENO_NO_UPDATE_CHECK", "1");
                deno
            }
            PeerKind::Null => {
                let own = std::env::current_exe().doing("the harness does not know its path")?;
                let mut null = Command::new(own);
                null.arg("null-server").arg(address.to_string());
                null
            }
        };
        let mut process = Process::start(kind.name(), command, &dir)?;
        process.wait_for_port(address).await?;
        Ok(Peer { process, address })
    }

    /// One module with everything in it: not every runtime reads `node_modules`.
    fn bundle(&self, workload: &Workload, dir: &Path, options: &[&str]) -> Result<(), BenchError> {
        // In the peers' directory, so that its packages are found.
        let input = self.source.join(format!("node_modules/.bench-{}.mjs", workload.name));
        write(&input, workload.fetch_code.as_bytes())?;
        let mut esbuild = Command::new(self.esbuild());
        esbuild
            .arg(&input)
            .args(["--bundle", "--format=esm", "--log-level=error"])
            .args(options)
            .arg(format!("--outfile={}", dir.join("worker.mjs").display()));
        run(esbuild, "this is a defect of the workload")
    }

    fn esbuild(&self) -> PathBuf {
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
        self.source.join(format!("node_modules/@esbuild/linux-{arch}/bin/esbuild"))
    }
}

/// Bundled `CommonJS` packages of Node's call `require` for its modules.
const NODE_BANNER: &str = "--banner:js=import { createRequire } from 'node:module'; \
                           const require = createRequire(import.meta.url);";

fn workerd_config(address: SocketAddr) -> String {
    format!(
        "using Workerd = import \"/workerd/workerd.capnp\";\n\
         const config :Workerd.Config = (\n\
           services = [(name = \"main\", worker = .worker)],\n\
           sockets = [(name = \"http\", address = \"{address}\", http = (), service = \"main\")]\n\
         );\n\
         const worker :Workerd.Worker = (\n\
           modules = [(name = \"worker\", esModule = embed \"worker.mjs\")],\n\
           compatibilityDate = \"2025-01-01\",\n\
           compatibilityFlags = [\"nodejs_compat\"]\n\
         );\n"
    )
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), BenchError> {
    fs::write(path, bytes).doing(format!("cannot write {}", path.display()))
}

fn run(mut command: Command, advice: &'static str) -> Result<(), BenchError> {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().doing(format!("cannot run `{shown}`"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(BenchError::Command {
        command: shown,
        status: output.status.to_string(),
        advice,
        output: text,
    })
}
