//! What is said while it runs, on standard error: results go to standard output and to files.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Instant;

use crate::results::Cell;

/// Says what happens.
#[derive(Debug)]
pub(crate) struct Progress {
    begun: Instant,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now() }
    }

    pub(crate) fn say(&self, text: &str) {
        let seconds = self.begun.elapsed().as_secs();
        // Nobody may be reading.
        let _ = writeln!(io::stderr(), "[{:>2}:{:02}] {text}", seconds / 60, seconds % 60);
    }

    pub(crate) fn cell(&self, cell: &Cell) {
        let mut text = format!("{:<60}", cell.key());
        for (name, figure) in &cell.figures {
            if figure.better != crate::results::Better::Neither {
                let _ = write!(text, " {name}={}", short(figure.value));
            }
        }
        if !cell.errors.is_empty() {
            let _ = write!(text, " errors={:?}", cell.errors);
        }
        if cell.wrong_temperature > 0 {
            let _ = write!(text, " wrong_temperature={}", cell.wrong_temperature);
        }
        self.say(&text);
    }
}

/// Three digits or so.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}
