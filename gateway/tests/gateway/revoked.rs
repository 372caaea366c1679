//! Keys that are revoked, while somebody looks them up and beside others, and credentials that
//! end.

use std::time::{Duration, Instant};

use axum::body::Body;
use cloudserve_gateway::GatewayOptions;
use cloudserve_identity::Authenticator;
use cloudserve_store::Timestamp;
use cloudserve_store::account::Scope;
use cloudserve_store::function::Visibility;
use http::Request;

use crate::fixture::{Account, Answer, World};
use crate::watched::Watch;

async fn call(w: &World, key: &str) -> Answer {
    let request = Request::get("/run/alice/version").header("x-api-key", key);
    w.send(request.body(Body::empty()).unwrap()).await
}

/// Calls until the key is refused.
async fn until_refused(w: &World, key: &str) {
    let refused = async {
        while call(w, key).await.status != 401 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(2), refused).await.expect("it is refused");
}

#[tokio::test]
async fn a_key_that_was_revoked_while_it_was_looked_up_is_refused() {
    let (watch, pause) = Watch::with_pause();
    let w = World::with(GatewayOptions::default(), |stores| watch.over(stores)).await;
    w.deploy(&w.alice, "version", Visibility::Private).await;
    let revoke = async {
        pause.has_read.notified().await;
        for key in w.stores.accounts.api_keys(w.alice.id).await.unwrap() {
            assert!(w.stores.accounts.delete_api_key(w.alice.id, key.id).await.unwrap());
        }
        pause.goes_on.notify_one();
    };
    // It began before.
    let (answer, ()) = tokio::join!(call(&w, &w.alice.key), revoke);
    assert_eq!(answer.status, 200);
    until_refused(&w, &w.alice.key).await;
}

#[tokio::test]
async fn a_revoked_key_takes_no_other_along() {
    let watch = Watch::default();
    let w = World::with(GatewayOptions::default(), |stores| watch.over(stores)).await;
    w.deploy(&w.alice, "version", Visibility::Private).await;
    let before = w.stores.accounts.api_keys(w.alice.id).await.unwrap();
    let revoked = w.key_with(&w.alice, &Scope::ALL).await;
    let all = w.stores.accounts.api_keys(w.alice.id).await.unwrap();
    let id = all.iter().find(|key| before.iter().all(|old| old.id != key.id)).unwrap().id;
    let mut others = vec![w.alice.key.clone(), w.bob.key.clone()];
    for account in [&w.alice, &w.bob] {
        for _ in 0..4 {
            others.push(w.key_with(account, &Scope::ALL).await);
        }
    }
    let begun = Instant::now();
    for key in others.iter().chain([&revoked]) {
        assert_ne!(call(&w, key).await.status, 401);
    }
    assert_eq!(watch.lookups(), others.len() + 1);

    assert!(w.stores.accounts.delete_api_key(w.alice.id, id).await.unwrap());
    until_refused(&w, &revoked).await;
    let before = watch.lookups();
    for key in &others {
        assert_ne!(call(&w, key).await.status, 401);
    }
    // Two may share a place.
    let again = watch.lookups() - before;
    assert!(again <= 1 || begun.elapsed() > Authenticator::MAX_STALENESS, "{again}");
}

/// Calls until what is shown is refused, which is from its end on.
async fn until_its_end(end: Timestamp, status: impl AsyncFn() -> u16) {
    assert_eq!(status().await, 200);
    loop {
        let asked = Timestamp::now();
        if status().await == 401 {
            break;
        }
        assert!(asked < end, "it is taken after its end");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(Timestamp::now() >= end, "it is refused before its end");
}

#[tokio::test]
async fn keys_and_sessions_are_refused_from_their_end_on() {
    // Sooner than what is remembered of them is forgotten.
    let soon = Authenticator::MAX_STALENESS.saturating_sub(Duration::from_secs(1));
    let w = World::new().await;
    w.deploy(&w.alice, "version", Visibility::Private).await;
    let over = w.key_until(&w.alice, Timestamp::now()).await;
    assert_eq!(call(&w, &over).await.status, 401);

    let end = Timestamp::now().after(soon);
    let key = w.key_until(&w.alice, end).await;
    until_its_end(end, async || call(&w, &key).await.status.as_u16()).await;

    let (token, end) = w.session_for(&w.alice, soon);
    let alice = Account { token, ..w.alice.clone() };
    let status = async || w.get("/run/alice/version", &alice).await.status.as_u16();
    until_its_end(end, status).await;
}
