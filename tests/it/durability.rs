//! What was acknowledged survives `kill -9`, and a deploy that was accepted is finished.

use std::sync::{Arc, Mutex};

use futures::StreamExt;
use futures::stream;
use serde_json::json;

use crate::support::{Account, TestServer, deploy, wait_for};

async fn wait_until_active(owner: &Account, id: &str) {
    wait_for("the deploy to finish", || async {
        let view = owner.view(id).await;
        assert_ne!(view["status"], "failed", "{view:#}");
        (view["status"] == "active").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_deploy_that_was_accepted_is_finished_after_kill_minus_nine() {
    let server = TestServer::start().await;
    let owner = server.register().await;
    let code = "import chunk from 'lodash/chunk.js'; export default () => chunk([1, 2, 3], 2);";
    let hello = deploy("f", "f.mjs", code).with("dependencies", json!({ "lodash": "4.17.21" }));

    // At once: nothing was built yet.
    let accepted = owner.post("/api/function/deploy", &hello.0).await.expect(202).json();
    let id = accepted["id"].as_str().unwrap();
    assert_eq!(accepted["status"], "pending");
    let server = TestServer::start_at(server.kill().await).await;
    let owner = owner.at(&server.api, &server.gateway);
    wait_until_active(&owner, id).await;
    assert_eq!(owner.call("f").await.expect(200).json(), json!([[1, 2], [3]]));

    // In the middle: it is being built. The old version serves meanwhile.
    let next = deploy("f", "f.mjs", "export default () => 'next'");
    owner.post("/api/function/deploy", &next.0).await.expect(202);
    wait_for("the build to begin", || async {
        (owner.view(id).await["status"] != "pending").then_some(())
    })
    .await;
    let server = TestServer::start_at(server.kill().await).await;
    let owner = owner.at(&server.api, &server.gateway);
    wait_until_active(&owner, id).await;
    assert_eq!(owner.call("f").await.expect(200).text(), "next");
}

#[tokio::test]
async fn what_a_killed_server_has_left_of_a_deleted_function_is_removed() {
    let server = TestServer::start().await;
    let owner = server.register().await;
    let deployed = owner.deploy(&deploy("f", "f.mjs", "export default () => 1")).await;
    let kept = owner.deploy(&deploy("g", "g.mjs", "export default () => 2")).await;
    let objects = server.data_dir().join("objects");
    owner.delete(&format!("/api/function/{}", deployed.id)).await.expect(204);
    let home = server.kill().await;
    // As if it had not come to that.
    let left = objects.join(&deployed.id).join("src");
    std::fs::create_dir_all(&left).unwrap();
    std::fs::write(left.join("f.mjs"), "export default () => 1").unwrap();

    let server = TestServer::start_at(home).await;
    wait_for("what is left to go", || async {
        (!objects.join(&deployed.id).exists()).then_some(())
    })
    .await;
    assert!(objects.join(&kept.id).exists());
    let owner = owner.at(&server.api, &server.gateway);
    assert_eq!(owner.call("g").await.expect(200).json(), json!(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_keys_and_functions_survive_kill_minus_nine_in_the_middle_of_more() {
    let mut server = TestServer::start().await;
    for _ in 0..2 {
        let first = server.register().await;
        let (api, gateway) = (server.api.clone(), server.gateway.clone());
        let registered = Arc::new(Mutex::new(Vec::new()));
        let more = tokio::spawn({
            let registered = registered.clone();
            async move {
                // Ends when the server does: the panic of a request that got no answer.
                loop {
                    let account = Account::register(&api, &gateway).await;
                    registered.lock().unwrap().push(account);
                }
            }
        });
        let mut keys = Vec::new();
        let mut functions = Vec::new();
        for n in 0..5 {
            keys.push(first.key(&["read"]).await);
            let body = deploy(&format!("f{n}"), "f.mjs", "export default () => 1").0;
            let accepted = first.post("/api/function/deploy", &body).await.expect(202).json();
            functions.push(accepted["id"].as_str().unwrap().to_owned());
        }
        wait_for("the first of the others", || async {
            (!registered.lock().unwrap().is_empty()).then_some(())
        })
        .await;
        server = TestServer::start_at(server.kill().await).await;
        assert!(more.await.is_err());
        let others = std::mem::take(&mut *registered.lock().unwrap());
        for other in others {
            other.at(&server.api, &server.gateway).get("/api/auth/me").await.expect(200);
        }

        let first = first.at(&server.api, &server.gateway);
        let login = json!({ "email": first.email, "password": first.password });
        first.showing("").post("/api/auth/login", &login).await.expect(200);
        for key in &keys {
            first.showing(key).get("/api/function").await.expect(200);
        }
        stream::iter(&functions).for_each(|id| wait_until_active(&first, id)).await;
        first.call("f0").await.expect(200);
    }
}
