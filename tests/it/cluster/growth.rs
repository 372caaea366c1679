//! How calls per second grow with sandboxes. Run by hand, on a quiet machine:
//! `cargo test --release --workspace --test it -- --ignored --nocapture growth`.
//!
//! Sandboxes of one machine share its processors, so what each can do is bounded otherwise: a
//! function that waits, with room for so many calls in each sandbox.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;

use super::Cluster;
use crate::servers;
use crate::support::{Account, deploy};

const CODE: &str = "
    export default async () => {
        await new Promise((done) => setTimeout(done, 50));
        return 'done';
    };
";
/// Calls of the function that one sandbox takes at a time.
const ROOM: usize = 16;
const TIME: Duration = Duration::from_secs(8);

#[ignore = "a measurement, run by hand"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn growth() {
    let (mongod, s3) = tokio::join!(servers::mongod(), servers::s3());
    let mut first = 0.0;
    for sandboxes in 1..=3 {
        let first_host = 20 + 10 * sandboxes;
        let urls: Vec<_> = (0..sandboxes)
            .map(|n| format!("http://{}", Cluster::sandbox_address(first_host, n)))
            .collect();
        let cluster = Cluster::start_at(first_host, &mongod.address, &s3.address, &urls).await;
        let owner = Account::register(&cluster.apis[0].url, &cluster.gateways[0].url).await;
        let limits = json!({ "concurrency": ROOM, "timeoutMs": 20_000 });
        owner.deploy(&deploy("waits", "waits.mjs", CODE).with("limits", limits)).await;

        let is_over = AtomicBool::new(false);
        let (done, refused) = (AtomicU64::new(0), AtomicU64::new(0));
        let call = |n: usize| {
            let caller = cluster.by(&owner, 0, n % 2);
            let (is_over, done, refused) = (&is_over, &done, &refused);
            async move {
                while !is_over.load(Relaxed) {
                    let status = caller.call("waits").await.status;
                    let count = if status == 200 { done } else { refused };
                    count.fetch_add(1, Relaxed);
                }
            }
        };
        let measure = async {
            // Until every sandbox has its workers.
            tokio::time::sleep(Duration::from_secs(3)).await;
            let (begun, before) = (Instant::now(), done.load(Relaxed));
            tokio::time::sleep(TIME).await;
            let calls = done.load(Relaxed) - before;
            is_over.store(true, Relaxed);
            #[expect(clippy::cast_precision_loss, reason = "a figure to read")]
            let calls = calls as f64;
            calls / begun.elapsed().as_secs_f64()
        };
        let (per_second, _) = futures::join!(measure, join_all((0..sandboxes * ROOM).map(call)));
        if sandboxes == 1 {
            first = per_second;
        }
        eprintln!(
            "growth: {sandboxes} sandboxes with room for {ROOM} calls each: {per_second:.0} calls/s, \
             {:.2} times one; {} refused",
            per_second / first,
            refused.load(Relaxed)
        );
    }
}
