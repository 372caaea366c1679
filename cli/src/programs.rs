//! Where the programs are that the server runs. Found at start, so that a missing one is said
//! then and not by the first deploy.

use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::config::Programs;

/// A program that is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    #[error("{} ({variable}) is not a program that can be run", path.display())]
    NotExecutable { variable: &'static str, path: PathBuf },
    #[error("{name} is not found; {advice}, or set {variable}")]
    NotFound { name: &'static str, advice: &'static str, variable: &'static str },
}

/// What was found: absolute paths.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) worker: PathBuf,
    pub(crate) esbuild: PathBuf,
    pub(crate) npm: PathBuf,
}

/// Where the set-up puts esbuild, seen from the root of the checkout: the program itself, not the
/// script around it, which costs a start of Node.
const ESBUILD_IN_CHECKOUT: &str = "tools/node_modules/@esbuild/linux-x64/bin/esbuild";

/// And npm: the one that comes with Node may be older than a build needs.
const NPM_IN_CHECKOUT: &str = "tools/node_modules/npm/bin/npm-cli.js";

impl Found {
    /// What was given, else what is where it usually is.
    pub(crate) fn look_up(given: &Programs) -> Result<Self, ProgramError> {
        Ok(Self { worker: worker(given)?, esbuild: esbuild(given)?, npm: npm(given)? })
    }
}

/// The program that functions run in.
pub(crate) fn worker(given: &Programs) -> Result<PathBuf, ProgramError> {
    find(
        "cloudserve-worker",
        "CLOUDSERVE_WORKER",
        "it is built with `cargo build --release --workspace`",
        given.worker.as_deref(),
        beside("cloudserve-worker"),
    )
}

/// The bundler.
pub(crate) fn esbuild(given: &Programs) -> Result<PathBuf, ProgramError> {
    find(
        "esbuild",
        "CLOUDSERVE_ESBUILD",
        "`make setup` installs it",
        given.esbuild.as_deref(),
        beside("esbuild")
            .into_iter()
            .chain(in_checkout(ESBUILD_IN_CHECKOUT))
            .chain(in_path("esbuild")),
    )
}

/// npm, for dependencies.
pub(crate) fn npm(given: &Programs) -> Result<PathBuf, ProgramError> {
    find(
        "npm",
        "CLOUDSERVE_NPM",
        "`make setup` installs it in a checkout; elsewhere install Node and npm 11.15 or later",
        given.npm.as_deref(),
        in_checkout(NPM_IN_CHECKOUT).into_iter().chain(in_path("npm")),
    )
}

fn own_dir() -> Option<PathBuf> {
    Some(env::current_exe().ok()?.parent()?.to_owned())
}

/// In the checkouts that this program or the current directory may be in.
fn in_checkout(program: &str) -> Vec<PathBuf> {
    let own_dir = own_dir();
    let checkouts = own_dir.iter().flat_map(|dir| dir.ancestors()).chain([Path::new(".")]);
    checkouts.map(|dir| dir.join(program)).collect()
}

fn beside(name: &str) -> Option<PathBuf> {
    own_dir().map(|dir| dir.join(name))
}

fn find(
    name: &'static str,
    variable: &'static str,
    advice: &'static str,
    given: Option<&Path>,
    candidates: impl IntoIterator<Item = PathBuf>,
) -> Result<PathBuf, ProgramError> {
    if let Some(path) = given {
        return executable(path)
            .ok_or_else(|| ProgramError::NotExecutable { variable, path: path.to_owned() });
    }
    candidates.into_iter().find_map(|path| executable(&path)).ok_or(ProgramError::NotFound {
        name,
        advice,
        variable,
    })
}

fn in_path(name: &str) -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|dir| dir.join(name)).collect()
}

/// The absolute path if it is a file that can be run. Links are kept: npm's finds its parts.
fn executable(path: &Path) -> Option<PathBuf> {
    let metadata = path.metadata().ok()?;
    let may_run = metadata.is_file() && metadata.permissions().mode() & 0o111 != 0;
    may_run.then(|| std::path::absolute(path).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_is_taken_or_refused_by_name() {
        let ours = env::current_exe().unwrap();
        let text = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
        assert_eq!(find("x", "X", "", Some(&ours), []).unwrap(), ours);
        assert_eq!(find("x", "X", "", None, [text.clone(), ours.clone()]).unwrap(), ours);
        for wrong in [Path::new("/no/such"), Path::new("/tmp"), &text] {
            let error = find("x", "THE_VARIABLE", "", Some(wrong), [ours.clone()]).unwrap_err();
            assert!(error.to_string().contains("THE_VARIABLE"), "{error}");
            assert!(error.to_string().contains(wrong.to_str().unwrap()), "{error}");
        }
        let error = find("x", "X", "do this", None, []).unwrap_err();
        assert_eq!(error.to_string(), "x is not found; do this, or set X");
    }
}
