//! What the kernel holds a worker to, whatever runs in it: V8's own walls are not counted on.
//!
//! Three calls. [`isolate`] while the process has one thread, at its start or right after a fork:
//! namespaces of its own. [`prepare`] before the assignment: what does not depend on the function.
//! [`enter`] once, after the assignment and before user code: resource limits, the private `/tmp`, no
//! privileges, Landlock, the second filter of system calls, in this order. One module per mechanism, each
//! with its own error.
//!
//! And [`begin`] before all: no new privileges and the first filter. A zygote does it for its forks, and
//! makes rules for files ahead for each of them ([`foresee`]); what it has not done is done in `prepare`.
//!
//! Invariant: nothing here can be undone by what runs later. What the platform cannot give is
//! named in [`Entered::missing`]; a mechanism that exists and fails is an error.

mod filesystem;
mod namespaces;
mod privileges;
mod resources;
mod syscalls;
#[cfg(test)]
mod tests;
mod threads;
mod tmp;

use std::os::fd::{OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use cloudserve_protocol::wire::Assignment;

pub(crate) use filesystem::PlatformRules;
pub(crate) use namespaces::isolate;
pub(crate) use threads::count as count_threads;

/// Which part of the jail could not be had although the platform has it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JailError {
    #[error("the limits of the process")]
    Resources(#[from] resources::ResourcesError),
    #[error("the private /tmp")]
    Tmp(#[from] tmp::TmpError),
    #[error("the rules for files")]
    Filesystem(#[from] filesystem::FilesystemError),
    #[error("the threads of the process")]
    Threads(#[from] threads::ThreadsError),
    #[error("the privileges of the process")]
    Privileges(#[source] std::io::Error),
    #[error("the filter of system calls")]
    Syscalls(#[from] syscalls::SyscallsError),
    #[error("the platform cannot give {0}, which the operator requires")]
    Missing(String),
}

/// A process that is in its jail.
#[derive(Debug)]
pub(crate) struct Entered {
    /// The function's temporary directory.
    pub(crate) tmp: PathBuf,
    /// Network calls are reported here and wait for an answer. To be closed before user code runs:
    /// whoever holds it answers for the kernel.
    pub(crate) listener: Option<OwnedFd>,
    /// What there is not, in words.
    pub(crate) missing: Vec<String>,
}

/// What is the same for every function, in this process.
pub(crate) struct Prepared {
    rules: filesystem::PlatformRules,
    /// `None` where it is made in one step, or not at all.
    tmp: Option<tmp::Detached>,
}

/// Refuses what no function needs, nor making a worker, to this process and its forks.
pub(crate) fn begin() -> Result<(), JailError> {
    privileges::renounce().map_err(JailError::Privileges)?;
    syscalls::begin().map_err(JailError::Syscalls)
}

/// Rules for files, for the one process that is forked next, and the descriptor that they are. `None`
/// where that process has to make them itself, or to say why it cannot. What they are about stays the
/// same whatever it mounts.
pub(crate) fn foresee() -> Option<(PlatformRules, RawFd)> {
    let rules = filesystem::platform_rules().ok()?;
    Some((rules, filesystem::descriptor()?))
}

/// Makes it, but for rules that there are, and begins, where no zygote has. From now on the process can
/// do little but [`enter`].
pub(crate) fn prepare(rules: Option<PlatformRules>) -> Result<Prepared, JailError> {
    let rules = rules.map_or_else(filesystem::platform_rules, Ok)?;
    let rules = filesystem::with_kernel_files(rules)?;
    let tmp = if namespaces::has_own_mounts() { tmp::Detached::make().ok() } else { None };
    begin()?;
    Ok(Prepared { rules, tmp })
}

/// Jails this process for good.
pub(crate) fn enter(
    assignment: &Assignment,
    Prepared { rules, tmp: detached }: Prepared,
) -> Result<Entered, JailError> {
    let terms = &assignment.jail;
    let mut missing = Vec::new();
    let bundle = Path::new(&assignment.bundle_path);
    let bundle_dir = bundle.parent().unwrap_or(bundle);
    let mut readable = vec![bundle_dir];
    readable.extend(assignment.node_modules_path.as_deref().map(Path::new));

    let tmp = if namespaces::has_own_mounts() {
        tmp::mount(detached, terms.tmp_bytes, &readable)?;
        PathBuf::from(tmp::DIR)
    } else {
        missing.push("namespaces (no private /tmp)".to_owned());
        PathBuf::from(&assignment.tmp_path)
    };
    resources::limit(terms.tmp_bytes)?;

    let rules = filesystem::rules(rules, &readable, &tmp)?;
    if rules.is_none() {
        missing.push("Landlock".to_owned());
    }
    if terms.require_full && !missing.is_empty() {
        return Err(JailError::Missing(missing.join(", ")));
    }
    threads::only_this()?;
    privileges::drop().map_err(JailError::Privileges)?;
    if let Some(rules) = &rules {
        filesystem::enforce(rules)?;
    }
    let listener = syscalls::close(terms.supervised_egress)?;
    Ok(Entered { tmp, listener, missing })
}
