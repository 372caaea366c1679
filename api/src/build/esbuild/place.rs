//! Lets modules know where they are, although all of them end up in one file.
//!
//! A module that asks for its own place (`__dirname`, `import.meta.url`) reads files beside itself
//! more often than not. When the bundle runs, the project's files and `node_modules` lie beside it
//! as they lay in the project; so such a module is given names that say where it would be there.

use std::fmt::Write;
use std::path::Path;

/// Where a module is asked for: the text, and what takes its place where that is no declaration.
const META: [(&str, &str); 4] = [
    ("import.meta.url", "__cloudserve_url"),
    ("import.meta.dirname", "__cloudserve_dirname"),
    ("import.meta.filename", "__cloudserve_filename"),
    (RESOLVE, "__cloudserve_resolve"),
];

const RESOLVE: &str = "require.resolve";

/// What is another thing in each module of a directory, and the same in the one that `process.argv[1]`
/// names: programs know by it that they are run.
const OF_THE_FILE: [&str; 3] = ["import.meta.url", "import.meta.filename", "__filename"];

/// Whether a module is the program, and not imported by it.
const MAIN: &str = "import.meta.main";

/// Ways to look packages up that the bundler cannot see through.
const LOOK_UPS: [&str; 3] = ["createRequire", RESOLVE, "import.meta.resolve"];

/// A module after this.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Placed {
    /// Its text, if it had to change. It has as many lines as before.
    pub(super) source: Option<String>,
    /// Whether it may ask for files or packages of the tree when it runs.
    pub(super) looks_around: bool,
}

/// Tells the module at `path`, relative to the project, where it is.
pub(super) fn place(path: &str, source: &str, is_entry: bool) -> Placed {
    let imported = if is_entry { None } else { replace_expression(source, MAIN, "false") };
    let source = imported.as_deref().unwrap_or(source);
    let asks = |name: &str| source.contains(name);
    let asks_of_the_file = OF_THE_FILE.iter().any(|name| asks(name));
    let looks_around = LOOK_UPS.iter().any(|name| asks(name));
    let is_nested = path.contains('/');
    let names = ["__dirname", "__filename"];
    let is_told = if is_nested {
        names.iter().any(|name| asks(name)) || META.iter().any(|(meta, _)| asks(meta))
    } else {
        // A module at the top is where the bundle is, and the entry is the bundle.
        asks_of_the_file && !is_entry
    };
    if !is_told {
        return Placed { source: imported, looks_around };
    }
    let looks_around = looks_around || is_nested;
    let is_right = |name: &str| !is_nested && !OF_THE_FILE.contains(&name);
    let dir = Path::new(path).parent().and_then(Path::to_str).unwrap_or_default();
    let literal = |text: &str| serde_json::Value::from(text).to_string();
    let (dir, file) = (literal(&format!("/{dir}")), literal(&format!("/{path}")));
    let mut prefix = String::new();
    if is_entry && asks_of_the_file {
        let _ = write!(prefix, "globalThis.process.argv[1]=__cloudserve_root+{file};");
    }
    for (name, place) in [("__dirname", &dir), ("__filename", &file)] {
        if asks(name) && !is_right(name) && !declares(source, name) {
            let _ = write!(prefix, "var {name}=__cloudserve_root+{place};");
        }
    }
    let mut text = source.to_owned();
    for ((meta, name), value) in META.into_iter().zip([
        format!("__cloudserve_at({})", literal(&url_path(path))),
        format!("__cloudserve_root+{dir}"),
        format!("__cloudserve_root+{file}"),
        format!("__cloudserve_createRequire(__cloudserve_root+{file}).resolve"),
    ]) {
        // A `require` of its own knows where it is.
        if is_right(meta) || meta == RESOLVE && declares(source, "require") {
            continue;
        }
        if let Some(replaced) = replace_expression(&text, meta, name) {
            text = replaced;
            let _ = write!(prefix, "var {name}={value};");
        }
    }
    if prefix.is_empty() {
        return Placed { source: imported, looks_around };
    }
    // A hashbang has to stay first.
    let at =
        if text.starts_with("#!") { text.find('\n').map_or(text.len(), |at| at + 1) } else { 0 };
    text.insert_str(at, &prefix);
    Placed { source: Some(text), looks_around }
}

/// A relative URL of this path.
fn url_path(path: &str) -> String {
    let mut url = String::from(".");
    for part in path.split('/') {
        url.push('/');
        for byte in part.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~@+$,!()".contains(&byte) {
                url.push(char::from(byte));
            } else {
                let _ = write!(url, "%{byte:02X}");
            }
        }
    }
    url
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '$')
}

/// The text with this expression replaced, outside of what looks like a string; `None` if it is
/// not there.
fn replace_expression(text: &str, expression: &str, name: &str) -> Option<String> {
    let mut replaced = String::with_capacity(text.len());
    let mut done = 0;
    for (at, _) in text.match_indices(expression) {
        let before = text[..at].chars().next_back();
        let after = text[at + expression.len()..].chars().next();
        let is_quoted = before.is_some_and(|c| matches!(c, '"' | '\'' | '`' | '.'));
        if is_quoted || before.is_some_and(is_word) || after.is_some_and(is_word) {
            continue;
        }
        replaced.push_str(&text[done..at]);
        replaced.push_str(name);
        done = at + expression.len();
    }
    (done > 0).then(|| replaced + &text[done..])
}

/// Whether the module has a variable of this name of its own: a second declaration would be an
/// error.
fn declares(source: &str, name: &str) -> bool {
    // The next closing brace, and whether what it closes is taken apart or imported. Looked for once for
    // all that come before it: a module may be nothing but the name.
    let mut closing: Option<(usize, bool)> = None;
    source.match_indices(name).any(|(at, _)| {
        let end = at + name.len();
        let before = source[..at].trim_end();
        if ["const", "let", "var", "function"].iter().any(|word| before.ends_with(word))
            || is_assigned(source[end..].trim_start())
        {
            return true;
        }
        // `import { __dirname } from` and `const { __dirname } = `, unlike `f({ __dirname })`.
        if !before.ends_with(['{', ',']) {
            return false;
        }
        let (_, gives_names) = match closing {
            Some(known) if known.0 >= end => known,
            _ => *closing.insert(closing_after(source, end)),
        };
        gives_names
    })
}

/// Where the next brace after `end` closes, if one does, and whether names come of what it closes.
fn closing_after(source: &str, end: usize) -> (usize, bool) {
    let Some(close) = source[end..].find('}') else { return (usize::MAX, false) };
    let rest = source[end + close + 1..].trim_start();
    (end + close, is_assigned(rest) || rest.starts_with("from"))
}

fn is_assigned(after: &str) -> bool {
    after.starts_with('=') && !after.starts_with("==") && !after.starts_with("=>")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(path: &str, source: &str) -> String {
        place(path, source, false).source.unwrap_or_default()
    }

    #[test]
    fn only_the_entry_is_the_program() {
        for (path, expected) in [("a.ts", "if (false) f()"), ("d/a.ts", "if (false) f()")] {
            assert_eq!(placed(path, "if (import.meta.main) f()"), expected, "{path}");
        }
        assert_eq!(placed("a.ts", "f('import.meta.main', import.meta.mainly)"), "");
        let both = placed("d/a.ts", "f(import.meta.main, __dirname)");
        assert_eq!(both, "var __dirname=__cloudserve_root+\"/d\";f(false, __dirname)");
        let entry = place("a.ts", "if (import.meta.main) f()", true);
        assert_eq!(entry, Placed::default());
    }

    #[test]
    fn modules_are_told_where_they_are() {
        for (path, source, expected) in [
            ("a.js", "f(__dirname, import.meta.dirname, require.resolve('./b.js'))", ""),
            (
                "a.mjs",
                "f(import.meta.url, import.meta.filename, import.meta.dirname)",
                "var __cloudserve_url=__cloudserve_at(\"./a.mjs\");\
                 var __cloudserve_filename=__cloudserve_root+\"/a.mjs\";\
                 f(__cloudserve_url, __cloudserve_filename, import.meta.dirname)",
            ),
            (
                "a.js",
                "f(__dirname, __filename)",
                "var __filename=__cloudserve_root+\"/a.js\";f(__dirname, __filename)",
            ),
            ("d/a.js", "f(1)", ""),
            ("d/a.js", "f(__dirname)", "var __dirname=__cloudserve_root+\"/d\";f(__dirname)"),
            (
                "d/a.js",
                "#!/usr/bin/env node\nf(__filename)",
                "#!/usr/bin/env node\nvar __filename=__cloudserve_root+\"/d/a.js\";f(__filename)",
            ),
            (
                "d e/a#.mjs",
                "f(import.meta.url, 'import.meta.url', import.meta.urls)",
                "var __cloudserve_url=__cloudserve_at(\"./d%20e/a%23.mjs\");\
                 f(__cloudserve_url, 'import.meta.url', import.meta.urls)",
            ),
            (
                "d/a.js",
                "f(require.resolve('./b.js'), a.require.resolve)",
                "var __cloudserve_resolve=__cloudserve_createRequire(__cloudserve_root+\"/d/a.js\").resolve;\
                 f(__cloudserve_resolve('./b.js'), a.require.resolve)",
            ),
            ("d/a.mjs", "const require = createRequire(x); require.resolve('y')", ""),
            // It may have a `globalThis` of its own, which holds nothing yet.
            (
                "d/a.mjs",
                "const globalThis = {}; f(import.meta.url)",
                "var __cloudserve_url=__cloudserve_at(\"./d/a.mjs\");const globalThis = {}; f(__cloudserve_url)",
            ),
            // What declares the name itself keeps it.
            (
                "d/a.mjs",
                "const __dirname = import.meta.dirname;",
                "var __cloudserve_dirname=__cloudserve_root+\"/d\";const __dirname = __cloudserve_dirname;",
            ),
            ("d/a.mjs", "import { __dirname } from './x'; f(__dirname)", ""),
            ("d/a.mjs", "const { a, __dirname } = x; f(__dirname)", ""),
            (
                "d/a.mjs",
                "f({ __dirname })",
                "var __dirname=__cloudserve_root+\"/d\";f({ __dirname })",
            ),
            (
                "d/a.mjs",
                "if (__dirname === '/') f()",
                "var __dirname=__cloudserve_root+\"/d\";if (__dirname === '/') f()",
            ),
        ] {
            assert_eq!(placed(path, source), expected, "{path}: {source}");
        }
    }

    /// Not by the square of it: somebody may have written one for that.
    #[test]
    fn a_module_takes_time_by_its_length() {
        let names = ",__dirname".repeat(300_000);
        for end in [String::new(), format!("}}{}x", " ".repeat(1_000_000))] {
            let begun = std::time::Instant::now();
            let placed = place("d/a.js", &format!("f({names}{end}"), false);
            assert!(placed.looks_around && placed.source.is_some());
            assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
        }
    }

    #[test]
    fn the_entry_is_what_was_started() {
        for (path, source, expected) in [
            ("a.mjs", "f(import.meta.url)", None),
            ("d/a.mjs", "f(process.argv[1])", None),
            (
                "d/a.cjs",
                "f(__filename)",
                Some(
                    "globalThis.process.argv[1]=__cloudserve_root+\"/d/a.cjs\";\
                     var __filename=__cloudserve_root+\"/d/a.cjs\";f(__filename)",
                ),
            ),
        ] {
            assert_eq!(place(path, source, true).source.as_deref(), expected, "{path}: {source}");
        }
    }

    #[test]
    fn modules_that_look_around_are_known() {
        for (source, expected) in [
            ("f(1)", false),
            ("createRequire(import.meta.url)('x')", true),
            ("require.resolve('x/y')", true),
            ("f(__dirname)", true),
        ] {
            let placed = place("node_modules/a/b.js", source, false);
            assert_eq!(placed.looks_around, expected, "{source}");
        }
    }
}
