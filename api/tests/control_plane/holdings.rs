//! What one account may have.

use std::collections::BTreeSet;
use std::path::Path;

use cloudserve_api::ApiOptions;
use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::Plane;

fn function(name: &str, code: &str) -> Value {
    json!({ "name": name, "filename": "f.mjs", "code": code })
}

/// Functions of which something is stored.
fn n_stored(data: &Path) -> usize {
    std::fs::read_dir(data.join("data/objects")).unwrap().count()
}

#[tokio::test]
async fn an_account_has_a_bounded_number_of_functions() {
    let plane = Plane::start_with(|options| options.limits.functions_per_user = 2);
    let (ada, bob) = (plane.register("ada").await, plane.register("bob").await);
    plane.deploy(&ada, &function("a", "export default 1")).await;
    let second = plane.deploy(&ada, &function("b", "export default 1")).await;
    let before = n_stored(plane.data.path());
    let third = function("c", "export default 1");
    let refused = plane.call(&ada, "POST", "/api/function/deploy", &third).await.expect(409);
    assert_eq!(refused.code(), "limit_exceeded");
    let told = refused.body["message"].as_str().unwrap();
    assert!(
        told.contains("2 functions (`functions_per_user`)") && told.contains("delete"),
        "{told}"
    );
    assert_eq!(n_stored(plane.data.path()), before, "what is refused takes no room");
    let quota = plane.get(&ada, "/api/account/quota").await.expect(200).body;
    assert_eq!(
        (&quota["functions"]["used"], &quota["functions"]["limit"]),
        (&json!(2.0), &json!(2.0))
    );

    // Those that are there are deployed as before, and others have a number of their own.
    let again = plane.deploy(&ada, &function("a", "export default 2")).await;
    assert_eq!(again["version"], 2);
    plane.deploy(&bob, &third).await;
    let path = format!("/api/function/{}", second["id"].as_str().unwrap());
    plane.call(&ada, "DELETE", &path, &Value::Null).await.expect(204);
    plane.deploy(&ada, &third).await;
}

#[tokio::test]
async fn zero_sets_no_bound() {
    let plane = Plane::start_with(|options| {
        options.limits.functions_per_user = 0;
        options.limits.stored_bytes_per_user = 0;
    });
    let ada = plane.register("ada").await;
    plane.deploy(&ada, &function("a", "export default 1")).await;
    let quota = plane.get(&ada, "/api/account/quota").await.expect(200).body;
    for name in ["functions", "storedBytes"] {
        assert_eq!(quota[name]["limit"], Value::Null, "{name}");
        assert!(quota[name]["used"].as_f64().unwrap() > 0.0, "{name}");
    }
}

#[tokio::test]
async fn who_makes_the_last_function_several_times_at_once_makes_versions_of_it() {
    let plane = Plane::start_with(|options| options.limits.functions_per_user = 1);
    let ada = plane.register("ada").await;
    let bodies = [1, 2, 3, 4, 5].map(|n| function("f", &format!("export default {n}")));
    let views = join_all(bodies.iter().map(|body| plane.deploy(&ada, body))).await;
    let versions: BTreeSet<_> = views.iter().map(|view| view["version"].as_u64()).collect();
    assert_eq!(versions, (1..=5).map(Some).collect::<BTreeSet<_>>());
}

#[tokio::test]
async fn what_versions_take_of_storage_is_bounded_for_an_account() {
    const MAX_BYTES: u64 = 200_000;
    let plane = Plane::start_with(|options| options.limits.stored_bytes_per_user = MAX_BYTES);
    let (ada, bob) = (plane.register("ada").await, plane.register("bob").await);
    let used = async || {
        let quota = plane.get(&ada, "/api/account/quota").await.expect(200).body;
        assert_eq!(quota["storedBytes"]["limit"].as_f64(), Some(200_000.0));
        quota["storedBytes"]["used"].as_f64().unwrap()
    };
    let code = |n: usize| format!("export default '{}'", n.to_string().repeat(20_000));
    let path = "/api/function/deploy?wait=true";
    let first = plane.deploy(&ada, &function("f", &code(0))).await;
    // Its source and its bundle at least.
    let of_one = used().await;
    assert!((40_000.0..100_000.0).contains(&of_one), "{of_one}");
    let mut refused = None;
    for n in 1..10 {
        let answer = plane.call(&ada, "POST", path, &function("f", &code(n))).await;
        if answer.status != 200 {
            refused = Some(answer.expect(409));
            break;
        }
    }
    let refused = refused.expect("it is bounded");
    assert_eq!(refused.code(), "limit_exceeded");
    let told = refused.body["message"].as_str().unwrap();
    assert!(told.contains("200000 bytes (`stored_bytes_per_user`)"), "{told}");
    assert!(told.contains("delete functions"), "{told}");
    // What is built is not known before.
    assert!((150_000.0..300_000.0).contains(&used().await));

    let path = format!("/api/function/{}", first["id"].as_str().unwrap());
    for (method, path, body) in [
        ("POST", format!("{path}/redeploy"), Value::Null),
        ("PUT", path.clone(), json!({ "code": code(1) })),
    ] {
        let refused = plane.call(&ada, method, &path, &body).await.expect(409);
        assert_eq!(refused.code(), "limit_exceeded", "{method} {path}");
    }
    plane.call(&ada, "PUT", &path, &json!({ "visibility": "public" })).await.expect(200);
    // A secret that is known can be replaced all the same.
    let (env, set) = (format!("{path}/env"), json!({ "set": { "A": "1" } }));
    plane.call(&ada, "PATCH", &env, &set).await.expect(200);
    plane.deploy(&bob, &function("f", &code(1))).await;
    plane.call(&ada, "DELETE", &path, &Value::Null).await.expect(204);
    assert!(used().await < 1.0);
    plane.deploy(&ada, &function("f", &code(1))).await;
}

#[tokio::test]
async fn who_has_added_enough_packages_on_a_day_gets_those_that_are_there() {
    let set = |options: &mut ApiOptions| options.limits.dependency_bytes_per_user_per_day = 1;
    let plane = Plane::start_with(set);
    plane.provide_tree(&[], &[("left-pad/package.json", "{}")]).await;
    let (ada, bob) = (plane.register("ada").await, plane.register("bob").await);
    let mut body = function("f", "export default 1");
    body["dependencies"] = json!({ "left-pad": "^1" });
    for owner in [&ada, &ada, &bob] {
        plane.deploy(owner, &body).await;
    }
    let spent: Vec<_> = plane.sandbox.specs.lock().iter().map(|spec| spec.spent_bytes).collect();
    assert_eq!(spent, [None, Some(1), None]);
}
