//! Landlock: the function's own artifacts to read, its `/tmp` to write, and the few files a
//! program cannot do without. Everything else is closed, `/proc` with it. Binding TCP ports,
//! signals to other processes and abstract sockets are closed as well.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};

/// The newest version whose every right was looked at.
const KNOWN: ABI = ABI::V6;

/// What programs read and no system replaces while it runs: devices and time zones. Not certificates: the
/// engine brings those that everybody knows, and of whom else the host trusts
/// `tls.getCACertificates("system")` would tell.
const LASTING: [&str; 4] = ["/dev/random", "/dev/urandom", "/dev/zero", "/usr/share/zoneinfo"];

/// Processors and memory. The kernel makes these files anew, with the same numbers, when it has not seen
/// them for a while.
const OF_THE_KERNEL: [&str; 3] = ["/proc/cpuinfo", "/proc/meminfo", "/proc/stat"];

/// Files that are replaced, when the network changes above all: names of hosts, the time zone. A
/// rule is about the file that was there when it was made, so they are looked at again when a function
/// is assigned.
const REPLACED: [&str; 6] = [
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
];

const NULL: &str = "/dev/null";

/// The descriptors of a process, and what the kernel calls one that is rules.
const DESCRIPTORS: &str = "/proc/self/fd";
const RULES: &str = "anon_inode:[landlock-ruleset]";

/// The rules cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilesystemError {
    #[error("the kernel does not take a rule")]
    Ruleset(#[from] RulesetError),
    #[error("the kernel does not take the rules")]
    Enforce(#[source] io::Error),
    #[error("{path} cannot be opened")]
    Path {
        path: String,
        #[source]
        source: landlock::PathFdError,
    },
}

/// Device and inode. What a rule is about stays as long as the rules do, and its numbers with it.
type FileId = (u64, u64);

/// The rules that are the same for every function.
pub(crate) struct PlatformRules {
    ruleset: RulesetCreated,
    /// What of [`REPLACED`] there are rules for.
    ruled: [Option<FileId>; REPLACED.len()],
}

fn readable_rights() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::ReadDir
}

/// With a rule to read this, unless there is one. Says what it is about; systems differ in which files
/// they have.
fn with_system_file(
    ruleset: RulesetCreated,
    path: &str,
    ruled: Option<FileId>,
) -> Result<(RulesetCreated, Option<FileId>), FilesystemError> {
    let path = Path::new(path);
    let Ok(metadata) = path.metadata() else { return Ok((ruleset, None)) };
    let id = Some((metadata.dev(), metadata.ino()));
    if id == ruled {
        return Ok((ruleset, id));
    }
    let rights = if metadata.is_dir() { readable_rights() } else { AccessFs::ReadFile.into() };
    Ok((ruleset.add_rule(PathBeneath::new(open(path)?, rights))?, id))
}

/// Makes them, but for the kernel's files.
pub(super) fn platform_rules() -> Result<PlatformRules, FilesystemError> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(KNOWN))?
        .create()?;
    for path in LASTING {
        (ruleset, _) = with_system_file(ruleset, path, None)?;
    }
    let mut ruled = [None; REPLACED.len()];
    for (path, ruled) in REPLACED.into_iter().zip(&mut ruled) {
        (ruleset, *ruled) = with_system_file(ruleset, path, None)?;
    }
    let null = AccessFs::ReadFile | AccessFs::WriteFile;
    let ruleset = ruleset.add_rule(PathBeneath::new(open(Path::new(NULL))?, null))?;
    Ok(PlatformRules { ruleset, ruled })
}

/// With rules to read the kernel's files.
pub(super) fn with_kernel_files(
    PlatformRules { mut ruleset, ruled }: PlatformRules,
) -> Result<PlatformRules, FilesystemError> {
    for path in OF_THE_KERNEL {
        (ruleset, _) = with_system_file(ruleset, path, None)?;
    }
    Ok(PlatformRules { ruleset, ruled })
}

/// The descriptor of the rules that this process has, which the library keeps to itself. `None` where
/// there is not one alone.
pub(super) fn descriptor() -> Option<RawFd> {
    let mut found = fs::read_dir(DESCRIPTORS)
        .ok()?
        .flatten()
        .filter(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == Path::new(RULES)));
    let number = found.next()?.file_name().to_str()?.parse().ok()?;
    found.next().is_none().then_some(number)
}

/// With what is a function's own; `None` when the kernel has no Landlock.
pub(super) fn rules(
    PlatformRules { mut ruleset, ruled }: PlatformRules,
    readable: &[&Path],
    writable: &Path,
) -> Result<Option<OwnedFd>, FilesystemError> {
    let device = BitFlags::from(AccessFs::MakeChar) | AccessFs::MakeBlock | AccessFs::MakeFifo;
    let write = AccessFs::from_all(KNOWN) & !(device | AccessFs::Execute | AccessFs::MakeSock);
    for (path, ruled) in REPLACED.into_iter().zip(ruled) {
        (ruleset, _) = with_system_file(ruleset, path, ruled)?;
    }
    for path in readable {
        ruleset = ruleset.add_rule(PathBeneath::new(open(path)?, readable_rights()))?;
    }
    ruleset = ruleset.add_rule(PathBeneath::new(open(writable)?, write))?;
    Ok(ruleset.into())
}

fn open(path: &Path) -> Result<PathFd, FilesystemError> {
    PathFd::new(path)
        .map_err(|source| FilesystemError::Path { path: path.display().to_string(), source })
}

/// Holds this thread to the rules, for good.
pub(super) fn enforce(rules: &OwnedFd) -> Result<(), FilesystemError> {
    // SAFETY: a plain system call on a descriptor that is open.
    let done = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) };
    if done == 0 { Ok(()) } else { Err(FilesystemError::Enforce(io::Error::last_os_error())) }
}
