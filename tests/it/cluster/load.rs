//! Callers behind what balances load between gateways, and what became of each of their calls.

use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use reqwest::{Client, Method};
use tokio::task::JoinHandle;

use crate::support::{Account, wait_for};

/// Callers, each with one call at a time: some 200 calls a second.
pub(super) const CALLERS: usize = 9;

/// Pause of a caller between two calls: the machine has other things to do.
const PAUSE: Duration = Duration::from_millis(5);

/// Calls that go on until they are stopped.
pub(super) struct Load {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

struct Shared {
    account: Account,
    functions: &'static [&'static str],
    gateways: Vec<(String, AtomicBool)>,
    next: AtomicUsize,
    is_over: AtomicBool,
    answered: AtomicU64,
    slowest_ms: AtomicU64,
    failures: Mutex<Vec<String>>,
    begun: Instant,
}

/// What became of the calls so far.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    /// Calls that a gateway answered, whatever it said.
    pub(super) answered: u64,
    /// What is wrong with the answers that were not as they had to be, or did not come.
    pub(super) failures: Vec<String>,
    slowest_ms: u64,
    seconds: f64,
}

impl Tally {
    /// How long a call took at most.
    pub(super) fn slowest(&self) -> Duration {
        Duration::from_millis(self.slowest_ms)
    }

    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            answered: self.answered - before.answered,
            failures: self.failures[before.failures.len()..].to_vec(),
            slowest_ms: self.slowest_ms,
            seconds: self.seconds - before.seconds,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} calls answered in {:.1} s ({:.0} per second), {} failed, the slowest took {} ms",
            self.answered,
            self.seconds,
            f64::from(u32::try_from(self.answered).unwrap_or(u32::MAX)) / self.seconds,
            self.failures.len(),
            self.slowest_ms
        )
    }
}

impl Load {
    /// Each function in turn.
    pub(super) fn start(
        gateways: &[String],
        account: &Account,
        functions: &'static [&'static str],
    ) -> Self {
        let shared = Arc::new(Shared {
            account: account.clone(),
            functions,
            gateways: gateways.iter().map(|url| (url.clone(), AtomicBool::new(true))).collect(),
            next: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            slowest_ms: AtomicU64::new(0),
            failures: Mutex::default(),
            begun: Instant::now(),
        });
        let mut tasks = vec![tokio::spawn(balance(shared.clone()))];
        tasks.extend((0..CALLERS).map(|caller| tokio::spawn(go_on(shared.clone(), caller))));
        Self { shared, tasks }
    }

    pub(super) fn tally(&self) -> Tally {
        Tally {
            answered: self.shared.answered.load(Relaxed),
            failures: self.shared.failures.lock().unwrap().clone(),
            slowest_ms: self.shared.slowest_ms.load(Relaxed),
            seconds: self.shared.begun.elapsed().as_secs_f64(),
        }
    }

    /// Waits until so many more have been answered.
    pub(super) async fn wait_for_answers(&self, more: u64) {
        let until = self.shared.answered.load(Relaxed) + more;
        wait_for("answers under load", || async {
            (self.shared.answered.load(Relaxed) >= until).then_some(())
        })
        .await;
    }

    pub(super) async fn stop(self) -> Tally {
        self.shared.is_over.store(true, Relaxed);
        let tally = self.shared.clone();
        for task in self.tasks {
            task.await.unwrap();
        }
        Self { shared: tally, tasks: Vec::new() }.tally()
    }
}

/// Asks each gateway whether it is ready, as whatever balances load does.
async fn balance(shared: Arc<Shared>) {
    let client = Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
    while !shared.is_over.load(Relaxed) {
        for (url, is_ready) in &shared.gateways {
            let asked = client.get(format!("{url}/readyz")).timeout(Duration::from_secs(5));
            let ready = asked.send().await.is_ok_and(|answer| answer.status() == 200);
            is_ready.store(ready, Relaxed);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn go_on(shared: Arc<Shared>, caller: usize) {
    // What a gateway has once called it never goes back from; two may differ for a moment.
    let mut newest = vec![0; shared.gateways.len()];
    for n in 0_u64.. {
        if shared.is_over.load(Relaxed) {
            return;
        }
        let turn = shared.next.fetch_add(1, Relaxed);
        let ready: Vec<_> = (0..shared.gateways.len())
            .filter(|place| shared.gateways[*place].1.load(Relaxed))
            .collect();
        let Some(place) = ready.get(turn % ready.len().max(1)).copied() else {
            shared.fail("no gateway is ready".to_owned());
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let gateway = &shared.gateways[place].0;
        let number = n * 100 + u64::try_from(caller).unwrap();
        let begun = Instant::now();
        let function = shared.functions[turn % shared.functions.len()];
        let path = format!("{function}?n={number}");
        let call = shared.account.at("", gateway).run(Method::GET, &path);
        match crate::support::try_send(call).await {
            Ok(answer) => {
                shared.answered.fetch_add(1, Relaxed);
                let text = answer.text();
                let version = text
                    .strip_suffix(&format!(":{number}"))
                    .and_then(|version| version.strip_prefix('v')?.parse::<u32>().ok());
                match version.filter(|_| answer.status == 200) {
                    Some(version) if version >= newest[place] => newest[place] = version,
                    _ => {
                        shared
                            .fail(format!("call {number} at {gateway}: {} {text}", answer.status));
                    }
                }
            }
            Err(error) => shared.fail(format!("call {number} at {gateway}: {error:?}")),
        }
        let took = u64::try_from(begun.elapsed().as_millis()).unwrap();
        shared.slowest_ms.fetch_max(took, Relaxed);
        tokio::time::sleep(PAUSE).await;
    }
}

impl Shared {
    fn fail(&self, what: String) {
        self.failures.lock().unwrap().push(what);
    }
}
