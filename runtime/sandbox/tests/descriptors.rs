//! A supervisor that may open nothing for a moment. In a program of its own: the bound is one of the
//! whole process.

#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "shared with the other tests")]
mod support;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use support::{Bench, wait_until, zygotes_and_workers};

#[tokio::test(flavor = "multi_thread")]
async fn a_shortage_of_descriptors_costs_no_zygote() {
    let bench = Bench::start().await;
    bench.is_well().await;
    let (zygotes, workers) = zygotes_and_workers();
    assert_eq!((zygotes.len(), workers.len()), (1, 2));

    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
    kill(Pid::from_raw(workers[0]), Signal::SIGKILL).unwrap();
    wait_until("none can be started", || {
        let failure = bench.sandbox.readiness().last_failure;
        failure.is_some_and(|why| why.contains("socket or pipes"))
    })
    .await;
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();

    bench.is_well().await;
    let (after, workers) = zygotes_and_workers();
    assert_eq!(after, zygotes, "it is kept");
    assert_eq!(workers.len(), 2, "and they are forked from it");
}
