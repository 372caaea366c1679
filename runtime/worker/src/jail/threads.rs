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

/// How many threads this process has.
pub(crate) fn count() -> io::Result<u64> {
    Ok(fs::metadata("/proc/self/task")?.nlink().saturating_sub(OTHER_LINKS))
}

/// Makes sure that this thread is all there is of the process.
pub(super) fn only_this() -> Result<(), ThreadsError> {
    match count().map_err(ThreadsError::Count)? {
        1 => Ok(()),
        several => Err(ThreadsError::Several(several)),
    }
}
