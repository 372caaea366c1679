//! `CommonJS` packages that are imported from ES modules.
//!
//! Such a package becomes a small ES module that requires it. The names it exports have to be known
//! before it has run: they are those its importers ask for, read off the importers' sources, since
//! bundlers print import clauses in one plain form, and those its own source plainly assigns.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

/// An ES module that requires `path` and exports these names of it.
pub(crate) fn facade(path: &Path, names: &BTreeSet<String>) -> String {
    let path = serde_json::Value::from(path.to_string_lossy());
    let mut source = format!(
        "import {{ createRequire }} from 'node:module';\n\
         const m = createRequire({path})({path});\nexport default m;\n"
    );
    for name in names.iter().filter(|name| *name != "default") {
        let _ = write!(source, "const _{name} = m?.{name};\nexport {{ _{name} as {name} }};\n");
    }
    source
}

/// The names in `exports.name = ` assignments of a `CommonJS` source.
pub(crate) fn assigned_names(source: &str) -> BTreeSet<String> {
    const EXPORTS: &str = "exports.";
    source
        .match_indices(EXPORTS)
        .filter_map(|(at, _)| {
            let rest = &source[at + EXPORTS.len()..];
            let end = rest.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '$')))?;
            let (name, rest) = rest.split_at(end);
            let assigned = rest.trim_start().strip_prefix('=')?;
            (is_identifier(name) && !assigned.starts_with('=')).then(|| name.to_owned())
        })
        .collect()
}

/// Whether a source may import names of packages.
pub(crate) fn has_imports(source: &str) -> bool {
    source.contains("import ") || source.contains("import{")
}

/// The names in `import { a, b as c } from "specifier"` clauses of this source.
pub(crate) fn imported_names(source: &str, specifier: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for quote in ['"', '\''] {
        let from = format!("{quote}{specifier}{quote}");
        for (at, _) in source.match_indices(&from) {
            let before = source[..at].trim_end();
            let Some(before) = before.strip_suffix("from").map(str::trim_end) else { continue };
            let Some(before) = before.strip_suffix('}') else { continue };
            let Some(open) = before.rfind('{') else { continue };
            names.extend(
                before[open + 1..]
                    .split(',')
                    .filter_map(|clause| clause.split_whitespace().next())
                    .filter(|name| is_identifier(name))
                    .map(str::to_owned),
            );
        }
    }
    names
}

fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_alphabetic() || matches!(c, '_' | '$'))
        && chars.all(|c| c.is_alphanumeric() || matches!(c, '_' | '$'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_off_import_clauses() {
        let source = "import x from \"a\";\nimport { b, c as d,\n  default as e } from \"pkg\";\n\
                      import * as n from 'pkg'; import { f } from 'pkg'; import { g } from \"other\";";
        let names: Vec<_> = imported_names(source, "pkg").into_iter().collect();
        assert_eq!(names, ["b", "c", "default", "f"]);
        assert!(imported_names(source, "a").is_empty());
    }

    #[test]
    fn names_are_read_off_assignments() {
        let source = "exports.a = 1; module.exports.b=2;\nif (exports.c === 3) exports.1d = 4;\
                      exports.a = exports.default = void 0;";
        let names: Vec<_> = assigned_names(source).into_iter().collect();
        assert_eq!(names, ["a", "b", "default"]);
    }
}
