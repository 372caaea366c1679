//! What an archive holds, for people and for scripts.

use std::fmt::Write;
use std::path::Path;

use cloudserve_store::transfer::Kind;
use serde_json::json;

use super::archive::Manifest;

/// One JSON document, or some lines of text.
pub(super) fn told(
    file: &Path,
    manifest: &Manifest,
    more: &[(&str, u64)],
    is_json: bool,
) -> String {
    if is_json {
        let mut document = json!(manifest);
        document["file"] = json!(file);
        for (name, value) in more {
            document[*name] = json!(value);
        }
        return document.to_string();
    }
    let mut text = format!("{}, of {}\n", file.display(), manifest.created_at);
    for kind in Kind::ALL {
        let count = manifest.records.get(&kind).map_or(0, |part| part.count);
        let _ = match kind {
            Kind::Functions => {
                let functions = count.saturating_sub(manifest.versions);
                let versions = manifest.versions;
                writeln!(text, "  {kind:<14}{functions:>10}  with {versions} versions")
            }
            _ => writeln!(text, "  {kind:<14}{count:>10}"),
        };
    }
    let objects = &manifest.objects;
    let _ = write!(text, "  {:<14}{:>10}  {} bytes", "objects", objects.count, objects.bytes);
    if !manifest.master_keys.is_empty() {
        let keys: Vec<&str> = manifest.master_keys.iter().map(String::as_str).collect();
        let _ = write!(text, "\nenvironments are sealed under the master key {}", keys.join(", "));
    }
    text
}

/// What should not be overlooked, on standard error.
pub(super) fn warn(manifest: &Manifest) {
    if manifest.missing_objects > 0 {
        super::progress::say(&format_args!(
            "warning: {} bundles or dependency trees that versions need are not stored; if servers \
             ran, they were deleted meanwhile, else they are lost",
            manifest.missing_objects
        ));
    }
}
