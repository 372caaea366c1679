//! What esbuild may do on this host: read the project, its packages and what its program needs to
//! start; change nothing. Landlock says so, whatever a source asks esbuild for.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Once;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, PathFdError,
    Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
};
use tokio::process::Command;

/// The newest version whose every right was looked at.
const KNOWN: ABI = ABI::V6;

/// Where programs that are not all in one file have their parts. They can be opened and not listed.
const LIBRARIES: [&str; 5] = ["/etc/ld.so.cache", "/lib", "/lib64", "/usr/lib", "/usr/lib64"];

/// What Go asks for when a program starts.
const PAGE_SIZE: &str = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size";

static NOT_CONFINED: Once = Once::new();

#[derive(Debug, thiserror::Error)]
enum JailError {
    #[error("the kernel does not take a rule for esbuild")]
    Ruleset(#[from] RulesetError),
    #[error("what esbuild needs cannot be opened")]
    Path(#[from] PathFdError),
}

/// Keeps the program that `command` is about to start to `project`.
pub(super) fn confine(command: &mut Command, program: &Path, project: &Path) -> io::Result<()> {
    // Where Go reads how many processors it may use is closed.
    if let Ok(processors) = std::thread::available_parallelism() {
        command.env("GOMAXPROCS", processors.to_string());
    }
    let Some(rules) = rules(program, project).map_err(io::Error::other)? else {
        NOT_CONFINED.call_once(|| {
            tracing::warn!("the kernel has no Landlock: esbuild can read what the server can read");
        });
        return Ok(());
    };
    // SAFETY: after the fork the closure makes two system calls; it allocates nothing and waits for
    // no lock.
    unsafe { command.pre_exec(move || enforce(&rules)) };
    Ok(())
}

/// `None` when the kernel has no Landlock.
fn rules(program: &Path, project: &Path) -> Result<Option<OwnedFd>, JailError> {
    let list_and_read = AccessFs::ReadFile | AccessFs::ReadDir;
    let read_and_run = AccessFs::ReadFile | AccessFs::Execute;
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))?
        .create()?
        .add_rule(PathBeneath::new(PathFd::new(program)?, read_and_run))?
        .add_rule(PathBeneath::new(PathFd::new(project)?, list_and_read))?;
    // A link to a tree that lies elsewhere, if there is one.
    let packages = project.join("node_modules");
    if packages.is_dir() {
        ruleset = ruleset.add_rule(PathBeneath::new(PathFd::new(packages)?, list_and_read))?;
    }
    // Systems differ in which of these they have.
    for path in LIBRARIES {
        if let Ok(library) = PathFd::new(path) {
            ruleset = ruleset.add_rule(PathBeneath::new(library, read_and_run))?;
        }
    }
    if let Ok(size) = PathFd::new(PAGE_SIZE) {
        let read = BitFlags::from(AccessFs::ReadFile);
        ruleset = ruleset.add_rule(PathBeneath::new(size, read))?;
    }
    Ok(ruleset.into())
}

/// Holds this thread, and with it the program that it becomes, to the rules.
fn enforce(rules: &OwnedFd) -> io::Result<()> {
    // Without it the kernel takes rules from those who have privileges only.
    let (yes, none): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: a plain system call none of whose arguments is a pointer.
    let done = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, yes, none, none, none) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a plain system call on a descriptor that is open.
    let done = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::symlink;
    use std::process::Stdio;

    use super::*;

    const SHELL: &str = "/bin/sh";

    /// Whether a shell, which is not all in one file, gets to the end of this.
    async fn run(script: &str, project: &Path) -> bool {
        let mut command = Command::new(SHELL);
        command.args(["-c", script]).current_dir(project).stderr(Stdio::null());
        confine(&mut command, Path::new(SHELL), project).unwrap();
        command.status().await.unwrap().success()
    }

    #[tokio::test]
    async fn a_project_and_its_packages_are_read_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let project = dir.path().join("project");
        for (below, file) in [("project", "a.js"), ("tree", "b.js"), ("host", "c.js")] {
            std::fs::create_dir(dir.path().join(below)).unwrap();
            std::fs::write(dir.path().join(below).join(file), "text\n").unwrap();
        }
        symlink(dir.path().join("tree"), project.join("node_modules")).unwrap();
        if rules(Path::new(SHELL), &project).unwrap().is_none() {
            // Past the test harness, which keeps what tests print that do not fail.
            let what = "*** What esbuild may read was NOT tested: the kernel has no Landlock. ***";
            let _ = writeln!(io::stderr(), "{what}");
            return;
        }
        for (script, done) in [
            ("read x < a.js", true),
            ("set -- *.js; test -f \"$1\"", true),
            ("read x < node_modules/b.js", true),
            ("set -- node_modules/*; test -f \"$1\"", true),
            ("read x < ../host/c.js", false),
            ("set -- ../host/*; test -f \"$1\"", false),
            ("set -- /usr/lib/*; test -e \"$1\"", false),
            ("read x < /proc/self/status", false),
            ("echo x > a.js", false),
            ("echo x > new.js", false),
            ("echo x > node_modules/new.js", false),
            ("echo x > ../host/new.js", false),
        ] {
            assert_eq!(run(script, &project).await, done, "{script}");
        }
    }
}
