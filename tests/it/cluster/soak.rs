//! One fault after the other, at random, under calls and deploys. A client records everything, and
//! at the end nothing that was acknowledged is missing. Takes minutes:
//! `SOAK_S=120 cargo test --release --workspace --test it -- --ignored --nocapture soak`;
//! `SOAK_SEED` repeats one.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures::future::join_all;
use reqwest::Method;
use serde_json::Value;

use super::load::{CALLERS, Load, Tally};
use super::proxy::{Passage, Proxy};
use super::{Cluster, version};
use crate::servers::{self, Server};
use crate::support::{Account, deploy, signal, try_send, wait_for};

/// How long a fault lasts that lasts.
const LASTS: Duration = Duration::from_secs(2);

/// How long mongod says nothing.
const FROZEN: Duration = Duration::from_secs(10);

/// Not those of the other tests.
const FIRST_HOST: usize = 20;

/// Enough for each sandbox to have some.
const FUNCTIONS: &[&str] = &["echo-a", "echo-b", "echo-c", "echo-d", "echo-e", "echo-f"];

/// Answers in a row that say that a fault is over.
const CALM: u64 = 30;

/// Beyond a deadline: for the database's time-out before a call begins, and for the clock.
const GRACE: Duration = Duration::from_secs(12);

/// How a call may fail meanwhile. Whatever else happens is a defect.
const STATED: [&str; 6] = [
    "500 crashed",
    "503 sandbox_unavailable",
    "503 unavailable",
    "504 timeout",
    "429 concurrency_limit",
    "no gateway is ready",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    SandboxKilled,
    SandboxEnded,
    SandboxCutOff,
    ApiKilled,
    ApiEnded,
    GatewayEnded,
    S3Fails,
    S3Truncates,
    S3CutOff,
    S3Killed,
    MongodFrozen,
    MongodKilled,
}

const FAULTS: [Fault; 12] = [
    Fault::SandboxKilled,
    Fault::SandboxEnded,
    Fault::SandboxCutOff,
    Fault::ApiKilled,
    Fault::ApiEnded,
    Fault::GatewayEnded,
    Fault::S3Fails,
    Fault::S3Truncates,
    Fault::S3CutOff,
    Fault::S3Killed,
    Fault::MongodFrozen,
    Fault::MongodKilled,
];

/// Where everything is kept.
struct Stores {
    mongod: Server,
    objects: Server,
    /// The way to the objects.
    s3: Proxy,
}

/// What one kind of fault did.
#[derive(Debug, Default)]
struct Damage {
    times: u32,
    failed: usize,
    longest_recovery: Duration,
}

struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        // xorshift64: no need for more.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(bound).unwrap()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a soak, run by hand"]
async fn soak() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seconds = number("SOAK_S").unwrap_or(120);
    let seed = number("SOAK_SEED").unwrap_or_else(|| u64::from(std::process::id()) + 1);
    eprintln!("cluster: a soak of {seconds} s with SOAK_SEED={seed}");
    let mut chance = Chance(seed.max(1) * 0x9e37_79b9);

    let (mongod, objects) = tokio::join!(servers::start_mongod(), servers::start_s3());
    let s3 = Proxy::start(&objects.address).await;
    let mut stores = Stores { mongod, objects, s3 };
    let mut ways = Vec::new();
    for n in 0..3 {
        ways.push(Proxy::start(&Cluster::sandbox_address(FIRST_HOST, n)).await);
    }
    let urls: Vec<_> = ways.iter().map(|way| format!("http://{}", way.address)).collect();
    let mut cluster =
        Cluster::start_at(FIRST_HOST, &stores.mongod.address, &stores.s3.address, &urls).await;
    let owner = Account::register(&cluster.apis[0].url, &cluster.gateways[0].url).await;
    let mut functions = Vec::new();
    for name in FUNCTIONS {
        functions.push(owner.deploy(&version(name, 1)).await.id);
    }
    let key = owner.key(&["invoke", "read"]).await;
    let gateways: Vec<_> = cluster.gateways.iter().map(|gateway| gateway.url.clone()).collect();
    let load = Load::start(&gateways, &owner.showing(&key), FUNCTIONS);
    let is_over = Arc::new(AtomicBool::new(false));
    let deployers = (0..2).map(|n| cluster.by(&owner, n, n)).collect();
    let deploys = tokio::spawn(deploy_on(deployers, is_over.clone()));
    load.wait_for_answers(100).await;

    let mut damages = BTreeMap::<Fault, Damage>::new();
    let end = Instant::now() + Duration::from_secs(seconds);
    // Each once before any twice.
    let mut left = Vec::new();
    while Instant::now() < end {
        if left.is_empty() {
            left = FAULTS.to_vec();
        }
        let fault = left.swap_remove(chance.below(left.len()));
        let before = load.tally();
        let begun = Instant::now();
        inflict(fault, &mut chance, &mut cluster, &ways, &mut stores).await;
        calm(&load).await;
        let took = begun.elapsed();
        let failed = load.tally().since(&before).failures.len();
        eprintln!("cluster: {fault:?}: {failed} calls failed, calm after {took:.1?}");
        let damage = damages.entry(fault).or_default();
        damage.times += 1;
        damage.failed += failed;
        damage.longest_recovery = damage.longest_recovery.max(took);
    }
    is_over.store(true, Relaxed);
    let deploys = deploys.await.unwrap();
    let tally = load.stop().await;
    for (fault, damage) in &damages {
        eprintln!("cluster: {fault:?}: {damage}");
    }
    eprintln!("cluster: {tally}; by cause: {:?}", causes(&tally));
    for cause in causes(&tally).keys() {
        assert!(STATED.contains(&&**cause), "{cause} is not how calls may fail: {tally:#?}");
    }
    let longest = Duration::from_secs(20) + GRACE;
    assert!(tally.slowest() <= longest, "{tally}");
    no_deploy_is_lost(&owner, &deploys).await;
    usage_adds_up(&owner, &functions, &tally).await;
    a_killed_gateway_takes_little_along(&mut cluster, &owner.showing(&key), &functions).await;
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { times, failed, longest_recovery } = self;
        write!(f, "{times} times, {failed} calls failed, calm again after {longest_recovery:.1?}")
    }
}

/// Does it, and undoes it.
async fn inflict(
    fault: Fault,
    chance: &mut Chance,
    cluster: &mut Cluster,
    ways: &[Proxy],
    stores: &mut Stores,
) {
    let sandbox = chance.below(cluster.sandboxes.len());
    let pair = chance.below(2);
    let process = match fault {
        Fault::SandboxKilled | Fault::SandboxEnded => Some(&mut cluster.sandboxes[sandbox]),
        Fault::ApiKilled | Fault::ApiEnded => Some(&mut cluster.apis[pair]),
        Fault::GatewayEnded => Some(&mut cluster.gateways[pair]),
        _ => None,
    };
    if let Some(process) = process {
        if matches!(fault, Fault::SandboxKilled | Fault::ApiKilled) {
            process.kill().await;
        } else {
            assert!(process.stop().await, "{}", process.output());
        }
        process.begin();
        process.wait_until_ready().await;
        return;
    }
    let (way, passage) = match fault {
        Fault::SandboxCutOff => (&ways[sandbox], Passage::Cut),
        Fault::S3Fails => (&stores.s3, Passage::Fails),
        Fault::S3Truncates => (&stores.s3, Passage::Truncates(400)),
        Fault::S3CutOff => (&stores.s3, Passage::Cut),
        Fault::S3Killed | Fault::MongodKilled => {
            let is_mongod = fault == Fault::MongodKilled;
            let server = if is_mongod { &mut stores.mongod } else { &mut stores.objects };
            server.kill();
            tokio::time::sleep(LASTS).await;
            server.begin();
            // Roles that are started over storage that is not there end at once, and say so.
            if is_mongod {
                servers::wait_until_primary(server).await;
            } else {
                servers::wait_until_stores(server).await;
            }
            return;
        }
        _ => {
            signal(stores.mongod.pid(), libc::SIGSTOP);
            tokio::time::sleep(FROZEN).await;
            signal(stores.mongod.pid(), libc::SIGCONT);
            return;
        }
    };
    way.set(passage);
    tokio::time::sleep(LASTS).await;
    way.set(Passage::Free);
}

/// Waits until calls are answered as they should be.
async fn calm(load: &Load) {
    wait_for("calls to be answered again", || async {
        let before = load.tally();
        load.wait_for_answers(CALM).await;
        load.tally().since(&before).failures.is_empty().then_some(())
    })
    .await;
}

/// Failed calls, by what was answered.
fn causes(tally: &Tally) -> BTreeMap<String, usize> {
    let mut causes = BTreeMap::new();
    for failure in &tally.failures {
        let said = failure.split_once(": ").map_or(&**failure, |(_, said)| said);
        let cause = match said.split_once(' ') {
            Some((status, body)) => match serde_json::from_str::<Value>(body) {
                Ok(body) => format!("{status} {}", body["error"]["code"].as_str().unwrap_or("?")),
                Err(_) => said.to_owned(),
            },
            None => said.to_owned(),
        };
        *causes.entry(cause).or_default() += 1;
    }
    causes
}

#[derive(Default)]
struct Deploys {
    /// Number and id.
    acknowledged: Vec<(usize, String)>,
    refused: usize,
}

async fn deploy_on(apis: Vec<Account>, is_over: Arc<AtomicBool>) -> Deploys {
    let mut deploys = Deploys::default();
    for n in 0.. {
        if is_over.load(Relaxed) {
            break;
        }
        let code = format!("export default () => {n}");
        let function = deploy(&format!("soak-{n}"), "f.mjs", &code);
        let request = apis[n % apis.len()].api(Method::POST, "/api/function/deploy");
        match try_send(request.json(&function.0).timeout(Duration::from_secs(60))).await {
            Ok(answer) if answer.status == 202 => {
                let id = answer.json()["id"].as_str().unwrap().to_owned();
                deploys.acknowledged.push((n, id));
            }
            _ => deploys.refused += 1,
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    deploys
}

/// Each is served, or has failed and says why; then a redeploy makes it served.
async fn no_deploy_is_lost(owner: &Account, deploys: &Deploys) {
    let mut failed = 0;
    for (n, id) in &deploys.acknowledged {
        let view = wait_for("an acknowledged deploy to end", || async {
            let view = owner.view(id).await;
            ["active", "failed"].iter().any(|end| view["status"] == *end).then_some(view)
        })
        .await;
        if view["status"] == "failed" {
            failed += 1;
            eprintln!("cluster: a deploy failed: {}", view["deployError"]);
            let again = format!("/api/function/redeploy/{id}?wait=true");
            let view = owner.post(&again, &serde_json::json!({})).await.json();
            assert_eq!(view["status"], "active", "{view:#}");
        }
        let answer = owner.call(&format!("soak-{n}")).await.expect(200);
        assert_eq!(answer.json(), serde_json::json!(n));
    }
    let (all, refused) = (deploys.acknowledged.len(), deploys.refused);
    eprintln!("cluster: {all} deploys acknowledged, {failed} of them failed; {refused} refused");
}

/// One row for each call that began, and the sums are those of the rows.
async fn usage_adds_up(owner: &Account, functions: &[String], tally: &Tally) {
    let causes = causes(tally);
    let count = |cause: &str| causes.get(cause).copied().unwrap_or_default() as u64;
    let failed = tally.failures.len() as u64 - count("no gateway is ready");
    // Others may have begun or not.
    let at_least = tally.answered - failed + count("500 crashed");
    let rows = wait_for("the usage rows", || async {
        let rows = rows_of(owner, functions).await;
        assert!(rows <= tally.answered, "{rows} rows of {} calls", tally.answered);
        (rows >= at_least).then_some(rows)
    })
    .await;
    wait_for("the functions' own sums", || async {
        let views = join_all(functions.iter().map(|id| owner.view(id))).await;
        let sum: u64 = views.iter().map(|view| view["stats"]["executed"].as_u64().unwrap()).sum();
        (sum == rows).then_some(())
    })
    .await;
    eprintln!("cluster: {rows} usage rows of {} answered calls", tally.answered);
}

async fn rows_of(owner: &Account, functions: &[String]) -> u64 {
    let rows = join_all(functions.iter().map(|id| async move {
        let usage = owner.get(&format!("/api/usage?functionId={id}")).await.expect(200).json();
        usage["totals"]["executed"].as_u64().unwrap()
    }));
    rows.await.iter().sum()
}

/// Callers of a gateway that is killed hear nothing more of it, and the rows of the last moment are
/// gone with it; no other call fails, and none has two rows.
async fn a_killed_gateway_takes_little_along(
    cluster: &mut Cluster,
    caller: &Account,
    functions: &[String],
) {
    let owner = cluster.by(caller, 1, 1);
    let before = rows_of(&owner, functions).await;
    let gateways: Vec<_> = cluster.gateways.iter().map(|gateway| gateway.url.clone()).collect();
    let load = Load::start(&gateways, caller, FUNCTIONS);
    load.wait_for_answers(200).await;
    cluster.gateways[0].kill().await;
    cluster.gateways[0].begin();
    cluster.gateways[0].wait_until_ready().await;
    load.wait_for_answers(200).await;
    let tally = load.stop().await;
    let of_the_other = tally.failures.iter().filter(|failure| !failure.contains(&gateways[0]));
    let of_the_other: Vec<_> = of_the_other.collect();
    assert!(of_the_other.is_empty(), "{of_the_other:#?}");
    let cut_off = tally.failures.len() as u64;
    // Rows wait for 50 ms to be stored together.
    let lost_at_most = 10 * u64::try_from(CALLERS).unwrap();
    let rows = wait_for("the rows of calls that were not lost", || async {
        let rows = rows_of(&owner, functions).await - before;
        assert!(rows <= tally.answered + cut_off, "{rows} rows: {tally}");
        (rows + lost_at_most >= tally.answered).then_some(rows)
    })
    .await;
    eprintln!("cluster: a gateway was killed: {tally}; {rows} usage rows");
}
