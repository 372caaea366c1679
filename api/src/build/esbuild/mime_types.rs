//! The package `mime-types` makes two tables of some thousand entries of the database it brings while it
//! is loaded, which takes longer than all else that loading express or axios takes: 3 to 7 ms of a first
//! call. Few functions ever look into them. In a bundle the tables are made when they are first asked for,
//! and so is the database. What express asks for in each answer, the charset of a type, is in a table of
//! its own, since few types have one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The module that makes them, in any `node_modules`.
pub(super) const MODULE: &str = "mime-types/index.js";

/// The file of the database, from a directory in which it is found.
pub(super) const DATABASE_FILE: &str = "node_modules/mime-db/db.json";

/// The database, as it is brought in and when it is needed.
const DATABASE: (&str, &str) = (
    "var db = require('mime-db')",
    "var loaded;function db(){return loaded||(loaded=require('mime-db'))}",
);
const NAME: &str = "db";

/// The tables, as they are made and when they are needed. One line, as before. What is in front has no
/// semicolon.
const TABLES: (&str, &str) = (
    "populateMaps(exports.extensions, exports.types)",
    ";(function(){\
     var made=false;\
     function make(){if(!made){made=true;populateMaps(exports.extensions,exports.types)}}\
     [\"extensions\",\"types\",\"_extensionConflicts\"].forEach(function(name){\
     var value=exports[name];\
     if(value)Object.defineProperty(exports,name,{configurable:true,enumerable:true,\
     get:function(){make();return value},set:function(other){make();value=other}})\
     })})();",
);

/// Where the charset of a type is looked up, and nothing else of it is.
const CHARSET: &str = "\
  var mime = match && db[match[1].toLowerCase()]

  if (mime && mime.charset) {
    return mime.charset
  }
";

/// What the database says of a type.
#[derive(Deserialize, Serialize)]
struct MediaType {
    charset: Option<String>,
}

/// Whether the module at this path, relative to the project, is this one.
pub(super) fn is_it(path: &str) -> bool {
    path.rsplit_once("node_modules/").is_some_and(|(_, module)| module == MODULE)
}

/// The module, as far as it is written as it is known to be. `database` is the file of the database, if
/// that is known.
pub(super) fn on_demand(source: &str, database: Option<&[u8]>) -> Option<String> {
    let (front, source) = source.split_once(DATABASE.0)?;
    let (exported, functions) = source.split_once(TABLES.0)?;
    let charsets = if functions.contains(CHARSET) { database.and_then(charsets_of) } else { None };
    let (table, functions) = match charsets {
        Some(table) => {
            (table, functions.replacen(CHARSET, &CHARSET.replace("db[", "charsetOf["), 1))
        }
        None => (String::new(), functions.to_owned()),
    };
    let (exported, functions) = (calling(exported)?, calling(&functions)?);
    Some([front, DATABASE.1, &table, &exported, TABLES.1, &functions].concat())
}

/// A declaration of the types that have a charset.
fn charsets_of(database: &[u8]) -> Option<String> {
    let mut types: BTreeMap<String, MediaType> = serde_json::from_slice(database).ok()?;
    types.retain(|_, media_type| media_type.charset.is_some());
    let table = serde_json::to_string(&types).ok()?;
    Some(format!(";var charsetOf=Object.assign(Object.create(null),{table})"))
}

/// The text with a call wherever it looks into the database; `None` if it does anything else with it.
fn calling(text: &str) -> Option<String> {
    let mut calling = String::with_capacity(text.len() + 32);
    let mut copied = 0;
    for (at, _) in text.match_indices(NAME) {
        let (before, after) = (&text[..at], &text[at + NAME.len()..]);
        if before.ends_with(is_of_a_name) || after.starts_with(is_of_a_name) {
            continue;
        }
        let is_listed = before.ends_with("Object.keys(") && after.starts_with(')');
        if !is_listed && !after.starts_with('[') {
            return None;
        }
        calling.push_str(&text[copied..at]);
        calling.push_str("db()");
        copied = at + NAME.len();
    }
    calling.push_str(&text[copied..]);
    Some(calling)
}

fn is_of_a_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '$' | '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "'use strict'

var db = require('mime-db')

exports.charset = charset
exports.extensions = Object.create(null)
exports.types = Object.create(null)

// Populate the extensions/types maps
populateMaps(exports.extensions, exports.types)

function charset (type) {
  var match = EXTRACT_TYPE_REGEXP.exec(type)
  var mime = match && db[match[1].toLowerCase()]

  if (mime && mime.charset) {
    return mime.charset
  }
  return mydb[0] // not of mime-db
}

function populateMaps (extensions, types) {
  Object.keys(db).forEach(function forEachMimeType (type) {
    extensions[type] = db[type].extensions
  })
}
";

    fn line(text: &str, number: usize) -> &str {
        text.lines().nth(number - 1).unwrap()
    }

    #[test]
    fn it_is_known_by_where_it_lies() {
        for (path, expected) in [
            ("node_modules/mime-types/index.js", true),
            ("node_modules/a/node_modules/mime-types/index.js", true),
            ("node_modules/mime-types/mimeScore.js", false),
            ("node_modules/mime-types-x/index.js", false),
            ("src/mime-types/index.js", false),
        ] {
            assert_eq!(is_it(path), expected, "{path}");
        }
    }

    #[test]
    fn its_tables_and_its_database_are_made_on_demand() {
        let changed = on_demand(SOURCE, None).unwrap();
        assert_eq!(changed.lines().count(), SOURCE.lines().count());
        assert_eq!(line(&changed, 3), DATABASE.1);
        assert_eq!(line(&changed, 10), TABLES.1);
        assert_eq!(line(&changed, 14), "  var mime = match && db()[match[1].toLowerCase()]");
        assert_eq!(line(&changed, 19), "  return mydb[0] // not of mime-db");
        assert_eq!(
            line(&changed, 23),
            "  Object.keys(db()).forEach(function forEachMimeType (type) {"
        );
        assert_eq!(line(&changed, 24), "    extensions[type] = db()[type].extensions");
    }

    #[test]
    fn charsets_are_in_a_table_of_their_own() {
        let database = br#"{"a/b":{"source":"iana"},"c/d":{"charset":"UTF-8","extensions":["d"]}}"#;
        let changed = on_demand(SOURCE, Some(database)).unwrap();
        assert_eq!(changed.lines().count(), SOURCE.lines().count());
        let table =
            r#";var charsetOf=Object.assign(Object.create(null),{"c/d":{"charset":"UTF-8"}})"#;
        assert_eq!(line(&changed, 3), format!("{}{table}", DATABASE.1));
        assert_eq!(line(&changed, 14), "  var mime = match && charsetOf[match[1].toLowerCase()]");
        assert_eq!(line(&changed, 24), "    extensions[type] = db()[type].extensions");
        // As it is without.
        let other = SOURCE.replace("return mime.charset", "return mime");
        for (source, database) in [(SOURCE, &b"no JSON"[..]), (&other[..], &database[..])] {
            assert_eq!(on_demand(source, Some(database)), on_demand(source, None));
        }
    }

    #[test]
    fn what_is_not_known_stays_as_it_is() {
        for source in [
            SOURCE.replace("var db =", "const db ="),
            SOURCE.replace("populateMaps(exports", "populateMaps(module"),
            SOURCE.replace("Object.keys(db)", "Object.entries(db)"),
            format!("{SOURCE}\nexports.db = db\n"),
        ] {
            assert_eq!(on_demand(&source, None), None, "{source}");
        }
    }
}
