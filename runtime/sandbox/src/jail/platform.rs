//! What the platform gives for a jail. Found out once, by trying.

use std::ffi::CStr;
use std::io::{Error, Read};
use std::os::fd::AsRawFd;

use tracing::warn;

use super::Delegation;
use crate::pidfd;

/// The mechanisms of a full jail, and whether they are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is there or not, whatever the others are")]
pub struct Platform {
    /// Landlock with rules for truncation and TCP ports.
    pub landlock: bool,
    /// Filters of system calls, on all threads.
    pub seccomp: bool,
    /// Filters that ask the supervisor, and taking a worker's socket to answer them.
    pub egress: bool,
    /// Namespaces of a worker's own.
    pub namespaces: bool,
    /// Control groups that bound memory. No part of a full jail: without them workers are watched.
    pub control_groups: bool,
}

/// The version of Landlock that has rules for TCP ports.
const LANDLOCK_VERSION: libc::c_long = 4;

const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;

impl Platform {
    /// Tries everything.
    pub(crate) fn find_out() -> Self {
        Self {
            landlock: landlock_version() >= LANDLOCK_VERSION,
            seccomp: has_action(libc::SECCOMP_RET_ERRNO),
            egress: has_action(libc::SECCOMP_RET_USER_NOTIF) && can_take_descriptors(),
            namespaces: can_make_namespaces(),
            control_groups: Delegation::of_this_process().is_some(),
        }
    }

    /// What there is not, in words.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        [
            (self.landlock, "Landlock"),
            (self.seccomp, "seccomp"),
            (self.egress, "supervised network calls"),
            (self.namespaces, "namespaces (no private /tmp)"),
        ]
        .into_iter()
        .filter_map(|(is_there, name)| (!is_there).then_some(name))
        .collect()
    }
}

fn landlock_version() -> libc::c_long {
    let nothing = std::ptr::null::<libc::c_void>();
    // SAFETY: asks for the version; no memory is passed.
    unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            nothing,
            0,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    }
}

fn has_action(action: u32) -> bool {
    let get = libc::SECCOMP_GET_ACTION_AVAIL;
    // SAFETY: the pointer is valid for the call.
    unsafe { libc::syscall(libc::SYS_seccomp, get, 0, &raw const action) == 0 }
}

/// Takes a descriptor of a child: what this process may do with itself says nothing. The child is as
/// open to it as a worker is, which is a program of its own: a server may keep its memory to itself,
/// and so do its forks.
fn can_take_descriptors() -> bool {
    let Ok((mut ready, opened)) = std::io::pipe() else { return false };
    let child = in_child(|| {
        // SAFETY: plain system calls, one with memory that outlives it.
        unsafe {
            libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
            libc::write(opened.as_raw_fd(), c"x".as_ptr().cast(), 1);
        }
        loop {
            // SAFETY: waits for a signal.
            unsafe { libc::pause() };
        }
    });
    drop(opened);
    child.is_some_and(|child| {
        if ready.read_exact(&mut [0]).is_err() {
            return false;
        }
        let pidfd = pidfd::open(child.0.cast_unsigned());
        pidfd.and_then(|pidfd| pidfd::take_descriptor(&pidfd, libc::STDERR_FILENO)).is_ok()
    })
}

/// What of a worker's namespaces cannot be had, in the order in which it is tried: what is made and not
/// used would be no jail, or end every worker.
const STEPS: [&str; 5] = [
    "unshare makes none",
    "the user of a new one cannot be set (is it restricted by AppArmor?)",
    "mounts cannot be made private",
    "mounts cannot be made read-only (mount_setattr)",
    "nothing can be mounted at /tmp",
];

/// Files of `/proc` and what is written to them.
type Identity = [(&'static CStr, String); 3];

/// Who this process is in a user namespace of its own. Made before a fork, which asks for no memory.
fn identity() -> Identity {
    // SAFETY: plain system calls.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    [
        (c"/proc/self/setgroups", "deny".to_owned()),
        (c"/proc/self/uid_map", format!("0 {uid} 1")),
        (c"/proc/self/gid_map", format!("0 {gid} 1")),
    ]
}

fn can_make_namespaces() -> bool {
    let (identity, has_landlock) = (identity(), landlock_version() > 0);
    let child = in_child(|| first_refused(&identity, has_landlock));
    let refused = match child.and_then(Child::code) {
        Some(0) => return true,
        Some(number) => usize::try_from(number - 1).ok(),
        None => None,
    };
    let why = refused.and_then(|at| STEPS.get(at).copied()).unwrap_or("it cannot be tried");
    warn!("workers have no namespaces of their own: {why}");
    false
}

/// Does what a worker does before and when it is assigned. The number of the first of [`STEPS`] that is
/// refused; 0 if none is.
fn first_refused(identity: &Identity, has_landlock: bool) -> i32 {
    let own = libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    // SAFETY: plain system calls with strings and numbers that outlive them, in a child that has one
    // thread.
    unsafe {
        // As a worker is: the kernel gives files of `/proc` to root of who keeps its memory to itself.
        libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
        if libc::unshare(own) != 0 {
            if libc::unshare(own | libc::CLONE_NEWUSER) != 0 {
                return 1;
            }
            for (file, text) in identity {
                let opened = libc::open(file.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
                if opened < 0 || libc::write(opened, text.as_ptr().cast(), text.len()) < 0 {
                    return 2;
                }
                // What has a file that is open for writing cannot become read-only.
                libc::close(opened);
            }
        }
        let (none, nothing) = (std::ptr::null(), std::ptr::null());
        let private = libc::MS_REC | libc::MS_PRIVATE;
        if libc::mount(none, c"/".as_ptr(), none, private, nothing) != 0 {
            return 3;
        }
        if !can_be_read_only(has_landlock) {
            return 4;
        }
        let (tmpfs, flags) =
            (c"tmpfs".as_ptr(), libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC);
        if libc::mount(tmpfs, c"/tmp".as_ptr(), tmpfs, flags, nothing) != 0 {
            return 5;
        }
    }
    0
}

/// Linux before 5.12 has no such call, and no Landlock either: workers do without. Where there is Landlock
/// it is a filter that says so.
fn can_be_read_only(has_landlock: bool) -> bool {
    // `struct mount_attr`: what is set, what is cleared, how it propagates, whose users.
    let attributes: [u64; 4] = [libc::MOUNT_ATTR_RDONLY, 0, 0, 0];
    // SAFETY: a system call with a string that ends with a zero and memory that outlives it.
    let refused = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            c"/".as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    let is_missing = || Error::last_os_error().raw_os_error() == Some(libc::ENOSYS);
    refused == 0 || !has_landlock && is_missing()
}

/// A child that is ended and waited for.
struct Child(libc::pid_t);

impl Child {
    /// What it exits with, if it does.
    fn code(self) -> Option<i32> {
        let mut status = 0;
        // SAFETY: our own child; the pointer is valid for the call.
        let waited = unsafe { libc::waitpid(self.0, &raw mut status, 0) };
        let has_exited = waited == self.0 && libc::WIFEXITED(status);
        std::mem::forget(self);
        has_exited.then(|| libc::WEXITSTATUS(status))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: our own child, not waited for yet.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, std::ptr::null_mut(), 0);
        }
    }
}

/// Runs `work` in a fork and exits with what it returns. `work` makes plain system calls only: the
/// other threads of this process do not exist there, and may hold any lock.
fn in_child(work: impl FnOnce() -> i32) -> Option<Child> {
    // SAFETY: the child runs `work`, see above, and ends without destructors.
    match unsafe { libc::fork() } {
        -1 => None,
        0 => {
            let code = work();
            // SAFETY: as above.
            unsafe { libc::_exit(code) }
        }
        child => Some(Child(child)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let all = Platform {
            landlock: true,
            seccomp: true,
            egress: true,
            namespaces: true,
            control_groups: false,
        };
        assert!(all.missing().is_empty());
        let some = Platform { landlock: false, namespaces: false, ..all };
        assert_eq!(some.missing(), ["Landlock", "namespaces (no private /tmp)"]);
    }

    #[test]
    fn a_server_that_keeps_its_memory_to_itself_can_take_descriptors() {
        if !Platform::find_out().egress {
            // Past the test harness, which keeps what tests print that do not fail.
            let what =
                "*** Taking descriptors was NOT tested: no network calls are supervised. ***";
            let _ = writeln!(std::io::stderr(), "{what}");
            return;
        }
        let child = in_child(|| {
            // SAFETY: plain system calls. Anybody but root keeps its user.
            unsafe {
                libc::setuid(65_534);
                libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
            }
            i32::from(!can_take_descriptors())
        });
        assert_eq!(child.and_then(Child::code), Some(0));
    }

    /// Has the kernel refuse this call to this process, for good.
    fn refuse(call: libc::c_long, error: i32) {
        let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
        let refusal = libc::SECCOMP_RET_ERRNO | error.cast_unsigned();
        let filter = [
            // The call's number, and whether it is this one.
            step(0x20, 0, 0, 0),
            step(0x15, 0, 1, u32::try_from(call).unwrap_or(u32::MAX)),
            step(0x06, 0, 0, refusal),
            step(0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: 4, filter: filter.as_ptr().cast_mut() };
        // SAFETY: the program outlives the call, which copies it.
        unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program);
        }
    }

    #[test]
    fn namespaces_that_workers_could_not_use_are_none() {
        if !can_make_namespaces() {
            // Past the test harness, as above.
            let what = "*** Refused namespaces were NOT tested: this platform gives none. ***";
            let _ = writeln!(std::io::stderr(), "{what}");
            return;
        }
        let identity = identity();
        let tried = |call, error, has_landlock| {
            let child = in_child(|| {
                refuse(call, error);
                first_refused(&identity, has_landlock)
            });
            child.and_then(Child::code)
        };
        let read_only = libc::SYS_mount_setattr;
        assert_eq!(tried(libc::SYS_unshare, libc::EPERM, true), Some(1));
        assert_eq!(tried(libc::SYS_mount, libc::EACCES, true), Some(3));
        for (error, has_landlock, refused) in [
            (libc::EPERM, true, 4),
            (libc::EPERM, false, 4),
            (libc::ENOSYS, true, 4),
            (libc::ENOSYS, false, 0),
        ] {
            assert_eq!(tried(read_only, error, has_landlock), Some(refused), "{error}");
        }
    }

    #[test]
    fn finding_out_leaves_nothing_behind() {
        let first = Platform::find_out();
        assert_eq!(first, Platform::find_out());
    }
}
