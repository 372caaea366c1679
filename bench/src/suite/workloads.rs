//! The other workloads, warm, against the peers that can do them.

use super::{Bench, warm};
use crate::error::BenchError;
use crate::target::{PeerKind, ServerOptions};
use crate::workload::{HELLO_FETCH, OTHERS};

/// Enough to keep both cores busy, and not to measure queues.
const CONNECTIONS: usize = 8;

pub(crate) async fn run(bench: &mut Bench) -> Result<(), BenchError> {
    let mut home = bench.home("workloads")?;
    let server = home.serve(&ServerOptions::default()).await?;
    let peers: Vec<PeerKind> =
        bench.plan.peers.iter().copied().filter(|kind| *kind != PeerKind::Null).collect();
    for (workload, connections) in
        [(HELLO_FETCH, 32)].into_iter().chain(OTHERS.map(|workload| (workload, CONNECTIONS)))
    {
        let result = warm::measure(bench, &home, &server, &workload, &peers, &[connections]).await;
        if let Err(error) = result {
            bench.note(format!("{}: not measured: {}", workload.name, error.whole()));
        }
    }
    server.stop().await;
    Ok(())
}
