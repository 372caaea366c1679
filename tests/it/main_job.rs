//! The main job: register, make a key, deploy TypeScript with npm packages, call it, read its log
//! and its usage.

use reqwest::Method;
use serde_json::json;

use crate::support::{deploy, send, server};

const HELLO: &str = include_str!("../functions/hello.ts");

#[tokio::test]
async fn a_new_user_deploys_typescript_with_packages_and_calls_it() {
    let server = server().await;
    let owner = server.register().await;

    let me = owner.get("/api/auth/me").await.expect(200).json();
    assert_eq!(me["user"]["userName"], owner.user_name.as_str());
    assert!(!me.to_string().contains("password"), "{me}");

    let hello = deploy("hello", "hello.ts", HELLO)
        .with("dependencies", json!({ "axios": "^1", "lodash": "^4" }));
    let function = owner.deploy(&hello).await;
    assert_eq!(function.view["version"], 1);
    assert_eq!(function.view["depHash"].as_str().map(str::len), Some(64), "{:#}", function.view);
    assert_eq!(function.view["bundleHash"].as_str().map(str::len), Some(64));

    let caller = owner.showing(&owner.key(&["invoke"]).await);
    let got = caller.call("hello?name=grace&q=a%20b").await.expect(200);
    assert_eq!(
        got.json(),
        json!({ "hello": "Grace", "next": "https://example.org?name=grace&q=a+b", "body": null }),
    );
    assert!(got.header("content-type").starts_with("application/json"));
    assert!(got.header("server-timing").contains("exec"), "{got:?}");

    let posted = caller.call_with("hello", &json!({ "n": [1, 2] })).await.expect(200);
    assert_eq!(posted.json()["body"], json!({ "n": [1, 2] }));
    assert_eq!(posted.header("x-cloudserve-cold"), "0");
    assert_ne!(got.execution(), posted.execution());

    let logs = owner.logs_of(&function.id, posted.execution()).await;
    assert_eq!(logs.len(), 1, "{logs:#?}");
    assert_eq!(logs[0]["status"], "success");
    assert_eq!(logs[0]["truncated"], false);
    let lines: Vec<_> = logs[0]["logs"].as_array().unwrap().iter().collect();
    assert_eq!(lines.len(), 2, "{logs:#?}");
    assert_eq!(
        (&lines[0]["level"], &lines[0]["message"]),
        (&json!("info"), &json!("called with POST"))
    );
    assert_eq!((&lines[1]["level"], &lines[1]["message"]), (&json!("warn"), &json!("careful")));

    let usage = owner.usage_of(&function.id, posted.execution()).await;
    assert_eq!(usage.len(), 1);
    assert_eq!(usage[0]["status"], "success");
    assert_eq!(usage[0]["version"], 1);
    assert!(usage[0]["duration"].as_f64().unwrap() > 0.0, "{usage:#?}");
    assert!(usage[0]["memoryUsed"].as_f64().unwrap() > 0.0, "{usage:#?}");

    owner.usage_of(&function.id, got.execution()).await;
    let totals = owner.get(&format!("/api/usage?functionId={}", function.id)).await.expect(200);
    assert!(totals.text().contains("\"executed\":2"), "{}", totals.text());
}

#[tokio::test]
async fn the_envelope_carries_result_logs_and_figures() {
    let owner = server().await.register().await;
    owner.deploy(&deploy("sum", "sum.mjs", SUM)).await;
    let ask = |path: &str| {
        owner.run(Method::GET, path).header("accept", "application/vnd.cloudserve.invocation+json")
    };

    let envelope = send(ask("sum?a=2&b=3")).await.expect(200).json();
    assert_eq!(envelope["success"], true, "{envelope:#}");
    assert_eq!(envelope["result"], 5);
    assert_eq!(envelope["logs"][0]["message"], "adding 2 and 3");
    assert!(envelope["duration"].as_f64().is_some(), "{envelope:#}");
    assert!(envelope["executionId"].as_str().is_some(), "{envelope:#}");

    let envelope = send(ask("sum?a=x")).await.json();
    assert_eq!(envelope["success"], false, "{envelope:#}");
    assert!(envelope["error"].to_string().contains("handler_error"), "{envelope:#}");
}

const SUM: &str = "
export default ({ query: { a, b } }) => {
  console.log(`adding ${a} and ${b}`);
  if (Number.isNaN(Number(a))) throw new Error('not a number');
  return Number(a) + Number(b);
};
";

#[tokio::test]
async fn functions_are_listed_read_changed_and_deleted() {
    let owner = server().await.register().await;
    let function = owner.deploy(&deploy("f", "f.mjs", "export default () => 'one'")).await;
    assert_eq!(owner.call("f").await.expect(200).text(), "one");

    let list = owner.get("/api/function").await.expect(200).json();
    assert_eq!(list["functions"][0]["id"], function.id.as_str(), "{list:#}");
    let view = owner.view(&function.id).await;
    assert_eq!(view["name"], "f");
    assert!(view.to_string().contains("=> 'one'"), "the source is in {view:#}");

    let path = format!("/api/function/{}", function.id);
    let change = json!({ "code": "export default () => 'two'", "filename": "f.mjs" });
    let changed = owner.put(&format!("{path}?wait=true"), &change).await;
    assert!(matches!(changed.status, 200 | 202), "{}", changed.text());
    crate::support::wait_for("the new version", || async {
        (owner.call("f").await.expect(200).text() == "two").then_some(())
    })
    .await;

    for read_only in ["name", "version", "status", "bundleHash", "surprise"] {
        let refused = owner.put(&path, &json!({ read_only: "x" })).await;
        assert!((400..500).contains(&refused.status), "{read_only}: {}", refused.text());
        assert!(refused.text().contains(read_only), "{}", refused.text());
    }

    owner.delete(&path).await.expect(204);
    assert_eq!(owner.get(&path).await.expect(404).code(), "function_not_found");
    assert_eq!(owner.call("f").await.expect(404).code(), "function_not_found");
}
