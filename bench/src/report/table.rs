//! The targets, and what was reached of them.

use crate::progress::short;
use crate::results::{Cell, Results};
use std::fmt::Write as _;

/// A line of the table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) ours: String,
    pub(crate) peer: String,
    pub(crate) ratio: String,
    pub(crate) target: String,
    /// `None`: there is no target, or nothing was measured.
    pub(crate) met: Option<bool>,
    /// Met and more.
    pub(crate) stretched: bool,
}

impl Row {
    pub(crate) fn verdict(&self) -> &'static str {
        match (self.met, self.stretched) {
            (Some(true), true) => "met, stretch too",
            (Some(true), false) => "met",
            (Some(false), _) => "NOT MET",
            (None, _) if self.target.is_empty() => "",
            (None, _) => "not measured",
        }
    }
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast,
    AtMost,
}

/// A figure with its bounds.
#[derive(Clone, Copy)]
struct Target {
    what: &'static str,
    unit: &'static str,
    bound: Bound,
    aim: f64,
    stretch: Option<f64>,
}

impl Target {
    /// A line about one figure.
    fn absolute(&self, value: Option<f64>) -> Row {
        let ours = value.map_or_else(dash, |value| with_unit(value, self.unit));
        self.row(ours, dash(), dash(), value, self.unit)
    }

    /// A line about our figure as a multiple of the peer's.
    fn ratio(&self, ours: Option<f64>, peer: Option<f64>) -> Row {
        let ratio = ours.zip(peer).filter(|(_, peer)| *peer > 0.0).map(|(a, b)| a / b);
        let shown = |value: Option<f64>| value.map_or_else(dash, |v| with_unit(v, self.unit));
        let text = ratio.map_or_else(dash, |ratio| format!("{}x", short(ratio)));
        self.row(shown(ours), shown(peer), text, ratio, "x")
    }

    fn row(
        &self,
        ours: String,
        peer: String,
        ratio: String,
        judged: Option<f64>,
        unit: &str,
    ) -> Row {
        let sign = match self.bound {
            Bound::AtLeast => ">=",
            Bound::AtMost => "<=",
        };
        let holds = |bound: f64| {
            judged.map(|value| match self.bound {
                Bound::AtLeast => value >= bound,
                Bound::AtMost => value <= bound,
            })
        };
        let mut target = format!("{sign} {}", with_unit(self.aim, unit));
        if let Some(stretch) = self.stretch {
            let _ = write!(target, ", stretch {}", with_unit(stretch, unit));
        }
        Row {
            what: self.what.to_owned(),
            ours,
            peer,
            ratio,
            target,
            met: holds(self.aim),
            stretched: self.stretch.and_then(holds) == Some(true),
        }
    }
}

fn dash() -> String {
    "-".to_owned()
}

fn with_unit(value: f64, unit: &str) -> String {
    match unit {
        "" | "x" => format!("{}{unit}", short(value)),
        _ => format!("{} {unit}", short(value)),
    }
}

const fn at_least(what: &'static str, unit: &'static str, aim: f64) -> Target {
    Target { what, unit, bound: Bound::AtLeast, aim, stretch: None }
}

const fn at_most(what: &'static str, unit: &'static str, aim: f64) -> Target {
    Target { what, unit, bound: Bound::AtMost, aim, stretch: None }
}

const fn stretch(target: Target, stretch: f64) -> Target {
    Target { stretch: Some(stretch), ..target }
}

/// All lines, measured or not.
pub(crate) fn rows(results: &Results) -> Vec<Row> {
    let hello = |target: &str, variant: &str, figure: &str| {
        results.find("warm", target, "hello", variant)?.value(figure)
    };
    let rate = |target: &str| hello(target, "32 connections", "calls_per_second");
    let figure = |suite: &str, workload: &str, variant: &str, name: &str| {
        results.find(suite, "cloudserve", workload, variant)?.value(name)
    };
    let ms = |us: Option<f64>| us.map(|us| us / 1e3);
    let cold = |workload: &str, pool: &str, name: &str| ms(figure("cold", workload, pool, name));
    let mut rows = Vec::new();
    for (what, peer, target, more) in [
        ("warm hello, 32 connections, against node:http", "node", 1.0, Some(1.3)),
        ("warm hello, 32 connections, against workerd", "workerd", 3.0, Some(5.0)),
        ("warm hello, 32 connections, against deno serve", "deno", 0.4, Some(0.55)),
        ("warm hello, 32 connections, against fork per call", "fork-per-call", 300.0, None),
    ] {
        let target = Target { stretch: more, ..at_least(what, "calls/s", target) };
        rows.push(target.ratio(rate("cloudserve"), rate(peer)));
    }
    rows.push(added_latency(
        hello("cloudserve", "1 connections", "p50_us"),
        hello("node", "1 connections", "p50_us"),
    ));
    rows.push(at_most("p99 / p50 at half the knee", "x", 3.0).absolute(figure(
        "open",
        "hello",
        "half the knee, poisson",
        "p99_over_p50",
    )));
    let warm_pool = "warm pool";
    rows.push(
        stretch(at_most("cold call, hello, warm pool: p50", "ms", 3.0), 2.0)
            .absolute(cold("hello", warm_pool, "p50_us")),
    );
    rows.push(
        stretch(at_most("cold call, hello, warm pool: p99", "ms", 10.0), 5.0)
            .absolute(cold("hello", warm_pool, "p99_us")),
    );
    rows.push(
        at_most("cold call, hello, no pool: p50", "ms", 5.0)
            .absolute(cold("hello", "no pool", "p50_us")),
    );
    let node_start = results.find("cold", "node", "hello", "process start");
    rows.push(at_most("cold call, hello, no pool, against starting node", "ms", 0.2).ratio(
        cold("hello", "no pool", "p50_us"),
        ms(node_start.and_then(|cell| cell.value("p50_us"))),
    ));
    rows.push(
        at_most("cold call, axios + lodash: p50", "ms", 10.0)
            .absolute(cold("packages", warm_pool, "p50_us")),
    );
    rows.push(
        at_most("cold call, express 5: p50", "ms", 15.0)
            .absolute(cold("express", warm_pool, "p50_us")),
    );
    rows.push(at_least("pool refill", "workers/s", 300.0).absolute(figure(
        "capacity",
        "",
        "pool refill",
        "workers_per_second",
    )));
    rows.push(
        stretch(at_most("memory of an idle warm function (PSS)", "MB", 6.0), 4.0).absolute(figure(
            "capacity",
            "hello",
            "idle warm functions",
            "pss_mb_per_function",
        )),
    );
    rows.push(
        at_least("functions warm at the same time (--full tries 1 000)", "", 1_000.0).absolute(
            figure("capacity", "hello", "idle warm functions", "functions")
                .filter(|n| *n >= 1_000.0),
        ),
    );
    rows.push(
        at_most("deploy, dependency cache hit, to active: p50", "ms", 400.0).absolute(ms(figure(
            "deploy",
            "packages",
            "cache hit",
            "p50_us",
        ))),
    );
    rows.push(routing(results));
    rows.push(
        at_most("1 MB echo: CPU of gateway and supervisor per call, against node", "us", 1.0)
            .ratio(
                figure("warm", "echo-1m", "8 connections", "cpu_us_per_call_server"),
                results
                    .find("warm", "node", "echo-1m", "8 connections")
                    .and_then(|cell| cell.value("cpu_us_per_call")),
            ),
    );
    rows.extend(harness(results));
    rows
}

fn added_latency(ours: Option<f64>, node: Option<f64>) -> Row {
    let target =
        stretch(at_most("added latency over node:http, 1 connection: p50", "us", 40.0), 15.0);
    let added = ours.zip(node).map(|(ours, node)| ours - node);
    let shown = |value: Option<f64>| value.map_or_else(dash, |value| with_unit(value, "us"));
    let difference = added.map_or_else(dash, |added| format!("{added:+.0} us"));
    target.row(shown(ours), shown(node), difference, added, "us")
}

fn routing(results: &Results) -> Row {
    let is_many = |cell: &&Cell| cell.suite == "routing" && cell.variant != "10 functions";
    let many = results.cells.iter().find(is_many);
    let few = results.find("routing", "cloudserve", "hello", "10 functions");
    let p50 = |cell: Option<&Cell>| cell.and_then(|cell| cell.value("p50_us"));
    let target = at_most("p50 with many functions deployed, against 10", "us", 1.05);
    let mut row = target.ratio(p50(many), p50(few));
    if let Some(cell) = many {
        row.what = format!("p50 with {} deployed, against 10", cell.variant);
    }
    row
}

/// What the client itself costs and can do: no target, but without it nobody knows what the other
/// lines mean.
fn harness(results: &Results) -> Vec<Row> {
    let null = results.find("warm", "null", "hello", "32 connections");
    let Some(null) = null else { return Vec::new() };
    let value = |name: &str| null.value(name).map_or_else(dash, short);
    vec![Row {
        what: "the harness itself, 32 connections, server that does nothing".to_owned(),
        ours: format!("{} us of client CPU per call", value("client_us_per_call")),
        peer: format!("{} calls/s", value("calls_per_second")),
        ratio: dash(),
        target: String::new(),
        met: None,
        stretched: false,
    }]
}

/// The table in columns, for a terminal; GitHub reads the same as Markdown.
pub(crate) fn text(rows: &[Row]) -> String {
    let heads = ["what", "ours", "peer", "ratio", "target", "met"];
    let lines: Vec<[&str; 6]> = rows
        .iter()
        .map(|row| [&*row.what, &*row.ours, &*row.peer, &*row.ratio, &*row.target, row.verdict()])
        .collect();
    let widths: Vec<usize> = (0..heads.len())
        .map(|column| {
            let of = |line: &[&str; 6]| line[column].chars().count();
            lines.iter().map(of).chain([heads[column].len()]).max().unwrap_or(0)
        })
        .collect();
    let line = |cells: &[&str; 6]| {
        let cells: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    let mut text = line(&heads);
    let _ = writeln!(text, "| {} |", rule.join(" | "));
    for cells in &lines {
        text.push_str(&line(cells));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::results;
    use crate::results::Better;

    #[test]
    fn a_target_is_judged_by_what_was_measured() {
        let mut results = results();
        for (target, value) in [("cloudserve", 60_000.0), ("node", 50_000.0), ("deno", 160_000.0)] {
            let mut cell = Cell::new("warm", target, "hello", "32 connections");
            cell.set("calls_per_second", value, Better::Higher);
            results.cells.push(cell);
        }
        let rows = rows(&results);
        let row = |what: &str| rows.iter().find(|row| row.what.ends_with(what)).unwrap();
        assert_eq!(row("against node:http").verdict(), "met");
        assert_eq!(row("against node:http").ratio, "1.20x");
        assert_eq!(row("against deno serve").verdict(), "NOT MET");
        assert_eq!(row("against workerd").verdict(), "not measured");
        let text = text(&rows);
        let lengths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
        assert!(lengths.windows(2).all(|pair| pair[0] == pair[1]), "{text}");
    }

    #[test]
    fn the_stretch_is_told_apart() {
        let target = stretch(at_most("x", "ms", 3.0), 2.0);
        for (value, verdict) in [(1.9, "met, stretch too"), (2.1, "met"), (3.1, "NOT MET")] {
            assert_eq!(target.absolute(Some(value)).verdict(), verdict);
        }
        assert_eq!(target.absolute(None).verdict(), "not measured");
    }
}
