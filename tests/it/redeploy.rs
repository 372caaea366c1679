//! A function that is deployed again answers all the time, from the old version or the new.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use futures::future::join_all;
use serde_json::json;

use crate::support::{Account, Deploy, deploy, server};

const CALLS: usize = 2_000;
const CALLERS: usize = 8;
const REDEPLOYS: u32 = 5;

fn version(number: u32) -> Deploy {
    deploy("f", "f.mjs", &format!("export default () => ({{ version: {number} }})"))
        .with("limits", json!({ "timeoutMs": 20_000, "concurrency": 20 }))
}

async fn seen(owner: &Account) -> u64 {
    owner.call("f").await.expect(200).json()["version"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_under_redeploys_all_succeed_and_never_go_back() {
    let owner = server().await.register().await;
    owner.deploy(&version(1)).await;

    let deployed = AtomicBool::new(false);
    let calls = AtomicU32::new(0);
    // Callers go on until both are done: the calls and the redeploys.
    let callers = (0..CALLERS).map(|_| async {
        let mut last = 0;
        while calls.fetch_add(1, Ordering::Relaxed) < u32::try_from(CALLS).unwrap()
            || !deployed.load(Ordering::Relaxed)
        {
            let now = seen(&owner).await;
            assert!(now >= last, "version {now} after {last}");
            last = now;
        }
    });
    let redeploys = async {
        for number in 2..=REDEPLOYS + 1 {
            owner.deploy(&version(number)).await;
        }
        deployed.store(true, Ordering::Relaxed);
    };
    futures::join!(join_all(callers), redeploys);
    assert_eq!(seen(&owner).await, u64::from(REDEPLOYS) + 1);
}

#[tokio::test]
async fn of_two_deploys_at_once_one_wins() {
    let owner = server().await.register().await;
    for round in 0..3 {
        let contenders = [round * 2, round * 2 + 1];
        let answers = join_all(contenders.map(|number| {
            let (owner, deploy) = (owner.clone(), version(number));
            async move { owner.try_deploy(&deploy).await }
        }))
        .await;
        // Each is accepted, or refused because the other one came first.
        for answer in &answers {
            assert!(matches!(answer.status, 200 | 202 | 409), "{}", answer.text());
        }
        assert!(answers.iter().any(|answer| answer.status == 200));

        let (newest, its_number) = answers
            .iter()
            .zip(contenders)
            .filter(|(answer, _)| answer.status == 200)
            .map(|(answer, number)| (answer.json(), number))
            .max_by_key(|(view, _)| view["version"].as_u64())
            .unwrap();
        let view = crate::support::wait_for("the deploys to end", || async {
            let view = owner.view(newest["id"].as_str().unwrap()).await;
            (view["status"] == "active" && view["activeVersion"] == view["version"]).then_some(view)
        })
        .await;
        assert_eq!(view["version"], newest["version"], "{view:#}");
        assert_eq!(seen(&owner).await, u64::from(its_number));
    }
}

#[tokio::test]
async fn a_failed_deploy_changes_nothing_that_is_served() {
    let owner = server().await.register().await;
    let first = owner.deploy(&version(1)).await;
    let bad = [
        ("bundle_error", deploy("f", "f.mjs", "export default () => {")),
        ("startup_error", deploy("f", "f.mjs", "throw new Error('at load')")),
        ("startup_error", deploy("f", "f.mjs", "export const nothing = 1;")),
    ];
    for (code, deploy) in bad {
        let error = owner.deploy_failing(&deploy).await;
        assert_eq!(error["code"], code, "{error:#}");
        assert_eq!(seen(&owner).await, 1);
        let view = owner.view(&first.id).await;
        assert_eq!((&view["status"], &view["activeVersion"]), (&json!("failed"), &json!(1)));
    }
    owner.deploy(&version(2)).await;
    assert_eq!(seen(&owner).await, 2);
}

#[tokio::test]
async fn a_redeploy_builds_the_same_source_again() {
    let owner = server().await.register().await;
    let first = owner.deploy(&version(7)).await;
    for path in ["/api/function/redeploy/ID", "/api/functions/ID/redeploy"] {
        let path = format!("{}?wait=true", path.replace("ID", &first.id));
        let answer = owner.post(&path, &json!({})).await;
        assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
        let again = crate::support::wait_for("the redeploy", || async {
            let view = owner.view(&first.id).await;
            (view["status"] == "active").then_some(view)
        })
        .await;
        assert_eq!(again["bundleHash"], first.view["bundleHash"]);
        assert_eq!(seen(&owner).await, 7);
    }
    assert_eq!(owner.view(&first.id).await["version"], 3);
}

#[tokio::test]
async fn an_unbuilt_function_is_not_active_yet() {
    let owner = server().await.register().await;
    let error = owner.deploy_failing(&deploy("f", "f.mjs", "export default () => {")).await;
    assert_eq!(error["code"], "bundle_error");
    let answer = owner.call("f").await.expect(503);
    assert_eq!(answer.code(), "not_active");
    assert!(!answer.header("retry-after").is_empty());
}
