//! A regular expression that matches every path outside one directory.
//!
//! esbuild asks before it reads a file whose path matches. With a pattern that matches only what
//! is forbidden it asks about nothing else, so the thousand files of a build cost no round trip.
//! esbuild's patterns know no negation, so the pattern spells out where a path can part from the
//! directory's.

use std::path::Path;

/// A pattern for paths that are not below `directory`. `None`: the directory's name is not Unicode.
pub(super) fn outside(directory: &Path) -> Option<String> {
    let prefix = format!("{}/", directory.to_str()?);
    let mut pattern = String::new();
    for letter in prefix.chars().rev() {
        // The path ends here, goes on otherwise, or goes on alike and parts later.
        let further = match pattern.as_str() {
            "" => String::new(),
            later => format!("|{}{later}", escaped(letter)),
        };
        pattern = format!("(?:$|[^{}]{further})", escaped(letter));
    }
    Some(format!("^{pattern}"))
}

/// Letters may mean something in a pattern; code points do not.
fn escaped(letter: char) -> String {
    format!("\\x{{{:x}}}", u32::from(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_part_is_spelt_out() {
        let pattern = outside(Path::new("/a")).unwrap();
        assert_eq!(pattern, r"^(?:$|[^\x{2f}]|\x{2f}(?:$|[^\x{61}]|\x{61}(?:$|[^\x{2f}])))");
    }
}
