//! `/tmp`: a file system of the worker's own, in memory, with a size. It ends with the worker.

use std::ffi::{CStr, CString, OsStr};
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
    Mount(#[source] io::Error),
    #[error("{} cannot be kept in reach", path.display())]
    Keep {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// One that is mounted nowhere yet: making a file system takes the kernel longer than mounting it.
pub(super) struct Detached {
    /// What it is set by.
    settings: OwnedFd,
    tree: OwnedFd,
}

impl Detached {
    /// Of some size. Linux before 5.2 cannot.
    pub(super) fn make() -> io::Result<Self> {
        // SAFETY: system calls with a string that ends with a zero and numbers.
        let open =
            unsafe { libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), libc::FSOPEN_CLOEXEC) };
        let settings = owned(open)?;
        set(&settings, c"mode", c"0700")?;
        set(&settings, c"nr_inodes", &c_text(FILES.to_string())?)?;
        command(&settings, libc::FSCONFIG_CMD_CREATE)?;
        let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
        // SAFETY: a system call on an open descriptor.
        let mounted = unsafe {
            let fd = settings.as_raw_fd();
            libc::syscall(libc::SYS_fsmount, fd, libc::FSMOUNT_CLOEXEC, attributes)
        };
        Ok(Self { tree: owned(mounted)?, settings })
    }

    fn mount(&self, size_bytes: u64) -> io::Result<()> {
        set(&self.settings, c"size", &c_text(size_bytes.to_string())?)?;
        command(&self.settings, libc::FSCONFIG_CMD_RECONFIGURE)?;
        attach(&self.tree, Path::new(DIR))
    }
}

fn set(settings: &OwnedFd, key: &CStr, value: &CStr) -> io::Result<()> {
    let (fd, kind) = (settings.as_raw_fd(), libc::FSCONFIG_SET_STRING);
    let (key, value) = (key.as_ptr(), value.as_ptr());
    // SAFETY: a system call on an open descriptor, with strings that end with a zero.
    done(unsafe { libc::syscall(libc::SYS_fsconfig, fd, kind, key, value, 0) })
}

fn command(settings: &OwnedFd, command: libc::c_uint) -> io::Result<()> {
    let (fd, none) = (settings.as_raw_fd(), std::ptr::null::<libc::c_char>());
    // SAFETY: a system call on an open descriptor; these commands take nothing else.
    done(unsafe { libc::syscall(libc::SYS_fsconfig, fd, command, none, none, 0) })
}

/// Mounts it. What of `keep` lies below the `/tmp` of the host stays where it is.
pub(super) fn mount(
    detached: Option<Detached>,
    size_bytes: u64,
    keep: &[&Path],
) -> Result<(), TmpError> {
    let real = keep.iter().filter_map(|path| path.canonicalize().ok());
    let mut kept = Vec::new();
    for path in real.filter(|path| path.starts_with(DIR)) {
        let tree = clone_tree(&path)
            .and_then(|tree| make_read_only(&tree).map(|()| tree))
            .map_err(|source| TmpError::Keep { path: path.clone(), source })?;
        kept.push((path, tree));
    }
    match detached {
        Some(detached) => detached.mount(size_bytes).map_err(TmpError::Mount)?,
        None => mount_new(size_bytes).map_err(|errno| TmpError::Mount(errno.into()))?,
    }
    for (path, tree) in kept {
        std::fs::create_dir_all(&path)
            .and_then(|()| attach(&tree, &path))
            .map_err(|source| TmpError::Keep { path, source })?;
    }
    Ok(())
}

fn mount_new(size_bytes: u64) -> nix::Result<()> {
    let options = format!("size={size_bytes},nr_inodes={FILES},mode=0700");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount_at(Some("tmpfs"), DIR, Some("tmpfs"), flags, Some(options.as_str()))
}

fn c_path(path: &Path) -> io::Result<CString> {
    c_text(path.as_os_str())
}

fn c_text(text: impl AsRef<OsStr>) -> io::Result<CString> {
    CString::new(text.as_ref().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn done(result: libc::c_long) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The descriptor that a system call has returned.
fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    match RawFd::try_from(result) {
        // SAFETY: the kernel has just given us this descriptor.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

fn clone_tree(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let recursive = libc::AT_RECURSIVE.cast_unsigned();
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | recursive;
    // SAFETY: a system call with a string that ends with a zero.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })
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
    let attributes = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    restrict(tree.as_raw_fd(), c"", attributes)
}

/// Gives what is mounted at `path` and below, or at the directory itself, these attributes besides.
pub(super) fn restrict(directory: RawFd, path: &CStr, set: u64) -> io::Result<()> {
    let attributes = MountAttributes { set, clear: 0, propagation: 0, user_namespace: 0 };
    // SAFETY: a system call with a string that ends with a zero and a structure as the kernel defines
    // it.
    done(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            directory,
            path.as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    })
}

fn attach(tree: &OwnedFd, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: a system call on an open descriptor, with strings that end with a zero.
    done(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            // `/tmp` may be a link.
            libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_SYMLINKS,
        )
    })
}
