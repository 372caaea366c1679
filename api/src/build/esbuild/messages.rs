//! What esbuild found wrong, told to the owner of the source.
//!
//! esbuild prints the line an error is in. Invariant: only lines of the owner's own files are
//! shown, and no path of this machine.

use std::fmt::Write;
use std::path::Path;

use super::packet::Value;
use crate::build::source::SourceFiles;

/// Errors shown of one build; the first ones are the causes of the rest.
const MAX_SHOWN: usize = 10;
/// Errors of which it is looked whether they say the same. A source may have hundreds of thousands.
const MAX_COMPARED: usize = 1_000;
/// Characters of a source line that are shown.
const MAX_LINE_CHARS: usize = 160;
const MAX_TEXT_CHARS: usize = 1_000;

/// The warning that there are no files like `"./a/" + name + ".js"`.
const NO_SUCH_FILES: &str = "empty-glob";

/// How messages end about what the kernel does not let esbuild read: it is outside the project.
const CLOSED: &str = ": permission denied";

/// What is told of it, as of all that is outside.
const OUTSIDE: &str = "a file outside the project cannot be used";

/// One message of esbuild.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) id: String,
    text: String,
    plugin: String,
    pub(super) location: Option<Location>,
}

/// Where it points to.
#[derive(Debug, Clone)]
pub(super) struct Location {
    /// Relative to the project.
    pub(super) file: String,
    line: u32,
    column: u32,
    length: u32,
    line_text: String,
}

impl Message {
    /// The messages in a list of the protocol.
    pub(super) fn all(list: &Value) -> Vec<Self> {
        let message = |value: &Value| Self {
            id: value.get("id").text().to_owned(),
            text: value.get("text").text().to_owned(),
            plugin: value.get("pluginName").text().to_owned(),
            location: match value.get("location") {
                Value::Null => None,
                at => Some(Location {
                    file: at.get("file").text().to_owned(),
                    line: at.get("line").int(),
                    column: at.get("column").int(),
                    length: at.get("length").int(),
                    line_text: at.get("lineText").text().to_owned(),
                }),
            },
        };
        list.list().iter().map(message).collect()
    }

    /// Whether this is about an import that leads nowhere, or to where it may not.
    pub(super) fn is_unresolved(&self) -> bool {
        !self.plugin.is_empty() || self.text.starts_with("Could not resolve ")
    }

    /// Whether this is about what the kernel does not let esbuild read.
    pub(super) fn is_closed(&self) -> bool {
        self.plugin.is_empty() && self.text.ends_with(CLOSED)
    }

    /// The refusal of a pattern of files that leads out of the project. Of those files that are there
    /// esbuild asks, and is refused; that there are none it only warns of, which must not be told apart.
    pub(super) fn refusal_of_pattern(&self) -> Option<Self> {
        let at = self.location.as_ref().filter(|_| self.id == NO_SUCH_FILES)?;
        let (_, pattern) = self.text.split_once("(\"")?;
        let pattern = pattern.rsplit_once("\")").map_or(pattern, |(pattern, _)| pattern);
        leads_out(&at.file, pattern)
            .then(|| Self { plugin: NO_SUCH_FILES.to_owned(), ..self.clone() })
    }

    /// By which messages are sorted.
    pub(super) fn place(&self) -> Option<(&str, u32, u32)> {
        self.location.as_ref().map(|at| (&*at.file, at.line, at.column))
    }

    /// The file of a package it is in, relative to the project.
    pub(super) fn package_file(&self) -> Option<&str> {
        let file = &self.location.as_ref()?.file;
        file.starts_with("node_modules/").then_some(file)
    }

    /// What is imported where it points to.
    pub(super) fn specifier(&self) -> Option<&str> {
        let at = self.location.as_ref()?;
        let start = at.column as usize;
        let quoted = at.line_text.get(start..start.checked_add(at.length as usize)?)?;
        let inner = quoted.get(1..quoted.len().checked_sub(1)?)?;
        quoted.starts_with(['"', '\'', '`']).then_some(inner)
    }

    fn told(&self, project: &Path, files: &SourceFiles) -> String {
        let mut told = String::new();
        let Some(at) = &self.location else {
            return if self.is_closed() { OUTSIDE.to_owned() } else { self.text_without(project) };
        };
        let is_own = files.get(&at.file).is_some();
        if !is_own && self.package_file().is_none() {
            return OUTSIDE.to_owned();
        }
        let _ = write!(told, "{}:{}:{}: ", at.file, at.line, at.column);
        match self.specifier().filter(|_| self.is_unresolved()) {
            // The same text whether there is such a file on this machine or not.
            Some(specifier) => {
                let _ = write!(told, "Could not resolve \"{specifier}\"");
                if is_own {
                    told.push_str(advice(specifier));
                }
            }
            None if self.is_closed() => told.push_str(OUTSIDE),
            None if self.plugin.is_empty() => told.push_str(&self.text_without(project)),
            None => told.push_str("Could not resolve an import"),
        }
        if is_own && !at.line_text.trim().is_empty() {
            let line: String = at.line_text.chars().take(MAX_LINE_CHARS).collect();
            let _ = write!(told, "\n    {}", line.trim());
        }
        told
    }

    fn text_without(&self, project: &Path) -> String {
        let project = format!("{}/", project.display());
        let text: String = self.text.chars().take(MAX_TEXT_CHARS).collect();
        text.replace(&project, "")
    }
}

/// What its owner may do about an import that leads nowhere; empty where that is not known. `npm:` and
/// `jsr:` are Deno's.
fn advice(specifier: &str) -> &'static str {
    match specifier.split_once(':') {
        Some(("npm", _)) => {
            "; import the package by its name alone and add it to dependencies, with its version"
        }
        Some(("jsr", _)) => "; packages come from the npm registry alone",
        Some(_) => "",
        None if specifier.starts_with(['.', '/', '#']) => "",
        None => "; add the package to dependencies or correct its name",
    }
}

/// Whether a pattern in this file of the project is about files outside of it.
fn leads_out(file: &str, pattern: &str) -> bool {
    let mut depth = file.matches('/').count();
    for part in pattern.split('/') {
        match part {
            // The last one also stands for no directory at all.
            "" | "." | "**" => {}
            ".." if depth == 0 => return true,
            ".." => depth -= 1,
            _ => depth += 1,
        }
    }
    false
}

/// The errors of a build, one paragraph each.
pub(super) fn tell(errors: &[Message], project: &Path, files: &SourceFiles) -> String {
    let compared = errors.iter().take(MAX_COMPARED);
    let mut told: Vec<_> = compared.map(|error| error.told(project, files)).collect();
    // One pattern has an error for each file, and how many there are outside is not told.
    told.dedup();
    let more = told.len().saturating_sub(MAX_SHOWN);
    told.truncate(MAX_SHOWN);
    if errors.len() > MAX_COMPARED {
        told.push("and more".to_owned());
    } else if more > 0 {
        told.push(format!("and {more} more"));
    }
    told.join("\n")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::build::source::SourceBounds;

    #[test]
    fn of_many_errors_the_first_are_told() {
        let error = |n: usize| Message {
            id: String::new(),
            text: format!("wrong {n}"),
            plugin: String::new(),
            location: None,
        };
        let files = [("a.js".to_owned(), Bytes::from_static(b"1"))].into();
        let files = SourceFiles::check(files, SourceBounds { bytes: 10, files: 1 }).unwrap();
        let tell = |errors: &[Message]| tell(errors, Path::new("/p"), &files);
        let errors: Vec<_> = (0..=MAX_COMPARED).map(error).collect();
        assert_eq!(tell(&errors[..2]), "wrong 0\nwrong 1");
        assert!(tell(&errors[..12]).ends_with("wrong 9\nand 2 more"));
        assert!(tell(&errors[..MAX_COMPARED]).ends_with("wrong 9\nand 990 more"));
        assert!(tell(&errors).ends_with("wrong 9\nand more"));
        let alike: Vec<_> = (0..MAX_COMPARED).map(|_| error(7)).collect();
        assert_eq!(tell(&alike), "wrong 7");
    }

    #[test]
    fn owners_are_told_what_to_do_about_an_import() {
        for (specifier, word) in [
            ("zod", "dependencies"),
            ("@scope/zod/v4", "dependencies"),
            ("npm:zod@3", "by its name alone"),
            ("jsr:@std/assert", "npm registry"),
            ("./zod:a", ""),
            ("#zod", ""),
            ("cloudflare:workers", ""),
        ] {
            let told = advice(specifier);
            assert!(
                told.contains(word) && told.is_empty() == word.is_empty(),
                "{specifier}: {told}"
            );
        }
    }

    #[test]
    fn patterns_may_lead_out_of_a_directory_but_not_of_the_project() {
        for (file, pattern, out) in [
            ("index.js", "./a*", false),
            ("index.js", "../a*", true),
            ("index.js", "./a/../../b*", true),
            ("index.js", "./**/../../b", true),
            ("lib/index.js", "../a*", false),
            ("lib/index.js", "./../../a*", true),
            ("node_modules/a/lib/index.js", "../../../**/*.js", false),
            ("node_modules/a/lib/index.js", "../../../../**/*.js", true),
        ] {
            assert_eq!(leads_out(file, pattern), out, "{file}: {pattern}");
        }
    }
}
