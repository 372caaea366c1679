//! A project: what is deployed, and what its `cloudserve.toml` says about it.
//!
//! The file's `[function]` section belongs to the client commands; everything else in it to
//! `cloudserve serve`, which passes over that section.

mod files;
mod settings;

use std::fs;
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine};
use cloudserve_protocol::ids::FunctionName;
use serde_json::{Value, json};

pub(crate) use self::files::Files;
use self::files::{LOCK_FILES, is_code};
use self::settings::{Settings, read_settings};
use super::error::ClientError;

/// The file of a project.
const FILE: &str = "cloudserve.toml";

/// Where `dev` keeps its data.
pub(crate) const OWN_DIR: &str = ".cloudserve";

/// What is deployed.
#[derive(Debug, Clone)]
pub(crate) struct Project {
    /// The folder, or the folder of the file.
    pub(crate) root: PathBuf,
    /// The only file that is deployed, if it is no folder.
    only: Option<String>,
    pub(crate) settings: Settings,
}

impl Project {
    /// The project at a path: a folder, or a single file.
    pub(crate) fn at(path: &Path) -> Result<Self, ClientError> {
        let metadata = fs::metadata(path).map_err(ClientError::file(path))?;
        if metadata.is_dir() {
            let root = path.canonicalize().map_err(ClientError::file(path))?;
            let settings = read_settings(&root)?.unwrap_or_default();
            return Ok(Self { root, only: None, settings });
        }
        let absolute = path.canonicalize().map_err(ClientError::file(path))?;
        let name = absolute.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !is_code(name) {
            return Err(ClientError::usage(
                format!("{} is no JavaScript or TypeScript", path.display()),
                "name a .ts, .js, .mjs, .cjs, .tsx, .jsx, .mts or .cts file, or a folder",
            ));
        }
        let root = absolute.parent().unwrap_or(Path::new("/")).to_owned();
        Ok(Self { root, only: Some(name.to_owned()), settings: Settings::default() })
    }

    /// The function's name: the one that was given, of the settings, of the folder or file.
    pub(crate) fn name(&self, given: Option<&str>) -> Result<FunctionName, ClientError> {
        let of_path = match &self.only {
            Some(file) => file.split('.').next().unwrap_or_default().to_owned(),
            None => self.root.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        };
        let name = given.or(self.settings.name.as_deref()).unwrap_or(&of_path);
        name.parse().map_err(|error| {
            let hint = match &self.only {
                Some(_) => "give another name to the file, or to `deploy` with --name".to_owned(),
                None => format!("name it under [function] in {FILE}, or for `deploy` with --name"),
            };
            ClientError::usage(format!("{name:?} cannot be a function's name: {error}"), hint)
        })
    }

    /// The body of a deploy.
    pub(crate) fn body(&self, name: &FunctionName, files: &Files) -> Result<Value, ClientError> {
        let mut body = json!({ "name": name });
        let text = |name: &str| -> Result<Option<String>, ClientError> {
            let Some(content) = files.sent.get(name) else { return Ok(None) };
            String::from_utf8(content.clone()).map(Some).map_err(|_| ClientError::Project {
                path: self.root.join(name),
                message: "is not UTF-8".to_owned(),
                hint: Some("save it as UTF-8".to_owned()),
            })
        };
        if let Some(only) = &self.only {
            body["filename"] = only.as_str().into();
            body["code"] = text(only)?.into();
            let locks = LOCK_FILES.map(|name| (name, "packageLock"));
            for (file, field) in [("package.json", "packageJson")].into_iter().chain(locks) {
                if let Some(content) = text(file)? {
                    body[field] = content.into();
                }
            }
        } else {
            let content = |content: &Vec<u8>| match std::str::from_utf8(content) {
                Ok(text) => Value::from(text),
                Err(_) => json!({ "base64": BASE64_STANDARD.encode(content) }),
            };
            let all = files.sent.iter().map(|(path, bytes)| (path.clone(), content(bytes)));
            body["files"] = Value::Object(all.collect());
        }
        self.settings.add_to(&mut body);
        Ok(body)
    }
}

/// The name of the function of the folder this program was started in.
fn current_name() -> Result<String, ClientError> {
    let here = Path::new(".");
    if read_settings(here)?.is_some() {
        return Ok(Project::at(here)?.name(None)?.to_string());
    }
    Err(ClientError::usage(
        "which function?",
        format!("name it, or go to the folder whose {FILE} has a section [function]"),
    ))
}

/// The function that was named; `.` and none mean that of this folder.
pub(crate) fn named_or_current(given: Option<&str>) -> Result<String, ClientError> {
    match given {
        None | Some(".") => current_name(),
        Some(name) => Ok(name.to_owned()),
    }
}

#[cfg(test)]
mod tests;
