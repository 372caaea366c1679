//! How results are shown: standard output is the result, standard error what people read
//! meanwhile. With `--json` standard output is JSON and nothing else.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use dialoguer::console::{self, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::Value;

use super::error::ClientError;

/// How often a spinner turns.
const SPIN: Duration = Duration::from_millis(100);

/// Where and how to write.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) is_json: bool,
}

impl Output {
    /// The result: `document` for scripts, what `write` writes for people.
    pub(crate) fn result(
        self,
        document: &impl Serialize,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), ClientError> {
        let mut out = io::stdout().lock();
        let written = if self.is_json {
            serde_json::to_writer_pretty(&mut out, document)
                .map_err(io::Error::from)
                .and_then(|()| writeln!(out))
        } else {
            write(&mut out)
        };
        written.and_then(|()| out.flush()).map_err(ClientError::Output)
    }

    /// One of many results: a line of JSON, or what `write` writes.
    pub(crate) fn event(
        self,
        document: &Value,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), ClientError> {
        let mut out = io::stdout().lock();
        let written = if self.is_json { writeln!(out, "{document}") } else { write(&mut out) };
        written.and_then(|()| out.flush()).map_err(ClientError::Output)
    }

    /// What people read while they wait; nothing for scripts.
    pub(crate) fn note(self, text: &str) {
        if !self.is_json {
            // Nobody may be reading standard error.
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    /// What nobody should overlook, scripts neither.
    #[allow(clippy::unused_self)] // As the others are called.
    pub(crate) fn warn(self, text: &str) {
        let _ = writeln!(io::stderr(), "{} {text}", on_stderr("warning:").yellow());
    }

    /// An error with its causes and what to do next.
    pub(crate) fn error(self, error: &ClientError) {
        if self.is_json {
            // One line, as whoever reads events expects.
            let _ = writeln!(io::stdout(), "{}", error.to_json());
            return;
        }
        let mut lines = vec![format!("{} {error}", on_stderr("error:").red().bold())];
        for why in error.causes() {
            lines.push(format!("  because: {}", why.replace('\n', "\n  ")));
        }
        if let Some(hint) = error.hint() {
            lines.push(format!("{} {hint}", on_stderr("  next:").cyan()));
        }
        let _ = writeln!(io::stderr(), "{}", lines.join("\n"));
    }

    /// Steps that are shown as they happen.
    pub(crate) fn steps(self) -> Steps {
        let is_shown = !self.is_json;
        let bar = (is_shown && io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}")
                .expect("the template is a constant");
            bar.set_style(style);
            bar
        });
        Steps { is_shown, bar, current: None }
    }
}

/// Text for standard error, coloured only if that is a terminal that wants it.
pub(crate) fn on_stderr<T>(text: T) -> console::StyledObject<T> {
    Style::new().for_stderr().apply_to(text)
}

/// Steps of a command: a spinner on a terminal, a line each elsewhere.
pub(crate) struct Steps {
    is_shown: bool,
    bar: Option<ProgressBar>,
    current: Option<String>,
}

impl Steps {
    /// Ends the step before and begins this one.
    pub(crate) fn begin(&mut self, step: &str) {
        if self.current.as_deref() == Some(step) {
            return;
        }
        self.end();
        self.current = Some(step.to_owned());
        match &self.bar {
            Some(bar) => {
                bar.reset_elapsed();
                bar.set_message(step.to_owned());
                bar.enable_steady_tick(SPIN);
            }
            None if self.is_shown => drop(writeln!(io::stderr(), "- {step}")),
            None => {}
        }
    }

    /// The current step is done.
    pub(crate) fn end(&mut self) {
        let Some(step) = self.current.take() else { return };
        if let Some(bar) = &self.bar {
            bar.println(format!("{} {step}", on_stderr("✓").green()));
        }
    }

    /// Nothing more is shown; the current step has not come to its end.
    pub(crate) fn stop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.current = None;
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Rows under headings, each column as wide as its widest cell.
pub(crate) fn table(
    out: &mut dyn Write,
    headings: &[&str],
    rows: &[Vec<String>],
) -> io::Result<()> {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| console::measure_text_width(&row[column]));
        cells.chain([headings[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..headings.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<_> = cells
            .zip(&widths)
            .map(|(cell, width)| {
                console::pad_str(cell, *width, console::Alignment::Left, None).into_owned()
            })
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    let heading = line(&mut headings.iter().copied());
    writeln!(out, "{}", console::style(heading).bold())?;
    for row in rows {
        writeln!(out, "{}", line(&mut row.iter().map(String::as_str)))?;
    }
    Ok(())
}

/// Names and values below each other; empty values are left out.
pub(crate) fn pairs(out: &mut dyn Write, pairs: &[(&str, String)]) -> io::Result<()> {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        let name = format!("{name:width$}");
        writeln!(out, "  {}  {value}", console::style(name).dim())?;
    }
    Ok(())
}

/// What a terminal would take as a command is shown, not obeyed: logs and answers are written by
/// functions.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c })
        .collect()
}

/// JSON of which every value has a line of its own, and is as it was. What is nested too deep to be read
/// stays as it is.
pub(crate) fn indented(json: &str) -> String {
    const MAX_DEPTH: usize = 100;
    let mut out = String::with_capacity(json.len());
    let (mut depth, mut is_text, mut is_escaped) = (0_usize, false, false);
    let mut is_begun = false;
    for c in json.chars() {
        if is_text {
            out.push(c);
            is_text = is_escaped || c != '"';
            is_escaped = !is_escaped && c == '\\';
            continue;
        }
        if c.is_ascii_whitespace() {
            continue;
        }
        let is_end = matches!(c, '}' | ']');
        if is_end {
            depth = depth.saturating_sub(1);
        }
        // Nothing is between the brackets of what is empty.
        if is_end != is_begun {
            out.push('\n');
            out.extend(std::iter::repeat_n("  ", depth));
        }
        out.push(c);
        is_begun = matches!(c, '{' | '[' | ',');
        match c {
            '{' | '[' if depth == MAX_DEPTH => return json.to_owned(),
            '{' | '[' => depth += 1,
            ':' => out.push(' '),
            '"' => is_text = true,
            _ => {}
        }
    }
    out
}

/// A number of bytes for people.
#[allow(clippy::cast_precision_loss)] // A rounded figure.
pub(crate) fn bytes(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} B"),
        1_000..1_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        _ => format!("{:.1} MB", count as f64 / 1e6),
    }
}

/// A time span for people.
pub(crate) fn seconds(span: Duration) -> String {
    if span < Duration::from_secs(1) {
        format!("{} ms", span.as_millis())
    } else {
        format!("{:.1} s", span.as_secs_f64())
    }
}

/// `n` of something.
pub(crate) fn count(n: usize, one: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_rounded_for_people() {
        for (count, text) in [(0, "0 B"), (999, "999 B"), (1_500, "1.5 kB"), (2_000_000, "2.0 MB")]
        {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(seconds(Duration::from_millis(340)), "340 ms");
        assert_eq!(seconds(Duration::from_millis(4_320)), "4.3 s");
    }

    #[test]
    fn tables_line_up() {
        let mut out = Vec::new();
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["ccc".to_owned(), "22".to_owned()]];
        table(&mut out, &["x", "yy"], &rows).unwrap();
        let text = console::strip_ansi_codes(std::str::from_utf8(&out).unwrap()).into_owned();
        assert_eq!(text, "x    yy\na    1\nccc  22\n");
    }

    #[test]
    fn values_are_shown_as_they_are() {
        for json in [
            "1e400",
            "123456789012345678901234567890",
            "{}",
            "[]",
            "[\n  1.0,\n  {\n    \"a\": {},\n    \"b\": [\n      []\n    ]\n  }\n]",
            "{\n  \"\\\"{[,:\\\\\": \"\\ud800\"\n}",
        ] {
            assert_eq!(indented(json), json);
            let packed: String = json.chars().filter(|c| !matches!(c, ' ' | '\n')).collect();
            assert_eq!(indented(&packed), json);
        }
        assert_eq!(indented(" { } "), "{}");
        let deep = "[".repeat(200) + &"]".repeat(200);
        assert_eq!(indented(&deep), deep);
    }

    #[test]
    fn terminal_commands_are_not_obeyed() {
        assert_eq!(printable("a\x1b[2Jb\n"), "a\u{fffd}[2Jb\n");
    }
}
