//! A project: what is deployed, and what its `cloudserve.toml` says about it.
//!
//! The file's `[function]` section belongs to the client commands; everything else in it to
//! `cloudserve serve`, which passes over that section. Invariant: what git ignores, packages and
//! files that usually hold secrets are not sent.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine};
use cloudserve_protocol::build::name_and_range;
use cloudserve_protocol::ids::FunctionName;
use ignore::WalkBuilder;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::error::ClientError;

/// The file of a project.
pub(crate) const FILE: &str = "cloudserve.toml";

/// Names what is not sent, in the form of a .gitignore.
const IGNORE_FILE: &str = ".cloudserveignore";

/// Where `dev` keeps its data.
pub(crate) const OWN_DIR: &str = ".cloudserve";

/// What is never sent, wherever it is.
const NEVER: [&str; 8] =
    ["node_modules", ".git", OWN_DIR, ".npmrc", ".gitignore", IGNORE_FILE, FILE, ".DS_Store"];

const CODE_EXTENSIONS: [&str; 8] = ["ts", "tsx", "mts", "js", "mjs", "cjs", "jsx", "cts"];

/// Lock files that are heeded, and those that are not.
const LOCK_FILES: [&str; 2] = ["npm-shrinkwrap.json", "package-lock.json"];
const OTHER_LOCK_FILES: [&str; 4] = ["yarn.lock", "pnpm-lock.yaml", "bun.lock", "bun.lockb"];

/// Beyond these no server takes it, whatever its limits: most likely the wrong folder.
const MAX_FILES: usize = 20_000;
const MAX_BYTES: u64 = 500 * 1_000 * 1_000;

/// The section `[function]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// The function's name [default: that of the folder].
    pub(crate) name: Option<String>,
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

/// What is deployed.
#[derive(Debug, Clone)]
pub(crate) struct Project {
    /// The folder, or the folder of the file.
    pub(crate) root: PathBuf,
    /// The only file that is deployed, if it is no folder.
    only: Option<String>,
    pub(crate) settings: Settings,
}

/// The files of a project.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Files {
    /// Path, `/`-separated, to content.
    pub(crate) sent: BTreeMap<String, Vec<u8>>,
    /// Folders that were looked into.
    pub(crate) folders: Vec<PathBuf>,
    /// What was left out though nothing said so.
    pub(crate) left_out: Vec<String>,
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

    /// Reads what is sent.
    pub(crate) fn files(&self) -> Result<Files, ClientError> {
        if let Some(only) = &self.only {
            return self.single(only);
        }
        let mut found = Files::default();
        let mut total = 0_u64;
        for entry in walk(&self.root).build() {
            let entry = entry.map_err(|error| ClientError::Project {
                path: self.root.clone(),
                message: format!("cannot be read: {error}"),
                hint: None,
            })?;
            let path = entry.path();
            let kind = entry.file_type();
            if kind.is_some_and(|kind| kind.is_dir()) {
                found.folders.push(path.to_owned());
                continue;
            }
            let relative = path.strip_prefix(&self.root).unwrap_or(path);
            let Some(relative) = relative.to_str() else {
                found.left_out.push(format!("{} (its name is not Unicode)", relative.display()));
                continue;
            };
            if !kind.is_some_and(|kind| kind.is_file()) {
                found.left_out.push(format!("{relative} (it is a link)"));
                continue;
            }
            // Asked before: an image of a disk would fill the memory before it is refused.
            let size = entry.metadata().map_or(0, |metadata| metadata.len());
            if found.sent.len() >= MAX_FILES || total.saturating_add(size) > MAX_BYTES {
                return Err(self.wrong(
                    "holds more than any function",
                    format!("is it the right folder? {IGNORE_FILE} can leave things out"),
                ));
            }
            let content = match fs::read(path) {
                Ok(content) => content,
                // Gone since the folder was read: editors do that.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(ClientError::File { path: path.to_owned(), source }),
            };
            total += content.len() as u64;
            found.sent.insert(relative.to_owned(), content);
        }
        if !found.sent.keys().any(|path| is_code(path)) {
            return Err(self.wrong(
                "holds no JavaScript or TypeScript",
                "name a file or a folder, or begin with `cloudserve init`".to_owned(),
            ));
        }
        Ok(found)
    }

    fn wrong(&self, message: &str, hint: String) -> ClientError {
        let (path, message) = (self.root.clone(), message.to_owned());
        ClientError::Project { path, message, hint: Some(hint) }
    }

    /// One file; its packages are those of the `package.json` beside it.
    fn single(&self, only: &str) -> Result<Files, ClientError> {
        let mut found = Files { folders: vec![self.root.clone()], ..Files::default() };
        let lock = LOCK_FILES.into_iter().find(|name| self.root.join(name).exists());
        for name in [only, "package.json"].into_iter().chain(lock) {
            let path = self.root.join(name);
            match fs::read(&path) {
                Ok(content) => drop(found.sent.insert(name.to_owned(), content)),
                Err(error) if error.kind() == io::ErrorKind::NotFound && name != only => {}
                Err(source) => return Err(ClientError::File { path, source }),
            }
        }
        Ok(found)
    }

    /// A lock file that is not heeded, where none is.
    pub(crate) fn idle_lock_file(&self, files: &Files) -> Option<&'static str> {
        let is_sent = |name: &str| files.sent.contains_key(name);
        let is_there = |name: &str| match &self.only {
            // Of what lies beside a file only what counts is sent.
            Some(_) => is_sent("package.json") && self.root.join(name).exists(),
            None => is_sent(name),
        };
        let first = |names: &[&'static str]| names.iter().copied().find(|name| is_there(name));
        if first(&LOCK_FILES).is_some() { None } else { first(&OTHER_LOCK_FILES) }
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

impl Files {
    /// All of them together.
    pub(crate) fn bytes(&self) -> u64 {
        self.sent.values().map(|content| content.len() as u64).sum()
    }
}

impl Settings {
    /// What is not said stays as it was on the server.
    fn add_to(&self, body: &mut Value) {
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

/// The name of the function of the folder this program was started in.
pub(crate) fn current_name() -> Result<String, ClientError> {
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

fn read_settings(root: &Path) -> Result<Option<Settings>, ClientError> {
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

/// What is sent of a folder.
fn walk(root: &Path) -> WalkBuilder {
    // Without a repository around it, no folder further up has a say.
    let is_in_repository = root.ancestors().any(|dir| dir.join(".git").exists());
    let mut walk = WalkBuilder::new(root);
    walk.hidden(false)
        .parents(is_in_repository)
        .require_git(false)
        .git_global(false)
        .ignore(false)
        .add_custom_ignore_filename(IGNORE_FILE)
        .sort_by_file_path(Path::cmp)
        .filter_entry(|entry| {
            entry.depth() == 0 || !is_never_sent(&entry.file_name().to_string_lossy())
        });
    walk
}

/// Packages, repositories, our own files, and files that usually hold secrets.
fn is_never_sent(name: &str) -> bool {
    let is_environment = name == ".env" || (name.starts_with(".env.") && name != ".env.example");
    NEVER.contains(&name) || is_environment
}

fn is_code(path: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(stem, extension)| {
        !stem.is_empty() && !path.ends_with(".d.ts") && CODE_EXTENSIONS.contains(&extension)
    })
}

/// An environment as a file of lines `NAME=value` holds it.
pub(crate) fn read_env_file(path: &Path) -> Result<Map<String, Value>, ClientError> {
    let text = fs::read_to_string(path).map_err(ClientError::file(path))?;
    let mut all = Map::new();
    // Editors of Windows mark the beginning of a text.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |what: &str| ClientError::Project {
            path: path.to_owned(),
            // The line may hold a secret.
            message: format!("line {} {what}", number + 1),
            hint: None,
        };
        let exported = line.strip_prefix("export");
        let exported = exported.filter(|rest| rest.starts_with(char::is_whitespace));
        let line = exported.unwrap_or(line);
        let (name, value) = line.split_once('=').ok_or_else(|| wrong("is not NAME=value"))?;
        let value = unquoted(value).map_err(wrong)?;
        all.insert(name.trim().to_owned(), value.into());
    }
    Ok(all)
}

/// A value without its quotes or a comment; or what is wrong with its line. The dashboard reads them
/// alike (`dashboard/src/lib/dotenv.ts`).
fn unquoted(text: &str) -> Result<String, &'static str> {
    const OPEN: &str = "has a quote that is not closed";
    let value = text.trim();
    let Some(quote @ ('"' | '\'')) = value.chars().next() else {
        // A comment is what comes after whitespace.
        let mut hashes = text.match_indices('#').map(|(at, _)| &text[..at]);
        let before = hashes.find(|before| before.ends_with(char::is_whitespace));
        return Ok(before.unwrap_or(text).trim().to_owned());
    };
    let mut rest = value[1..].chars();
    let mut inside = String::new();
    loop {
        match rest.next().ok_or(OPEN)? {
            end if end == quote => break,
            '\\' if quote == '"' => match rest.next().ok_or(OPEN)? {
                'n' => inside.push('\n'),
                escaped @ ('"' | '\\') => inside.push(escaped),
                other => inside.extend(['\\', other]),
            },
            other => inside.push(other),
        }
    }
    let after = rest.as_str().trim_start();
    if after.is_empty() || after.starts_with('#') {
        Ok(inside)
    } else {
        Err("has more than a comment after its closing quote")
    }
}

#[cfg(test)]
mod tests;
