//! What accounts may use, counted from usage.

use std::sync::Arc;
use std::time::Duration;

use cloudserve_gateway::GatewayOptions;
use cloudserve_store::account::Quota;
use cloudserve_store::function::Visibility;
use cloudserve_store::telemetry::UsageQuery;

use crate::fixture::{Answer, World};

fn calls_per_day(calls: u64) -> Quota {
    Quota { calls_per_day: Some(calls), ..Quota::default() }
}

async fn admitted(world: &World, calls: usize) -> usize {
    let mut admitted = 0;
    for _ in 0..calls {
        let answer = world.get("/run/alice/version", &world.alice).await;
        match answer.status.as_u16() {
            200 => admitted += 1,
            _ => assert_eq!(answer.fault(), (429, "quota_exceeded".to_owned())),
        }
    }
    admitted
}

fn seconds(answer: &Answer, header: &str) -> u64 {
    answer.header(header).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn exactly_the_calls_of_a_day_are_admitted() {
    let w = Arc::new(World::new().await);
    w.deploy(&w.alice, "version", Visibility::Public).await;
    w.deploy(&w.bob, "version", Visibility::Public).await;
    w.stores.accounts.set_quota(w.alice.id, calls_per_day(40)).await.unwrap();
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let w = w.clone();
            tokio::spawn(async move { admitted(&w, 20).await })
        })
        .collect();
    let mut sum = 0;
    for caller in callers {
        sum += caller.await.unwrap();
    }
    assert_eq!(sum, 40);

    let refused = w.get("/run/alice/version", &w.alice).await;
    assert_eq!(refused.fault(), (429, "quota_exceeded".to_owned()));
    assert_eq!(
        (refused.header("ratelimit-limit"), refused.header("ratelimit-remaining")),
        ("40", "0")
    );
    let reset = seconds(&refused, "ratelimit-reset");
    assert!((1..=86_400).contains(&reset) && seconds(&refused, "retry-after") == reset);
    assert_eq!(refused.json()["error"]["executionId"], refused.header("x-cloudserve-execution-id"));
    // It is the owner's quota, whoever calls; and only hers.
    assert_eq!(w.get("/run/alice/version", &w.bob).await.status, 429);
    assert_eq!(w.get("/run/bob/version", &w.alice).await.status, 200);
    // What was refused used nothing: a larger quota is there in full.
    w.stores.accounts.set_quota(w.alice.id, calls_per_day(43)).await.unwrap();
    assert_eq!(admitted(&w, 9).await, 3);
    w.stores.accounts.set_quota(w.alice.id, Quota::default()).await.unwrap();
    assert_eq!(admitted(&w, 9).await, 9);
    w.gateway.drain().await;
    assert_eq!(w.usage(&w.alice, 52).await.len(), 52);
}

#[tokio::test]
async fn counts_survive_a_restart_and_are_shared_by_gateways() {
    let options = GatewayOptions { quota_refresh_ms: 0, ..GatewayOptions::default() };
    let w = World::with(options.clone(), |stores| stores).await;
    w.deploy(&w.alice, "version", Visibility::Public).await;
    w.stores.accounts.set_quota(w.alice.id, calls_per_day(10)).await.unwrap();
    assert_eq!(admitted(&w, 4).await, 4);
    w.usage(&w.alice, 4).await;

    let second = w.another(options);
    assert_eq!(admitted(&second, 3).await, 3);
    second.usage(&w.alice, 7).await;
    // The first learns of the others' rows with its next batch: one call is that batch. Bound of
    // this case: what reaches the first until then.
    assert_eq!(admitted(&w, 1).await, 1);
    w.usage(&w.alice, 8).await;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let query = UsageQuery { user_id: w.alice.id, function_id: None, from: None, to: None };
        if w.stores.telemetry.usage_totals(query).await.unwrap().executed == 8 {
            break;
        }
    }
    w.gateway.drain().await;
    // A third begins with all of it.
    let third = w.another(GatewayOptions::default());
    assert_eq!(admitted(&third, 5).await, 2);
}

#[tokio::test]
async fn memory_time_of_a_month_is_bounded() {
    let w = World::new().await;
    w.deploy(&w.alice, "version", Visibility::Public).await;
    let quota = Quota { gb_seconds_per_month: Some(1e-6), ..Quota::default() };
    w.stores.accounts.set_quota(w.alice.id, quota).await.unwrap();
    let answers = admitted(&w, 2_000).await;
    // Each call takes 2 MB for some microseconds.
    assert!((1..2_000).contains(&answers), "{answers}");
    let refused = w.get("/run/alice/version", &w.alice).await;
    assert_eq!(refused.header("ratelimit-limit"), "0.000001");
    assert!(seconds(&refused, "retry-after") <= 31 * 86_400);
}

#[tokio::test]
async fn an_account_may_have_a_rate_of_its_own() {
    let options = GatewayOptions { rate_per_second: 2, ..GatewayOptions::default() };
    let w = World::with(options, |stores| stores).await;
    w.deploy(&w.alice, "version", Visibility::Public).await;
    let quota = |rate| Quota { rate_per_second: Some(rate), ..Quota::default() };
    w.stores.accounts.set_quota(w.alice.id, quota(5)).await.unwrap();
    w.stores.accounts.set_quota(w.bob.id, quota(0)).await.unwrap();
    let call = || w.get("/run/alice/version", &w.alice);
    let mut answers = Vec::new();
    for _ in 0..8 {
        answers.push(call().await);
    }
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
    assert!((1..=3).contains(&refused.len()), "{}", refused.len());
    assert_eq!(refused[0].header("ratelimit-limit"), "5");
    for _ in 0..20 {
        assert_eq!(w.get("/run/alice/version", &w.bob).await.status, 200);
    }
    // Refusals leave no row.
    w.gateway.drain().await;
    let n_admitted = 28 - refused.len();
    assert_eq!(w.usage(&w.alice, n_admitted).await.len(), n_admitted);
}
