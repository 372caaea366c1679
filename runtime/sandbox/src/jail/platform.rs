//! What the platform gives for a jail. Found out once, by trying.

use std::io::Read;
use std::os::fd::AsRawFd;

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

fn can_make_namespaces() -> bool {
    let own = libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    in_child(|| {
        // SAFETY: plain system calls in a child that has one thread.
        let made =
            unsafe { libc::unshare(own) == 0 || libc::unshare(own | libc::CLONE_NEWUSER) == 0 };
        i32::from(!made)
    })
    .is_some_and(Child::succeeds)
}

/// A child that is ended and waited for.
struct Child(libc::pid_t);

impl Child {
    fn succeeds(self) -> bool {
        let mut status = 0;
        // SAFETY: our own child; the pointer is valid for the call.
        let waited = unsafe { libc::waitpid(self.0, &raw mut status, 0) };
        let is_fine = waited == self.0 && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0;
        std::mem::forget(self);
        is_fine
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
        assert!(child.is_some_and(Child::succeeds));
    }

    #[test]
    fn finding_out_leaves_nothing_behind() {
        let first = Platform::find_out();
        assert_eq!(first, Platform::find_out());
    }
}
