//! A real mongod and a real S3 server for the tests of one process.
//!
//! Started when first asked for, on free ports, over a directory below the target directory; the
//! kernel ends them with this process, and the next run removes what they left. The programs come
//! from `tools/test-servers`.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{env, thread};

use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use cloudserve_store::{Ages, MongoOptions, S3Options};
use mongodb::bson::doc;
use tokio::sync::OnceCell;

/// What a server may take to start on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// The credentials of the S3 server. They open nothing else.
pub(crate) const ACCESS_KEY: &str = "tests";
pub(crate) const SECRET_KEY: &str = "not-a-secret";

/// The settings of a store over these servers, with a database and a bucket of this name.
pub(crate) fn options(mongod: &Server, s3: &Server, name: &str) -> (MongoOptions, S3Options) {
    let mongo = MongoOptions {
        uri: format!("mongodb://{}/{name}?replicaSet=rs0", mongod.address),
        // The records of these tests are of the past.
        ages: Some(Ages { logs: Duration::from_hours(24 * 365 * 50), usages: None }),
        // Many tests share a few processors.
        operation_timeout_ms: 60_000,
        ..MongoOptions::default()
    };
    let s3 = S3Options {
        endpoint: Some(format!("http://{}", s3.address)),
        bucket: name.to_owned(),
        access_key: ACCESS_KEY.to_owned(),
        secret_key: SECRET_KEY.to_owned(),
        ..S3Options::default()
    };
    (mongo, s3)
}

/// A server that is running.
pub(crate) struct Server {
    /// Kept so that the process is this one's child until the end.
    process: Child,
    /// Starts it, again over what it has stored.
    command: Box<dyn Fn() -> Command + Send + Sync>,
    /// Where it is: `127.0.0.1:<port>`.
    pub(crate) address: String,
    log: PathBuf,
    directory: PathBuf,
}

impl Server {
    /// Its process.
    #[allow(dead_code, reason = "not every test program stops its servers")]
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Ends it as a crash of its process would.
    #[allow(dead_code, reason = "not every test program stops its servers")]
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it once more. It may take a while to be of use.
    #[allow(dead_code, reason = "not every test program stops its servers")]
    pub(crate) fn begin(&mut self) {
        self.process = begin(&*self.command, &self.log);
    }

    /// Why it did not start.
    fn explain(&self, what: &str) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let tail = log.len().saturating_sub(4_000);
        format!("{what}\n--- {}\n{}", self.log.display(), log.get(tail..).unwrap_or(&log))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The mongod that the tests of this process share.
pub(crate) async fn mongod() -> &'static Server {
    static SHARED: OnceCell<Server> = OnceCell::const_new();
    SHARED.get_or_init(start_mongod).await
}

/// The S3 server that the tests of this process share.
pub(crate) async fn s3() -> &'static Server {
    static SHARED: OnceCell<Server> = OnceCell::const_new();
    SHARED.get_or_init(start_s3).await
}

/// A name no other test uses, for a database or a bucket.
pub(crate) fn unique_name() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A mongod of one's own, a replica set of one member.
pub(crate) async fn start_mongod() -> Server {
    let directory = directory("mongod");
    let [port] = free_ports();
    let path = directory.clone();
    let command = move || {
        let mut command = Command::new(needed("mongod"));
        command
            .args(["--port", &port.to_string(), "--bind_ip", "127.0.0.1", "--replSet", "rs0"])
            .args(["--oplogSize", "64", "--wiredTigerCacheSizeGB", "0.25"])
            .args(["--nounixsocket", "--quiet"])
            .args(["--wiredTigerEngineConfigString", "log=(file_max=10MB,prealloc=false)"])
            .args(["--setParameter", "diagnosticDataCollectionEnabled=false"])
            .arg("--dbpath")
            .arg(&path);
        command
    };
    let server = start(command, directory, port);
    let initiate = async {
        let member = doc! { "_id": 0, "host": &server.address };
        let set = doc! { "_id": "rs0", "members": [member] };
        admin(&server).await?.run_command(doc! { "replSetInitiate": set }).await
    };
    match tokio::time::timeout(PATIENCE, initiate).await {
        Ok(Ok(_)) => wait_until_primary(&server).await,
        failed => panic!("{}", server.explain(&format!("mongod does not start: {failed:?}"))),
    }
    server
}

async fn admin(mongod: &Server) -> Result<mongodb::Database, mongodb::error::Error> {
    let uri = format!("mongodb://{}/?directConnection=true", mongod.address);
    Ok(mongodb::Client::with_uri_str(uri).await?.database("admin"))
}

/// Writable only once it has elected itself.
pub(crate) async fn wait_until_primary(mongod: &Server) {
    let admin = admin(mongod).await.unwrap();
    let end = Instant::now() + PATIENCE;
    loop {
        let hello = admin.run_command(doc! { "hello": 1 }).await;
        if hello.as_ref().is_ok_and(|said| said.get_bool("isWritablePrimary").unwrap_or(false)) {
            return;
        }
        let why = || mongod.explain(&format!("mongod does not become primary: {hello:?}"));
        assert!(Instant::now() < end, "{}", why());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// An S3 server of one's own.
pub(crate) async fn start_s3() -> Server {
    let directory = directory("s3");
    let ports = free_ports::<4>();
    let [master, volume, filer, s3] = ports;
    let identities = directory.join("s3.json");
    let config = format!(
        r#"{{"identities":[{{"name":"tests","credentials":[{{"accessKey":"{ACCESS_KEY}",
        "secretKey":"{SECRET_KEY}"}}],"actions":["Admin","Read","Write","List","Tagging"]}}]}}"#
    );
    fs::write(&identities, config).unwrap();
    // One volume for a new bucket instead of seven: every test has its own.
    fs::write(directory.join("master.toml"), "[master.volume_growth]\ncopy_1 = 1\n").unwrap();
    let path = directory.clone();
    let command = move || {
        let mut command = Command::new(needed("weed"));
        command
            .current_dir(&path)
            .args(["server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"])
            .arg(format!("-dir={}", path.display()))
            .arg(format!("-master.port={master}"))
            .arg(format!("-volume.port={volume}"))
            .arg(format!("-filer.port={filer}"))
            .arg(format!("-s3.port={s3}"))
            .arg(format!("-s3.config={}", identities.display()))
            .args(["-master.volumeSizeLimitMB=64", "-volume.max=300"])
            .args(["-s3.port.iceberg=0", "-s3.port.lance=0"]);
        command
    };
    let server = start(command, directory, s3);
    wait_until_stores(&server).await;
    server
}

/// It listens before it can store anything.
pub(crate) async fn wait_until_stores(s3: &Server) {
    let client = client(&s3.address);
    let end = Instant::now() + PATIENCE;
    loop {
        let made = client.create_bucket().bucket(unique_name()).send().await;
        let Err(error) = made else { return };
        let why = || s3.explain(&format!("the S3 server does not start: {error:?}"));
        assert!(Instant::now() < end, "{}", why());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A client of an S3 server, for looking behind the store's back.
pub(crate) fn client(address: &str) -> aws_sdk_s3::Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "tests"))
        .endpoint_url(format!("http://{address}"))
        .force_path_style(true)
        .build();
    aws_sdk_s3::Client::from_conf(config)
}

fn cache() -> PathBuf {
    let base = env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(env::var_os("HOME").unwrap_or("/tmp".into())).join(".cache"),
        PathBuf::from,
    );
    base.join("cloudserve/servers")
}

/// `<cache>/<program>-<version>/<program>`; the newest if there are several.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(cache())
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&format!("{name}-")))
        .map(|entry| entry.path().join(name))
        .filter(|path| path.is_file())
        .collect();
    found.sort();
    found.pop()
}

fn needed(name: &str) -> PathBuf {
    program(name).unwrap_or_else(|| {
        panic!(
            "no {name} in {}; `make test` fetches it, or run tools/test-servers",
            cache().display()
        )
    })
}

/// Ports that were free a moment ago. Below 55 536, because the S3 server's parts also use the
/// port 10 000 above each.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    let mut held = Vec::new();
    while held.len() < N {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let twin = port.checked_add(10_000).map(|twin| TcpListener::bind(("127.0.0.1", twin)));
        if let Some(Ok(twin)) = twin {
            held.push((port, listener, twin));
        }
    }
    let ports: Vec<_> = held.iter().map(|(port, ..)| *port).collect();
    ports.try_into().unwrap()
}

/// A directory of this process; removes those of processes that have ended.
fn directory(name: &str) -> PathBuf {
    let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let file_name = entry.file_name();
        let owner = file_name.to_str().and_then(|name| name.strip_prefix("servers-"));
        let owner = owner.and_then(|name| name.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let path = base.join(format!("servers-{}-{name}-{}", std::process::id(), unique_name()));
    fs::create_dir_all(&path).unwrap();
    path
}

fn start(
    command: impl Fn() -> Command + Send + Sync + 'static,
    directory: PathBuf,
    port: u16,
) -> Server {
    let log = directory.join("server.log");
    let process = begin(&command, &log);
    let address = format!("127.0.0.1:{port}");
    Server { process, command: Box::new(command), address, log, directory }
}

fn begin(command: &dyn Fn() -> Command, log: &Path) -> Child {
    let mut command = command();
    let output = File::options().create(true).append(true).open(log).unwrap();
    command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
    // SAFETY: `prctl` with these arguments is async-signal-safe and touches no memory.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    spawn(command)
}

/// The kernel ties a child to the *thread* that started it, and the thread of a test ends early:
/// servers are started by one that does not.
fn spawn(mut command: Command) -> Child {
    let (reply, child) = mpsc::channel();
    thread::spawn(move || {
        let _ = reply.send(command.spawn());
        loop {
            thread::park();
        }
    });
    child.recv().unwrap().unwrap_or_else(|error| panic!("a server does not start: {error}"))
}
