//! What esbuild asks during a build, and what it is told.

use std::io;
use std::path::Path;

use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;

use super::packet::{Packet, Value, map};
use super::place::{Placed, place};
use super::{MODULES, OUTSIDE, google, wasm};

/// Answers what esbuild asks during a build. It asks before it loads what is outside the project:
/// that is refused. It also asks before it loads modules: those that want to know are told where
/// they are. Says whether this one looks around.
pub(super) async fn answer(
    packet: &Packet,
    project: &Path,
    to: &mut ChildStdin,
) -> io::Result<bool> {
    let none = || Value::List(Vec::new());
    let asked = &packet.value;
    let mut looks_around = false;
    let value = if asked.get("command").text() != "on-load" {
        map([("errors", none()), ("warnings", none())])
    } else if asked.get("ids").list().contains(&Value::Int(OUTSIDE)) {
        let refusal = map([
            ("id", "".into()),
            ("pluginName", "confine".into()),
            ("text", "outside the project".into()),
            ("location", Value::Null),
            ("notes", none()),
            ("detail", Value::Int(u32::MAX)),
        ]);
        map([("id", Value::Int(OUTSIDE)), ("errors", Value::List(vec![refusal]))])
    } else {
        let loaded = module(project, Path::new(asked.get("path").text()));
        looks_around = loaded.looks_around;
        match loaded.source {
            None => map([]),
            Some(source) => map([
                ("id", Value::Int(MODULES)),
                ("contents", Value::Bytes(source.into())),
                ("loader", loader_of(asked.get("path").text()).into()),
            ]),
        }
    };
    to.write_all(&Packet { id: packet.id, is_request: false, value }.encode()).await?;
    Ok(looks_around)
}

/// A module as it is to be loaded, if not as it is.
fn module(project: &Path, path: &Path) -> Placed {
    // What cannot be read, esbuild complains about.
    let Ok(bytes) = std::fs::read(path) else { return Placed::default() };
    if path.extension().is_some_and(|extension| extension == "wasm") {
        return Placed { source: Some(wasm::module(&bytes)), looks_around: false };
    }
    let relative = path.strip_prefix(project).ok().and_then(Path::to_str);
    match (relative, std::str::from_utf8(&bytes)) {
        (Some(relative), Ok(source)) => match google::telling_registry(relative, source) {
            Some(source) => Placed { source: Some(source), looks_around: false },
            None => place(relative, source),
        },
        _ => Placed::default(),
    }
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
