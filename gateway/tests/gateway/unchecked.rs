//! Callers whose credential could not be checked.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use axum::body::Body;
use cloudserve_gateway::GatewayOptions;
use cloudserve_store::function::Visibility;
use http::Request;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::fixture::World;
use crate::watched::Watch;

/// Counts the refusals that are told to the operator.
struct Refusals(Arc<AtomicUsize>);

impl Subscriber for Refusals {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR && metadata.target() == "cloudserve_gateway::refusal"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        if self.enabled(event.metadata()) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn a_call_that_is_served_is_not_told_as_refused() {
    let told = Arc::new(AtomicUsize::new(0));
    let _telling = tracing::subscriber::set_default(Refusals(told.clone()));
    let watch = Watch::default();
    let w = World::with(GatewayOptions::default(), |stores| watch.over(stores)).await;
    w.deploy(&w.alice, "version", Visibility::Public).await;
    w.deploy(&w.alice, "echo", Visibility::Private).await;
    watch.break_down();
    for (name, status, refusals) in [("version", 200, 0), ("echo", 503, 1)] {
        let request = Request::get(format!("/run/alice/{name}")).header("x-api-key", &w.alice.key);
        let answer = w.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!((answer.status.as_u16(), told.load(Relaxed)), (status, refusals), "{name}");
    }
}
