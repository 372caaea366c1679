//! A day in the life of a platform, in seconds: a replay of a trace shaped as the published one of
//! Azure Functions (Shahrad and others, "Serverless in the Wild", 2020). Few functions get nearly
//! all calls, most are called rarely; a third of them by timers, the rest by people or in bursts;
//! durations are log-normal. Time is compressed, and with it the time after which an idle worker
//! is evicted, so that rare functions are cold as they are there.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, Exp, LogNormal};

use super::open::{connected, nanos};
use super::{Bench, deploy_of};
use crate::client::Request;
use crate::error::{BenchError, Doing};
use crate::load::{Arrival, Expected, MS, OpenPlan, SECOND, Temperature, open};
use crate::results::{Better, Cell, Distribution as Figures};
use crate::target::ServerOptions;
use crate::workload::TIMED;

/// Spread of how often functions are called: the busiest fifth gets nearly all calls.
const RATE_SIGMA: f64 = 2.4;
/// Durations: median and spread of the trace's averages, a tenth of them as time is compressed.
const DURATION_MEDIAN_MS: f64 = 60.0;
const DURATION_SIGMA: f64 = 1.5;
/// No call takes longer: it would last past the end.
const LONGEST_MS: u64 = 1_000;
/// Each function has this many durations.
const DURATIONS: usize = 4;
/// Calls of a burst come this close.
const BURST_GAP_NS: u64 = 5 * MS;
const BURST_CALLS: f64 = 8.0;
/// An idle worker is evicted after this.
const EVICT_MS: u32 = 2_000;
const LANES: usize = 200;

/// Which calls there are and when: arrivals in their order, and the duration of each request.
#[derive(Debug, PartialEq)]
struct Trace {
    arrivals: Vec<Arrival>,
    /// Of request `function * DURATIONS + n`.
    durations_ms: Vec<u64>,
}

fn trace(functions: usize, per_second: f64, lasting: u64, seed: u64) -> Trace {
    let mut rng = StdRng::seed_from_u64(seed);
    let weights = LogNormal::new(0.0, RATE_SIGMA).expect("the spread is positive");
    let durations =
        LogNormal::new(DURATION_MEDIAN_MS.ln(), DURATION_SIGMA).expect("the spread is positive");
    let weights: Vec<f64> = (0..functions).map(|_| weights.sample(&mut rng)).collect();
    let total: f64 = weights.iter().sum();
    let mut arrivals = Vec::new();
    let mut durations_ms = Vec::new();
    for (function, weight) in weights.iter().enumerate() {
        for _ in 0..DURATIONS {
            durations_ms.push((durations.sample(&mut rng) as u64).min(LONGEST_MS));
        }
        let rate = per_second * weight / total / SECOND as f64;
        let mut push = |at: u64, rng: &mut StdRng| {
            let request = function * DURATIONS + rng.random_range(0..DURATIONS);
            arrivals.push(Arrival { at, request });
        };
        // Rates in calls per nanosecond are tiny, not zero.
        let gaps = Exp::new(rate).expect("a weight is positive");
        match function % 3 {
            // A timer.
            0 => {
                let gap = (1.0 / rate) as u64;
                let mut at = rng.random_range(0..=gap.min(lasting));
                while at < lasting {
                    push(at, &mut rng);
                    at = at.saturating_add(gap.max(1));
                }
            }
            // People.
            1 => {
                let mut at = gaps.sample(&mut rng);
                while at < lasting as f64 {
                    push(at as u64, &mut rng);
                    at += gaps.sample(&mut rng);
                }
            }
            // Queues that fill at once: bursts, so much rarer.
            _ => {
                let mut at = gaps.sample(&mut rng) * BURST_CALLS;
                while at < lasting as f64 {
                    for n in 0..BURST_CALLS as u64 {
                        let at = at as u64 + n * BURST_GAP_NS;
                        if at < lasting {
                            push(at, &mut rng);
                        }
                    }
                    at += gaps.sample(&mut rng) * BURST_CALLS;
                }
            }
        }
    }
    arrivals.sort_by_key(|arrival| arrival.at);
    Trace { arrivals, durations_ms }
}

pub(crate) async fn run(bench: &mut Bench) -> Result<(), BenchError> {
    let functions = bench.plan.trace_functions;
    let lasting = bench.plan.trace;
    let mut home = bench.home("trace")?;
    let server = home.serve(&ServerOptions::default()).await?;
    for n in 0..functions {
        server.deploy(&deploy_of(&format!("timed-{n}"), &TIMED)).await?;
    }
    server.stop().await;
    let options = ServerOptions { idle_evict_ms: Some(EVICT_MS), ..ServerOptions::default() };
    let server = home.serve(&options).await?;
    let trace = trace(functions, bench.plan.trace_rate, nanos(lasting), bench.plan.seed);
    let requests: Vec<Request> = trace
        .durations_ms
        .iter()
        .enumerate()
        .map(|(request, ms)| {
            let path = format!("timed-{}?ms={ms}", request / DURATIONS);
            home.request(&server, &path, &TIMED).lasting(ms * MS)
        })
        .collect();
    let plan = OpenPlan {
        warm_up_ns: 0,
        lasting_ns: nanos(lasting),
        max_in_flight: 10_000,
        drain_ns: nanos(Duration::from_secs(10)),
        expected: Expected { status: 200, body_bytes: None, temperature: Temperature::Any },
    };
    let mut lanes = connected(server.gateway, LANES).await;
    let record = open(&bench.clock, &mut lanes, &requests, &trace.arrivals, &plan)
        .await
        .doing("no timer can be made")?;
    server.stop().await;
    let mut cell = Cell::new("trace", "cloudserve", TIMED.name, "all").recorded(&record, true);
    cell.set("calls", record.offered as f64, Better::Neither);
    cell.set("functions", functions as f64, Better::Neither);
    let share = record.cold as f64 / record.offered.max(1) as f64;
    cell.set("cold_share", share, Better::Lower);
    bench.keep(cell);
    let mut cell = Cell::new("trace", "cloudserve", TIMED.name, "cold ones");
    cell.latency = Figures::of(&record.cold_latency);
    if let Some(latency) = cell.latency.clone() {
        cell.set("p50_us", latency.p50_us, Better::Lower);
        cell.set("p99_us", latency.p99_us, Better::Lower);
    }
    bench.keep(cell);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trace_repeats_and_few_functions_have_most_calls() {
        let made = trace(60, 200.0, 60 * SECOND, 1);
        assert_eq!(made, trace(60, 200.0, 60 * SECOND, 1));
        assert_ne!(made, trace(60, 200.0, 60 * SECOND, 2));
        assert!(made.arrivals.windows(2).all(|pair| pair[0].at <= pair[1].at));
        assert!(made.arrivals.iter().all(|a| a.at < 60 * SECOND && a.request < 60 * DURATIONS));
        let mut calls = vec![0; 60];
        made.arrivals.iter().for_each(|arrival| calls[arrival.request / DURATIONS] += 1);
        calls.sort_unstable();
        let busy: usize = calls[48..].iter().sum();
        assert!(busy * 10 > made.arrivals.len() * 8, "{calls:?}");
        assert!(made.durations_ms.iter().all(|ms| *ms <= LONGEST_MS));
    }
}
