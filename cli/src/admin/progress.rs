//! How far a long command is, on standard error: a line now and then.

use std::fmt::Display;
use std::io::Write;
use std::time::{Duration, Instant};

/// How often there is news.
const PAUSE: Duration = Duration::from_secs(2);

/// What is told while something long is done.
pub(super) struct Progress {
    /// What is done.
    doing: &'static str,
    last: Instant,
}

impl Progress {
    /// Says what is done now.
    pub(super) fn begin(doing: &'static str) -> Self {
        say(&doing);
        Self { doing, last: Instant::now() }
    }

    /// Says how far it is, if that was not said a moment ago.
    pub(super) fn at(&mut self, what: &dyn Display, count: u64) {
        if self.last.elapsed() >= PAUSE {
            self.last = Instant::now();
            say(&format_args!("{}: {count} {what}", self.doing));
        }
    }
}

/// Nobody may be reading standard error.
pub(super) fn say(what: &dyn Display) {
    let _ = writeln!(std::io::stderr(), "{what}");
}
