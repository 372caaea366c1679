//! `CommonJS` packages that are imported from ES modules.
//!
//! Such a package becomes a small ES module that requires it. The names it exports have to be known
//! before it has run: they are those its importers ask for, read off the importers' sources, since
//! bundlers print import clauses in one plain form, and those its own source plainly names.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

/// An ES module that requires `path` and exports these names of it: as undefined, if a getter throws.
pub(crate) fn facade(path: &Path, names: &BTreeSet<String>) -> String {
    let path = serde_json::Value::from(path.to_string_lossy());
    let mut source = format!(
        "import {{ createRequire }} from 'node:module';\n\
         const m = createRequire({path})({path});\nexport default m;\n\
         const g = (get) => {{ try {{ return get(); }} catch {{}} }};\n"
    );
    for name in names.iter().filter(|name| *name != "default") {
        let _ = write!(
            source,
            "const _{name} = g(() => m?.{name});\nexport {{ _{name} as {name} }};\n"
        );
    }
    source
}

/// The names a `CommonJS` source plainly exports: in `exports.name = `, in
/// `Object.defineProperty(exports, "name", ...)` of a value or of a member of another module, and in
/// `0 && (module.exports = { name, ... })`, which esbuild leaves in its output as a note.
pub(crate) fn assigned_names(source: &str) -> BTreeSet<String> {
    const EXPORTS: &str = "exports";
    let mut names: BTreeSet<&str> = BTreeSet::new();
    for (at, _) in source.match_indices(EXPORTS) {
        let before = &source[..at];
        let before = before.strip_suffix("module.").unwrap_or(before).trim_end();
        let after = source[at + EXPORTS.len()..].trim_start();
        if let Some(member) = after.strip_prefix('.') {
            names.extend(assigned(member));
        } else if before.ends_with("Object.defineProperty(") {
            names.extend(defined(after));
        } else if begins_note(before) {
            names.extend(noted(after));
        }
    }
    names.into_iter().filter(|name| is_identifier(name)).map(str::to_owned).collect()
}

fn assigned(member: &str) -> Option<&str> {
    let end = member.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '$')))?;
    let (name, rest) = member.split_at(end);
    let value = rest.trim_start().strip_prefix('=')?;
    (!value.starts_with('=')).then_some(name)
}

fn defined(after: &str) -> Option<&str> {
    let name = after.strip_prefix(',')?.trim_start();
    let quote = name.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let (name, rest) = name[1..].split_once(quote)?;
    is_plain_descriptor(skip(rest, ",")?).then_some(name)
}

/// Whether a descriptor has a value, or a getter that only reads a name or a member of one. Any other
/// getter is there to be asked later, or not at all: it requires what costs much, or warns.
fn is_plain_descriptor(source: &str) -> bool {
    let Some(mut source) = skip(source, "{") else { return false };
    if let Some(rest) = skip_property(source, "enumerable") {
        let Some(rest) = ["true", "!0"].iter().find_map(|yes| skip(rest, yes)) else {
            return false;
        };
        let Some(rest) = skip(rest, ",") else { return false };
        source = rest;
    }
    skip_property(source, "value").is_some() || has_plain_getter(source) == Some(true)
}

/// `get: function () { return a.b; }`, `get() { return a.b; }` or `get: () => a.b`; none where the
/// source is neither of them.
fn has_plain_getter(source: &str) -> Option<bool> {
    let (body, is_block) = if let Some(getter) = skip_property(source, "get") {
        match skip(getter, "function") {
            Some(function) => (skip(skip(skip_name(function), "(")?, ")")?, true),
            None => (skip(skip(skip(getter, "(")?, ")")?, "=>")?, false),
        }
    } else {
        (skip(skip(skip(source, "get")?, "(")?, ")")?, true)
    };
    if !is_block {
        return Some(skip_member(body)?.starts_with(['}', ',']));
    }
    let value = skip(skip(body, "{")?, "return")?;
    let end = skip_member(value)?;
    let end = skip(skip(end, ";").unwrap_or(end), "}")?;
    Some(end.starts_with(['}', ',']))
}

/// What follows `token`, which is first in `source` or after white space, and the white space after.
fn skip<'s>(source: &'s str, token: &str) -> Option<&'s str> {
    source.trim_start().strip_prefix(token).map(str::trim_start)
}

/// What follows the key of a property, quoted or not, and its colon.
fn skip_property<'s>(source: &'s str, key: &str) -> Option<&'s str> {
    let source = source.trim_start();
    let quote = source.get(..1).filter(|quote| matches!(*quote, "\"" | "'")).unwrap_or("");
    let rest = source.strip_prefix(quote)?.strip_prefix(key)?.strip_prefix(quote)?;
    skip(rest, ":")
}

fn skip_name(source: &str) -> &str {
    source.trim_start_matches(|c: char| c.is_alphanumeric() || matches!(c, '_' | '$')).trim_start()
}

/// What follows a name or a member of one: `a`, `a.b`, `a["b"]`.
fn skip_member(source: &str) -> Option<&str> {
    let rest = skip_name(source);
    if rest.len() == source.len() {
        return None;
    }
    if let Some(member) = rest.strip_prefix('.') {
        return Some(skip_name(member));
    }
    let Some(member) = skip(rest, "[") else { return Some(rest) };
    let quote = member.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    skip(member[1..].split_once(quote)?.1, "]")
}

fn begins_note(before: &str) -> bool {
    before
        .strip_suffix('(')
        .and_then(|before| before.trim_end().strip_suffix("&&"))
        .is_some_and(|before| before.trim_end().ends_with('0'))
}

fn noted(after: &str) -> impl Iterator<Item = &str> {
    let object = after.strip_prefix('=').and_then(|value| value.trim_start().strip_prefix('{'));
    let names = object.and_then(|object| object.split_once('}')).map_or("", |(names, _)| names);
    names.split(',').map(str::trim)
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

    fn check(source: &str, expected: &[&str]) {
        let names: Vec<_> = assigned_names(source).into_iter().collect();
        assert_eq!(names, expected, "{source}");
    }

    #[test]
    fn names_are_read_off_assignments() {
        let source = "exports.a = 1; module.exports.b=2;\nif (exports.c === 3) exports.1d = 4;\
                      exports.a = exports.default = void 0;";
        check(source, &["a", "b", "default"]);
    }

    #[test]
    fn names_are_read_off_definitions() {
        check(
            "Object.defineProperty(exports, \"__esModule\", { value: true });\n\
             Object.defineProperty(exports,'a',{get:()=>b.a});\n\
             Object.defineProperty( module.exports , \"c\", { enumerable: true, value: 1 });\n\
             Object.defineProperty(exports, name, {}); Object.defineProperty(other, \"d\", {});\n\
             Object.defineProperty(exports, \"e-f\", {}); Object.defineProperty(exports, \"",
            &["__esModule", "a", "c"],
        );
    }

    #[test]
    fn only_getters_that_read_a_member_are_taken() {
        for descriptor in [
            // As TypeScript prints them.
            "{ enumerable: true, get: function () { return b_1.a; } }",
            "{ enumerable: true, get: function () { return __importDefault; } }",
            "{enumerable:!0,get:function(){return b.a}}",
            "{ enumerable: true, get: function get() {\n    return _b.default;\n  }\n}",
            "{ get() { return b['a']; }, enumerable: true }",
            "{ 'enumerable': true, \"get\": () => b.a }",
            "{ value: require('b') }",
            "{ enumerable: true, value: b }",
        ] {
            check(&format!("Object.defineProperty(exports, 'a', {descriptor});"), &["a"]);
        }
        for descriptor in [
            "{ enumerable: true, get: function () { return require('./a'); } }",
            "{ get() { return require('./a').default; } }",
            "{ get: () => require('./a') }",
            "{ get: () => b.c() }",
            "{ get: () => b.c.d }",
            "{ enumerable: true, get() { console.warn('old'); return b.a; } }",
            "{ enumerable: true, get: function () { return b ?? (b = c.d); } }",
            "{ enumerable: false, get: function () { return b.a; } }",
            "{ configurable: true, get: load }",
            "{ enumerable: true }",
            "descriptor",
            "{ get",
            "{ 'é",
        ] {
            check(&format!("Object.defineProperty(exports, 'a', {descriptor});"), &[]);
        }
    }

    #[test]
    fn the_facade_survives_getters_that_throw() {
        let source = facade(Path::new("/p"), &BTreeSet::from(["a".to_owned()]));
        assert!(source.contains("const _a = g(() => m?.a);\nexport { _a as a };"), "{source}");
    }

    #[test]
    fn names_are_read_off_the_notes_of_esbuild() {
        check("0 && (module.exports = {\n  a,\n  b\n});", &["a", "b"]);
        check("x;0&&(module.exports={a,$b});", &["$b", "a"]);
        check("0 && (module.exports = {\n  a,\n  ...require(\"./b\")\n});", &["a"]);
        for source in [
            "0 && (module.exports = {});",
            "1 && (module.exports = { a });",
            "(module.exports = { a });",
            "0 && (module.exports = { a",
            "module.exports",
        ] {
            check(source, &[]);
        }
    }
}
