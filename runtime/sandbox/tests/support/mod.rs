//! A sandbox over a directory of its own, and functions for it.

mod store;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cloudserve_artifacts::{Cache, CacheOptions};
use cloudserve_protocol::artifact::ArtifactKey;
use cloudserve_protocol::call::{
    Body, Env, Invocation, Invoker, Outcome, RequestHead, Target, Timings,
};
use cloudserve_protocol::headers::HeaderBlock;
use cloudserve_protocol::ids::{BundleHash, ExecutionId, FunctionId, UserId};
use cloudserve_protocol::limits::Limits;
use cloudserve_protocol::zygote::ZYGOTE_ARGUMENT;
use cloudserve_sandbox::{Sandbox, SandboxOptions};
use tempfile::TempDir;
use tokio::sync::oneshot;

use store::MemoryStore;

/// A running sandbox.
#[derive(Clone)]
pub(crate) struct Bench {
    pub(crate) sandbox: Sandbox,
    store: Arc<MemoryStore>,
    dir: Arc<TempDir>,
}

/// What a call came to.
#[derive(Debug)]
pub(crate) struct Called {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
    pub(crate) cold: bool,
    pub(crate) timings: Timings,
    pub(crate) outcome: Outcome,
}

impl Called {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }
}

/// The worker that was built with these tests.
fn worker_program() -> PathBuf {
    if let Some(path) = std::env::var_os("CLOUDSERVE_WORKER") {
        return path.into();
    }
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("cloudserve-worker");
    assert!(program.is_file(), "{} is not built; `make test` builds it", program.display());
    program
}

pub(crate) fn options() -> SandboxOptions {
    SandboxOptions { worker_program: worker_program(), pool_size: 2, ..SandboxOptions::default() }
}

pub(crate) fn user() -> UserId {
    UserId::new()
}

impl Bench {
    pub(crate) async fn start() -> Self {
        Self::start_with(options()).await
    }

    pub(crate) async fn start_with(options: SandboxOptions) -> Self {
        let bench = Self::start_unready(options);
        wait_until("a worker is ready", || bench.sandbox.readiness().is_ready).await;
        bench
    }

    pub(crate) fn start_unready(options: SandboxOptions) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let options = SandboxOptions { work_dir: dir.path().join("work"), ..options };
        let store = Arc::new(MemoryStore::default());
        let cache = Cache::open(&dir.path().join("cache"), store.clone(), CacheOptions::default());
        let sandbox = Sandbox::start(options, Arc::new(cache.unwrap())).unwrap();
        Self { sandbox, store, dir }
    }

    pub(crate) fn function(&self, code: &str) -> Arc<Target> {
        self.function_with(code, Limits::default())
    }

    pub(crate) fn function_with(&self, code: &str, limits: Limits) -> Arc<Target> {
        self.function_of(code, limits, user())
    }

    pub(crate) fn function_of(&self, code: &str, limits: Limits, owner_id: UserId) -> Arc<Target> {
        self.target(FunctionId::new(), 1, owner_id, code, limits)
    }

    pub(crate) fn next_version(&self, of: &Target, version: u32, code: &str) -> Arc<Target> {
        self.target(of.function_id, version, of.owner_id, code, of.limits)
    }

    fn target(
        &self,
        function_id: FunctionId,
        version: u32,
        owner_id: UserId,
        code: &str,
        limits: Limits,
    ) -> Arc<Target> {
        let bundle_hash = BundleHash::of(code.as_bytes());
        let key = ArtifactKey::Bundle { function: function_id, hash: bundle_hash.clone() };
        self.store.insert(&key, Bytes::from(code.to_owned()));
        Arc::new(Target {
            function_id,
            owner_id,
            owner_name: "owner".parse().unwrap(),
            function_name: "function".parse().unwrap(),
            version,
            bundle_hash,
            runtime_deps: None,
            limits,
            env: Env::default(),
        })
    }

    /// A call, and where its outcome will be.
    pub(crate) fn invocation(
        target: &Arc<Target>,
        path: &str,
        body: Body,
    ) -> (Invocation, oneshot::Receiver<Outcome>) {
        let timeout = Duration::from_millis(target.limits.timeout_ms.into());
        let (told, outcome) = oneshot::channel();
        let call = Invocation {
            execution_id: ExecutionId::new(),
            target: target.clone(),
            deadline: Instant::now() + timeout,
            head: RequestHead {
                method: if matches!(body, Body::Empty) { "GET" } else { "POST" }.into(),
                target: path.to_owned().into(),
                headers: HeaderBlock::from_iter([("host", "example.org")]),
            },
            body,
            told,
        };
        (call, outcome)
    }

    /// The whole answer. An answer that is cut off is the outcome that says why.
    pub(crate) async fn call(
        &self,
        target: &Arc<Target>,
        path: &str,
        body: Body,
    ) -> Result<Called, Box<Outcome>> {
        let (call, outcome) = Self::invocation(target, path, body);
        let reply = self.sandbox.invoke(call).await?;
        let body = reply.body.collect().await;
        let outcome = outcome.await.expect("the outcome is always told");
        let Ok(body) = body else { return Err(Box::new(outcome)) };
        assert_eq!(outcome.fault, None, "{outcome:#?}");
        let (cold, timings) = (reply.cold, reply.timings);
        Ok(Called { status: reply.head.status, body, cold, timings, outcome })
    }

    pub(crate) async fn try_get(
        &self,
        target: &Arc<Target>,
        path: &str,
    ) -> Result<Called, Box<Outcome>> {
        self.call(target, path, Body::Empty).await
    }

    pub(crate) async fn get(&self, target: &Arc<Target>, path: &str) -> Called {
        self.try_get(target, path).await.unwrap_or_else(|outcome| panic!("{outcome:#?}"))
    }

    /// The sizes of V8's code caches that are kept.
    pub(crate) fn code_caches(&self) -> Vec<u64> {
        let kept = std::fs::read_dir(self.dir.path().join("cache/code")).unwrap();
        kept.map(|cache| cache.unwrap().metadata().unwrap().len()).collect()
    }

    /// The books balance: nobody is in a call or waits, and the pool fills up again.
    pub(crate) async fn is_well(&self) {
        wait_until("all is quiet", || {
            let m = self.sandbox.metrics();
            m.workers_busy == 0
                && m.workers_loading == 0
                && m.workers_starting == 0
                && m.queue_length == 0
                // A boot that nobody waits for any more leaves its worker there.
                && m.workers_ready >= 2
                && m.processes == m.workers_ready + m.workers_idle
        })
        .await;
    }
}

pub(crate) async fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}: it never came to that");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// `kill -9` of a worker of ours.
pub(crate) fn kill(pid: i32) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
    assert_eq!(parent, Some(std::process::id().to_string().as_str()), "{pid} is no worker of ours");
    let pid = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// The zygotes of this process, and the workers that were forked from them.
pub(crate) fn zygotes_and_workers() -> (Vec<i32>, Vec<i32>) {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let children = tasks.flat_map(|task| {
        let list = task.unwrap().path().join("children");
        let list = std::fs::read_to_string(list).unwrap_or_default();
        list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<i32>>()
    });
    children
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let arguments: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            arguments.get(1) == Some(&ZYGOTE_ARGUMENT.as_bytes())
        })
        // Workers have their zygote's command line.
        .partition(|pid| {
            let output = std::fs::read_link(format!("/proc/{pid}/fd/1"));
            output.is_ok_and(|to| to.ends_with("dev/null"))
        })
}
