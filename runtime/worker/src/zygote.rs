//! The zygote: a process with a booted isolate that knows no tenant, forked for every worker.
//!
//! It sleeps until the supervisor sends a worker's three descriptors, forks, and says the worker's
//! process id. The worker is a child of the *supervisor* (`CLONE_PARENT`): whoever started the
//! zygote waits for workers as if it had started each of them itself, and the zygote may be
//! replaced while its workers live on.
//!
//! What a fork takes along is the same in every worker of one zygote: the layout of memory and
//! V8's hash seeds. Random numbers are not: `Math.random` is seeded anew for each fork and the kernel
//! is asked for the rest. Nothing of a tenant is ever in here, and only this module's code runs.

use std::fs;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use cloudserve_protocol::fault::Chain;
use cloudserve_protocol::zygote::{Forked, WORKER_DESCRIPTORS};
use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, send};

use crate::boot::Unsettled;
use crate::engine::Engine;
use crate::jail::{self, PlatformRules};

/// The socket to the supervisor, as it was started with.
const SUPERVISOR: RawFd = 0;

/// Stays at the end of the C library's heap: whoever uses it first need not ask the kernel for more.
const KEPT_FREE_BYTES: libc::size_t = 256 * 1024;

/// What the next fork is to find made is made when the last one has had so long to begin: it, or whoever
/// attends to it, may need this core. One that is ordered before that makes its rules itself.
const BEGINS_WITHIN: Duration = Duration::from_millis(2);

/// Why there is no zygote any more, or no worker in this process.
#[derive(Debug, thiserror::Error)]
enum ZygoteError {
    #[error("a zygote is started by the sandbox")]
    Socket(#[source] nix::Error),
    #[error("the supervisor sent {0} descriptors instead of {WORKER_DESCRIPTORS} or one more")]
    Descriptors(usize),
    #[error("booting left {0} threads behind; a fork would lose all but one")]
    Threads(u64),
    #[error("cannot see this process's {0}")]
    Proc(&'static str, #[source] io::Error),
    #[error("there are no random numbers for the next worker")]
    Seed(#[source] io::Error),
    #[error("cannot make the process a worker")]
    Settle(#[source] io::Error),
    #[error("the supervisor is gone")]
    Orphaned,
}

/// Boots, and forks until the supervisor closes the socket. Returns the exit code: the zygote's,
/// and in every forked process the worker's.
pub(crate) fn run(boot: impl FnOnce() -> Unsettled, started: Instant) -> i32 {
    let isolate = ManuallyDrop::new(boot());
    match fork_on_demand(started) {
        Ok(None) => 0,
        Ok(Some((rules, begun))) => super::serve(ManuallyDrop::into_inner(isolate), rules, begun),
        Err(error) => {
            eprintln!("cloudserve-worker: {}", Chain(&error));
            2
        }
    }
}

/// Rules for files that are a worker's alone, and when it began.
type Begun = (Option<PlatformRules>, Instant);

/// `None` in the zygote, when it is over.
fn fork_on_demand(started: Instant) -> Result<Option<Begun>, ZygoteError> {
    match jail::count_threads().map_err(|e| ZygoteError::Proc("threads", e))? {
        1 => {}
        n => return Err(ZygoteError::Threads(n)),
    }
    // Forks have it from here: each would take a twentieth of a first call for it. One that has not says
    // itself why.
    let _ = jail::begin();
    let mut ahead = jail::foresee();
    Engine::reseed().map_err(ZygoteError::Seed)?;
    give_back_what_is_free();
    let_forks_have_memory()?;
    let supervisor = parent();
    let boot_us = i64::try_from(started.elapsed().as_micros()).unwrap_or(i64::MAX);
    say(Forked(boot_us))?;
    while let Some((descriptors, group)) = next_order()? {
        let begun = Instant::now();
        match fork(group.as_ref()) {
            Ok(0) => {
                let (rules, kept) = ahead.unzip();
                become_worker(descriptors, kept, supervisor)?;
                return Ok(Some((rules, begun)));
            }
            Ok(pid) => say(Forked(pid.into()))?,
            Err(error) => say(Forked::failed(error.raw_os_error().unwrap_or(libc::EAGAIN)))?,
        }
        // What is the worker's is nobody else's from now on.
        drop((descriptors, group, ahead.take()));
        if !is_asked_within(BEGINS_WITHIN) {
            ahead = jail::foresee();
        }
        // A worker would make some fifty pages its own for it. Without a new seed there is no next one.
        Engine::reseed().map_err(ZygoteError::Seed)?;
    }
    Ok(None)
}

/// Whether the supervisor has something to say within this time.
fn is_asked_within(time: Duration) -> bool {
    let milliseconds = libc::c_int::try_from(time.as_millis()).unwrap_or(libc::c_int::MAX);
    let mut socket = libc::pollfd { fd: SUPERVISOR, events: libc::POLLIN, revents: 0 };
    // SAFETY: one structure, which is valid for the call.
    unsafe { libc::poll(&raw mut socket, 1, milliseconds) != 0 }
}

fn say(message: Forked) -> Result<(), ZygoteError> {
    send(SUPERVISOR, &message.to_bytes(), MsgFlags::MSG_NOSIGNAL)
        .map(|_| ())
        .map_err(ZygoteError::Socket)
}

/// Control socket, standard output, standard error; and the control group, if the worker has one.
type Order = ([OwnedFd; WORKER_DESCRIPTORS], Option<OwnedFd>);

/// The descriptors of the next worker.
fn next_order() -> Result<Option<Order>, ZygoteError> {
    let mut byte = [0_u8; 1];
    let mut buffers = [io::IoSliceMut::new(&mut byte)];
    let mut space = cmsg_space!([RawFd; WORKER_DESCRIPTORS + 1]);
    let message = loop {
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<()>(SUPERVISOR, &mut buffers, Some(&mut space), flags) {
            Err(nix::Error::EINTR) => {}
            received => break received.map_err(ZygoteError::Socket)?,
        }
    };
    if message.bytes == 0 {
        return Ok(None);
    }
    let mut descriptors = Vec::with_capacity(WORKER_DESCRIPTORS + 1);
    for part in message.cmsgs().map_err(ZygoteError::Socket)? {
        if let ControlMessageOwned::ScmRights(received) = part {
            // SAFETY: the kernel has just made these descriptors for this process.
            descriptors.extend(received.iter().map(|fd| unsafe { OwnedFd::from_raw_fd(*fd) }));
        }
    }
    let count = descriptors.len();
    let group = if count > WORKER_DESCRIPTORS { descriptors.pop() } else { None };
    let descriptors = descriptors.try_into().map_err(|_| ZygoteError::Descriptors(count))?;
    Ok(Some((descriptors, group)))
}

/// Booting leaves a third of the C library's heap free. Each fork would copy the tables of its pages, and
/// the pages when it uses them, instead of getting new ones.
fn give_back_what_is_free() {
    // SAFETY: gives memory back that nobody uses.
    unsafe { libc::malloc_trim(KEPT_FREE_BYTES) };
}

/// V8 keeps its heap out of forks. Nothing runs here any more, so what is mapped now is all there
/// ever is.
fn let_forks_have_memory() -> Result<(), ZygoteError> {
    let maps = fs::read_to_string("/proc/self/maps").map_err(|e| ZygoteError::Proc("memory", e))?;
    for line in maps.lines() {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let Some((start, end)) = range else { continue };
        let parse = |text| usize::from_str_radix(text, 16).unwrap_or(0);
        let (start, end) = (parse(start), parse(end));
        // SAFETY: only says what a fork does with the mapping; it changes nothing here. It fails
        // for what the kernel maps itself, which a fork gets anyway.
        unsafe {
            let address = std::ptr::without_provenance_mut::<libc::c_void>(start);
            libc::madvise(address, end.saturating_sub(start), libc::MADV_DOFORK);
        }
    }
    Ok(())
}

/// A child of the supervisor that is a copy of this process, in this control group. 0 in the child.
///
/// The C library's `fork` cannot make it a sibling. What that does besides does not matter here:
/// there is one thread, so no lock is held, and no handler was registered by anything this process
/// used. The thread's id, which the C library keeps in memory, is kept right by the kernel.
fn fork(group: Option<&OwnedFd>) -> io::Result<libc::pid_t> {
    const PR_GET_TID_ADDRESS: libc::c_int = 40;
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut tid_address: u64 = 0;
    // SAFETY: writes one pointer; kernels without it leave it alone.
    let knows_tid = unsafe { libc::prctl(PR_GET_TID_ADDRESS, &raw mut tid_address) } == 0;
    let keep_tid = if knows_tid && tid_address != 0 {
        libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID
    } else {
        0
    };
    // SAFETY: all fields are integers, and zero means "not used" in each.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = u64::from((libc::CLONE_PARENT | keep_tid).cast_unsigned());
    arguments.child_tid = tid_address;
    if let Some(group) = group {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = u64::from(group.as_raw_fd().unsigned_abs());
    }
    // SAFETY: without CLONE_VM and with no stack given this is a fork; the process has one thread.
    let pid =
        unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of_val(&arguments)) };
    match libc::pid_t::try_from(pid) {
        Ok(pid) if pid >= 0 => Ok(pid),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What a worker that was started as a program of its own gets before it runs. `kept` is open behind
/// it, besides.
fn become_worker(
    descriptors: [OwnedFd; WORKER_DESCRIPTORS],
    kept: Option<RawFd>,
    supervisor: libc::pid_t,
) -> Result<(), ZygoteError> {
    let check = |result: libc::c_int| match result {
        -1 => Err(ZygoteError::Settle(io::Error::last_os_error())),
        _ => Ok(()),
    };
    for (target, descriptor) in (0..).zip(&descriptors) {
        // SAFETY: both are descriptors of this process; the one that is replaced is the zygote's.
        check(unsafe { libc::dup2(descriptor.as_raw_fd(), target) })?;
    }
    // Closed below, with the rest of what is not a worker's: the zygote's event loop, above all.
    for descriptor in descriptors {
        std::mem::forget(descriptor);
    }
    // 2 is none of these.
    let kept = kept.map_or(2, RawFd::cast_unsigned);
    // SAFETY: plain system calls. Nothing in this process uses another descriptor above 2 from now on:
    // the zygote's event loop, the only owner of any, is never touched or dropped.
    unsafe {
        if kept > 3 {
            check(libc::close_range(3, kept - 1, 0))?;
        }
        check(libc::close_range(kept + 1, libc::c_uint::MAX, 0))?;
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        check(libc::setsid())?;
    }
    // It may have died before it could be noticed.
    if parent() == supervisor { Ok(()) } else { Err(ZygoteError::Orphaned) }
}

fn parent() -> libc::pid_t {
    // SAFETY: a plain system call.
    unsafe { libc::getppid() }
}
