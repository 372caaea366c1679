//! Privileges and Landlock belong to a thread, and one that is made later inherits them: they are
//! set while there is one.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

/// Why the process is not one thread.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ThreadsError {
    #[error("the threads cannot be counted")]
    Count(#[source] io::Error),
    #[error("there are {0} threads before the jail, and only one would be in it")]
    Several(u64),
}

/// Links to the directory of a process's threads that are none of theirs.
const OTHER_LINKS: u64 = 2;

/// Makes sure that this thread is all there is of the process.
pub(super) fn only_this() -> Result<(), ThreadsError> {
    let links = fs::metadata("/proc/self/task").map_err(ThreadsError::Count)?.nlink();
    match links.saturating_sub(OTHER_LINKS) {
        1 => Ok(()),
        several => Err(ThreadsError::Several(several)),
    }
}
