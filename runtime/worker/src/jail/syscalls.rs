//! seccomp: the system calls that a function has no use for fail, on every thread. What a program
//! in user mode needs stays open; what changes the system, reaches other processes, makes new ones
//! or opens rarely used parts of the kernel does not.
//!
//! Two filters. The first is long, knows neither the function nor the process and takes the kernel a
//! while to set: a zygote sets it for all that are forked from it. It leaves open what making a worker
//! and the rest of its jail takes. The second closes that and other processes, and hands the calls that
//! name a network address to the supervisor, which decides and makes them in the worker's place: a check
//! of memory that the worker can change at any time would be none.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, BpfProgramRef, SeccompAction, SeccompCmpArgLen, SeccompCmpOp,
    SeccompCondition, SeccompFilter, SeccompRule, sock_filter,
};

/// The filters cannot be set.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SyscallsError {
    #[error("the filter is not valid")]
    Backend(#[from] BackendError),
    #[error("the kernel does not take the filter")]
    Install(#[source] seccompiler::Error),
    #[error("the kernel does not take the filter of network calls")]
    Listener(#[source] io::Error),
}

/// What making a worker and its jail takes: closed by the second filter.
const MAKING: [c_long; 16] = [
    libc::SYS_memfd_create,
    libc::SYS_setsid,
    libc::SYS_unshare,
    libc::SYS_sethostname,
    libc::SYS_mount,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_restrict_self,
    libc::SYS_capset,
    libc::SYS_seccomp,
];

/// Calls that name a network address. `sendto` without one is a plain write.
const ADDRESSING: [c_long; 4] =
    [libc::SYS_connect, libc::SYS_bind, libc::SYS_sendmsg, libc::SYS_sendmmsg];

/// Refused whatever their arguments.
const REFUSED: &[c_long] = &[
    // New programs and processes.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_kcmp,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_setpgid,
    libc::SYS_setpriority,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setattr,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setscheduler,
    libc::SYS_ioprio_set,
    // File systems and namespaces.
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_fspick,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_setns,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    // What is watched need not be readable, and there are few watchers for all processes of a user.
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
    // All that anybody has written, to the disk.
    libc::SYS_sync,
    libc::SYS_syncfs,
    libc::SYS_mknodat,
    // Parts of the kernel.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_setup,
    libc::SYS_io_submit,
    libc::SYS_io_getevents,
    libc::SYS_io_destroy,
    libc::SYS_io_cancel,
    libc::SYS_userfaultfd,
    // What is written to such files is memory that no process is seen to hold.
    libc::SYS_memfd_secret,
    libc::SYS_vmsplice,
    libc::SYS_remap_file_pages,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_mbind,
    libc::SYS_set_mempolicy,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_shmdt,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_semctl,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    // The machine.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_personality,
    // Privileges.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    // Nobody connects to a function.
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
];

/// The same, of calls that only this architecture has.
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[c_long] = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_mknod,
    libc::SYS_inotify_init,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_kexec_file_load,
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS_sysfs,
    libc::SYS__sysctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
    libc::SYS_vhangup,
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[c_long] = &[];

/// `prctl` options that would loosen something: dumps, seccomp, ptrace, the memory map, capabilities.
/// The end with the parent is closed by the second filter.
const PRCTL_REFUSED: [i32; 5] = [
    libc::PR_SET_DUMPABLE,
    libc::PR_SET_SECCOMP,
    libc::PR_SET_PTRACER,
    libc::PR_SET_MM,
    libc::PR_CAP_AMBIENT,
];

/// `fcntl` commands that say which process is sent a descriptor's signals, and which signals: a way
/// to send them to others. The numbers are Linux's on every architecture this runs on.
const FCNTL_REFUSED: [i32; 3] = [libc::F_SETOWN, F_SETSIG, F_SETOWN_EX];
const F_SETSIG: i32 = 10;
const F_SETOWN_EX: i32 = 15;

/// The same of sockets.
const FIOSETOWN: i32 = 0x8901;
const SIOCSPGRP: i32 = 0x8902;

/// Options of sockets. The first three send packets by way of another host, which is where they go first,
/// whatever the supervisor has decided upon; the next two bind to addresses of others. The last are
/// programs that the kernel runs for each packet.
const SOCKET_REFUSED: [(i32, i32); 8] = [
    (libc::IPPROTO_IP, libc::IP_OPTIONS),
    (libc::IPPROTO_IPV6, libc::IPV6_2292PKTOPTIONS),
    (libc::IPPROTO_IPV6, libc::IPV6_RTHDR),
    (libc::IPPROTO_IP, libc::IP_FREEBIND),
    (libc::IPPROTO_IPV6, libc::IPV6_FREEBIND),
    (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER),
    (libc::SOL_SOCKET, libc::SO_ATTACH_BPF),
    (libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF),
];

/// The newest call that was looked at. Later ones do not exist for a function.
const NEWEST: u32 = 462;

/// On x86-64, the second set of numbers for the same calls (x32).
const SECOND_ABI: u32 = 0x4000_0000;

type Rules = Vec<(c_long, Vec<SeccompRule>)>;

fn word(argument: u8, op: SeccompCmpOp, value: i32) -> Result<SeccompCondition, BackendError> {
    let value = u64::from(value.cast_unsigned());
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value)
}

/// A rule that is met when the argument is none of these.
fn none_of(argument: u8, values: &[i32]) -> Result<SeccompRule, BackendError> {
    let each = values.iter().map(|value| word(argument, SeccompCmpOp::Ne, *value));
    SeccompRule::new(each.collect::<Result<_, _>>()?)
}

/// Rules that are met when the argument is one of these.
fn one_of(argument: u8, values: &[i32]) -> Result<Vec<SeccompRule>, BackendError> {
    let each = values.iter().map(|value| word(argument, SeccompCmpOp::Eq, *value));
    each.map(|condition| SeccompRule::new(vec![condition?])).collect()
}

/// Calls that are refused only with some arguments.
fn refused_arguments() -> Result<Rules, BackendError> {
    let mut rules = Rules::new();
    // Threads, not processes.
    let thread = SeccompCmpOp::MaskedEq(libc::CLONE_THREAD.cast_unsigned().into());
    rules.push((libc::SYS_clone, vec![SeccompRule::new(vec![word(0, thread, 0)?])?]));
    // Streams and datagrams of the internet. The low four bits of a socket's type are its kind.
    let mut socket = vec![
        none_of(0, &[libc::AF_INET, libc::AF_INET6])?,
        none_of(2, &[0, libc::IPPROTO_TCP, libc::IPPROTO_UDP])?,
    ];
    // The kinds are 1 and 2: neither or both of their bits, and any bit beyond, is none of them.
    for (bits, value) in [(3, 0), (3, 3), (4, 4), (8, 8)] {
        socket.push(SeccompRule::new(vec![word(1, SeccompCmpOp::MaskedEq(bits), value)?])?);
    }
    rules.push((libc::SYS_socket, socket));
    rules.push((libc::SYS_socketpair, vec![none_of(0, &[libc::AF_UNIX])?]));
    let options = SOCKET_REFUSED.into_iter().map(|(level, option)| {
        let both = vec![word(1, SeccompCmpOp::Eq, level)?, word(2, SeccompCmpOp::Eq, option)?];
        SeccompRule::new(both)
    });
    rules.push((libc::SYS_setsockopt, options.collect::<Result<_, BackendError>>()?));
    rules.push((libc::SYS_prctl, one_of(0, &PRCTL_REFUSED)?));
    rules.push((libc::SYS_fcntl, one_of(1, &FCNTL_REFUSED)?));
    // Input for the terminal of whoever started the server.
    let tiocsti = libc::c_int::try_from(libc::TIOCSTI).unwrap_or(libc::c_int::MAX);
    rules.push((libc::SYS_ioctl, one_of(1, &[tiocsti, FIOSETOWN, SIOCSPGRP])?));
    Ok(rules)
}

fn compile(rules: Rules, action: SeccompAction) -> Result<BpfProgram, BackendError> {
    let arch = std::env::consts::ARCH.try_into()?;
    let rules = rules.into_iter().collect();
    SeccompFilter::new(rules, SeccompAction::Allow, action, arch)?.try_into()
}

const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_IF_ABOVE: u16 = 0x25;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// Where the kernel's description of a call has its number, and the set of numbers it is of.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// Where it has the lower half of the first argument.
const FIRST_ARGUMENT: u32 = 16;

/// And the two halves of the address that `sendto` is given, its fifth argument.
const DESTINATION: [u32; 2] = [48, 52];

/// `AUDIT_ARCH_X86_64`
#[cfg(target_arch = "x86_64")]
const THIS_ARCHITECTURE: u32 = 0xc000_003e;
/// `AUDIT_ARCH_AARCH64`
#[cfg(target_arch = "aarch64")]
const THIS_ARCHITECTURE: u32 = 0xc000_00b7;

const NO_SUCH_CALL: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
const NOT_PERMITTED: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();

fn step(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// What is decided by the set of numbers, and for numbers that nobody knows.
fn by_number() -> [sock_filter; 8] {
    [
        step(LOAD, 0, 0, ARCHITECTURE),
        step(JUMP_IF_EQUAL, 1, 0, THIS_ARCHITECTURE),
        step(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        step(LOAD, 0, 0, NUMBER),
        step(JUMP_IF_ABOVE, 1, 0, SECOND_ABI - 1),
        step(JUMP_IF_ABOVE, 1, 2, NEWEST),
        step(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        step(RETURN, 0, 0, NO_SUCH_CALL),
    ]
}

/// These calls are refused whatever their arguments. In groups by their numbers: when a filter is set
/// the kernel goes through it for every call there is, so a long way through it takes time.
fn refused(calls: &[c_long]) -> Vec<sock_filter> {
    let mut numbers: Vec<u32> = calls.iter().filter_map(|call| u32::try_from(*call).ok()).collect();
    numbers.sort_unstable();
    // As many that are compared one by one as there are groups to be passed over.
    let in_group = numbers.len().isqrt().max(1);
    // Each group has two steps of its own, and the list ends with two.
    let length = numbers.len() + 2 * numbers.len().div_ceil(in_group) + 2;
    let ahead = |from: usize, to: usize| {
        u8::try_from(to - from - 1).expect("the list is shorter than a jump can be")
    };
    let (refusal, end) = (length - 1, length);
    let mut program = Vec::with_capacity(length);
    for group in numbers.chunks(in_group) {
        let last = *group.last().expect("a chunk is not empty");
        let next_group = program.len() + group.len() + 2;
        program.push(step(JUMP_IF_ABOVE, ahead(program.len(), next_group), 0, last));
        for number in group {
            program.push(step(JUMP_IF_EQUAL, ahead(program.len(), refusal), 0, *number));
        }
        program.push(step(JUMP, 0, 0, ahead(program.len(), end).into()));
    }
    program.push(step(JUMP, 0, 0, ahead(program.len(), end).into()));
    program.push(step(RETURN, 0, 0, NOT_PERMITTED));
    program
}

fn jail_program() -> Result<BpfProgram, BackendError> {
    let eperm = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let mut program = by_number().to_vec();
    program.extend(refused(&[REFUSED, REFUSED_HERE].concat()));
    program.extend(compile(refused_arguments()?, eperm)?);
    Ok(program)
}

fn call_number(call: c_long) -> u32 {
    u32::try_from(call).unwrap_or(u32::MAX)
}

/// One call, decided by its first argument: `met` if that is one of these, else `otherwise`.
fn by_first_argument(call: c_long, values: &[u32], met: u32, otherwise: u32) -> Vec<sock_filter> {
    let ahead = |steps: usize| u8::try_from(steps).expect("there are few values");
    let mut program = vec![
        step(JUMP_IF_EQUAL, 0, ahead(values.len() + 3), call_number(call)),
        step(LOAD, 0, 0, FIRST_ARGUMENT),
    ];
    for (number, value) in values.iter().enumerate() {
        program.push(step(JUMP_IF_EQUAL, ahead(values.len() - number), 0, *value));
    }
    program.extend([step(RETURN, 0, 0, otherwise), step(RETURN, 0, 0, met)]);
    program
}

/// The second filter, of the process with this id. It need not look which set of numbers a call is of:
/// the first lets no other pass.
fn closing_program(pid: u32, with_listener: bool) -> BpfProgram {
    let allow = libc::SECCOMP_RET_ALLOW;
    let mut program = vec![step(LOAD, 0, 0, NUMBER)];
    // What each answer leaves by comes first.
    if with_listener {
        let [low, high] = DESTINATION;
        program.extend([
            step(JUMP_IF_EQUAL, 0, 6, call_number(libc::SYS_sendto)),
            step(LOAD, 0, 0, low),
            step(JUMP_IF_EQUAL, 0, 2, 0),
            step(LOAD, 0, 0, high),
            step(JUMP_IF_EQUAL, 1, 0, 0),
            step(RETURN, 0, 0, libc::SECCOMP_RET_USER_NOTIF),
            step(RETURN, 0, 0, allow),
        ]);
    }
    let mut on = |calls: &[c_long], action| {
        for call in calls {
            program.push(step(JUMP_IF_EQUAL, 0, 1, call_number(*call)));
            program.push(step(RETURN, 0, 0, action));
        }
    };
    // It hides its flags in memory; the C library falls back to `clone` when it does not exist.
    on(&[libc::SYS_clone3], NO_SUCH_CALL);
    if with_listener {
        on(&ADDRESSING, libc::SECCOMP_RET_USER_NOTIF);
    }
    program.extend(refused(&MAKING));
    // Only to itself.
    for call in [libc::SYS_kill, libc::SYS_tgkill] {
        program.extend(by_first_argument(call, &[pid], allow, NOT_PERMITTED));
    }
    program.extend(by_first_argument(libc::SYS_prlimit64, &[0, pid], allow, NOT_PERMITTED));
    let parent_death = [libc::PR_SET_PDEATHSIG.cast_unsigned()];
    program.extend(by_first_argument(libc::SYS_prctl, &parent_death, NOT_PERMITTED, allow));
    program.push(step(RETURN, 0, 0, allow));
    program
}

/// The first filter is set. A fork has this from where it has the filter.
static HAS_BEGUN: AtomicBool = AtomicBool::new(false);

/// Sets the first filter on all threads, for good, unless this process was forked with it. Without
/// privileges only once there can be no new ones.
pub(super) fn begin() -> Result<(), SyscallsError> {
    if HAS_BEGUN.load(Ordering::Relaxed) {
        return Ok(());
    }
    let program = jail_program()?;
    seccompiler::apply_filter_all_threads(&program).map_err(SyscallsError::Install)?;
    HAS_BEGUN.store(true, Ordering::Relaxed);
    Ok(())
}

/// Sets the second, of this process: it lets it send signals to itself, and to no other. Returns the
/// listener of network calls, if there is to be one.
pub(super) fn close(with_listener: bool) -> Result<Option<OwnedFd>, SyscallsError> {
    let program = closing_program(std::process::id(), with_listener);
    if with_listener {
        return listen(&program).map(Some);
    }
    seccompiler::apply_filter_all_threads(&program).map_err(SyscallsError::Install)?;
    Ok(None)
}

fn listen(program: BpfProgramRef) -> Result<OwnedFd, SyscallsError> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap_or(u16::MAX),
        filter: program.as_ptr().cast_mut().cast(),
    };
    let flags = libc::SECCOMP_FILTER_FLAG_TSYNC
        | libc::SECCOMP_FILTER_FLAG_TSYNC_ESRCH
        | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    // A signal does not make a thread ask again for what is being done for it; since Linux 5.19.
    let steady = flags | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    let install = |flags: libc::c_ulong| {
        let filter = libc::SECCOMP_SET_MODE_FILTER;
        // SAFETY: the program outlives the call, which copies it.
        let fd = unsafe { libc::syscall(libc::SYS_seccomp, filter, flags, &raw const program) };
        match RawFd::try_from(fd) {
            // SAFETY: the kernel has just given us this descriptor.
            Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
            _ => Err(io::Error::last_os_error()),
        }
    };
    install(steady).or_else(|_| install(flags)).map_err(SyscallsError::Listener)
}
