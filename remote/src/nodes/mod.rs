//! The sandboxes that there are, and which of them is asked.
//!
//! A key (a function, a dependency set) has the same first node in every process, by rendezvous
//! hashing, so that it finds what is warm there. While that node has much more to do than others,
//! the next one takes over. Nodes that say that they are not ready, or that fail in a row, are
//! passed over; if that would leave none, they are asked all the same: an outlier is one only as
//! long as others do better.

mod discovery;
mod node;
pub(crate) mod url;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::RwLock;
use tracing::{info, warn};

pub(crate) use self::discovery::follow;
pub(crate) use self::node::{Condition, Node, Occupied, spread};
use crate::metrics::Counters;
use crate::options::RemoteOptions;

/// All nodes that are known.
#[derive(Debug)]
pub(crate) struct Nodes {
    known: RwLock<Arc<[Arc<Node>]>>,
    was_ready: AtomicBool,
    spread_from_calls: usize,
}

/// How many nodes there are, by condition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NodeCensus {
    pub(crate) ready: usize,
    pub(crate) not_ready: usize,
    pub(crate) ejected: usize,
    pub(crate) unknown: usize,
    pub(crate) in_flight: usize,
}

impl Nodes {
    pub(crate) fn new(options: &RemoteOptions) -> Self {
        Self {
            known: RwLock::new(Arc::new([])),
            was_ready: AtomicBool::new(false),
            spread_from_calls: options.spread_from_calls.max(1),
        }
    }

    pub(crate) fn all(&self) -> Arc<[Arc<Node>]> {
        self.known.read().clone()
    }

    /// Whether any node has ever been ready.
    pub(crate) fn was_ready(&self) -> bool {
        self.was_ready.load(Relaxed)
    }

    /// These are the nodes from now on. Those that stay keep what is known of them.
    pub(crate) fn set(&self, addresses: &[SocketAddr]) {
        let before = self.all();
        let same = |address: &SocketAddr| before.iter().find(|node| node.address == *address);
        if before.len() == addresses.len() && addresses.iter().all(|a| same(a).is_some()) {
            return;
        }
        let after: Arc<[_]> = addresses
            .iter()
            .map(|address| same(address).cloned().unwrap_or_else(|| Arc::new(Node::new(*address))))
            .collect();
        info!(nodes = after.len(), before = before.len(), "the sandboxes have changed");
        *self.known.write() = after;
    }

    /// The node for a key, without those that were tried.
    pub(crate) fn choose(&self, key: u64, tried: &[SocketAddr]) -> Option<Arc<Node>> {
        let all = self.all();
        let fresh = || all.iter().filter(|node| !tried.contains(&node.address));
        let usable = || {
            fresh().filter(|node| matches!(node.condition(), Condition::Ready | Condition::Unknown))
        };
        let (nodes, calls) =
            usable().fold((0, 0), |(nodes, calls), node| (nodes + 1, calls + node.in_flight()));
        if nodes == 0 {
            return fresh().max_by_key(|node| node.score(key)).cloned();
        }
        // A quarter more than the average, this call included.
        let fair_share = ((calls + 1) * 5).div_ceil(nodes * 4).max(self.spread_from_calls);
        usable()
            .filter(|node| node.in_flight() < fair_share)
            .max_by_key(|node| node.score(key))
            .or_else(|| usable().max_by_key(|node| node.score(key)))
            .cloned()
    }

    /// A node could not be reached.
    pub(crate) fn failed(&self, node: &Node, options: &RemoteOptions, counters: &Counters) {
        Counters::count(&counters.failures);
        if !node.failed(options.eject_after_failures.max(1)) {
            return;
        }
        let others = self.all();
        let is_last = !others.iter().any(|other| {
            other.address != node.address
                && matches!(other.condition(), Condition::Ready | Condition::Unknown)
        });
        if !is_last {
            node.eject(|times| options.eject(times));
            Counters::count(&counters.ejections);
            warn!(node = %node.address, "a sandbox fails and is left alone for a while");
        }
    }

    /// A node answered a check.
    pub(crate) fn said(&self, node: &Node, is_ready: bool) {
        node.said(is_ready);
        if is_ready && !self.was_ready.swap(true, Relaxed) {
            info!(node = %node.address, "the first sandbox is ready");
        }
    }

    pub(crate) fn census(&self) -> NodeCensus {
        let mut census = NodeCensus::default();
        for node in self.all().iter() {
            census.in_flight += node.in_flight();
            *match node.condition() {
                Condition::Ready => &mut census.ready,
                Condition::NotReady => &mut census.not_ready,
                Condition::Ejected => &mut census.ejected,
                Condition::Unknown => &mut census.unknown,
            } += 1;
        }
        census
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: u16) -> Nodes {
        let nodes = Nodes::new(&RemoteOptions { spread_from_calls: 2, ..RemoteOptions::default() });
        let addresses: Vec<_> = (1..=count).map(|port| ([127, 0, 0, 1], port).into()).collect();
        nodes.set(&addresses);
        nodes.all().iter().for_each(|node| nodes.said(node, true));
        nodes
    }

    fn first(nodes: &Nodes, key: u64) -> SocketAddr {
        nodes.choose(key, &[]).unwrap().address
    }

    #[test]
    fn keys_spread_evenly_and_stay_where_they_are() {
        let five = nodes(5);
        let homes: Vec<_> = (0..5_000).map(|key| first(&five, key << 32)).collect();
        for node in five.all().iter() {
            let share = homes.iter().filter(|home| **home == node.address).count();
            assert!((800..1_200).contains(&share), "{share}");
        }
        let four = nodes(4);
        let lost: SocketAddr = ([127, 0, 0, 1], 5).into();
        for (key, home) in (0..).zip(&homes).filter(|(_, home)| **home != lost) {
            assert_eq!(first(&four, key << 32), *home);
        }
    }

    #[test]
    fn a_busy_node_hands_over_and_none_has_much_more_than_its_share() {
        let nodes = nodes(3);
        let mut held = Vec::new();
        let home = first(&nodes, 7);
        for _ in 0..2 {
            let node = nodes.choose(7, &[]).unwrap();
            assert_eq!(node.address, home);
            held.push(node.occupy());
        }
        for _ in 2..60 {
            held.push(nodes.choose(7, &[]).unwrap().occupy());
        }
        for node in nodes.all().iter() {
            assert!(node.in_flight() <= 25, "{}", node.in_flight());
        }
        held.clear();
        assert_eq!(nodes.census().in_flight, 0);
        assert_eq!(first(&nodes, 7), home);
    }

    #[test]
    fn what_fails_is_passed_over_but_never_the_last() {
        let nodes = nodes(2);
        let options = RemoteOptions { eject_after_failures: 2, ..RemoteOptions::default() };
        let counters = Counters::default();
        let bad = nodes.choose(7, &[]).unwrap();
        nodes.failed(&bad, &options, &counters);
        assert_eq!(first(&nodes, 7), bad.address, "one failure is an accident");
        nodes.failed(&bad, &options, &counters);
        assert_eq!(bad.condition(), Condition::Ejected);
        let other = nodes.choose(7, &[]).unwrap();
        assert_ne!(other.address, bad.address);
        // It has to sit its time out.
        nodes.said(&bad, true);
        assert_eq!(bad.condition(), Condition::Ejected);

        for _ in 0..10 {
            nodes.failed(&other, &options, &counters);
        }
        assert_eq!(other.condition(), Condition::Ready, "it is the last");
        other.declined();
        assert!(nodes.choose(7, &[]).is_some(), "rather a bad node than none");
        assert!(nodes.choose(7, &[bad.address, other.address]).is_none());
        let metrics = counters.snapshot(nodes.census());
        assert_eq!((metrics.ejections, metrics.failures), (1, 12));
        assert_eq!((metrics.nodes.ejected, metrics.nodes.not_ready), (1, 1));
    }

    #[test]
    fn nodes_that_stay_keep_what_is_known_of_them() {
        let nodes = nodes(2);
        let kept = nodes.all()[1].clone();
        kept.declined();
        let new: SocketAddr = ([127, 0, 0, 1], 9).into();
        nodes.set(&[kept.address, new]);
        let conditions: Vec<_> = nodes.all().iter().map(|node| node.condition()).collect();
        assert_eq!(conditions, [Condition::NotReady, Condition::Unknown]);
    }
}
