//! Doing something on every thread of the process: privileges and Landlock belong to a thread, and
//! V8 has several by the time the function is known. A thread that is made later inherits.
//!
//! The other threads are reached by a signal, one after the other, as the C library does for
//! `setuid`. What is done there must be fit for a signal handler.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};
use std::time::{Duration, Instant};

/// A thread that has not answered by then never will.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why not every thread has done it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ThreadsError {
    #[error("the threads cannot be listed")]
    List(#[source] io::Error),
    #[error("a signal cannot be sent to a thread")]
    Signal(#[source] io::Error),
    #[error("a thread did not answer")]
    Silent,
    #[error("a thread refused")]
    Refused(#[source] io::Error),
}

type Work<'a> = &'a (dyn Fn() -> Result<(), i32> + Sync);

/// What the handler is to do: a `*const Work` of the call of [`on_each`] that is under way.
static WORK: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());
/// What came of it: one of these, or an `errno`.
static ANSWER: AtomicI32 = AtomicI32::new(PENDING);

const PENDING: i32 = -1;
const DONE: i32 = 0;

/// `errno` of this thread.
pub(super) fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// Runs `work` on all other threads, then on this one. `work` gives `errno` when it fails.
pub(super) fn on_each(work: impl Fn() -> Result<(), i32> + Sync) -> Result<(), ThreadsError> {
    let dynamic: Work<'_> = &work;
    WORK.store((&raw const dynamic).cast_mut().cast(), Ordering::SeqCst);
    let before = install(handler as *const () as libc::sighandler_t)?;
    let all = on_others();
    restore(&before);
    WORK.store(std::ptr::null_mut(), Ordering::SeqCst);
    all?;
    work().map_err(|errno| ThreadsError::Refused(io::Error::from_raw_os_error(errno)))
}

fn on_others() -> Result<(), ThreadsError> {
    // SAFETY: they take nothing and cannot fail.
    let (process, this) = unsafe { (libc::getpid(), libc::gettid()) };
    let mut done = vec![this];
    loop {
        let listed = threads().map_err(ThreadsError::List)?;
        let new: Vec<i32> = listed.into_iter().filter(|tid| !done.contains(tid)).collect();
        if new.is_empty() {
            return Ok(());
        }
        for tid in new {
            done.push(tid);
            reach(process, tid)?;
        }
    }
}

fn threads() -> io::Result<Vec<i32>> {
    let names = fs::read_dir("/proc/self/task")?;
    Ok(names.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

fn reach(process: i32, tid: i32) -> Result<(), ThreadsError> {
    ANSWER.store(PENDING, Ordering::SeqCst);
    // SAFETY: no memory is passed.
    if unsafe { libc::syscall(libc::SYS_tgkill, process, tid, signal()) } != 0 {
        let error = io::Error::last_os_error();
        // It has ended meanwhile.
        let is_gone = error.raw_os_error() == Some(libc::ESRCH);
        return if is_gone { Ok(()) } else { Err(ThreadsError::Signal(error)) };
    }
    let begun = Instant::now();
    loop {
        match ANSWER.load(Ordering::SeqCst) {
            DONE => return Ok(()),
            PENDING if begun.elapsed() < PATIENCE => std::thread::yield_now(),
            PENDING => return Err(ThreadsError::Silent),
            errno => return Err(ThreadsError::Refused(io::Error::from_raw_os_error(errno))),
        }
    }
}

/// The last one: nobody else uses it.
fn signal() -> i32 {
    libc::SIGRTMAX()
}

fn install(handler: libc::sighandler_t) -> Result<libc::sigaction, ThreadsError> {
    // SAFETY: both structures are valid when they are zeroed, and are filled or read by the call.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let mut before: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = libc::SA_RESTART;
        if libc::sigaction(signal(), &raw const action, &raw mut before) != 0 {
            return Err(ThreadsError::Signal(io::Error::last_os_error()));
        }
        Ok(before)
    }
}

fn restore(before: &libc::sigaction) {
    // SAFETY: the structure came from the same call. It cannot fail with the same arguments.
    unsafe { libc::sigaction(signal(), before, std::ptr::null_mut()) };
}

extern "C" fn handler(_signal: i32) {
    // SAFETY: the pointer is that of the `Work` in `on_each`, which waits for this handler.
    let work = unsafe { WORK.load(Ordering::SeqCst).cast::<Work<'_>>().as_ref() };
    let Some(work) = work else { return };
    // SAFETY: `errno` of this thread, which the interrupted code must find as it was.
    let errno = unsafe { *libc::__errno_location() };
    let answer = work().err().unwrap_or(DONE);
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
    ANSWER.store(answer, Ordering::SeqCst);
}
