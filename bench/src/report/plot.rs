//! Plots as SVG, drawn here: a report is one file that needs nothing else.

use std::fmt::Write;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 44.0;
/// Told apart by people who see colours otherwise, too.
const COLOURS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#555555", "#a6761d"];

/// A line or a row of bars.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// How values become positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    Linear,
    Log,
}

/// What is drawn.
#[derive(Debug, Clone)]
pub(crate) struct Plot {
    pub(crate) title: String,
    pub(crate) x_label: String,
    pub(crate) y_label: String,
    pub(crate) x_scale: Scale,
    pub(crate) y_scale: Scale,
    /// Places on the x axis with names of their own; else they are chosen.
    pub(crate) x_ticks: Vec<(f64, String)>,
    pub(crate) is_bars: bool,
    pub(crate) series: Vec<Series>,
}

struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn new(scale: Scale, values: impl Iterator<Item = f64>, from: f64, to: f64) -> Option<Self> {
        let usable = values.filter(|v| v.is_finite() && (scale == Scale::Linear || *v > 0.0));
        let (mut low, mut high) =
            usable.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
        if low > high {
            return None;
        }
        if scale == Scale::Linear {
            low = low.min(0.0);
            high = if high > low { low + (high - low) * 1.05 } else { low + 1.0 };
        } else {
            low /= 1.1;
            high *= 1.1;
        }
        Some(Self { scale, low, high, from, to })
    }

    fn place(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log => {
                (value.max(self.low).ln() - self.low.ln()) / (self.high.ln() - self.low.ln())
            }
        };
        self.from + share * (self.to - self.from)
    }

    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let step = nice(self.high - self.low);
                let first = (self.low / step).ceil() as i64;
                let last = (self.high / step).floor() as i64;
                (first..=last).map(|n| n as f64 * step).collect()
            }
            Scale::Log => {
                let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
                let all = decades.flat_map(|d| [1.0, 2.0, 5.0].map(|m| m * 10_f64.powi(d)));
                let all: Vec<f64> = all.filter(|v| (self.low..=self.high).contains(v)).collect();
                let every = all.len().div_ceil(9).max(1);
                all.into_iter().step_by(every).collect()
            }
        }
    }
}

/// A step that gives some six ticks.
fn nice(range: f64) -> f64 {
    let rough = range / 6.0;
    let decade = 10_f64.powf(rough.log10().floor());
    let fit = [1.0, 2.0, 5.0, 10.0].into_iter().find(|m| m * decade >= rough);
    fit.unwrap_or(10.0) * decade
}

impl Plot {
    /// The picture; nothing if there is nothing to see.
    pub(crate) fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| series.points.iter());
        let xs = points().map(|p| p.0);
        let x = Axis::new(self.x_scale, xs, LEFT, WIDTH - RIGHT);
        let y = Axis::new(self.y_scale, points().map(|p| p.1), HEIGHT - BOTTOM, TOP);
        let (Some(x), Some(y)) = (x, y) else { return String::new() };
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{0}\">\n\
             <text class=\"title\" x=\"{LEFT}\" y=\"16\">{0}</text>\n",
            escaped(&self.title)
        );
        self.axes(&mut svg, &x, &y);
        for (n, series) in self.series.iter().enumerate() {
            let colour = COLOURS[n % COLOURS.len()];
            if self.is_bars {
                self.bars(&mut svg, series, n, colour, &x, &y);
            } else {
                line(&mut svg, series, colour, &x, &y);
            }
            let at = TOP + 6.0 + 14.0 * n as f64;
            let _ = writeln!(
                svg,
                "<text class=\"legend\" x=\"{}\" y=\"{at}\" fill=\"{colour}\">{}</text>",
                LEFT + 8.0,
                escaped(&series.name)
            );
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn axes(&self, svg: &mut String, x: &Axis, y: &Axis) {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        for value in y.ticks() {
            let at = y.place(value);
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text class=\"tick\" text-anchor=\"end\" x=\"{}\" y=\"{:.1}\">{}</text>",
                LEFT - 6.0,
                at + 4.0,
                label(value)
            );
        }
        let named: Vec<(f64, String)> = if self.x_ticks.is_empty() {
            x.ticks().into_iter().map(|value| (value, label(value))).collect()
        } else {
            self.x_ticks.clone()
        };
        for (value, name) in named {
            let at = x.place(value);
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>\
                 <text class=\"tick\" text-anchor=\"middle\" x=\"{at:.1}\" y=\"{}\">{name}</text>",
                bottom + 14.0
            );
        }
        let _ = writeln!(
            svg,
            "<text class=\"axis\" text-anchor=\"end\" x=\"{right}\" y=\"{}\">{}</text>\
             <text class=\"axis\" text-anchor=\"end\" x=\"{right}\" y=\"{}\">{}</text>",
            HEIGHT - 8.0,
            escaped(&self.x_label),
            TOP - 8.0,
            escaped(&self.y_label)
        );
    }

    fn bars(&self, svg: &mut String, series: &Series, n: usize, colour: &str, x: &Axis, y: &Axis) {
        let width = (x.to - x.from) / (series.points.len().max(1) as f64 * 1.3);
        let share = width / self.series.len() as f64;
        for (at, value) in &series.points {
            let top = y.place(*value);
            let _ = writeln!(
                svg,
                "<rect x=\"{:.1}\" y=\"{top:.1}\" width=\"{share:.1}\" height=\"{:.1}\" \
                 fill=\"{colour}\" fill-opacity=\"0.8\"/>",
                x.place(*at) - width / 2.0 + share * n as f64,
                (y.from - top).max(0.0)
            );
        }
    }
}

fn line(svg: &mut String, series: &Series, colour: &str, x: &Axis, y: &Axis) {
    let mut path = String::new();
    for (n, (px, py)) in series.points.iter().enumerate() {
        let command = if n == 0 { 'M' } else { 'L' };
        let _ = write!(path, "{command}{:.1} {:.1}", x.place(*px), y.place(*py));
    }
    let _ = writeln!(
        svg,
        "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\"/>"
    );
    for (px, py) in &series.points {
        let _ = writeln!(
            svg,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.2\" fill=\"{colour}\">\
             <title>{}: {} / {}</title></circle>",
            x.place(*px),
            y.place(*py),
            escaped(&series.name),
            label(*px),
            label(*py)
        );
    }
}

fn label(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{:.3}M", value / 1e6).replace(".000", ""),
        size if size >= 1e4 => format!("{:.0}k", value / 1e3),
        size if size >= 10.0 || size == 0.0 => format!("{value:.0}"),
        _ => format!("{value:.2}"),
    }
}

/// Text as it may stand in HTML.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<(f64, f64)>, y_scale: Scale) -> Plot {
        Plot {
            title: "a < b".into(),
            x_label: "x".into(),
            y_label: "y".into(),
            x_scale: Scale::Linear,
            y_scale,
            x_ticks: Vec::new(),
            is_bars: false,
            series: vec![Series { name: "s".into(), points }],
        }
    }

    #[test]
    fn points_stay_inside_and_grow_upwards() {
        for scale in [Scale::Linear, Scale::Log] {
            let svg = plot(vec![(0.0, 1.0), (5.0, 10.0), (10.0, 1_000.0)], scale).svg();
            let ys: Vec<f64> = svg
                .split("cy=\"")
                .skip(1)
                .map(|rest| rest.split('"').next().unwrap().parse().unwrap())
                .collect();
            assert_eq!(ys.len(), 3);
            assert!(ys.windows(2).all(|pair| pair[0] > pair[1]), "{ys:?}");
            assert!(ys.iter().all(|y| (TOP..=HEIGHT - BOTTOM).contains(y)), "{ys:?}");
            assert!(svg.contains("a &lt; b"));
        }
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert_eq!(plot(Vec::new(), Scale::Linear).svg(), "");
        assert_eq!(plot(vec![(1.0, 0.0)], Scale::Log).svg(), "");
        assert_ne!(plot(vec![(1.0, 0.0)], Scale::Linear).svg(), "");
    }
}
