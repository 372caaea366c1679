//! What one account must not do to another, nor a key to functions it is not for: every route with every
//! id.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Account, deploy, send, server};

/// Every route that takes an id of something somebody owns. `FUNCTION`, `KEY` and `EXECUTION` stand
/// for the victim's.
pub(crate) const ROUTES: &[(&str, &str)] = &[
    ("GET", "/api/function/FUNCTION"),
    ("GET", "/api/functions/FUNCTION"),
    ("PUT", "/api/function/FUNCTION"),
    ("DELETE", "/api/function/FUNCTION"),
    ("POST", "/api/function/redeploy/FUNCTION"),
    ("POST", "/api/function/FUNCTION/redeploy"),
    ("GET", "/api/function/FUNCTION/versions"),
    ("GET", "/api/functions/FUNCTION/versions"),
    ("POST", "/api/function/FUNCTION/rollback"),
    ("GET", "/api/function/FUNCTION/env"),
    ("PATCH", "/api/function/FUNCTION/env"),
    ("GET", "/api/function/FUNCTION/versions/1"),
    ("GET", "/api/function/FUNCTION/versions/1/deploy"),
    ("POST", "/api/function/FUNCTION/invoke"),
    ("GET", "/api/logs/FUNCTION"),
    ("GET", "/api/logs/FUNCTION?executionId=EXECUTION"),
    ("GET", "/api/logs/FUNCTION?follow=true"),
    ("GET", "/api/logs/FUNCTION?format=ndjson"),
    ("GET", "/api/usage?functionId=FUNCTION"),
    ("GET", "/api/usage?functionId=FUNCTION&groupBy=none"),
    ("GET", "/api/usage?functionId=FUNCTION&groupBy=function"),
    ("GET", "/api/usage/latency?functionId=FUNCTION"),
    ("GET", "/api/usage/series?functionId=FUNCTION&from=2020-01-01&to=2100-01-01"),
    ("DELETE", "/api/apikeys/KEY"),
];

const CODE: &str = "export default () => { console.log('mine'); return 'mine'; }";

struct Victim {
    account: Account,
    function: String,
    key_id: String,
    key: String,
    /// With every scope, for another function of the account.
    limited_key: String,
    execution: String,
}

async fn victim() -> Victim {
    let account = server().await.register().await;
    let function = account.deploy(&deploy("vault", "vault.mjs", CODE)).await.id;
    account.deploy(&deploy("other", "other.mjs", "export default () => 'other'")).await;
    let created = account.post("/api/apikeys", &json!({ "name": "k" })).await.expect(201).json();
    let limited = json!({ "name": "limited", "functions": ["other"] });
    let limited = account.post("/api/apikeys", &limited).await.expect(201).json();
    let answer = account.call("vault").await.expect(200);
    account.logs_of(&function, answer.execution()).await;
    Victim {
        function,
        key_id: created["id"].as_str().unwrap().to_owned(),
        key: created["key"].as_str().unwrap().to_owned(),
        limited_key: limited["key"].as_str().unwrap().to_owned(),
        execution: answer.execution().to_owned(),
        account,
    }
}

#[tokio::test]
async fn another_account_finds_nothing_and_changes_nothing() {
    let victim = victim().await;
    let intruder = server().await.register().await;
    let with_key = intruder.showing(&intruder.key(&["invoke", "deploy", "read"]).await);
    let limited = victim.account.showing(&victim.limited_key);
    let before = victim.account.view(&victim.function).await;

    for (method, route) in ROUTES {
        let path = route
            .replace("FUNCTION", &victim.function)
            .replace("KEY", &victim.key_id)
            .replace("EXECUTION", &victim.execution);
        for account in [&intruder, &with_key, &limited] {
            let mut request = account.api(method.parse().unwrap(), &path);
            if matches!(*method, "PUT" | "POST" | "PATCH") {
                request = request.json(&match route {
                    route if route.ends_with("/rollback") => json!({ "version": 1 }),
                    route if route.ends_with("/env") => json!({ "set": { "A": "theirs" } }),
                    _ => json!({ "code": "export default () => 'theirs'" }),
                });
            }
            let answer = send(request).await;
            // A key may not manage keys at all, its owner's or others'.
            let refused = answer.status == 404 || (route.contains("KEY") && answer.status == 403);
            assert!(refused, "{method} {route}: {} {}", answer.status, answer.text());
            assert!(!answer.text().contains("mine"), "{}", answer.text());
        }
        // Nobody at all.
        let answer = send(intruder.showing("").api(method.parse().unwrap(), &path)).await;
        assert_eq!(answer.status, 401, "{method} {route}: {}", answer.text());
    }

    for list in [
        "/api/function",
        "/api/apikeys",
        "/api/account/audit",
        "/api/usage?groupBy=none",
        "/api/usage?groupBy=function",
    ] {
        let text = intruder.get(list).await.expect(200).text();
        for secret in [&victim.function, &victim.key_id, &victim.execution] {
            assert!(!text.contains(secret.as_str()), "{list}: {text}");
        }
    }
    let list = limited.get("/api/function").await.expect(200).text();
    assert!(list.contains("\"other\"") && !list.contains(&victim.function), "{list}");
    assert_eq!(limited.call("vault").await.expect(403).code(), "forbidden");
    assert_eq!(limited.call("other").await.expect(200).text(), "other");
    assert_eq!(victim.account.call("vault").await.expect(200).text(), "mine");
    let after = victim.account.view(&victim.function).await;
    for field in ["version", "status", "updatedAt", "bundleHash"] {
        assert_eq!(before[field], after[field], "{field}");
    }
    let keys = victim.account.get("/api/apikeys").await.expect(200);
    assert!(keys.text().contains(&victim.key_id));
    assert!(!keys.text().contains(&victim.key), "a key is shown once");
}

#[tokio::test]
async fn a_private_name_of_another_account_is_forbidden_whether_it_exists_or_not() {
    let victim = victim().await;
    let intruder = server().await.register().await;
    let name = &victim.account.user_name;
    let mut bodies = Vec::new();
    for path in ["vault", "no-such-function", "vault/deeper?x=1"] {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let answer = send(intruder.run_of(name, method.clone(), path)).await.expect(403);
            assert_eq!(answer.code(), "forbidden");
            let mut body = answer.json();
            body["error"].as_object_mut().unwrap().remove("executionId");
            bodies.push(body);

            let nobody = intruder.showing("");
            assert_eq!(send(nobody.run_of(name, method, path)).await.status, 401, "{path}");
        }
    }
    assert!(bodies.iter().all(|body: &Value| body == &bodies[0]), "{bodies:#?}");

    let nobody_there = send(intruder.run_of("no-such-user-anywhere", Method::GET, "f")).await;
    assert_eq!((nobody_there.status, nobody_there.code().as_str()), (403, "forbidden"));
    assert_eq!(intruder.call("vault").await.expect(404).code(), "function_not_found");
}

#[tokio::test]
async fn functions_of_two_owners_never_share_a_process() {
    let server = server().await;
    let code = "export default () => process.pid";
    let mut seen = Vec::new();
    for _ in 0..2 {
        let owner = server.register().await;
        for name in ["a", "b"] {
            owner.deploy(&deploy(name, "pid.mjs", code)).await;
            seen.push(owner.call(name).await.expect(200).text());
        }
    }
    let distinct: std::collections::BTreeSet<_> = seen.iter().collect();
    assert_eq!(distinct.len(), seen.len(), "{seen:?}");
}
