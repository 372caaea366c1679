//! The source map a worker gets. It is read while a call waits, when the function's first stack is
//! asked for; many packages ask for one while they are loaded. Packages are the most of it, and of
//! them the line is enough: where their columns begin is left out. JSON has no code: all of a file is one
//! place.

use std::path::Path;

use bytes::Bytes;
use sourcemap::{SourceMap, SourceMapBuilder};

/// The map without the columns and names of packages, of a bundle that has so many lines more in
/// front.
pub(super) fn thinned(map: &[u8], lines_in_front: usize) -> Result<Bytes, sourcemap::Error> {
    let map = SourceMap::from_slice(map)?;
    let moved_by = u32::try_from(lines_in_front).unwrap_or(u32::MAX);
    let mut thin = SourceMapBuilder::new(None);
    let mut last = None;
    for token in map.tokens() {
        let (line, column) = token.get_dst();
        let (source, (source_line, source_column)) = (token.get_source(), token.get_src());
        let is_package = source.is_some_and(|file| file.starts_with("node_modules/"));
        let extension = source.and_then(|file| Path::new(file).extension());
        let is_json = extension.is_some_and(|extension| extension == "json");
        let place = (line, token.get_src_id(), if is_json { 0 } else { source_line });
        if (is_package || is_json) && last == Some(place) {
            continue;
        }
        last = Some(place);
        let name = token.get_name().filter(|_| !is_package);
        thin.add(line + moved_by, column, source_line, source_column, source, name, false);
    }
    let mut text = Vec::new();
    thin.into_sourcemap().to_writer(&mut text)?;
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_packages_only_lines_are_kept_and_of_json_only_the_file() {
        let mut builder = SourceMapBuilder::new(None);
        for (column, line, source) in [
            (0, 0, "index.js"),
            (5, 0, "index.js"),
            (10, 0, "node_modules/a/b.js"),
            (15, 0, "node_modules/a/b.js"),
            (20, 1, "node_modules/a/b.js"),
            (25, 2, "index.js"),
            (30, 0, "data.json"),
            (35, 1, "data.json"),
            (40, 3, "index.js"),
        ] {
            builder.add(0, column, line, column, Some(source), Some("name"), false);
        }
        let mut text = Vec::new();
        builder.into_sourcemap().to_writer(&mut text).unwrap();
        let thin = SourceMap::from_slice(&thinned(&text, 1).unwrap()).unwrap();
        let found = [3, 7, 12, 17, 22, 27, 32, 37, 42].map(|column| {
            let token = thin.lookup_token(1, column).unwrap();
            (token.get_source().unwrap(), token.get_src(), token.get_name())
        });
        let (own, package) = ("index.js", "node_modules/a/b.js");
        let expected = [
            (own, (0, 0), Some("name")),
            (own, (0, 5), Some("name")),
            (package, (0, 10), None),
            (package, (0, 10), None),
            (package, (1, 20), None),
            (own, (2, 25), Some("name")),
            ("data.json", (0, 30), Some("name")),
            ("data.json", (0, 30), Some("name")),
            (own, (3, 40), Some("name")),
        ];
        assert_eq!(found, expected);
    }
}
