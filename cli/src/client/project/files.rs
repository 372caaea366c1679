//! What is sent of a project. Invariant: what git ignores, packages and files that usually hold secrets
//! are not.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ignore::WalkBuilder;

use super::{FILE, OWN_DIR, Project};
use crate::client::error::ClientError;

/// Names what is not sent, in the form of a .gitignore.
const IGNORE_FILE: &str = ".cloudserveignore";

/// What is never sent, wherever it is.
const NEVER: [&str; 8] =
    ["node_modules", ".git", OWN_DIR, ".npmrc", ".gitignore", IGNORE_FILE, FILE, ".DS_Store"];

const CODE_EXTENSIONS: [&str; 8] = ["ts", "tsx", "mts", "js", "mjs", "cjs", "jsx", "cts"];

/// Lock files that are heeded, and those that are not.
pub(super) const LOCK_FILES: [&str; 2] = ["npm-shrinkwrap.json", "package-lock.json"];
const OTHER_LOCK_FILES: [&str; 4] = ["yarn.lock", "pnpm-lock.yaml", "bun.lock", "bun.lockb"];

/// Beyond these no server takes it, whatever its limits: most likely the wrong folder.
const MAX_FILES: usize = 20_000;
const MAX_BYTES: u64 = 500 * 1_000 * 1_000;

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

    /// What whoever deploys these files is to know.
    pub(crate) fn warnings(&self, files: &Files) -> Vec<String> {
        let left_out = files.left_out.iter().map(|path| format!("left out: {path}"));
        let lock = self.idle_lock_file(files).map(|lock| {
            format!(
                "{lock} is not heeded, so packages may have other versions; \
                 `npm install --package-lock-only` makes a lock file that is"
            )
        });
        left_out.chain(lock).collect()
    }

    /// A lock file that is not heeded, where none is.
    pub(super) fn idle_lock_file(&self, files: &Files) -> Option<&'static str> {
        let is_sent = |name: &str| files.sent.contains_key(name);
        let is_there = |name: &str| match &self.only {
            // Of what lies beside a file only what counts is sent.
            Some(_) => is_sent("package.json") && self.root.join(name).exists(),
            None => is_sent(name),
        };
        let first = |names: &[&'static str]| names.iter().copied().find(|name| is_there(name));
        if first(&LOCK_FILES).is_some() { None } else { first(&OTHER_LOCK_FILES) }
    }
}

impl Files {
    /// All of them together.
    pub(crate) fn bytes(&self) -> u64 {
        self.sent.values().map(|content| content.len() as u64).sum()
    }
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

pub(super) fn is_code(path: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(stem, extension)| {
        !stem.is_empty() && !path.ends_with(".d.ts") && CODE_EXTENSIONS.contains(&extension)
    })
}
