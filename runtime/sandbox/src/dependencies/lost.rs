//! What npm went on without.
//!
//! An optional package that cannot be fetched just now, npm leaves out, with those that only it needs,
//! and ends well: the tree without them would be stored for everybody who installs the same. Nothing but
//! npm's log tells that from what it leaves out for good, because it is made for another system or
//! because the registry does not have it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

/// How lines go on after their number: a listed package could not be installed.
const NOT_INSTALLED: &str = "verbose reify failed optional dependency ";

/// And what became of a request: `URL attempt 1 failed with CODE`, or `STATUS URL` and more.
const FETCHED: &str = "http fetch GET ";
const FAILED: &str = " failed with ";

/// Statuses, besides 5xx, that another attempt may not get.
const PASSING: [&str; 2] = ["408", "429"];

/// Something that a run failed to get, by the logs it left in this directory.
pub(super) fn lost(logs: &Path) -> io::Result<Option<String>> {
    for entry in std::fs::read_dir(logs)? {
        let lines = BufReader::new(File::open(entry?.path())?).split(b'\n');
        let found = lost_by(lines)?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn lost_by(lines: impl Iterator<Item = io::Result<Vec<u8>>>) -> io::Result<Option<String>> {
    let mut failed = BTreeSet::new();
    for line in lines {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        let Some((_, said)) = line.split_once(' ') else { continue };
        if let Some(path) = said.strip_prefix(NOT_INSTALLED) {
            return Ok(Some(path.to_owned()));
        }
        let Some((first, rest)) = said.strip_prefix(FETCHED).and_then(|said| said.split_once(' '))
        else {
            continue;
        };
        if rest.contains(FAILED) {
            failed.insert(first.to_owned());
            continue;
        }
        let url = rest.split(' ').next().unwrap_or(rest);
        if first.starts_with('5') || PASSING.contains(&first) {
            failed.insert(url.to_owned());
        } else {
            failed.remove(url);
        }
    }
    Ok(failed.pop_first())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_got_at_last_is_not_lost() {
        for (log, expected) in [
            ("", None),
            ("1 http fetch GET 200 http://r/a 105ms (cache miss)", None),
            ("1 http fetch GET 404 http://r/a 5ms (cache skip)", None),
            ("1 http fetch GET 503 http://r/a 5ms attempt #2 (cache skip)", Some("http://r/a")),
            ("1 http fetch GET 429 http://r/a 5ms", Some("http://r/a")),
            ("1 http fetch GET http://r/a attempt 1 failed with ECONNRESET", Some("http://r/a")),
            (
                "1 http fetch GET http://r/a attempt 1 failed with 503\n\
                 2 http fetch GET 200 http://r/b 5ms\n\
                 3 http fetch GET 200 http://r/a 5ms attempt #2 (cache miss)",
                None,
            ),
            (
                "7 verbose reify failed optional dependency /d/node_modules/o",
                Some("/d/node_modules/o"),
            ),
            ("7 warn deprecated a@1: verbose reify failed optional dependency /d", None),
        ] {
            let lines = log.as_bytes().split(|byte| *byte == b'\n').map(|line| Ok(line.to_vec()));
            assert_eq!(lost_by(lines).unwrap().as_deref(), expected, "{log}");
        }
    }
}
