//! The main job over MongoDB and S3, by two servers that share them.

use serde_json::json;

use crate::servers;
use crate::support::{Account, TestServer, cloudserve, deploy, send, wait_for};

const SECRET: &str = "6b1f0a4c6b1f0a4c6b1f0a4c6b1f0a4c6b1f0a4c6b1f0a4c6b1f0a4c6b1f0a4c";

/// Another master key.
const NEW_KEY: &str = "7a1f0a4c6b1f0a4c6b1f0a4c6b1f0a4c6b1f0a4c6b1f0a4c6b1f0a4c6b1f0a4c";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_over_mongodb_and_s3_do_the_main_job() {
    let (mongod, s3) = tokio::join!(servers::mongod(), servers::s3());
    let name = servers::unique_name();
    let uri = format!("mongodb://{}/{name}?replicaSet=rs0", mongod.address);
    let endpoint = format!("http://{}", s3.address);
    let settings = settings(&uri, &endpoint, &name);
    let first = TestServer::start_with(&settings).await;
    let second = TestServer::start_with(&settings).await;
    let here = first.register().await;
    let there = here.at(&second.api, &second.gateway);

    let code = "import chunk from 'lodash/chunk.js';
        export default (event) => {
          console.log(`chunks for ${process.env.WHO}`);
          return chunk([1, 2, 3], Number(event.query.n));
        };";
    let function = deploy("chunks", "chunks.mjs", code)
        .with("dependencies", json!({ "lodash": "4.17.21" }))
        .with("env", json!({ "WHO": "ada" }));
    let function = here.deploy(&function).await;
    let key = here.key(&["invoke"]).await;
    for side in [&here, &there] {
        let answer = side.showing(&key).call("chunks?n=2").await.expect(200);
        assert_eq!(answer.json(), json!([[1, 2], [3]]));
        // Written by one and read from the other.
        let reader = if std::ptr::eq(side, &raw const here) { &there } else { &here };
        let logs = reader.logs_of(&function.id, answer.execution()).await;
        assert_eq!(logs[0]["logs"][0]["message"], "chunks for ada", "{logs:#?}");
        let usage = reader.usage_of(&function.id, answer.execution()).await;
        assert_eq!((usage.len(), &usage[0]["status"]), (1, &json!("success")));
    }

    // A change through one server reaches the caches of the other.
    let next = deploy("chunks", "chunks.mjs", "export default () => 'next'");
    there.deploy(&next).await;
    for side in [&here, &there] {
        wait_for("the new version", || async {
            (side.call("chunks").await.expect(200).text() == "next").then_some(())
        })
        .await;
    }
    there.delete(&format!("/api/function/{}", function.id)).await.expect(204);
    wait_for("the function to go", || async {
        (here.call("chunks").await.status == 404).then_some(())
    })
    .await;

    // What was acknowledged outlives both servers and their directories.
    let code = "export default () => process.env.KEPT";
    let kept = deploy("kept", "k.mjs", code).with("env", json!({ "KEPT": "kept" }));
    let kept = here.deploy(&kept).await;
    first.kill().await;
    second.kill().await;
    let third = TestServer::start_with(&settings).await;
    let owner = here.at(&third.api, &third.gateway);
    assert_eq!(owner.view(&kept.id).await["status"], "active");
    assert_eq!(owner.call("kept").await.expect(200).text(), "kept");

    assert!(!third.output().contains(servers::SECRET_KEY), "a secret is in the log");
    // It knows the old key alone.
    third.kill().await;
    rotate_while_servers_run(&settings, &owner).await;

    let refused = TestServer::start_refused(&[("CLOUDSERVE_MONGODB_URI", &uri)]).await;
    assert!(refused.contains("CLOUDSERVE_S3_BUCKET"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_storage_is_gone_says_so() {
    let (mut mongod, s3) = tokio::join!(servers::start_mongod(), servers::s3());
    let name = servers::unique_name();
    let uri = format!("mongodb://{}/{name}?replicaSet=rs0", mongod.address);
    let endpoint = format!("http://{}", s3.address);
    let server = TestServer::start_with(&settings(&uri, &endpoint, &name)).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let both_say = async |status: u16, text: &str| {
        for base in [&server.api, &server.gateway] {
            wait_for(text, || async {
                let answer = send(http.get(format!("{base}/readyz"))).await;
                (answer.status == status && answer.text().starts_with(text)).then_some(())
            })
            .await;
        }
    };
    both_say(200, "ready\n").await;
    mongod.kill();
    both_say(503, "not ready: storage does not answer\n").await;
}

/// Of servers that share everything: what one signs and seals, the other reads.
fn settings<'a>(uri: &'a str, endpoint: &'a str, bucket: &'a str) -> [(&'static str, &'a str); 7] {
    [
        ("CLOUDSERVE_MONGODB_URI", uri),
        ("CLOUDSERVE_S3_ENDPOINT", endpoint),
        ("CLOUDSERVE_S3_BUCKET", bucket),
        ("CLOUDSERVE_S3_ACCESS_KEY", servers::ACCESS_KEY),
        ("CLOUDSERVE_S3_SECRET_KEY", servers::SECRET_KEY),
        ("CLOUDSERVE_JWT_SECRET", SECRET),
        ("CLOUDSERVE_MASTER_KEY", SECRET),
    ]
}

/// A server that has both keys goes on meanwhile; afterwards the new key alone opens everything.
async fn rotate_while_servers_run(settings: &[(&'static str, &str)], owner: &Account) {
    let with = |changes: &[(&'static str, &'static str)]| {
        let others = settings.iter().filter(|(name, _)| *name != "CLOUDSERVE_MASTER_KEY");
        others.copied().chain(changes.iter().copied()).collect::<Vec<_>>()
    };
    let both =
        with(&[("CLOUDSERVE_MASTER_KEY", NEW_KEY), ("CLOUDSERVE_MASTER_KEY_PREVIOUS", SECRET)]);
    let server = TestServer::start_with(&both).await;
    let here = owner.at(&server.api, &server.gateway);
    let rotate = |settings: &[(&'static str, &str)]| {
        let mut command = cloudserve();
        command.args(["admin", "rotate-master-key"]).envs(settings.iter().copied());
        command.output().unwrap()
    };
    // A deploy that keeps its environment seals it under the new key by itself.
    here.deploy(&deploy("kept", "k.mjs", "export default () => process.env.KEPT")).await;
    let refused = rotate(settings);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("_PREVIOUS"), "{said}");
    for expected in ["1 environments", "0 environments"] {
        let done = rotate(&both);
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success() && said.starts_with(expected), "{done:?}");
        assert_eq!(here.call("kept").await.expect(200).text(), "kept");
    }
    server.kill().await;
    let server = TestServer::start_with(&with(&[("CLOUDSERVE_MASTER_KEY", NEW_KEY)])).await;
    let here = owner.at(&server.api, &server.gateway);
    assert_eq!(here.call("kept").await.expect(200).text(), "kept");
}
