//! A file that has no name before it is whole: who is killed meanwhile leaves nothing.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::unistd::linkat;
use tempfile::NamedTempFile;

/// See the module. Readable by its owner alone.
pub(super) enum Unnamed {
    /// Gone with its last descriptor.
    Nameless(File),
    /// Where the file system, or the platform, has no such files: has a name that says what it is.
    Hidden(NamedTempFile),
}

impl Unnamed {
    /// A new one. It will be in this directory.
    pub(super) fn new_in(directory: &Path) -> io::Result<Self> {
        let nameless = OpenOptions::new()
            .write(true)
            .mode(0o600)
            .custom_flags(OFlag::O_TMPFILE.bits())
            .open(directory);
        match nameless {
            Ok(file) if path_of(&file).exists() => Ok(Self::Nameless(file)),
            // What else is wrong shows here as well.
            _ => NamedTempFile::with_prefix_in(".cloudserve-export-", directory).map(Self::Hidden),
        }
    }

    pub(super) fn file(&self) -> &File {
        match self {
            Self::Nameless(file) => file,
            Self::Hidden(file) => file.as_file(),
        }
    }

    /// Gives it its name; `AlreadyExists`: something else has it.
    pub(super) fn name(self, path: &Path) -> io::Result<()> {
        match self {
            Self::Nameless(file) => {
                let own = path_of(&file);
                let follow = AtFlags::AT_SYMLINK_FOLLOW;
                linkat(AT_FDCWD, own.as_path(), AT_FDCWD, path, follow).map_err(io::Error::from)
            }
            Self::Hidden(file) => {
                file.persist_noclobber(path).map(drop).map_err(|error| error.error)
            }
        }
    }
}

/// By which an open file is found that has no name.
fn path_of(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_not_whole_has_no_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("all.tar.gz");
        let names = || std::fs::read_dir(directory.path()).unwrap().count();
        for _ in 0..2 {
            let unnamed = Unnamed::new_in(directory.path()).unwrap();
            unnamed.file().write_all(b"all").unwrap();
            let before = usize::from(path.exists());
            let hidden = usize::from(matches!(unnamed, Unnamed::Hidden(_)));
            assert_eq!(names(), before + hidden);
            match unnamed.name(&path) {
                Ok(()) => assert_eq!(before, 0),
                Err(error) => assert_eq!((before, error.kind()), (1, io::ErrorKind::AlreadyExists)),
            }
        }
        assert_eq!(names(), 1);
        assert_eq!(std::fs::read(&path).unwrap(), b"all");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}
