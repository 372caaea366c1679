//! How results are shown: standard output is the result, standard error what people read
//! meanwhile. With `--json` standard output is JSON and nothing else.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::iter;
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
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let is_command = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if text.contains(is_command) {
        text.replace(is_command, "\u{fffd}").into()
    } else {
        text.into()
    }
}

/// Writes JSON so that every value has a line of its own, and is as it was but for what `shown` makes of
/// it. What is nested too deep to be read stays as it is.
pub(crate) fn write_indented(
    out: &mut dyn Write,
    json: &str,
    shown: fn(&str) -> Cow<'_, str>,
) -> io::Result<()> {
    const MAX_DEPTH: usize = 100;
    if is_nested_beyond(MAX_DEPTH, json) {
        return out.write_all(shown(json).as_bytes());
    }
    // Never as a whole: white space is most of it where much is nested.
    let (mut depth, mut is_begun) = (0_usize, false);
    for token in tokens(json) {
        let is_end = matches!(token, "}" | "]");
        if is_end {
            depth = depth.saturating_sub(1);
        }
        // Nothing is between the brackets of what is empty.
        if is_end != is_begun {
            out.write_all(b"\n")?;
            for _ in 0..depth {
                out.write_all(b"  ")?;
            }
        }
        out.write_all(shown(token).as_bytes())?;
        is_begun = matches!(token, "{" | "[" | ",");
        match token {
            "{" | "[" => depth += 1,
            ":" => out.write_all(b" ")?,
            _ => {}
        }
    }
    Ok(())
}

fn is_nested_beyond(max_depth: usize, json: &str) -> bool {
    let mut depth = 0_usize;
    tokens(json).any(|token| {
        match token {
            "{" | "[" => depth += 1,
            "}" | "]" => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > max_depth
    })
}

/// Brackets, commas, colons and single values.
fn tokens(json: &str) -> impl Iterator<Item = &str> {
    const MARKS: [char; 6] = ['{', '}', '[', ']', ':', ','];
    let mut rest = json;
    iter::from_fn(move || {
        rest = rest.trim_ascii_start();
        let length = match rest.chars().next()? {
            '"' => text_length(rest),
            mark if MARKS.contains(&mark) => 1,
            _ => {
                let is_over = |c: char| c.is_ascii_whitespace() || c == '"' || MARKS.contains(&c);
                rest.find(is_over).unwrap_or(rest.len())
            }
        };
        let (token, after) = rest.split_at(length);
        rest = after;
        Some(token)
    })
}

/// Of the text in quotes that this begins with.
fn text_length(json: &str) -> usize {
    let mut is_escaped = false;
    let end = json[1..].find(|c: char| {
        let is_end = c == '"' && !is_escaped;
        is_escaped = !is_escaped && c == '\\';
        is_end
    });
    end.map_or(json.len(), |after_quote| after_quote + 2)
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
        let indented = |json: &str| {
            let mut out = Vec::new();
            write_indented(&mut out, json, printable).unwrap();
            String::from_utf8(out).unwrap()
        };
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
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(indented(&nested(101)), nested(101));
        assert_eq!(indented(&nested(100)).lines().count(), 199);
    }

    #[test]
    fn what_is_shown_takes_no_room_of_its_own() {
        /// Counts what it is given, and the largest piece of it.
        #[derive(Default)]
        struct Counted(usize, usize);

        impl Write for Counted {
            fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
                *self = Self(self.0 + piece.len(), self.1.max(piece.len()));
                Ok(piece.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        let json = "[".repeat(100) + "1" + &",1".repeat(10_000) + &"]".repeat(100);
        let mut out = Counted::default();
        write_indented(&mut out, &json, printable).unwrap();
        assert!(out.0 > 10_000 * 200 && out.1 <= 2, "{} bytes, {} at once", out.0, out.1);
    }

    #[test]
    fn terminal_commands_are_not_obeyed() {
        assert_eq!(printable("a\x1b[2Jb\n"), "a\u{fffd}[2Jb\n");
    }
}
