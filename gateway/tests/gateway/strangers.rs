//! Keys that nobody has: anybody can make them up, and only the store knows.

use std::time::Instant;

use axum::body::Body;
use cloudserve_gateway::GatewayOptions;
use cloudserve_identity::ApiKeySecret;
use cloudserve_store::account::Quota;
use cloudserve_store::function::Visibility;
use http::Request;

use crate::fixture::{Answer, UNKNOWN_PER_SECOND, World};
use crate::watched::Watch;

const HERE: &str = "203.0.113.1";
const ELSEWHERE: &str = "203.0.113.2";
const FLOODED: &str = "203.0.113.3";

async fn call(w: &World, key: &str, from: &str) -> Answer {
    let request =
        Request::get("/run/alice/version").header("x-api-key", key).header("x-forwarded-for", from);
    w.send(request.body(Body::empty()).unwrap()).await
}

fn made_up() -> String {
    ApiKeySecret::generate().unwrap().reveal().to_owned()
}

/// How many questions an address had since then, at most.
fn questions(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() + 1.0) * f64::from(UNKNOWN_PER_SECOND)
}

#[tokio::test]
async fn made_up_keys_are_stopped_before_the_store() {
    let watch = Watch::default();
    let options = GatewayOptions { trust_forwarded: true, ..GatewayOptions::default() };
    let w = World::with(options, |stores| watch.over(stores)).await;
    w.deploy(&w.alice, "version", Visibility::Private).await;
    assert_eq!(call(&w, &w.alice.key, HERE).await.status, 200);
    let (begun, before) = (Instant::now(), watch.lookups());
    let mut refused = None;
    for _ in 0..400 {
        let answer = call(&w, &made_up(), HERE).await;
        match answer.status.as_u16() {
            401 => assert_eq!(answer.fault().1, "unauthorized"),
            _ => refused = Some(answer),
        }
    }
    let asked = u32::try_from(watch.lookups() - before).unwrap();
    assert!(f64::from(asked) <= questions(begun), "{asked} in {:?}", begun.elapsed());

    let refused = refused.expect("400 are too many");
    assert_eq!(refused.fault(), (429, "rate_limit".to_owned()));
    assert_eq!(refused.header("ratelimit-limit"), UNKNOWN_PER_SECOND.to_string());
    assert_eq!(refused.header("ratelimit-remaining"), "0");
    assert!((1..=60).contains(&refused.header("retry-after").parse::<u32>().unwrap()));
    assert!(refused.text().contains("this address"), "{}", refused.text());

    // Who is known is not kept out by that, not even when it has to be looked up again.
    for _ in 0..5 {
        assert_eq!(call(&w, &w.alice.key, HERE).await.status, 200);
        w.stores.accounts.set_quota(w.alice.id, Quota::default()).await.unwrap();
    }
    // What is not of our form is no question.
    assert_eq!(call(&w, "cs_live_typo", HERE).await.status, 401);
    assert_eq!(w.get("/run/alice/version", &w.alice).await.status, 200);
    // Those that come at once are paid for afterwards. A key that was not shown before waits there
    // meanwhile, and nowhere else.
    let keys: Vec<String> = (0..200).map(|_| made_up()).collect();
    futures::future::join_all(keys.iter().map(|key| call(&w, key, FLOODED))).await;
    let bob = |from| call(&w, &w.bob.key, from);
    assert_eq!(bob(FLOODED).await.fault(), (429, "rate_limit".to_owned()));
    // A session that was not shown before either is none that anybody could make up.
    let session = Request::get("/run/alice/version")
        .header("authorization", format!("Bearer {}", w.bob.token))
        .header("x-forwarded-for", FLOODED);
    let answer = w.send(session.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.fault(), (403, "forbidden".to_owned()));
    for from in [ELSEWHERE, FLOODED] {
        assert_eq!(bob(from).await.fault(), (403, "forbidden".to_owned()), "{from}");
    }
}

#[tokio::test]
async fn who_hangs_up_before_the_answer_has_asked_as_well() {
    let watch = Watch::default();
    let options = GatewayOptions { trust_forwarded: true, ..GatewayOptions::default() };
    let w = World::with(options, |stores| watch.over(stores)).await;
    w.deploy(&w.alice, "version", Visibility::Private).await;
    let (begun, before) = (Instant::now(), watch.lookups());
    for _ in 0..400 {
        let key = made_up();
        let mut asking = Box::pin(call(&w, &key, HERE));
        // As far as the store, which takes a moment to answer.
        let _ = futures::poll!(&mut asking);
    }
    let asked = u32::try_from(watch.lookups() - before).unwrap();
    assert!(asked > 0 && f64::from(asked) <= questions(begun), "{asked}");
    // Nobody else pays for it, and who is known is let in.
    assert_eq!(call(&w, &w.bob.key, ELSEWHERE).await.fault(), (403, "forbidden".to_owned()));
}

#[tokio::test]
async fn what_nobody_has_is_asked_for_once_in_a_while() {
    let watch = Watch::default();
    let w = World::with(GatewayOptions::default(), |stores| watch.over(stores)).await;
    w.deploy(&w.alice, "version", Visibility::Private).await;
    let (begun, key) = (Instant::now(), made_up());
    for _ in 0..100 {
        assert_eq!(call(&w, &key, HERE).await.fault(), (401, "unauthorized".to_owned()));
    }
    let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap();
    assert!(watch.lookups() <= 1 + seconds, "{}", watch.lookups());
}
