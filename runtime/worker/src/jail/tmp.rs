//! `/tmp`: a file system of the worker's own, in memory, with a size. It ends with the worker.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount as mount_at};

/// Where functions find it.
pub(super) const DIR: &str = "/tmp";

/// Files and directories in it.
const FILES: u32 = 16 * 1024;

/// Why it is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TmpError {
    #[error("a file system cannot be mounted")]
    Mount(#[source] nix::Error),
    #[error("{} cannot be kept in reach", path.display())]
    Keep {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Mounts it. What of `keep` lies below the `/tmp` of the host stays where it is.
pub(super) fn mount(size_bytes: u64, keep: &[&Path]) -> Result<(), TmpError> {
    let within = |path: &&&Path| path.canonicalize().is_ok_and(|path| path.starts_with(DIR));
    let mut kept = Vec::new();
    for path in keep.iter().filter(within) {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        let tree = clone_tree(&path)
            .and_then(|tree| make_read_only(&tree).map(|()| tree))
            .map_err(|source| TmpError::Keep { path: path.clone(), source })?;
        kept.push((path, tree));
    }
    let options = format!("size={size_bytes},nr_inodes={FILES},mode=0700");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount_at(Some("tmpfs"), DIR, Some("tmpfs"), flags, Some(options.as_str()))
        .map_err(TmpError::Mount)?;
    for (path, tree) in kept {
        std::fs::create_dir_all(&path)
            .and_then(|()| attach(&tree, &path))
            .map_err(|source| TmpError::Keep { path, source })?;
    }
    Ok(())
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn clone_tree(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let recursive = libc::AT_RECURSIVE.cast_unsigned();
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | recursive;
    // SAFETY: a system call with a string that ends with a zero.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    match RawFd::try_from(fd) {
        // SAFETY: the kernel has just given us this descriptor.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `struct mount_attr`
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// The rules for files let a function write below `/tmp`, whatever is mounted there.
fn make_read_only(tree: &OwnedFd) -> io::Result<()> {
    let flags = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    let attributes = MountAttributes { set: flags, clear: 0, propagation: 0, user_namespace: 0 };
    // SAFETY: a system call on an open descriptor, with a structure as the kernel defines it.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn attach(tree: &OwnedFd, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: a system call on an open descriptor, with strings that end with a zero.
    let done = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
