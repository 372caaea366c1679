//! The directory of one build. It may hold thousands of files, so a thread that serves nobody removes it,
//! however the build has ended.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io, mem, thread};

use tokio::runtime::Handle;
use tracing::warn;

/// How their names begin: what an earlier process has left is known by it.
pub(super) const PREFIX: &str = "npm-";

/// An npm that was ended is not waited for, and what it writes in its last moment may be in the way.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// See the module. Removed when this is dropped.
pub(super) struct Directory(PathBuf);

impl Directory {
    /// A new one, which is empty.
    pub(super) fn new_in(work_dir: &Path) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(work_dir)?;
        Ok(Self(dir.keep()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let path = mem::take(&mut self.0);
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || remove(&path))),
            Err(_) => remove(&path),
        }
    }
}

fn remove(path: &Path) {
    for attempt in 1..=ATTEMPTS {
        match fs::remove_dir_all(path) {
            Err(error) if path.exists() => {
                if attempt == ATTEMPTS {
                    warn!(path = %path.display(), %error, "the directory of a build remains");
                } else {
                    thread::sleep(PAUSE);
                }
            }
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;

    #[test]
    fn no_build_makes_calls_wait_while_its_directory_is_removed() {
        let work_dir = tempfile::tempdir().unwrap();
        let directory = Directory::new_in(work_dir.path()).unwrap();
        let path = directory.path().to_owned();
        fs::create_dir_all(path.join("node_modules/a")).unwrap();
        let one_thread =
            tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build();
        let (held, release) = mpsc::channel::<()>();
        one_thread.unwrap().block_on(async {
            drop(tokio::task::spawn_blocking(move || release.recv()));
            drop(directory);
            assert!(path.exists(), "the thread that removes it has other work");
            drop(held);
            let begun = Instant::now();
            while path.exists() {
                assert!(begun.elapsed() < Duration::from_secs(30), "it is not removed");
                thread::sleep(Duration::from_millis(5));
            }
        });
    }

    #[test]
    fn what_is_written_while_it_is_removed_goes_as_well() {
        let work_dir = tempfile::tempdir().unwrap();
        let directory = Directory::new_in(work_dir.path()).unwrap();
        let path = directory.path().to_owned();
        let packages = path.join("node_modules");
        fs::create_dir(&packages).unwrap();
        let writing = thread::spawn(move || {
            let begun = Instant::now();
            let write = |n: u32| fs::write(packages.join(n.to_string()), "").is_ok();
            (0..u32::MAX).take_while(|n| begun.elapsed() < 2 * PAUSE && write(*n)).count()
        });
        // There is no runtime here: when this returns it is done.
        drop(directory);
        writing.join().unwrap();
        assert!(!path.exists());
    }
}
