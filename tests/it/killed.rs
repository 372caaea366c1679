//! Workers are killed at any moment of a load: only the calls in them fail, each with `crashed`,
//! and afterwards everything is as it was.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use serde_json::json;

use crate::support::{Account, Deployed, TestServer, deploy, signal, wait_for};

/// Works for a moment, then waits for another.
const CODE: &str = "
    export default async ({ query }) => {
      const end = performance.now() + 2;
      while (performance.now() < end);
      await new Promise((resolve) => setTimeout(resolve, 5));
      return query.n;
    };
";

const POOL: usize = 2;
const CALLERS_OF_EACH: usize = 3;
const KILLS: usize = 60;

struct Load {
    owner: Account,
    function: Deployed,
    name: String,
}

/// How the calls of one caller ended.
#[derive(Default)]
struct Ended {
    fine: usize,
    crashed: Vec<String>,
}

async fn call_until(load: &Load, is_over: &AtomicBool) -> Ended {
    let mut ended = Ended::default();
    while !is_over.load(Ordering::Relaxed) {
        let n = ended.fine;
        let answer = load.owner.call(&format!("{}?n={n}", load.name)).await;
        if answer.status == 200 {
            assert_eq!(answer.text(), n.to_string());
            ended.fine += 1;
        } else {
            assert_eq!((answer.status, answer.code().as_str()), (500, "crashed"));
            ended.crashed.push(answer.execution().to_owned());
        }
    }
    ended
}

fn entries(dir: impl AsRef<Path>) -> usize {
    std::fs::read_dir(dir).map_or(0, Iterator::count)
}

fn descriptors(server: &TestServer) -> usize {
    entries(format!("/proc/{}/fd", server.pid()))
}

fn directories(server: &TestServer) -> usize {
    entries(server.data_dir().join("workers"))
}

/// Waits until no worker is left but the pool and what it is forked from.
async fn rest(server: &TestServer) {
    wait_for("the workers to be evicted and the pool to be full", || async {
        let is_full = server.sandbox_metric("workers{state=\"ready\"}").await == POOL as u64;
        (is_full && server.children().len() == POOL + 1).then_some(())
    })
    .await;
    // A worker has one from its boot to its end.
    wait_for("their directories to be removed", || async {
        (directories(server) == POOL).then_some(())
    })
    .await;
}

/// Processes with more than one thread: workers, not what they are forked from.
fn workers(server: &TestServer) -> Vec<u32> {
    let threads = |pid: &u32| entries(format!("/proc/{pid}/task"));
    server.children().into_iter().filter(|pid| threads(pid) > 1).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_may_be_killed_at_any_time() {
    let pool = POOL.to_string();
    let settings = [("CLOUDSERVE_IDLE_EVICT_MS", "1000"), ("CLOUDSERVE_POOL_SIZE", pool.as_str())];
    let server = TestServer::start_with(&settings).await;
    let mut loads = Vec::new();
    for name in ["one", "two", "three"] {
        let owner = server.register().await;
        let limits = json!({ "timeoutMs": 20_000, "concurrency": 2 });
        let function = owner.deploy(&deploy(name, "f.mjs", CODE).with("limits", limits)).await;
        loads.push(Load { owner, function, name: name.to_owned() });
    }
    // Once without a kill: connections and caches are there afterwards.
    let run = |is_over| {
        let callers = loads.iter().flat_map(|load| (0..CALLERS_OF_EACH).map(move |_| load));
        join_all(callers.map(move |load| call_until(load, is_over)))
    };
    let is_over = AtomicBool::new(false);
    let stop = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        is_over.store(true, Ordering::Relaxed);
    };
    let (ended, ()) = futures::join!(run(&is_over), stop);
    assert!(ended.iter().all(|ended| ended.crashed.is_empty() && ended.fine > 0));
    rest(&server).await;
    let before = descriptors(&server);

    let is_over = AtomicBool::new(false);
    let kill = async {
        let mut killed = HashSet::new();
        while killed.len() < KILLS {
            let workers = workers(&server);
            // Which one is as good as random: they come and go.
            let at = killed.len().wrapping_mul(7) % workers.len().max(1);
            if let Some(pid) = workers.get(at).filter(|pid| !killed.contains(*pid)) {
                signal(*pid, libc::SIGKILL);
                killed.insert(*pid);
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        is_over.store(true, Ordering::Relaxed);
        killed.len()
    };
    let (ended, n_killed) = futures::join!(run(&is_over), kill);
    let n_crashed: usize = ended.iter().map(|ended| ended.crashed.len()).sum();
    let n_fine: usize = ended.iter().map(|ended| ended.fine).sum();
    assert!((1..=n_killed).contains(&n_crashed), "{n_crashed} calls in {n_killed} processes");
    assert!(n_fine > n_crashed, "{n_fine} went well, {n_crashed} did not");
    // Booting workers are among those that were killed.
    let deaths = || async {
        let mut n = 0;
        for cause in ["crashed", "start_failed"] {
            n += server.sandbox_metric(&format!("worker_deaths_total{{cause=\"{cause}\"}}")).await;
        }
        n
    };
    wait_for("all deaths to be counted", || async {
        (deaths().await >= n_killed as u64).then_some(())
    })
    .await;
    assert_eq!(deaths().await, n_killed as u64, "nobody else died");

    // Each call that failed is in the books once, as what it was.
    for (load, ended) in loads.iter().zip(ended.chunks(CALLERS_OF_EACH)) {
        for execution in ended.iter().flat_map(|ended| &ended.crashed) {
            let usage = load.owner.usage_of(&load.function.id, execution).await;
            assert_eq!((usage.len(), &usage[0]["code"]), (1, &json!("crashed")));
        }
        assert_eq!(load.owner.call(&format!("{}?n=1", load.name)).await.expect(200).text(), "1");
    }
    rest(&server).await;
    let after = descriptors(&server);
    // Connections of this test come and go.
    assert!(after <= before + 12, "descriptors: {before} then {after}");
}
