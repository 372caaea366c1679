//! What no change feed tells: it is acted upon all the same, within a bound.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use cloudserve_gateway::{GatewayOptions, MAX_STALENESS};
use cloudserve_identity::Authenticator;
use cloudserve_protocol::limits::Limits;
use cloudserve_store::function::Visibility;
use cloudserve_store::{Change, ChangeFeed, Stores};
use http::Request;
use tokio::sync::broadcast;

use crate::fixture::World;

/// Tells nothing, and does not end.
struct Silent(broadcast::Sender<Change>);

impl ChangeFeed for Silent {
    fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.0.subscribe()
    }
}

async fn status_with(w: &World, key: &str) -> u16 {
    let request = Request::get("/run/alice/version").header("x-api-key", key);
    w.send(request.body(Body::empty()).unwrap()).await.status.as_u16()
}

#[tokio::test]
async fn a_revoked_key_and_a_replaced_version_are_used_for_a_bounded_time() {
    let silent = Arc::new(Silent(broadcast::channel(1).0));
    let silenced = |stores: Stores| Stores { changes: silent, ..stores };
    let w = World::with(GatewayOptions::default(), silenced).await;
    let id = w.deploy(&w.alice, "version", Visibility::Private).await;
    assert_eq!(w.get("/run/alice/version", &w.alice).await.text(), "1 hello 1");
    assert_eq!(status_with(&w, &w.alice.key).await, 200);

    for key in w.stores.accounts.api_keys(w.alice.id).await.unwrap() {
        assert!(w.stores.accounts.delete_api_key(w.alice.id, key.id).await.unwrap());
    }
    w.accept_version(&w.alice, "version", id, 2, Visibility::Private, Limits::default()).await;
    w.activate(id, 2).await;
    let changed = async {
        while w.get("/run/alice/version", &w.alice).await.text() != "2 hello 2"
            || status_with(&w, &w.alice.key).await != 401
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    // And some for the machine.
    let bound = MAX_STALENESS.max(Authenticator::MAX_STALENESS) + Duration::from_secs(5);
    tokio::time::timeout(bound, changed).await.expect("both are seen");
}
