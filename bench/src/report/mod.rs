//! What people read of a run.

mod compare;
mod html;
mod markdown;
mod plot;
mod table;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::error::{BenchError, Doing};
use crate::progress::short;
use crate::results::Results;

/// Writes both reports beside each other and prints the table.
pub(crate) fn write(results: &Results, dir: &Path) -> Result<(), BenchError> {
    for (name, text) in
        [("report.md", markdown::render(results)), ("report.html", html::render(results))]
    {
        let path = dir.join(name);
        std::fs::write(&path, text).doing(format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The table of targets, for a terminal.
pub(crate) fn table(results: &Results) -> String {
    table::text(&table::rows(results))
}

/// Prints what changed; fails if something got worse.
pub(crate) fn compare(before: &Path, after: &Path) -> Result<ExitCode, BenchError> {
    let changes = compare::changes(&Results::read(before)?, &Results::read(after)?);
    let mut out = io::stdout().lock();
    let mut regressions = 0;
    for change in &changes {
        let verdict = if change.is_regression() {
            regressions += 1;
            "WORSE"
        } else if change.is_improvement() {
            "better"
        } else {
            "same"
        };
        let _ = writeln!(
            out,
            "{verdict:<7} {:+6.1}% (noise {:.1}%)  {} -> {}  {}",
            -change.worse_by * 100.0,
            change.noise * 100.0,
            short(change.before),
            short(change.after),
            change.what
        );
    }
    let _ = writeln!(out, "{} figures compared, {regressions} worse", changes.len());
    // Nothing in common is no success either.
    let is_good = regressions == 0 && !changes.is_empty();
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::load::histogram;
    use crate::machine::Machine;
    use crate::results::{Better, Cell, Distribution, Run, SCHEMA};

    pub(crate) fn results() -> Results {
        Results {
            schema: SCHEMA,
            machine: Machine::default(),
            run: Run::default(),
            cells: Vec::new(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn reports_hold_what_was_measured_and_results_survive_the_disk() {
        let mut results = results();
        results.notes.push("workerd: not measured: <none>".to_owned());
        let mut values = histogram();
        (1..=1_000).for_each(|us| values.record(us * 1_000).unwrap());
        for (suite, variant) in
            [("warm", "32 connections"), ("cold", "warm pool"), ("open", "step 01")]
        {
            let mut cell = Cell::new(suite, "cloudserve", "hello", variant);
            cell.latency = Distribution::of(&values);
            cell.set_rounds("calls_per_second", &[12_345.0, 12_355.0], Better::Higher);
            cell.set("p50_us", 500.0, Better::Lower);
            cell.set("p99_us", 990.0, Better::Lower);
            cell.set("offered_per_second", 10_000.0, Better::Neither);
            results.cells.push(cell);
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("results.json");
        results.write(&path).unwrap();
        let read = Results::read(&path).unwrap();
        write(&read, dir.path()).unwrap();
        let markdown = std::fs::read_to_string(dir.path().join("report.md")).unwrap();
        assert!(markdown.contains("calls_per_second 12350 ±0%"), "{markdown}");
        let html = std::fs::read_to_string(dir.path().join("report.html")).unwrap();
        assert!(html.contains("&lt;none&gt;") && !html.contains("<none>"));
        // Curve, ramp, throughput and histogram are drawn; nothing is fetched.
        assert_eq!(html.matches("<svg").count(), 4, "{html}");
        assert!(!html.contains("src=") && !html.contains("href="));
        assert!(Results::read(&dir.path().join("report.md")).is_err());
    }
}
