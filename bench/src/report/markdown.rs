//! The report as Markdown.

use std::fmt::Write;

use super::table;
use crate::progress::short;
use crate::results::{Cell, Distribution, Results};

/// The whole report.
pub(crate) fn render(results: &Results) -> String {
    let mut out = String::from("# CloudServe benchmark\n\n");
    for (name, value) in facts(results) {
        let _ = writeln!(out, "- {name}: {value}");
    }
    out.push_str("\n## Targets\n\n");
    out.push_str(&table::text(&table::rows(results)));
    if !results.notes.is_empty() {
        out.push_str("\n## Notes\n\n");
        for note in &results.notes {
            let _ = writeln!(out, "- {}", note.replace('\n', " "));
        }
    }
    let mut suites: Vec<&str> = Vec::new();
    for cell in &results.cells {
        if !suites.contains(&cell.suite.as_str()) {
            suites.push(&cell.suite);
        }
    }
    for suite in suites {
        let cells: Vec<&Cell> = results.cells.iter().filter(|c| c.suite == suite).collect();
        let _ = writeln!(out, "\n## {suite}\n");
        latencies(&mut out, &cells);
        out.push('\n');
        figures(&mut out, &cells);
    }
    out
}

/// What every reader must know before the figures.
pub(crate) fn facts(results: &Results) -> Vec<(&'static str, String)> {
    let (machine, run) = (&results.machine, &results.run);
    let pairs = |map: &std::collections::BTreeMap<String, String>| {
        map.iter().map(|(k, v)| format!("{k} {v}")).collect::<Vec<_>>().join(", ")
    };
    let mut facts = vec![
        (
            "commit",
            format!("{}{}", run.commit, if run.dirty { ", with uncommitted changes" } else { "" }),
        ),
        ("kernel", machine.kernel.clone()),
        ("CPU", format!("{}, {} cores", machine.cpu, machine.cores)),
        ("memory", format!("{} GB", machine.memory_bytes >> 30)),
        ("load before the run", format!("{:.2}", machine.load_before)),
        ("stolen by other machines", format!("{:.1} %", machine.stolen * 100.0)),
        ("length", format!("{}, {:.0} s", run.length, run.took_seconds)),
        ("seed", run.seed.to_string()),
        ("configuration", pairs(&run.configuration)),
        ("peers", pairs(&run.versions)),
    ];
    if machine.load_before > 0.3 {
        facts.push(("beware", "the machine was busy before the run; do not compare".to_owned()));
    }
    if machine.stolen > 0.02 {
        let text = "a hypervisor took processors away; the tails below are its own".to_owned();
        facts.push(("beware", text));
    }
    facts
}

fn latencies(out: &mut String, cells: &[&Cell]) {
    if cells.iter().all(|cell| cell.latency.is_none()) {
        return;
    }
    out.push_str(
        "| target | workload | variant | calls | p50 us | p90 us | p99 us | p99.9 us | max us | \
         uncorrected p99 us | errors | wrong temperature |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for cell in cells {
        let Some(d) = &cell.latency else { continue };
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            cell.target,
            cell.workload,
            cell.variant,
            d.count,
            short(d.p50_us),
            short(d.p90_us),
            short(d.p99_us),
            short(d.p999_us),
            short(d.max_us),
            cell.uncorrected.as_ref().map_or_else(String::new, |d| short(d.p99_us)),
            errors_of(cell),
            cell.wrong_temperature,
        );
    }
}

fn figures(out: &mut String, cells: &[&Cell]) {
    out.push_str("| target | workload | variant | figures | where the time goes (p50 us) |\n");
    out.push_str("|---|---|---|---|---|\n");
    for cell in cells {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} |",
            cell.target,
            cell.workload,
            cell.variant,
            figures_of(cell),
            parts(cell)
        );
    }
}

/// Its figures, with their noise.
pub(crate) fn figures_of(cell: &Cell) -> String {
    let figures = cell.figures.iter().map(|(name, figure)| {
        let noise = figure.noise.map_or_else(String::new, |n| format!(" ±{:.0}%", n * 100.0));
        format!("{name} {}{noise}", short(figure.value))
    });
    figures.collect::<Vec<_>>().join(", ")
}

/// Its errors, and how many there were of each.
pub(crate) fn errors_of(cell: &Cell) -> String {
    let errors = cell.errors.iter().map(|(code, n)| format!("{code} {n}"));
    errors.collect::<Vec<_>>().join(", ")
}

fn parts(cell: &Cell) -> String {
    let part = |(name, d): (&String, &Distribution)| format!("{name} {}", short(d.p50_us));
    cell.parts.iter().map(part).collect::<Vec<_>>().join(", ")
}
