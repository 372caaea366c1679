//! When calls are due: fixed before the first is made, so that a slow server cannot slow it down.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, Exp};

use super::SECOND;

/// A call that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// Nanoseconds after the beginning.
    pub(crate) at: u64,
    /// Which of the requests.
    pub(crate) request: usize,
}

/// Evenly spaced calls of the requests in turn.
pub(crate) fn fixed(per_second: f64, lasting: u64, n_requests: usize) -> Vec<Arrival> {
    let gap = SECOND as f64 / per_second;
    let n = (lasting as f64 / gap).floor() as usize;
    (0..n).map(|i| Arrival { at: (i as f64 * gap) as u64, request: i % n_requests }).collect()
}

/// Calls that know nothing of each other: exponential gaps.
pub(crate) fn poisson(per_second: f64, lasting: u64, n_requests: usize, seed: u64) -> Vec<Arrival> {
    let mut rng = StdRng::seed_from_u64(seed);
    let gaps = Exp::new(per_second / SECOND as f64).expect("a rate is positive");
    let mut arrivals = Vec::new();
    let mut at = gaps.sample(&mut rng);
    while at < lasting as f64 {
        arrivals.push(Arrival { at: at as u64, request: arrivals.len() % n_requests });
        at += gaps.sample(&mut rng);
    }
    arrivals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_gaps_are_equal_and_requests_take_turns() {
        let arrivals = fixed(1_000.0, SECOND, 3);
        assert_eq!(arrivals.len(), 1_000);
        assert!(arrivals.windows(2).all(|pair| pair[1].at - pair[0].at == 1_000_000));
        assert_eq!(arrivals.iter().filter(|a| a.request == 1).count(), 333);
    }

    #[test]
    fn poisson_has_its_rate_and_its_spread_and_repeats_with_its_seed() {
        let arrivals = poisson(10_000.0, 10 * SECOND, 1, 7);
        let n = arrivals.len() as f64;
        // Six standard deviations of a Poisson count.
        assert!((n - 100_000.0).abs() < 6.0 * 100_000_f64.sqrt(), "{n}");
        let gaps: Vec<f64> =
            arrivals.windows(2).map(|pair| (pair[1].at - pair[0].at) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        let spread = variance.sqrt() / mean;
        assert!((0.98..1.02).contains(&spread), "exponential gaps spread as their mean: {spread}");
        assert_eq!(arrivals, poisson(10_000.0, 10 * SECOND, 1, 7));
        assert_ne!(arrivals, poisson(10_000.0, 10 * SECOND, 1, 8));
    }
}
