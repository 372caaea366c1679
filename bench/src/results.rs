//! What a run found out, as it is written to disk and read again by `compare` and `report`.

use std::collections::BTreeMap;
use std::path::Path;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::error::{BenchError, Doing};
use crate::load::{Record, us_at};
use crate::machine::Machine;

/// Changes when a reader of older results would misunderstand newer ones.
pub(crate) const SCHEMA: u32 = 1;

/// A run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) schema: u32,
    pub(crate) machine: Machine,
    pub(crate) run: Run,
    pub(crate) cells: Vec<Cell>,
    /// What could not be measured, and why; what else a reader must know.
    pub(crate) notes: Vec<String>,
}

/// How the run was made.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) commit: String,
    /// The checkout had changes that are in no commit.
    pub(crate) dirty: bool,
    /// Seconds since 1970.
    pub(crate) started_at: u64,
    pub(crate) took_seconds: f64,
    pub(crate) seed: u64,
    /// `quick`, `usual` or `full`.
    pub(crate) length: String,
    /// Settings of the server that are not its defaults.
    pub(crate) configuration: BTreeMap<String, String>,
    /// Versions of the peers.
    pub(crate) versions: BTreeMap<String, String>,
}

/// One thing that was measured.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Cell {
    pub(crate) suite: String,
    pub(crate) target: String,
    pub(crate) workload: String,
    pub(crate) variant: String,
    pub(crate) figures: BTreeMap<String, Figure>,
    /// Counted from when a call was due; for a closed loop, from when it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) latency: Option<Distribution>,
    /// Counted from when a call was sent; only where that is not the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) uncorrected: Option<Distribution>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) first_byte: Option<Distribution>,
    /// Where the time went, by `server-timing`; `rest` is what the server did not tell of.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) parts: BTreeMap<String, Distribution>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) errors: BTreeMap<String, u64>,
    #[serde(default)]
    pub(crate) wrong_temperature: u64,
}

/// A figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) value: f64,
    pub(crate) better: Better,
    /// Half of what lies between the smallest and the largest round, as a share of the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) noise: Option<f64>,
}

/// Which way a figure improves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    Higher,
    Lower,
    /// It describes; it is no merit.
    Neither,
}

/// A distribution of microseconds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Distribution {
    pub(crate) count: u64,
    pub(crate) mean_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
    /// Share of calls, and the time in which that share was answered.
    pub(crate) curve: Vec<(f64, f64)>,
}

/// Shares of a latency curve: fine where it is steep.
const SHARES: [f64; 24] = [
    0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975,
    0.99, 0.995, 0.9975, 0.999, 0.9995, 0.9999, 1.0,
];

impl Distribution {
    /// Of a histogram of nanoseconds; `None` if nothing is in it.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Option<Self> {
        if histogram.is_empty() {
            return None;
        }
        let at = |share: f64| us_at(histogram, share);
        Some(Self {
            count: histogram.len(),
            mean_us: histogram.mean() / 1e3,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: histogram.max() as f64 / 1e3,
            curve: SHARES.iter().map(|share| (*share, at(*share))).collect(),
        })
    }
}

impl Cell {
    pub(crate) fn new(suite: &str, target: &str, workload: &str, variant: &str) -> Self {
        Self {
            suite: suite.to_owned(),
            target: target.to_owned(),
            workload: workload.to_owned(),
            variant: variant.to_owned(),
            ..Self::default()
        }
    }

    /// Adds what was recorded. `is_open`: calls had instants at which they were due.
    pub(crate) fn recorded(mut self, record: &Record, is_open: bool) -> Self {
        self.latency = Distribution::of(&record.corrected);
        if is_open {
            self.uncorrected = Distribution::of(&record.uncorrected);
            if let Some(lag) = Distribution::of(&record.lag) {
                self.set("client_lag_p99_us", lag.p99_us, Better::Neither);
            }
        }
        self.first_byte = Distribution::of(&record.first_byte);
        let parts = record.parts.iter();
        self.parts =
            parts.filter_map(|(name, h)| Some((name.clone(), Distribution::of(h)?))).collect();
        self.errors.clone_from(&record.errors);
        self.wrong_temperature = record.wrong_temperature;
        if let Some(latency) = &self.latency {
            let (p50, p99) = (latency.p50_us, latency.p99_us);
            self.set("p50_us", p50, Better::Lower);
            self.set("p99_us", p99, Better::Lower);
        }
        self
    }

    pub(crate) fn set(&mut self, name: &str, value: f64, better: Better) {
        self.figures.insert(name.to_owned(), Figure { value, better, noise: None });
    }

    /// A figure that was taken in rounds: the median stands for it, the rest is its noise.
    pub(crate) fn set_rounds(&mut self, name: &str, rounds: &[f64], better: Better) {
        let Some((value, noise)) = median_and_noise(rounds) else { return };
        self.figures.insert(name.to_owned(), Figure { value, better, noise });
    }

    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        self.figures.get(name).map(|figure| figure.value)
    }

    /// What makes two cells of two runs the same.
    pub(crate) fn key(&self) -> String {
        [&self.suite, &self.target, &self.workload, &self.variant]
            .into_iter()
            .filter(|part| !part.is_empty())
            .cloned()
            .collect::<Vec<_>>()
            .join(" / ")
    }
}

/// The median, and half the range as a share of it; no noise of fewer than two.
pub(crate) fn median_and_noise(rounds: &[f64]) -> Option<(f64, Option<f64>)> {
    let mut sorted: Vec<f64> = rounds.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let (first, last) = (*sorted.first()?, *sorted.last()?);
    let middle = sorted.len() / 2;
    let median = if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    } else {
        sorted[middle]
    };
    let noise = (sorted.len() > 1 && median != 0.0).then(|| (last - first) / 2.0 / median.abs());
    Some((median, noise))
}

impl Results {
    pub(crate) fn find(
        &self,
        suite: &str,
        target: &str,
        workload: &str,
        variant: &str,
    ) -> Option<&Cell> {
        self.cells.iter().find(|cell| {
            cell.suite == suite
                && cell.target == target
                && cell.workload == workload
                && cell.variant == variant
        })
    }

    pub(crate) fn read(path: &Path) -> Result<Self, BenchError> {
        let bytes = std::fs::read(path).doing(format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&bytes)
            .map_err(|source| BenchError::NotAResult { path: path.to_owned(), source })
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), BenchError> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|source| BenchError::NotAResult { path: path.to_owned(), source })?;
        std::fs::write(path, text + "\n").doing(format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::histogram;

    #[test]
    fn a_median_has_the_noise_of_its_rounds() {
        let (median, noise) = median_and_noise(&[90.0, 110.0, 100.0]).unwrap();
        assert!((median - 100.0).abs() < 1e-9);
        assert!((noise.unwrap() - 0.1).abs() < 1e-9);
        assert!((median_and_noise(&[4.0, 6.0]).unwrap().0 - 5.0).abs() < 1e-9);
        assert_eq!(median_and_noise(&[5.0]), Some((5.0, None)));
        assert_eq!(median_and_noise(&[f64::NAN]), None);
    }

    #[test]
    fn a_distribution_is_that_of_its_histogram() {
        let mut values = histogram();
        (1..=1_000).for_each(|us| values.record(us * 1_000).unwrap());
        let found = Distribution::of(&values).unwrap();
        assert_eq!(found.count, 1_000);
        for (got, wanted) in [(found.p50_us, 500.0), (found.p99_us, 990.0), (found.max_us, 1_000.0)]
        {
            assert!((got - wanted).abs() / wanted < 0.002, "{got} {wanted}");
        }
        assert!(found.curve.windows(2).all(|pair| pair[0].1 <= pair[1].1));
        assert!(Distribution::of(&histogram()).is_none());
    }
}
