//! The report as one HTML page that needs nothing from anywhere.

use std::fmt::Write;

use super::plot::{Plot, Scale, Series, escaped};
use super::{markdown, table};
use crate::results::{Cell, Results};

const STYLE: &str = "
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em;
  color: #1b1b1b; background: #fff; }
table { border-collapse: collapse; width: 100%; font-size: 13px; margin: 1em 0; }
th, td { text-align: left; padding: 3px 8px; border-bottom: 1px solid #ddd; }
td.met { color: #00684a; } td.missed { color: #b00020; font-weight: 600; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(460px, 1fr)); gap: 1em; }
svg { width: 100%; background: #fafafa; border: 1px solid #e4e4e4; }
svg text { font: 11px system-ui, sans-serif; fill: #333; } svg .title { font-weight: 600; }
svg .legend { fill: revert-layer; } svg .grid { stroke: #e2e2e2; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1em; } dd { margin: 0; }
";

/// The page.
pub(crate) fn render(results: &Results) -> String {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>CloudServe benchmark</title>\n<style>{STYLE}</style>\n\
         <h1>CloudServe benchmark</h1>\n<dl>\n"
    );
    for (name, value) in markdown::facts(results) {
        let _ = writeln!(out, "<dt>{name}</dt><dd>{}</dd>", escaped(&value));
    }
    out.push_str("</dl>\n<h2>Targets</h2>\n");
    targets(&mut out, results);
    if !results.notes.is_empty() {
        out.push_str("<h2>Notes</h2>\n<ul>\n");
        for note in &results.notes {
            let _ = writeln!(out, "<li>{}</li>", escaped(note));
        }
        out.push_str("</ul>\n");
    }
    out.push_str("<h2>Plots</h2>\n<div class=\"plots\">\n");
    for plot in plots(results) {
        out.push_str(&plot.svg());
    }
    out.push_str("</div>\n<h2>All figures</h2>\n");
    all(&mut out, results);
    out.push_str("</html>\n");
    out
}

fn targets(out: &mut String, results: &Results) {
    out.push_str("<table>\n<tr><th>what<th>ours<th>peer<th>ratio<th>target<th>met</tr>\n");
    for row in table::rows(results) {
        let class = match row.met {
            Some(true) => "met",
            Some(false) => "missed",
            None => "",
        };
        let _ = writeln!(
            out,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{}<td class=\"{class}\">{}</tr>",
            escaped(&row.what),
            row.ours,
            row.peer,
            row.ratio,
            escaped(&row.target),
            row.verdict()
        );
    }
    out.push_str("</table>\n");
}

fn all(out: &mut String, results: &Results) {
    out.push_str("<table>\n<tr><th>what<th>figures<th>errors</tr>\n");
    for cell in &results.cells {
        let _ = writeln!(
            out,
            "<tr><td>{}<td>{}<td>{}</tr>",
            escaped(&cell.key()),
            markdown::figures_of(cell),
            markdown::errors_of(cell)
        );
    }
    out.push_str("</table>\n");
}

fn plots(results: &Results) -> Vec<Plot> {
    let mut plots = Vec::new();
    for connections in ["1 connections", "8 connections", "32 connections"] {
        let cells = cells(results, "warm", |c| c.workload == "hello" && c.variant == connections);
        plots.push(curves(&format!("Warm hello, {connections}"), &cells, |c| c.target.clone()));
    }
    let open = cells(results, "open", |c| c.variant.starts_with("half the knee"));
    plots.push(curves("Half the knee, from when a call was due", &open, |c| {
        format!("{}, {}", c.target, c.variant.rsplit(' ').next().unwrap_or_default())
    }));
    plots.push(knee(results));
    plots.push(throughput(results));
    for cell in cells(results, "cold", |c| c.target == "cloudserve") {
        plots.push(histogram_of(cell));
    }
    let burst = cells(results, "burst", |_| true);
    plots.push(curves("Bursts", &burst, |c| c.variant.clone()));
    let trace = cells(results, "trace", |_| true);
    plots.push(curves("Trace, what is added to the function's own time", &trace, |c| {
        c.variant.clone()
    }));
    plots.push(soak(results));
    plots
}

fn cells<'a>(
    results: &'a Results,
    suite: &str,
    mut wanted: impl FnMut(&Cell) -> bool,
) -> Vec<&'a Cell> {
    results.cells.iter().filter(|cell| cell.suite == suite && wanted(cell)).collect()
}

/// Latency by share of calls; each nine takes as much room as the one before.
fn curves(title: &str, cells: &[&Cell], name: impl Fn(&Cell) -> String) -> Plot {
    let nines = |share: f64| 1.0 / (1.0 - share);
    let series = cells.iter().filter_map(|cell| {
        let latency = cell.latency.as_ref()?;
        let curve = latency.curve.iter().filter(|(share, _)| *share <= 0.9999);
        let points = curve.map(|(share, us)| (nines(*share), *us)).collect();
        Some(Series { name: name(cell), points })
    });
    let ticks = [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999];
    Plot {
        title: title.to_owned(),
        x_label: "share of calls".to_owned(),
        y_label: "latency, us".to_owned(),
        x_scale: Scale::Log,
        y_scale: Scale::Log,
        x_ticks: ticks.map(|share| (nines(share), format!("{}%", share * 100.0))).to_vec(),
        is_bars: false,
        series: series.collect(),
    }
}

/// Adds a point, if there is one, to the series of this name.
fn add_point(all: &mut Vec<Series>, name: String, point: Option<(f64, f64)>) {
    let Some(point) = point else { return };
    match all.iter_mut().find(|series| series.name == name) {
        Some(series) => series.points.push(point),
        None => all.push(Series { name, points: vec![point] }),
    }
}

/// Latency by offered rate.
fn knee(results: &Results) -> Plot {
    let mut series: Vec<Series> = Vec::new();
    for (figure, name) in [("p50_us", "p50"), ("p99_us", "p99")] {
        for cell in cells(results, "open", |c| c.variant.starts_with("step ")) {
            let point = cell.value("offered_per_second").zip(cell.value(figure));
            add_point(&mut series, format!("{}, {name}", cell.target), point);
        }
    }
    Plot {
        title: "Ramp to the knee".to_owned(),
        x_label: "offered calls per second".to_owned(),
        y_label: "latency, us".to_owned(),
        x_scale: Scale::Linear,
        y_scale: Scale::Log,
        x_ticks: Vec::new(),
        is_bars: false,
        series,
    }
}

/// Throughput against latency of the closed loop, a point for each number of connections.
fn throughput(results: &Results) -> Plot {
    let mut series: Vec<Series> = Vec::new();
    for cell in cells(results, "warm", |c| c.workload == "hello") {
        let point = cell.value("calls_per_second").zip(cell.value("p50_us"));
        add_point(&mut series, cell.target.clone(), point);
    }
    Plot {
        title: "Warm hello, throughput against p50 at 1, 8 and 32 connections".to_owned(),
        x_label: "calls per second".to_owned(),
        y_label: "p50, us".to_owned(),
        x_scale: Scale::Log,
        y_scale: Scale::Log,
        x_ticks: Vec::new(),
        is_bars: false,
        series,
    }
}

/// How often a latency was met: the curve, turned into bars.
fn histogram_of(cell: &Cell) -> Plot {
    const BARS: usize = 24;
    let curve = cell.latency.as_ref().map(|latency| latency.curve.clone()).unwrap_or_default();
    // What is beyond p99 would leave all others one bar.
    let at = |share: f64| curve.iter().find(|(s, _)| *s >= share).map_or(0.0, |(_, us)| *us);
    let (low, high) = (at(0.0), at(0.99).max(at(0.0) + 1.0));
    let step = (high - low) / BARS as f64;
    let below = |us: f64| {
        // Shares between two points of the curve are in proportion.
        let after = curve.iter().position(|(_, value)| *value > us).unwrap_or(curve.len());
        match (after.checked_sub(1).and_then(|n| curve.get(n)), curve.get(after)) {
            (Some((s0, v0)), Some((s1, v1))) => s0 + (s1 - s0) * (us - v0) / (v1 - v0),
            (Some((share, _)), None) => *share,
            (None, _) => 0.0,
        }
    };
    let points = (0..BARS)
        .map(|n| {
            let from = low + step * n as f64;
            ((from + step / 2.0) / 1e3, (below(from + step) - below(from)) * 100.0)
        })
        .collect();
    Plot {
        title: format!("First calls: {}, {}", cell.workload, cell.variant),
        x_label: "latency, ms".to_owned(),
        y_label: "% of calls".to_owned(),
        x_scale: Scale::Linear,
        y_scale: Scale::Linear,
        x_ticks: Vec::new(),
        is_bars: true,
        series: if curve.is_empty() {
            Vec::new()
        } else {
            vec![Series { name: String::new(), points }]
        },
    }
}

/// Memory and p99 while it goes on.
fn soak(results: &Results) -> Plot {
    let cells = cells(results, "soak", |_| true);
    let series = [("pss_mb", "memory, MB"), ("p99_us", "p99, us")].map(|(figure, name)| Series {
        name: name.to_owned(),
        points: cells
            .iter()
            .enumerate()
            .filter_map(|(n, cell)| Some((n as f64, cell.value(figure)?)))
            .collect(),
    });
    Plot {
        title: "Soak".to_owned(),
        x_label: "window".to_owned(),
        y_label: String::new(),
        x_scale: Scale::Linear,
        y_scale: Scale::Log,
        x_ticks: Vec::new(),
        is_bars: false,
        series: series.to_vec(),
    }
}
