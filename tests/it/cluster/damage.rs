//! Objects that are not any more what they were when they were stored.

use aws_sdk_s3::primitives::ByteStream;
use futures::future::join_all;
use serde_json::json;

use super::Cluster;
use crate::servers;
use crate::support::{Account, deploy, wait_for};

/// What a damaged bundle would answer, if it ever ran.
const FOREIGN: &str = "foreign code ran";

/// A bundle and a dependency tree are each replaced behind the platform's back. No sandbox runs
/// either; a redeploy mends both.
pub(super) async fn is_found_and_mended(cluster: &mut Cluster, owner: &Account) {
    let bundled = owner.deploy(&deploy("bundled", "b.mjs", "export default () => 'mine'")).await;
    let code = "import chunk from 'lodash/chunk.js'; export default () => chunk([1, 2, 3], 2);";
    let with_tree = deploy("with-tree", "t.mjs", code)
        .with("dependencies", json!({ "lodash": "4.17.20" }))
        .with("external", json!(["lodash"]));
    let with_tree = owner.deploy(&with_tree).await;
    assert_eq!(owner.call("bundled").await.expect(200).text(), "mine");
    let expected = owner.call("with-tree").await.expect(200).text();

    let s3 = servers::client(&cluster.objects_address);
    let objects = s3.list_objects_v2().bucket(&cluster.bucket).send().await.unwrap();
    let keys: Vec<_> =
        objects.contents.unwrap_or_default().into_iter().filter_map(|object| object.key).collect();
    let bundle = |id: &str| {
        let found = keys.iter().find(|key| key.starts_with(id) && key.ends_with("/bundle.js"));
        found.unwrap_or_else(|| panic!("no bundle of {id}: {keys:#?}"))
    };
    let foreign = format!("export default () => '{FOREIGN}'");
    let mut damaged = vec![(bundle(&bundled.id).clone(), foreign.into_bytes())];
    for tree in keys.iter().filter(|key| key.starts_with("deps/") && key.ends_with(".tar.gz")) {
        let whole = s3.get_object().bucket(&cluster.bucket).key(tree).send().await.unwrap();
        let mut bytes = whole.body.collect().await.unwrap().to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        damaged.push((tree.clone(), bytes));
    }
    assert!(damaged.len() > 1, "no dependency tree: {keys:#?}");
    for (key, bytes) in damaged {
        let put = s3.put_object().bucket(&cluster.bucket).key(key).body(ByteStream::from(bytes));
        put.send().await.unwrap();
    }
    // No sandbox has them on its disk or in a worker any more.
    join_all(cluster.sandboxes.iter_mut().map(|sandbox| async {
        assert!(sandbox.stop().await, "{}", sandbox.output());
        sandbox.forget();
        sandbox.begin();
        sandbox.wait_until_ready().await;
    }))
    .await;

    for (name, id, right) in
        [("bundled", &bundled.id, "mine"), ("with-tree", &with_tree.id, expected.as_str())]
    {
        for gateway in 0..cluster.gateways.len() {
            let caller = cluster.by(owner, 0, gateway);
            let answer = wait_for("a sandbox to be asked", || async {
                let answer = caller.call(name).await;
                let text = answer.text();
                assert!(!text.contains(FOREIGN), "{name} ran: {text}");
                assert_eq!((answer.status, answer.code().as_str()), (503, "sandbox_unavailable"));
                (!text.contains("no sandbox takes the call")).then_some(answer)
            })
            .await;
            eprintln!("cluster: damaged {name}: {} {}", answer.status, answer.text());
        }
        let said = cluster.sandboxes.iter().any(|sandbox| {
            sandbox.output().lines().any(|line| line.contains("does not have the expected content"))
        });
        assert!(said, "no sandbox reports what is damaged");
        let again = format!("/api/function/redeploy/{id}?wait=true");
        let view = owner.post(&again, &json!({})).await;
        assert!(view.status < 300, "{} {}", view.status, view.text());
        wait_for("the redeploy to end", || async {
            let view = owner.view(id).await;
            assert_ne!(view["status"], "failed", "{view:#}");
            (view["status"] == "active").then_some(())
        })
        .await;
        wait_for("what was mended to be called", || async {
            let answer = owner.call(name).await;
            (answer.status == 200).then(|| assert_eq!(answer.text(), right))
        })
        .await;
    }
}
