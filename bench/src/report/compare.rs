//! Two runs against each other: worse is what is worse by more than the runs' own noise.

use crate::results::{Better, Results};

/// A difference below this share is none, however quiet the rounds were: machines drift.
const LEAST_NOISE: f64 = 0.05;
/// Noise above this share says that nothing can be said.
const MOST_NOISE: f64 = 0.5;

/// A figure of both runs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Change {
    pub(crate) what: String,
    pub(crate) before: f64,
    pub(crate) after: f64,
    /// How much worse it is, as a share of before; negative is better.
    pub(crate) worse_by: f64,
    /// So much may be noise.
    pub(crate) noise: f64,
}

impl Change {
    pub(crate) fn is_regression(&self) -> bool {
        self.noise <= MOST_NOISE && self.worse_by > self.noise
    }

    pub(crate) fn is_improvement(&self) -> bool {
        self.noise <= MOST_NOISE && -self.worse_by > self.noise
    }
}

/// All figures of ours that both runs have, worst first. Peers do not change with our commits;
/// where both runs have a peer for a figure of rate, that figure is compared as a ratio to it, so
/// that a slower machine is not taken for slower code.
pub(crate) fn changes(before: &Results, after: &Results) -> Vec<Change> {
    let mut changes = Vec::new();
    for cell in after.cells.iter().filter(|cell| cell.target == "cloudserve") {
        let old = before.find(&cell.suite, &cell.target, &cell.workload, &cell.variant);
        let Some(old) = old else { continue };
        for (name, figure) in &cell.figures {
            let (Some(old_figure), false) =
                (old.figures.get(name), figure.better == Better::Neither)
            else {
                continue;
            };
            let mut what = format!("{} / {name}", cell.key());
            let (mut was, mut is) = (old_figure.value, figure.value);
            let mut noise = old_figure.noise.unwrap_or(0.0) + figure.noise.unwrap_or(0.0);
            if name == "calls_per_second" {
                let node = |results: &Results| {
                    let cell = results.find(&cell.suite, "node", &cell.workload, &cell.variant)?;
                    cell.figures.get(name).copied().filter(|figure| figure.value > 0.0)
                };
                if let (Some(node_was), Some(node_is)) = (node(before), node(after)) {
                    what.push_str(" against node");
                    was /= node_was.value;
                    is /= node_is.value;
                    noise += node_was.noise.unwrap_or(0.0) + node_is.noise.unwrap_or(0.0);
                }
            }
            if was == 0.0 || !was.is_finite() || !is.is_finite() {
                continue;
            }
            let grown = (is - was) / was.abs();
            let worse_by = if figure.better == Better::Higher { -grown } else { grown };
            changes.push(Change {
                what,
                before: was,
                after: is,
                worse_by,
                noise: noise.max(LEAST_NOISE),
            });
        }
    }
    changes.sort_by(|a, b| (b.worse_by - b.noise).total_cmp(&(a.worse_by - a.noise)));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::results;
    use crate::results::Cell;

    fn run(rate: [f64; 3], node: [f64; 3], memory: f64) -> Results {
        let mut results = results();
        for (target, rounds) in [("cloudserve", rate), ("node", node)] {
            let mut cell = Cell::new("warm", target, "hello", "32 connections");
            cell.set_rounds("calls_per_second", &rounds, Better::Higher);
            results.cells.push(cell);
        }
        let mut cell = Cell::new("capacity", "cloudserve", "hello", "");
        cell.set("pss_mb_per_function", memory, Better::Lower);
        cell.set("functions", memory, Better::Neither);
        results.cells.push(cell);
        results
    }

    fn regressions(before: &Results, after: &Results) -> Vec<String> {
        let changes = changes(before, after);
        changes.into_iter().filter(Change::is_regression).map(|change| change.what).collect()
    }

    #[test]
    fn a_regression_is_what_noise_cannot_explain() {
        let before = run([100.0, 101.0, 102.0], [50.0, 50.0, 50.0], 10.0);
        let slower = run([80.0, 81.0, 82.0], [50.0, 50.0, 50.0], 10.0);
        let noisy = run([60.0, 81.0, 102.0], [50.0, 50.0, 50.0], 10.0);
        let fatter = run([100.0, 101.0, 102.0], [50.0, 50.0, 50.0], 11.0);
        assert_eq!(
            regressions(&before, &slower),
            ["warm / cloudserve / hello / 32 connections / calls_per_second against node"]
        );
        assert_eq!(
            regressions(&before, &fatter),
            ["capacity / cloudserve / hello / pss_mb_per_function"]
        );
        assert!(regressions(&before, &noisy).is_empty());
        assert!(regressions(&before, &before).is_empty());
        assert!(changes(&slower, &before)[1].is_improvement());
    }

    #[test]
    fn a_slower_machine_is_no_regression() {
        let before = run([100.0; 3], [50.0; 3], 10.0);
        let after = run([50.0; 3], [25.0; 3], 10.0);
        assert!(regressions(&before, &after).is_empty());
    }
}
