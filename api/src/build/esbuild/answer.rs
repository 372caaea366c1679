//! What esbuild asks during a build, and what it is told.

use std::io;
use std::path::{Component, Path, PathBuf};

use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;

use super::packet::{Packet, Value, map};
use super::place::{Placed, place};
use super::{LEADING_OUT, MODULES, OUTSIDE, google, mime_types, wasm};

/// Answers what esbuild asks during a build. It asks before it loads what is outside the project:
/// that is refused. It also asks before it looks for what may be outside, and before it loads modules:
/// those that want to know are told where they are. Says whether this one looks around.
pub(super) async fn answer(
    packet: &Packet,
    project: &Path,
    entry: &str,
    to: &mut ChildStdin,
) -> io::Result<bool> {
    let asked = &packet.value;
    let mut looks_around = false;
    let value = match asked.get("command").text() {
        "on-resolve" => place_of(asked, project),
        "on-load" if asked.get("ids").list().contains(&Value::Int(OUTSIDE)) => refusal(OUTSIDE),
        "on-load" => {
            let loaded = load(project, entry, Path::new(asked.get("path").text())).await;
            looks_around = loaded.looks_around;
            match loaded.source {
                None => map([]),
                Some(source) => map([
                    ("id", Value::Int(MODULES)),
                    ("contents", Value::Bytes(source.into())),
                    ("loader", loader_of(asked.get("path").text()).into()),
                ]),
            }
        }
        _ => map([("errors", none()), ("warnings", none())]),
    };
    to.write_all(&Packet { id: packet.id, is_request: false, value }.encode()).await?;
    Ok(looks_around)
}

fn none() -> Value {
    Value::List(Vec::new())
}

/// What is outside the project, whether it is there or not.
fn refusal(id: u32) -> Value {
    let error = map([
        ("id", "".into()),
        ("pluginName", "confine".into()),
        ("text", "outside the project".into()),
        ("location", Value::Null),
        ("notes", none()),
        ("detail", Value::Int(u32::MAX)),
    ]);
    map([("id", Value::Int(id)), ("errors", Value::List(vec![error]))])
}

/// What leads out of the project is refused; a package's is left for the function to look for, in vain,
/// since many look for what they can do without. The rest is esbuild's to find.
fn place_of(asked: &Value, project: &Path) -> Value {
    let path = asked.get("path").text();
    if leads_below(project, &Path::new(asked.get("resolveDir").text()).join(path)) {
        return map([]);
    }
    if Path::new(asked.get("importer").text()).starts_with(project.join("node_modules")) {
        let id = Value::Int(LEADING_OUT);
        map([("id", id), ("path", path.into()), ("external", true.into())])
    } else {
        refusal(LEADING_OUT)
    }
}

/// Whether this path is below the directory, as it is written.
fn leads_below(directory: &Path, path: &Path) -> bool {
    let mut reached = PathBuf::new();
    for part in path.components() {
        if part == Component::ParentDir {
            reached.pop();
        } else {
            reached.push(part);
        }
    }
    reached.starts_with(directory)
}

/// Modules up to this size are read and placed in less time than it takes to wake another thread for
/// each of a build's thousands.
const INLINE_BYTES: u64 = 128 * 1024;

/// The database of `mime-types` has 200 KB.
const MAX_DATABASE_BYTES: u64 = 4 * 1024 * 1024;

/// A module as it is to be loaded, if not as it is. A large one is read by a thread that serves nobody.
async fn load(project: &Path, entry: &str, path: &Path) -> Placed {
    // It reads another one.
    let takes_long = path.ends_with(mime_types::MODULE);
    if !takes_long && std::fs::metadata(path).is_ok_and(|file| file.len() <= INLINE_BYTES) {
        return module(project, entry, path);
    }
    let (project, entry, path) = (project.to_owned(), entry.to_owned(), path.to_owned());
    // An error says that the runtime ends.
    tokio::task::spawn_blocking(move || module(&project, &entry, &path)).await.unwrap_or_default()
}

/// Blocks.
fn module(project: &Path, entry: &str, path: &Path) -> Placed {
    // What cannot be read, esbuild complains about.
    let Ok(bytes) = std::fs::read(path) else { return Placed::default() };
    if path.extension().is_some_and(|extension| extension == "wasm") {
        return Placed { source: Some(wasm::module(&bytes)), looks_around: false };
    }
    let relative = path.strip_prefix(project).ok().and_then(Path::to_str);
    match (relative, std::str::from_utf8(&bytes)) {
        (Some(relative), Ok(source)) => {
            let changed = if mime_types::is_it(relative) {
                mime_types::on_demand(source, database_of(project, path).as_deref())
            } else {
                google::telling_registry(relative, source)
            };
            match changed {
                Some(source) => Placed { source: Some(source), looks_around: false },
                None => place(relative, source, relative == entry),
            }
        }
        _ => Placed::default(),
    }
}

/// The database that `mime-types` at this path finds. Blocks.
fn database_of(project: &Path, module: &Path) -> Option<Vec<u8>> {
    let inside = module.ancestors().skip(1).take_while(|directory| directory.starts_with(project));
    inside
        .map(|directory| directory.join(mime_types::DATABASE_FILE))
        .filter(|file| std::fs::metadata(file).is_ok_and(|file| file.len() <= MAX_DATABASE_BYTES))
        .find_map(|file| std::fs::read(file).ok())
}

/// How esbuild reads files of this name by itself.
fn loader_of(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("ts" | "mts" | "cts") => "ts",
        Some("tsx") => "tsx",
        Some("jsx" | "js") => "jsx",
        _ => "js",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_outside_is_refused_to_its_owner_and_left_to_packages() {
        let project = Path::new("/builds/p");
        for (importer, path, expected) in [
            ("index.js", "/etc/passwd", "refused"),
            ("index.js", "../../x", "refused"),
            ("lib/deep/a.js", "../../x", "below"),
            ("lib/deep/a.js", "../../../x", "refused"),
            ("lib/deep/a.js", "/builds/p/x", "below"),
            ("lib/deep/a.js", "../../../p/x", "below"),
            ("lib/deep/a.js", "../../../pp/x", "refused"),
            ("node_modules/a/lib/b.js", "../../c/d.js", "below"),
            ("node_modules/a/lib/b.js", "../../../package.json", "below"),
            ("node_modules/a/lib/b.js", "../../../../package.json", "left"),
            ("node_modules/a/lib/b.js", "/opt/x", "left"),
        ] {
            let importer = project.join(importer);
            let text = |path: &Path| Value::from(path.to_str().unwrap());
            let asked = map([
                ("path", path.into()),
                ("importer", text(&importer)),
                ("resolveDir", text(importer.parent().unwrap())),
            ]);
            let answered = place_of(&asked, project);
            let answered = match answered.get("id") {
                Value::Null => "below",
                _ if answered.get("external") == &Value::Bool(true) => "left",
                _ if !answered.get("errors").list().is_empty() => "refused",
                _ => "?",
            };
            assert_eq!(answered, expected, "{}: {path}", importer.display());
        }
    }
}
