//! The jail attacked from native code: a fork of this program enters it as a worker does, and then
//! tries what V8 would have kept it from.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::Permissions;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use cloudserve_protocol::call::Env;
use cloudserve_protocol::ids::FunctionId;
use cloudserve_protocol::limits::Limits;
use cloudserve_protocol::wire::{Assignment, JailTerms};
use libc::{c_int, c_long, c_void};

const TMP_BYTES: u64 = 1024 * 1024;

/// `errno` of a call that failed, 0 of one that did not.
fn errno_if(failed: bool) -> c_int {
    if failed { std::io::Error::last_os_error().raw_os_error().unwrap_or(-1) } else { 0 }
}

fn call(number: c_long, args: [u64; 6]) -> c_int {
    // SAFETY: the kernel checks what it is given; nothing here hands it memory it could spoil.
    errno_if(
        unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]) } < 0,
    )
}

fn open(path: &str, flags: c_int) -> c_int {
    let path = CString::new(path).unwrap();
    // SAFETY: a string that ends with a zero.
    errno_if(unsafe { libc::open(path.as_ptr(), flags, 0o600) } < 0)
}

fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    // SAFETY: no memory is passed.
    errno_if(unsafe { libc::socket(domain, kind, protocol) } < 0)
}

fn listens() -> c_int {
    // SAFETY: plain system calls on a socket of our own.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        errno_if(libc::listen(fd, 1) != 0)
    }
}

fn binds() -> c_int {
    // SAFETY: the address is valid for the call and as long as is said.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        let mut address: libc::sockaddr_in = std::mem::zeroed();
        address.sin_family = 2;
        address.sin_port = 0x3930;
        let length = u32::try_from(size_of::<libc::sockaddr_in>()).unwrap();
        errno_if(libc::bind(fd, (&raw const address).cast(), length) != 0)
    }
}

fn makes_a_thread() -> c_int {
    let made = std::thread::Builder::new().spawn(|| ());
    match made {
        Ok(thread) => errno_if(thread.join().is_err()),
        Err(error) => error.raw_os_error().unwrap_or(-1),
    }
}

/// `errno` of the first of many that cannot be made.
fn makes_many_threads() -> c_int {
    for _ in 0..300 {
        let thread = std::thread::Builder::new().stack_size(16 * 1024);
        if let Err(error) = thread.spawn(|| std::thread::sleep(Duration::from_millis(500))) {
            return error.raw_os_error().unwrap_or(-1);
        }
    }
    0
}

/// What the kernel asks nobody about but the owner of a file.
fn changes(path: &str) -> [(&'static str, c_int); 4] {
    let path = CString::new(path).unwrap();
    let at = path.as_ptr() as u64;
    let (here, same) = (u64::from(libc::AT_FDCWD.cast_unsigned()), u64::from(u32::MAX));
    let (name, value) = (c"user.x".as_ptr() as u64, c"1".as_ptr() as u64);
    [
        ("rights outside", call(libc::SYS_fchmodat, [here, at, 0o755, 0, 0, 0])),
        ("owner outside", call(libc::SYS_fchownat, [here, at, same, same, 0, 0])),
        ("times outside", call(libc::SYS_utimensat, [here, at, 0, 0, 0, 0])),
        ("attributes outside", call(libc::SYS_setxattr, [at, name, value, 1, 0, 0])),
    ]
}

/// `errno` of giving a file that is there other rights.
fn rights_in(tmp: &Path) -> c_int {
    let rights = Permissions::from_mode(0o700);
    match std::fs::set_permissions(tmp.join("f0"), rights) {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().unwrap_or(-1),
    }
}

fn options() -> [(&'static str, c_int); 3] {
    // By way of the host itself.
    let route = [131_u8, 7, 4, 127, 0, 0, 1, 0];
    // SAFETY: no memory is passed.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0) };
    let set = |level: c_int, option: c_int| {
        let length = u32::try_from(route.len()).unwrap();
        // SAFETY: the value is valid for the call and as long as is said.
        let done =
            unsafe { libc::setsockopt(socket, level, option, route.as_ptr().cast(), length) };
        errno_if(done != 0)
    };
    [
        ("a route of IPv4", set(libc::IPPROTO_IP, libc::IP_OPTIONS)),
        ("a route of IPv6", set(libc::IPPROTO_IPV6, libc::IPV6_RTHDR)),
        ("others' addresses", set(libc::IPPROTO_IP, libc::IP_FREEBIND)),
    ]
}

fn fills_tmp(tmp: &Path) -> c_int {
    let piece = vec![1; 64 * 1024];
    for number in 0..64 {
        if let Err(error) = std::fs::write(tmp.join(format!("f{number}")), &piece) {
            return error.raw_os_error().unwrap_or(-1);
        }
    }
    0
}

type Report = BTreeMap<&'static str, c_int>;

const MANY_THREADS: &str = "many threads";

fn attack(tmp: &Path, own: &str, other: &str, outside: &str) -> Report {
    let pid = u64::from(std::process::id());
    let parent = u64::try_from(nix::unistd::getppid().as_raw()).unwrap();
    let none = [0; 6];
    let path = CString::new("/bin/true").unwrap();
    let argv: [*const libc::c_char; 2] = [path.as_ptr(), std::ptr::null()];
    let at = |pointer: *const c_void| pointer as u64;
    let program = at(path.as_ptr().cast());
    let arguments = at(argv.as_ptr().cast());
    let kill = |target: u64| call(libc::SYS_kill, [target, 0, 0, 0, 0, 0]);
    let mut report = Report::from([
        ("execve", call(libc::SYS_execve, [program, arguments, 0, 0, 0, 0])),
        ("execveat", call(libc::SYS_execveat, [0, program, arguments, 0, 0, 0])),
        ("fork", call(libc::SYS_clone, [17, 0, 0, 0, 0, 0])),
        ("clone3", call(libc::SYS_clone3, none)),
        ("ptrace", call(libc::SYS_ptrace, [16, parent, 0, 0, 0, 0])),
        ("process_vm_readv", call(libc::SYS_process_vm_readv, [parent, 0, 0, 0, 0, 0])),
        ("pidfd_open", call(libc::SYS_pidfd_open, [parent, 0, 0, 0, 0, 0])),
        ("kill the parent", kill(parent)),
        ("kill everybody", kill(u64::MAX)),
        ("kill the group", kill(0)),
        ("tgkill another", call(libc::SYS_tgkill, [parent, parent, 0, 0, 0, 0])),
        ("fcntl F_SETOWN", call(libc::SYS_fcntl, [2, 8, parent, 0, 0, 0])),
        ("fcntl F_SETSIG", call(libc::SYS_fcntl, [2, 10, 9, 0, 0, 0])),
        ("fcntl F_SETOWN_EX", call(libc::SYS_fcntl, [2, 15, program, 0, 0, 0])),
        ("ioctl FIOSETOWN", call(libc::SYS_ioctl, [2, 0x8901, program, 0, 0, 0])),
        ("ioctl SIOCSPGRP", call(libc::SYS_ioctl, [2, 0x8902, program, 0, 0, 0])),
        ("ioctl TIOCSTI", call(libc::SYS_ioctl, [2, 0x5412, program, 0, 0, 0])),
        ("mount", call(libc::SYS_mount, [program, program, 0, 4096, 0, 0])),
        ("umount2", call(libc::SYS_umount2, [program, 0, 0, 0, 0, 0])),
        ("pivot_root", call(libc::SYS_pivot_root, [program, program, 0, 0, 0, 0])),
        ("chroot", call(libc::SYS_chroot, [program, 0, 0, 0, 0, 0])),
        ("open_tree", call(libc::SYS_open_tree, [0, program, 0, 0, 0, 0])),
        ("move_mount", call(libc::SYS_move_mount, [0, program, 0, program, 0, 0])),
        ("mount_setattr", call(libc::SYS_mount_setattr, none)),
        ("fsopen", call(libc::SYS_fsopen, [program, 0, 0, 0, 0, 0])),
        ("fsconfig", call(libc::SYS_fsconfig, none)),
        ("fsmount", call(libc::SYS_fsmount, none)),
        ("landlock_create_ruleset", call(libc::SYS_landlock_create_ruleset, none)),
        ("landlock_add_rule", call(libc::SYS_landlock_add_rule, none)),
        ("landlock_restrict_self", call(libc::SYS_landlock_restrict_self, none)),
        ("unshare", call(libc::SYS_unshare, [0x1000_0000, 0, 0, 0, 0, 0])),
        ("setns", call(libc::SYS_setns, none)),
        ("setsid", call(libc::SYS_setsid, none)),
        ("sethostname", call(libc::SYS_sethostname, [program, 4, 0, 0, 0, 0])),
        ("prlimit of another", call(libc::SYS_prlimit64, [parent, 7, 0, 0, 0, 0])),
        ("bpf", call(libc::SYS_bpf, none)),
        ("perf_event_open", call(libc::SYS_perf_event_open, none)),
        ("keyctl", call(libc::SYS_keyctl, none)),
        ("io_uring_setup", call(libc::SYS_io_uring_setup, [1, 0, 0, 0, 0, 0])),
        ("userfaultfd", call(libc::SYS_userfaultfd, none)),
        ("seccomp", call(libc::SYS_seccomp, none)),
        ("prctl dumpable", call(libc::SYS_prctl, [4, 1, 0, 0, 0, 0])),
        ("prctl end with the parent", call(libc::SYS_prctl, [1, 0, 0, 0, 0, 0])),
        ("capset", call(libc::SYS_capset, none)),
        ("setuid", call(libc::SYS_setuid, none)),
        ("shmget", call(libc::SYS_shmget, [0, 4096, 0o1600, 0, 0, 0])),
        ("inotify_init1", call(libc::SYS_inotify_init1, none)),
        ("memfd_create", call(libc::SYS_memfd_create, [program, 0, 0, 0, 0, 0])),
        ("sync", call(libc::SYS_sync, none)),
        ("syncfs", call(libc::SYS_syncfs, [2, 0, 0, 0, 0, 0])),
        ("a call of tomorrow", call(600, none)),
        ("raw socket", socket(libc::AF_INET, libc::SOCK_RAW, 1)),
        ("ping socket", socket(libc::AF_INET, libc::SOCK_DGRAM, 1)),
        ("packet socket", socket(libc::AF_PACKET, libc::SOCK_RAW, 0)),
        ("unix socket", socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)),
        ("netlink socket", socket(libc::AF_NETLINK, libc::SOCK_RAW, 0)),
        ("listen", listens()),
        ("bind", binds()),
        ("/etc/passwd", open("/etc/passwd", libc::O_RDONLY)),
        ("/etc/shadow", open("/etc/shadow", libc::O_RDONLY)),
        ("certificates", open("/etc/ssl/certs", libc::O_RDONLY | libc::O_DIRECTORY)),
        ("/proc/self/environ", open("/proc/self/environ", libc::O_RDONLY)),
        ("/proc/self/mem", open("/proc/self/mem", libc::O_RDWR)),
        ("/proc of the parent", open(&format!("/proc/{parent}/environ"), libc::O_RDONLY)),
        ("/sys", open("/sys/kernel/uevent_seqnum", libc::O_RDONLY)),
        ("another's bundle", open(other, libc::O_RDONLY)),
        ("its bundle, to write", open(own, libc::O_WRONLY)),
        ("the root directory", open("/", libc::O_RDONLY | libc::O_DIRECTORY)),
        ("a file in the root", open("/escaped", libc::O_CREAT | libc::O_WRONLY)),
        ("filling tmp", fills_tmp(tmp)),
    ]);
    report.extend(changes(outside));
    report.extend(options());
    let link = tmp.join("link");
    std::os::unix::fs::symlink("/etc/passwd", &link).ok();
    report.insert("a link out of tmp", open(link.to_str().unwrap(), libc::O_RDONLY));
    // What must go on working.
    report.insert("fine: its bundle", open(own, libc::O_RDONLY));
    report.insert("fine: urandom", open("/dev/urandom", libc::O_RDONLY));
    report.insert("fine: processors", open("/proc/cpuinfo", libc::O_RDONLY));
    report.insert("fine: hosts", open("/etc/hosts", libc::O_RDONLY));
    report.insert("fine: null", open("/dev/null", libc::O_RDWR));
    report.insert("fine: a socket", socket(libc::AF_INET, libc::SOCK_STREAM, 0));
    report.insert("fine: itself", kill(pid));
    report.insert("fine: its thread", call(libc::SYS_tgkill, [pid, pid, 0, 0, 0, 0]));
    report.insert("fine: its limits", call(libc::SYS_prlimit64, [pid, 7, 0, 0, 0, 0]));
    report.insert("fine: its name", call(libc::SYS_prctl, [15, program, 0, 0, 0, 0]));
    report.insert("fine: a thread", makes_a_thread());
    report.insert("fine: rights in tmp", rights_in(tmp));
    // Last: there is room for no other.
    if super::resources::are_threads_bounded() {
        report.insert(MANY_THREADS, makes_many_threads());
    }
    report
}

fn assignment(bundle: &Path, tmp: &Path) -> Assignment {
    Assignment {
        function_id: FunctionId::new(),
        function_name: "f".to_owned(),
        owner_name: "o".to_owned(),
        version: 1,
        bundle_path: bundle.to_str().unwrap().to_owned(),
        node_modules_path: None,
        tmp_path: tmp.to_str().unwrap().to_owned(),
        code_cache_path: None,
        code_cache_is_early: false,
        limits: Limits::default(),
        load_budget_ms: 1_000,
        lone_call_watch_us: 0,
        env: Env::default(),
        jail: JailTerms {
            tmp_bytes: TMP_BYTES,
            require_full: true,
            supervised_egress: false,
            egress_allow: Vec::new(),
        },
    }
}

/// In the fork: what came of each attack, a line each. `has_begun`: as in a fork of a zygote.
fn in_jail(has_begun: bool, bundle: &Path, other: &Path, tmp: &Path) -> String {
    use std::fmt::Write;
    if has_begun && let Err(error) = super::begin() {
        return format!("not begun: {error:?}");
    }
    let rules = has_begun.then(super::foresee).flatten().map(|(rules, _)| rules);
    if rules.is_some() != has_begun {
        return "no rules were made ahead".to_owned();
    }
    // Whoever runs this program owns it.
    let outside = std::env::current_exe().unwrap();
    if let Err(error) = super::isolate() {
        return format!("not isolated: {error:?}");
    }
    // One that would not be in it.
    let go = std::sync::Barrier::new(2);
    let older = std::thread::scope(|scope| {
        scope.spawn(|| go.wait());
        let refused = super::threads::only_this();
        go.wait();
        refused
    });
    if !matches!(older, Err(super::threads::ThreadsError::Several(2))) {
        return format!("an older thread: {older:?}");
    }
    // The kernel takes a thread off the list a moment after the others know that it has ended.
    let begun = std::time::Instant::now();
    while super::threads::only_this().is_err() && begun.elapsed().as_secs() < 10 {
        std::thread::yield_now();
    }
    let prepared = super::prepare(rules);
    let entered = match prepared.and_then(|p| super::enter(&assignment(bundle, tmp), p)) {
        Ok(entered) => entered,
        Err(error) => return format!("not jailed: {error:?}"),
    };
    let paths = [bundle, other, outside.as_path()];
    let [bundle, other, outside] = paths.map(|path| path.to_str().unwrap());
    let report = attack(&entered.tmp, bundle, other, outside);
    let mut text = String::new();
    for (what, errno) in report {
        writeln!(text, "{what}\t{errno}").unwrap();
    }
    text
}

#[test]
fn the_kernel_refuses_what_native_code_tries() {
    for has_begun in [false, true] {
        native_code_is_refused(has_begun);
    }
}

fn native_code_is_refused(has_begun: bool) {
    let dir = std::env::temp_dir().join(format!("cloudserve-jail-{}", std::process::id()));
    let [own, other, tmp] = ["own", "other", "tmp"].map(|name| dir.join(name));
    for dir in [&own, &other, &tmp] {
        std::fs::create_dir_all(dir).unwrap();
    }
    let [bundle, others] = [own.join("bundle.js"), other.join("bundle.js")];
    std::fs::write(&bundle, "1").unwrap();
    std::fs::write(&others, "2").unwrap();

    let (mut reader, writer) = std::io::pipe().unwrap();
    // SAFETY: the child uses its own memory only and ends without destructors.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let report = in_jail(has_begun, &bundle, &others, &tmp);
        // SAFETY: a write of memory of ours, and the end.
        unsafe {
            libc::write(writer.as_raw_fd(), report.as_ptr().cast(), report.len());
            libc::_exit(0);
        }
    }
    drop(writer);
    let mut report = String::new();
    reader.read_to_string(&mut report).unwrap();
    // SAFETY: our own child.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    std::fs::remove_dir_all(&dir).unwrap();

    let lines: Vec<(&str, c_int)> = report
        .lines()
        .map(|line| line.split_once('\t').map(|(what, n)| (what, n.parse().unwrap())))
        .collect::<Option<_>>()
        .unwrap_or_else(|| panic!("{report}"));
    assert!(lines.len() > 50, "{report}");
    for (what, errno) in lines {
        if what.starts_with("fine: ") {
            assert_eq!(errno, 0, "{what}");
        } else {
            // ENOENT: it is not even there.
            let refusals =
                [libc::EPERM, libc::EACCES, libc::ENOSYS, libc::ENOSPC, libc::ENOENT, libc::EROFS];
            let is_refused =
                refusals.contains(&errno) || (what == MANY_THREADS && errno == libc::EAGAIN);
            assert!(is_refused, "{what}: {errno}\n{report}");
        }
    }
}
