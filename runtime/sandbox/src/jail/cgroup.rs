//! Control groups (version 2) of workers: the kernel ends a worker that holds more memory than it
//! may, however it came to hold it and before anybody looks.
//!
//! That takes a subtree of groups that is this process's to divide: `Delegate=yes` of systemd, or a
//! container with a writable `/sys/fs/cgroup`. Where there is none, `backstop` looks after workers.
//!
//! A worker is forked into its group. Moving one there later would make the kernel wait for every
//! processor, which takes longer than a cold start.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use parking_lot::Mutex;
use tracing::debug;

const MOUNT: &str = "/sys/fs/cgroup";
const OWN: &str = "/proc/self/cgroup";

/// The first process of a container.
const INIT: u32 = 1;
const OF_INIT: &str = "/proc/1/cgroup";

/// Group of this process, beside those of its workers: one that has groups below it may hold no
/// processes.
const SUPERVISOR: &str = "supervisor";
const WORKER_PREFIX: &str = "worker-";

/// The subtree of this process.
#[derive(Debug)]
pub(crate) struct Delegation {
    directory: PathBuf,
    next: AtomicU64,
    /// Groups the kernel was not done with when their workers had ended.
    stale: Mutex<Vec<PathBuf>>,
}

/// The group of one worker. Removed when this is dropped, by when the worker has ended.
#[derive(Debug)]
pub(crate) struct Group {
    path: PathBuf,
    directory: OwnedFd,
}

impl Delegation {
    /// The subtree, if there is one. Found out once for this process.
    pub(crate) fn of_this_process() -> Option<&'static Self> {
        static FOUND: OnceLock<Option<Delegation>> = OnceLock::new();
        FOUND
            .get_or_init(|| {
                Self::find()
                    .inspect_err(|error| debug!(%error, "no control groups for workers"))
                    .ok()
            })
            .as_ref()
    }

    fn find() -> io::Result<Self> {
        if statfs(MOUNT)?.filesystem_type() != CGROUP2_SUPER_MAGIC {
            return Err(io::Error::other("control groups are not of version 2"));
        }
        let groups = fs::read_to_string(OWN)?;
        let own = path_in(&groups).ok_or(io::ErrorKind::NotFound)?;
        let directory = Path::new(MOUNT).join(own);
        enable_memory(&directory, &ours_in(own))?;
        clear(&directory);
        let found = Self { directory, next: AtomicU64::new(0), stale: Mutex::default() };
        // What cannot be bounded is not delegated.
        let tried = found.directory.join(format!("{WORKER_PREFIX}{}", std::process::id()));
        fs::create_dir(&tried)?;
        let bounded = write(&tried.join("memory.max"), "max");
        fs::remove_dir(&tried)?;
        bounded.map(|()| found)
    }

    /// A group for a worker that is about to be forked.
    pub(crate) fn group(&self) -> io::Result<Group> {
        self.stale.lock().retain(|path| fs::remove_dir(path).is_err());
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.join(format!("{WORKER_PREFIX}{}-{number}", std::process::id()));
        fs::create_dir(&path)?;
        let opened = File::open(&path).inspect_err(|_| {
            let _ = fs::remove_dir(&path);
        });
        let group = Group { directory: opened?.into(), path };
        // Without swap there is no such file.
        let _ = write(&group.path.join("memory.swap.max"), "0");
        write(&group.path.join("memory.oom.group"), "1")?;
        Ok(group)
    }
}

impl Group {
    /// The most its worker may hold from now on: its own pages, what it has written to its `/tmp`,
    /// and what the kernel keeps for it.
    pub(crate) fn bound(&self, bytes: u64) -> io::Result<()> {
        write(&self.path.join("memory.max"), &bytes.to_string())
    }

    /// Moves a process that was not forked into it.
    pub(crate) fn take_in(&self, pid: u32) -> io::Result<()> {
        write(&self.path.join("cgroup.procs"), &pid.to_string())
    }

    /// Whether the kernel has ended it for holding too much.
    pub(crate) fn was_out_of_memory(&self) -> bool {
        let events = fs::read_to_string(self.path.join("memory.events")).unwrap_or_default();
        kills_in(&events) > 0
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if fs::remove_dir(&self.path).is_err()
            && let Some(delegation) = Delegation::of_this_process()
        {
            delegation.stale.lock().push(std::mem::take(&mut self.path));
        }
    }
}

/// This process's group, below the mount point.
fn path_in(groups: &str) -> Option<&str> {
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    // Outside of the namespace's root.
    (!path.split('/').any(|part| part == "..")).then_some(path)
}

/// What of this group is ours to move: this process, and its parent where that is a container's init
/// (`tini`), which is there for this process alone.
fn ours_in(own: &str) -> Vec<u32> {
    let mut ours = vec![std::process::id()];
    let of_init = fs::read_to_string(OF_INIT).unwrap_or_default();
    if parent_id() == INIT && path_in(&of_init) == Some(own) {
        ours.push(INIT);
    }
    ours
}

/// Lets groups below this one bound memory. Only a group without processes may, so they move.
fn enable_memory(directory: &Path, ours: &[u32]) -> io::Result<()> {
    let subtree = directory.join("cgroup.subtree_control");
    if write(&subtree, "+memory").is_ok() {
        return Ok(());
    }
    let leaf = directory.join(SUPERVISOR);
    match fs::create_dir(&leaf) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let move_to = |group: &Path, pid: &u32| write(&group.join("cgroup.procs"), &pid.to_string());
    let moved = ours.iter().try_for_each(|pid| move_to(&leaf, pid));
    let enabled = moved.and_then(|()| write(&subtree, "+memory"));
    if enabled.is_err() {
        // There are others in it, which are not ours to move.
        for pid in ours {
            let _ = move_to(directory, pid);
        }
        let _ = fs::remove_dir(&leaf);
    }
    enabled
}

/// Removes the groups of supervisors that were killed. Those in use stay.
fn clear(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(WORKER_PREFIX) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// `oom_kill` of `memory.events`.
fn kills_in(events: &str) -> u64 {
    let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
    kills.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

/// In one write, as the kernel takes it.
fn write(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    /// Past the test harness, which keeps what tests print that do not fail.
    fn not_tested() {
        let what = "*** Control groups were NOT tested: this platform delegates none. ***";
        let _ = writeln!(io::stderr(), "{what}");
    }

    #[test]
    fn the_own_group_is_found_and_others_are_not() {
        for (groups, expected) in [
            ("0::/\n", Some("")),
            (
                "4:memory:/a\n0::/system.slice/cloudserve.service\n",
                Some("system.slice/cloudserve.service"),
            ),
            ("0::/../other\n", None),
            ("4:memory:/a\n", None),
            ("", None),
        ] {
            assert_eq!(path_in(groups), expected, "{groups}");
        }
    }

    #[test]
    fn kills_are_counted() {
        assert_eq!(kills_in("low 0\nhigh 0\nmax 17\noom 1\noom_kill 2\noom_group_kill 1\n"), 2);
        assert_eq!(kills_in("oom 0\noom_kill 0\n"), 0);
        assert_eq!(kills_in(""), 0);
    }

    #[test]
    fn a_group_is_left_by_its_server_and_init_or_stays_as_it_was() {
        let Some(delegation) = Delegation::of_this_process() else {
            not_tested();
            return;
        };
        let group = delegation.group().unwrap();
        let mut processes = [(); 3].map(|()| {
            let child = Command::new("sleep").arg("60").spawn().unwrap();
            group.take_in(child.id()).unwrap();
            child
        });
        let [server, init, other] = [0, 1, 2].map(|n: usize| processes[n].id());
        let leaf = group.path.join(SUPERVISOR);
        let inside = |path: &Path| {
            let pids = fs::read_to_string(path.join("cgroup.procs")).unwrap();
            pids.lines().map(|pid| pid.parse().unwrap()).collect::<BTreeSet<u32>>()
        };
        let mut end = |n: usize, path: &Path| {
            let pid = processes[n].id();
            processes[n].kill().unwrap();
            processes[n].wait().unwrap();
            // It has left a moment after it was waited for.
            while inside(path).contains(&pid) {
                std::thread::yield_now();
            }
        };

        assert!(enable_memory(&group.path, &[server, init]).is_err());
        assert_eq!(inside(&group.path), BTreeSet::from([server, init, other]));
        assert!(!leaf.exists());

        end(2, &group.path);
        enable_memory(&group.path, &[server, init]).unwrap();
        assert_eq!(inside(&leaf), BTreeSet::from([server, init]));
        assert!(inside(&group.path).is_empty());

        end(0, &leaf);
        end(1, &leaf);
        fs::remove_dir(&leaf).unwrap();
    }

    #[test]
    fn the_kernel_ends_what_holds_too_much() {
        let Some(delegation) = Delegation::of_this_process() else {
            not_tested();
            return;
        };
        let hold = |bytes: u32, most: u64| {
            let group = delegation.group().unwrap();
            group.bound(most).unwrap();
            // Takes itself in first, and only then holds anything.
            let script = format!("read go; x=$(head -c {bytes} /dev/zero | tr '\\0' x); echo");
            let mut child = Command::new("sh")
                .args(["-c", &script])
                .stdin(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            group.take_in(child.id()).unwrap();
            child.stdin.take().unwrap().write_all(b"\n").unwrap();
            let status = child.wait().unwrap();
            let path = group.path.clone();
            let ended = (status.signal(), group.was_out_of_memory());
            // Its group is empty a moment after it was waited for.
            while fs::read_to_string(path.join("cgroup.procs")).is_ok_and(|pids| !pids.is_empty()) {
                std::thread::yield_now();
            }
            drop(group);
            assert!(!path.exists());
            ended
        };
        assert_eq!(hold(64 << 20, 32 << 20), (Some(libc::SIGKILL), true));
        assert_eq!(hold(4 << 20, 512 << 20), (None, false));
    }
}
