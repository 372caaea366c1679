//! Asking people, where there are people: prompts appear on a terminal only. Secrets are never
//! arguments; without a terminal they come from standard input or the environment.

use std::io::{self, IsTerminal, Read};
use std::mem::MaybeUninit;
use std::sync::OnceLock;

use dialoguer::console::Term;
use dialoguer::theme::ColorfulTheme;
use dialoguer::{Confirm, Input, Password, Select};
use nix::libc::{self, c_int};
use nix::sys::signal::{SigHandler, Signal, signal};

use super::environment::without_line_end;
use super::error::ClientError;

/// Longest secret or value that is read from standard input.
const MAX_STDIN_BYTES: u64 = 64 * 1024;

/// Whether somebody can answer.
pub(crate) fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

fn asked<T>(answer: dialoguer::Result<T>) -> Result<T, ClientError> {
    answer.map_err(|dialoguer::Error::IO(error)| match error.kind() {
        io::ErrorKind::Interrupted => ClientError::Cancelled,
        _ => ClientError::Prompt(error),
    })
}

/// The same for questions that are answered by single keys. They hide the cursor, and on Ctrl-C send
/// this process SIGINT: it must not end before the cursor is there again.
fn asked_by_keys<T>(ask: impl FnOnce() -> dialoguer::Result<T>) -> Result<T, ClientError> {
    extern "C" fn goes_on(_: c_int) {}
    // SAFETY: a handler that does nothing is safe to run at any point.
    let before = unsafe { signal(Signal::SIGINT, SigHandler::Handler(goes_on)) };
    let answer = ask();
    if let Ok(before) = before {
        // SAFETY: it is what was in force until now.
        let _ = unsafe { signal(Signal::SIGINT, before) };
    }
    if answer.is_err() {
        // Where there is no terminal any more, there is no cursor.
        let _ = Term::stderr().show_cursor();
    }
    asked(answer)
}

/// The same for what is typed unseen. A signal that ends this process meanwhile does not leave a
/// terminal that hides what is typed: not every shell makes it show it again.
fn asked_unseen<T>(ask: impl FnOnce() -> dialoguer::Result<T>) -> Result<T, ClientError> {
    /// Those of standard input, where it is read.
    static SETTINGS: OnceLock<libc::termios> = OnceLock::new();
    extern "C" fn shows_and_ends(number: c_int) {
        if let Some(settings) = SETTINGS.get() {
            // SAFETY: it is async-signal-safe, and the settings live as long as the process.
            unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, settings) };
        }
        // SAFETY: both are async-signal-safe. The signal arrives when this handler returns.
        unsafe {
            libc::signal(number, libc::SIG_DFL);
            libc::raise(number);
        }
    }
    let mut settings = MaybeUninit::uninit();
    // SAFETY: the pointer is valid for the call, which writes all of it if it returns 0.
    if unsafe { libc::tcgetattr(libc::STDIN_FILENO, settings.as_mut_ptr()) } == 0 {
        // SAFETY: it returned 0.
        let settings = unsafe { settings.assume_init() };
        // At a second question they are there already.
        let _ = SETTINGS.set(settings);
    }
    let before = [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM].map(|number| {
        // SAFETY: the handler calls nothing that is not async-signal-safe.
        (number, unsafe { signal(number, SigHandler::Handler(shows_and_ends)) })
    });
    let answer = ask();
    for (number, before) in before {
        if let Ok(before) = before {
            // SAFETY: it is what was in force until now.
            let _ = unsafe { signal(number, before) };
        }
    }
    asked(answer)
}

fn need_terminal(what: &'static str, instead: &'static str) -> Result<(), ClientError> {
    if is_interactive() { Ok(()) } else { Err(ClientError::NoTerminal { what, instead }) }
}

/// A line of text.
pub(crate) fn line(what: &'static str, instead: &'static str) -> Result<String, ClientError> {
    need_terminal(what, instead)?;
    asked(Input::with_theme(&ColorfulTheme::default()).with_prompt(what).interact_text())
}

/// A secret: typed unseen, or the first line of standard input.
pub(crate) fn secret(what: &'static str) -> Result<String, ClientError> {
    if !is_interactive() {
        let text = stdin_text(what)?;
        let first = text.lines().next().unwrap_or_default().to_owned();
        return if first.is_empty() {
            Err(ClientError::NoTerminal { what, instead: "write it to standard input" })
        } else {
            Ok(first)
        };
    }
    asked_unseen(|| Password::with_theme(&ColorfulTheme::default()).with_prompt(what).interact())
}

/// The value of a variable, typed unseen: for where somebody can answer.
pub(crate) fn value_of(variable: &str) -> Result<String, ClientError> {
    let what = format!("Value of {variable}");
    asked_unseen(|| Password::with_theme(&ColorfulTheme::default()).with_prompt(what).interact())
}

/// A new secret, typed twice.
pub(crate) fn new_secret(what: &'static str) -> Result<String, ClientError> {
    if !is_interactive() {
        return secret(what);
    }
    let theme = ColorfulTheme::default();
    let ask = Password::with_theme(&theme)
        .with_prompt(what)
        .with_confirmation("Again", "They differ; once more");
    asked_unseen(|| ask.interact())
}

/// All of standard input, which is no terminal, without the end of its last line.
pub(crate) fn stdin_text(what: &'static str) -> Result<String, ClientError> {
    if io::stdin().is_terminal() {
        // Nobody would be asked, and it would be seen while it is typed.
        let instead = "leave standard error to the terminal, or write it to standard input";
        return Err(ClientError::NoTerminal { what, instead });
    }
    let mut text = String::new();
    io::stdin()
        .lock()
        .take(MAX_STDIN_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(ClientError::Prompt)?;
    if text.len() as u64 > MAX_STDIN_BYTES {
        return Err(ClientError::usage(
            format!("{what} is longer than {MAX_STDIN_BYTES} bytes"),
            "is it the right file?",
        ));
    }
    text.truncate(without_line_end(&text).len());
    Ok(text)
}

/// Yes or no, where yes cannot be undone.
pub(crate) fn confirm(question: &str) -> Result<(), ClientError> {
    need_terminal("a confirmation", "say --yes if you are sure")?;
    let theme = ColorfulTheme::default();
    let ask = Confirm::with_theme(&theme).with_prompt(question).default(false);
    if asked_by_keys(|| ask.interact())? { Ok(()) } else { Err(ClientError::Cancelled) }
}

/// One of several.
pub(crate) fn choose(question: &str, items: &[String]) -> Result<usize, ClientError> {
    let theme = ColorfulTheme::default();
    let ask = Select::with_theme(&theme).with_prompt(question).items(items).default(0);
    asked_by_keys(|| ask.interact())
}
