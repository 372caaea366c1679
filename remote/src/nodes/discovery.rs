//! Finds nodes and asks them how they are, for as long as somebody uses them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::warn;

use crate::client::Shared;
use crate::options::millis;

/// A name server that says nothing for so long is taken to say nothing new.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Starts looking.
pub(crate) fn follow(shared: &Arc<Shared>) {
    let options = &shared.options;
    let (resolve, check) = (millis(options.resolve_ms.max(1)), millis(options.check_ms.max(1)));
    tokio::spawn(resolve_again(Arc::downgrade(shared), resolve));
    tokio::spawn(check_again(Arc::downgrade(shared), check));
}

async fn resolve_again(shared: Weak<Shared>, every: Duration) {
    let mut ticks = ticks(every);
    let mut last: Vec<BTreeSet<SocketAddr>> = Vec::new();
    loop {
        ticks.tick().await;
        let Some(shared) = shared.upgrade() else { return };
        last.resize_with(shared.urls.len(), BTreeSet::new);
        for (url, known) in shared.urls.iter().zip(&mut last) {
            let found = tokio::net::lookup_host((url.host.as_str(), url.port));
            match timeout(RESOLVE_TIMEOUT, found).await {
                Ok(Ok(found)) => *known = found.collect(),
                // Names that do not resolve for a while are no reason to lose what works.
                Ok(Err(error)) => warn!(%url, %error, "the name of sandboxes does not resolve"),
                Err(_) => warn!(%url, "the name of sandboxes does not resolve in time"),
            }
        }
        let all: BTreeSet<_> = last.iter().flatten().copied().collect();
        let all: Vec<_> = all.into_iter().take(shared.options.max_nodes).collect();
        shared.nodes.set(&all);
        if !shared.nodes.was_ready() {
            check_all(&shared);
        }
    }
}

async fn check_again(shared: Weak<Shared>, every: Duration) {
    let mut ticks = ticks(every);
    loop {
        ticks.tick().await;
        let Some(shared) = shared.upgrade() else { return };
        check_all(&shared);
    }
}

/// Asks each node that is not being asked: one that says nothing delays its own next check and no
/// other's.
fn check_all(shared: &Arc<Shared>) {
    for node in shared.nodes.all().iter() {
        let Ok(turn) = node.checks.clone().try_acquire_owned() else { continue };
        let (shared, node) = (shared.clone(), node.clone());
        tokio::spawn(async move {
            match shared.status(&node).await {
                Ok(is_ready) => shared.nodes.said(&node, is_ready),
                Err(_) => shared.failed(&node),
            }
            drop(turn);
        });
    }
}

fn ticks(every: Duration) -> tokio::time::Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
