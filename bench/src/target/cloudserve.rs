//! The real server, `cloudserve serve`, over a directory of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use reqwest::{Client, Method};
use serde_json::{Value, json};

use super::process::Process;
use crate::client::Request;
use crate::error::{BenchError, Doing};
use crate::workload::Workload;

/// The account all functions belong to.
const USER: &str = "bench";
/// Something the server does by itself has this long.
const PATIENCE: Duration = Duration::from_secs(60);
/// The settings of the installation that are not the defaults: a burst of 100 calls of one account
/// is to be measured, not to be refused.
const CONFIG: &str = "[limits]\nuser_concurrency = 1000\nfunctions_per_user = 20000\n";

/// What a server is started with.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServerOptions {
    /// `CLOUDSERVE_POOL_SIZE`; `None` is the server's own default.
    pub(crate) pool_size: Option<usize>,
    /// `CLOUDSERVE_IDLE_EVICT_MS`.
    pub(crate) idle_evict_ms: Option<u32>,
    /// `CLOUDSERVE_MAX_WORKERS`.
    pub(crate) max_workers: Option<usize>,
}

impl ServerOptions {
    pub(crate) fn with_pool(pool_size: usize) -> Self {
        Self { pool_size: Some(pool_size), ..Self::default() }
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        let mut all = vec![("CLOUDSERVE_LOG", "warn".to_owned())];
        let mut set = |name, value: Option<String>| all.extend(value.map(|value| (name, value)));
        set("CLOUDSERVE_POOL_SIZE", self.pool_size.map(|n| n.to_string()));
        set("CLOUDSERVE_IDLE_EVICT_MS", self.idle_evict_ms.map(|n| n.to_string()));
        set("CLOUDSERVE_MAX_WORKERS", self.max_workers.map(|n| n.to_string()));
        all
    }
}

/// A data directory, with an account and functions in it. Servers over it come and go.
#[derive(Debug)]
pub(crate) struct Home {
    dir: PathBuf,
    program: PathBuf,
    extra: Vec<(String, String)>,
    /// Session token and API key, once registered.
    token: String,
    key: String,
}

impl Home {
    /// A new one; the account is made by the first server.
    pub(crate) fn new(
        dir: &Path,
        program: &Path,
        extra: &[(String, String)],
    ) -> Result<Self, BenchError> {
        let written = std::fs::create_dir_all(dir)
            .and_then(|()| std::fs::write(dir.join("cloudserve.toml"), CONFIG));
        written.doing(format!("cannot write {}", dir.display()))?;
        if !program.is_file() {
            return Err(BenchError::NotBuilt(program.to_owned()));
        }
        Ok(Self {
            dir: dir.to_owned(),
            program: program.to_owned(),
            extra: extra.to_vec(),
            token: String::new(),
            key: String::new(),
        })
    }

    /// Starts a server over it and waits until it can serve.
    pub(crate) async fn serve(&mut self, options: &ServerOptions) -> Result<Server, BenchError> {
        let started = Instant::now();
        let mut command = Command::new(&self.program);
        command
            .args(["serve", "--config"])
            .arg(self.dir.join("cloudserve.toml"))
            .current_dir(&self.dir)
            .env("CLOUDSERVE_DATA_DIR", self.dir.join("data"))
            .env("CLOUDSERVE_API_LISTEN", "127.0.0.1:0")
            .env("CLOUDSERVE_GATEWAY_LISTEN", "127.0.0.1:0")
            .envs(options.variables())
            .envs(self.extra.iter().map(|(name, value)| (name, value)));
        let mut process = Process::start("cloudserve", command, &self.dir)?;
        let (api, gateway) = process
            .wait_for(Duration::from_millis(5), async |process| {
                process.output().lines().find_map(parse_listening)
            })
            .await?;
        let http = Client::builder()
            .no_proxy()
            .build()
            .map_err(|source| BenchError::Unreachable { what: "HTTP client".into(), source })?;
        // Without a pool no worker waits, so the server calls itself not ready; it serves.
        if options.pool_size != Some(0) {
            let ready = format!("{api}/readyz");
            process
                .wait_for(Duration::from_millis(5), async |_| {
                    let answer = http.get(&ready).send().await.ok()?;
                    answer.status().is_success().then_some(())
                })
                .await?;
        }
        let ready_after = started.elapsed();
        let address = gateway
            .strip_prefix("http://")
            .and_then(|address| address.parse().ok())
            .ok_or_else(|| BenchError::NotStarted { name: "cloudserve".into(), output: gateway })?;
        let mut server =
            Server { process, http, api, gateway: address, ready_after, token: String::new() };
        if self.token.is_empty() {
            self.register(&server).await?;
        }
        server.token.clone_from(&self.token);
        Ok(server)
    }

    async fn register(&mut self, server: &Server) -> Result<(), BenchError> {
        let account = json!({
            "fullName": "Bench", "userName": USER, "email": "bench@example.org",
            "password": "correct horse battery",
        });
        let answer = server.api(Method::POST, "/api/auth/register", "", Some(&account)).await?;
        self.token = text_of(&answer, "token");
        let body = json!({ "name": "bench", "scopes": ["invoke"] });
        let answer = server.api(Method::POST, "/api/apikeys", &self.token, Some(&body)).await?;
        self.key = text_of(&answer, "key");
        Ok(())
    }

    /// A call of one of its functions.
    pub(crate) fn request(&self, server: &Server, function: &str, workload: &Workload) -> Request {
        let path = format!("/run/{USER}/{function}");
        workload.request(&server.gateway.to_string(), &path, &self.key)
    }
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    process: Process,
    http: Client,
    api: String,
    pub(crate) gateway: SocketAddr,
    /// From its start until `/readyz` said so.
    pub(crate) ready_after: Duration,
    token: String,
}

/// A function to deploy.
#[derive(Debug, Clone)]
pub(crate) struct Deploy {
    pub(crate) name: String,
    pub(crate) code: String,
    /// Packages and the versions asked for.
    pub(crate) dependencies: BTreeMap<String, String>,
}

impl Server {
    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    pub(crate) async fn stop(self) {
        self.process.stop().await;
    }

    async fn api(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: Option<&Value>,
    ) -> Result<Value, BenchError> {
        let what = format!("{method} {path}");
        let mut request = self.http.request(method, format!("{}{path}", self.api));
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let unreachable = |source| BenchError::Unreachable { what: what.clone(), source };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let text = response.text().await.map_err(unreachable)?;
        if !status.is_success() {
            return Err(BenchError::Refused { what, status: status.as_u16(), body: text });
        }
        serde_json::from_str(&text).map_err(|_| BenchError::Refused {
            what,
            status: status.as_u16(),
            body: text,
        })
    }

    /// Deploys and waits until it is active; gives the time that took.
    pub(crate) async fn deploy(&self, deploy: &Deploy) -> Result<Duration, BenchError> {
        let body = json!({
            "name": deploy.name,
            "filename": "function.mjs",
            "code": deploy.code,
            "dependencies": deploy.dependencies,
            "limits": { "timeoutMs": 60_000 },
        });
        let begun = Instant::now();
        let path = "/api/function/deploy?wait=true";
        let answer = self.api(Method::POST, path, &self.token, Some(&body)).await?;
        let took = begun.elapsed();
        if answer["status"] == "active" {
            return Ok(took);
        }
        let what = format!("deploy of {}", deploy.name);
        Err(BenchError::Refused { what, status: 200, body: answer["deployError"].to_string() })
    }

    /// Workers in this state now.
    pub(crate) async fn workers(&self, state: &str) -> Result<usize, BenchError> {
        let name = format!("cloudserve_sandbox_workers{{state=\"{state}\"}}");
        let unreachable = |source| BenchError::Unreachable { what: "GET /metrics".into(), source };
        let response = self.http.get(format!("{}/metrics", self.api)).send().await;
        let text = response.map_err(unreachable)?.text().await.map_err(unreachable)?;
        let value = text.lines().find_map(|line| line.strip_prefix(&name)?.trim().parse().ok());
        Ok(value.unwrap_or(0))
    }

    /// Waits until so many workers are ready in the pool.
    pub(crate) async fn pool_is_full(&self, size: usize) -> Result<(), BenchError> {
        let end = Instant::now() + PATIENCE;
        while self.workers("ready").await? < size {
            if Instant::now() > end {
                return Err(BenchError::Patience(format!("{size} workers are ready")));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }
}

fn text_of(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

/// `listening api=http://... gateway=http://...`
fn parse_listening(line: &str) -> Option<(String, String)> {
    let rest = line.strip_prefix("listening ")?;
    let field = |name: &str| {
        let of = |field: &str| Some(field.strip_prefix(name)?.strip_prefix('=')?.to_owned());
        rest.split(' ').find_map(of)
    };
    Some((field("api")?, field("gateway")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_names_the_addresses_is_understood() {
        let line = "listening api=http://127.0.0.1:1 gateway=http://127.0.0.1:2";
        let found = parse_listening(line).unwrap();
        assert_eq!(found, ("http://127.0.0.1:1".to_owned(), "http://127.0.0.1:2".to_owned()));
        assert_eq!(parse_listening("listening api=x"), None);
    }
}
