//! Namespaces of the worker's own: mounts, System V IPC, host name. As root they are simply made;
//! as anybody else a user namespace comes first, in which the worker may make them.
//!
//! All that is mounted can only be read there, but for what is mounted later. Landlock decides what is
//! opened, and lets whoever owns a file change its rights, its owner and its times; a worker's user is the
//! server's.
//!
//! No process namespace: a worker starts no processes, and `/proc` is closed to it.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, getegid, geteuid, getppid, sethostname};

use super::tmp::restrict;

/// What a function sees as the name of its host.
const HOST_NAME: &str = "function";

static HAS_OWN_MOUNTS: AtomicBool = AtomicBool::new(false);
static HAS_OWN_USERS: AtomicBool = AtomicBool::new(false);

/// Why there are none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NamespacesError {
    #[error("namespaces cannot be made")]
    Unshare(#[source] nix::Error),
    #[error("the user of the namespace cannot be set")]
    Identity(#[source] io::Error),
    #[error("mounts cannot be made private")]
    Private(#[source] nix::Error),
    #[error("mounts cannot be made read-only")]
    ReadOnly(#[source] io::Error),
    #[error("the parent has ended")]
    Orphan,
}

/// Whether [`isolate`] went well: this process may mount what others do not see.
pub(super) fn has_own_mounts() -> bool {
    HAS_OWN_MOUNTS.load(Ordering::Relaxed)
}

/// Whether the user of this process is one of a namespace of its own, in which there is nobody else.
pub(super) fn has_own_users() -> bool {
    HAS_OWN_USERS.load(Ordering::Relaxed)
}

/// Makes them. Only in a process with one thread: at its start, or right after a fork.
pub(crate) fn isolate() -> Result<(), NamespacesError> {
    HAS_OWN_MOUNTS.store(false, Ordering::Relaxed);
    HAS_OWN_USERS.store(false, Ordering::Relaxed);
    let own = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    if unshare(own).is_err() {
        let (uid, gid) = (geteuid(), getegid());
        let parent = getppid();
        unshare(own | CloneFlags::CLONE_NEWUSER).map_err(NamespacesError::Unshare)?;
        become_root_of_it(uid, gid).map_err(NamespacesError::Identity)?;
        // New credentials take the parent-death signal away.
        let _ = set_pdeathsig(Signal::SIGKILL);
        if getppid() != parent {
            return Err(NamespacesError::Orphan);
        }
        HAS_OWN_USERS.store(true, Ordering::Relaxed);
    }
    let nothing: Option<&str> = None;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(nothing, "/", nothing, private, nothing).map_err(NamespacesError::Private)?;
    close_to_changes().map_err(NamespacesError::ReadOnly)?;
    // A name is no protection: one that cannot be set is left.
    let _ = sethostname(HOST_NAME);
    HAS_OWN_MOUNTS.store(true, Ordering::Relaxed);
    Ok(())
}

/// Everything that is mounted now. Devices and pipes are written to all the same. Linux before 5.12
/// cannot, and has no Landlock either.
fn close_to_changes() -> io::Result<()> {
    match restrict(libc::AT_FDCWD, c"/", libc::MOUNT_ATTR_RDONLY) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        done => done,
    }
}

fn become_root_of_it(uid: Uid, gid: Gid) -> io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
}
