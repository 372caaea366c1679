//! The package `mime-types` makes two tables of some thousand entries of the database it brings while it
//! is loaded, which takes longer than all else that loading express or axios takes: 3 to 7 ms of a first
//! call. Few functions ever look into them. In a bundle the tables are made when they are first asked for,
//! and so is the database.

/// The module that makes them, in any `node_modules`.
const MODULE: &str = "mime-types/index.js";

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

/// The module at `path`, relative to the project, if it is this one, as far as it is written as it is
/// known to be.
pub(super) fn on_demand(path: &str, source: &str) -> Option<String> {
    let (_, module) = path.rsplit_once("node_modules/")?;
    if module != MODULE {
        return None;
    }
    let (front, source) = source.split_once(DATABASE.0)?;
    let (exported, functions) = source.split_once(TABLES.0)?;
    let (exported, functions) = (calling(exported)?, calling(functions)?);
    Some([front, DATABASE.1, &exported, TABLES.1, &functions].concat())
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
  return db[type] && db[type].charset // of mime-db, not of a mydb[]
}

function populateMaps (extensions, types) {
  Object.keys(db).forEach(function forEachMimeType (type) {
    extensions[type] = db[type].extensions
  })
}
";

    #[test]
    fn its_tables_and_its_database_are_made_on_demand() {
        for path in
            ["node_modules/mime-types/index.js", "node_modules/a/node_modules/mime-types/index.js"]
        {
            let changed = on_demand(path, SOURCE).unwrap();
            assert_eq!(changed.lines().count(), SOURCE.lines().count());
            let line = |number: usize| changed.lines().nth(number - 1).unwrap();
            assert_eq!(line(3), DATABASE.1);
            assert_eq!(line(10), TABLES.1);
            assert_eq!(
                line(13),
                "  return db()[type] && db()[type].charset // of mime-db, not of a mydb[]"
            );
            assert_eq!(line(17), "  Object.keys(db()).forEach(function forEachMimeType (type) {");
            assert_eq!(line(18), "    extensions[type] = db()[type].extensions");
        }
    }

    #[test]
    fn what_is_not_known_stays_as_it_is() {
        let path = "node_modules/mime-types/index.js";
        for (path, source) in [
            ("src/mime-types/index.js", SOURCE.to_owned()),
            ("node_modules/mime-types/mimeScore.js", SOURCE.to_owned()),
            ("node_modules/mime-types-x/index.js", SOURCE.to_owned()),
            (path, SOURCE.replace("var db =", "const db =")),
            (path, SOURCE.replace("populateMaps(exports", "populateMaps(module")),
            (path, SOURCE.replace("Object.keys(db)", "Object.entries(db)")),
            (path, format!("{SOURCE}\nexports.db = db\n")),
        ] {
            assert_eq!(on_demand(path, &source), None, "{path}\n{source}");
        }
    }
}
