//! What a project's `cloudserve.toml` says about its function.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use cloudserve_protocol::build::name_and_range;
use serde::Deserialize;
use serde_json::{Value, json};

use super::FILE;
use crate::client::error::ClientError;

/// The section `[function]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// The function's name [default: that of the folder].
    pub(super) name: Option<String>,
    /// The file that exports the handler.
    entry: Option<String>,
    /// `private` or `public`.
    visibility: Option<String>,
    /// Packages that are not bundled.
    external: Option<Vec<String>>,
    /// Packages, beside those of package.json.
    dependencies: Option<BTreeMap<String, String>>,
    /// Limits, by their names in the API.
    limits: Option<toml::Table>,
}

#[derive(Deserialize)]
struct File {
    function: Option<Settings>,
}

impl Settings {
    /// What is not said stays as it was on the server.
    pub(super) fn add_to(&self, body: &mut Value) {
        let mut set = |field: &str, value: Option<Value>| {
            if let Some(value) = value {
                body[field] = value;
            }
        };
        set("entry", self.entry.clone().map(Value::from));
        set("visibility", self.visibility.clone().map(Value::from));
        set("external", self.external.clone().map(Value::from));
        set("dependencies", self.dependencies.as_ref().map(|of| json!(of)));
        set("limits", self.limits.as_ref().map(|limits| json!(limits)));
    }

    /// Adds packages in the form `axios@^1`.
    pub(crate) fn depend_on(&mut self, packages: &[String]) {
        let all = self.dependencies.get_or_insert_default();
        for package in packages {
            let (name, range) = name_and_range(package).unwrap_or((package.as_str(), "*"));
            all.insert(name.to_owned(), range.to_owned());
        }
    }

    /// Whether a deploy of this says who may call it.
    pub(crate) fn set_visibility(&mut self, visibility: Option<&str>) {
        if let Some(visibility) = visibility {
            self.visibility = Some(visibility.to_owned());
        }
    }
}

pub(super) fn read_settings(root: &Path) -> Result<Option<Settings>, ClientError> {
    let path = root.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ClientError::File { path, source }),
    };
    let file: File = toml::from_str(&text).map_err(|error| {
        let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
        let place = line.map(|line| format!("line {line}: ")).unwrap_or_default();
        ClientError::Project {
            path,
            message: format!("{place}{}", error.message()),
            hint: Some("docs/CLI.md lists what [function] may say".to_owned()),
        }
    })?;
    Ok(file.function)
}
