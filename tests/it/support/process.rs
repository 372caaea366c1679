//! Processes: where the programs are, children that die with this one, and who is whose child.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, mpsc};
use std::thread;
use std::time::Duration;

/// Where set-up puts esbuild.
const ESBUILD: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../tools/node_modules/@esbuild/linux-x64/bin/esbuild");

/// A call of the `cloudserve` that was built with these tests.
pub(crate) fn cloudserve() -> Command {
    let mut command = Command::new(program());
    command.env("CLOUDSERVE_ESBUILD", ESBUILD);
    // What whoever runs the tests is logged in as is none of theirs.
    for name in ["CLOUDSERVE_API_KEY", "CLOUDSERVE_URL", "CLOUDSERVE_GATEWAY_URL"] {
        command.env_remove(name);
    }
    command
}

/// Where `cloudserve` is.
pub(crate) fn program() -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a path");
    let profile = test.ancestors().nth(2).expect("tests run from <target>/<profile>/deps");
    for program in ["cloudserve", "cloudserve-worker"] {
        let path = profile.join(program);
        assert!(
            path.is_file(),
            "{} is not built; `make test` builds what these tests need, or run \
             `cargo build --release --workspace` first",
            path.display(),
        );
    }
    profile.join("cloudserve")
}

/// Starts a program whose output goes to `log`. It is killed when this process ends, however it
/// ends.
pub(crate) fn spawn(mut command: Command, log: &Path) -> Child {
    let log = File::options().create(true).append(true).open(log).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    // SAFETY: `prctl` with these arguments is async-signal-safe and touches no memory.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    let (reply, child) = mpsc::channel();
    SPAWNER.send((command, reply)).unwrap();
    child.recv().unwrap().unwrap_or_else(|error| panic!("the server does not start: {error}"))
}

/// Most bytes of memory that a process has ever had, so far.
pub(crate) fn peak_memory(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kilobytes = status.lines().find_map(|line| {
        line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<usize>().ok()
    });
    kilobytes.expect("the kernel keeps it") * 1024
}

/// How much it has grown since it was `before`.
pub(crate) fn peak_growth(pid: u32, before: usize) -> usize {
    // The kernel counts in batches: the peak may seem to fall a little.
    peak_memory(pid).saturating_sub(before)
}

type Spawn = (Command, mpsc::Sender<std::io::Result<Child>>);

/// The kernel ties a child to the *thread* that started it, and the thread of a test ends early.
static SPAWNER: LazyLock<mpsc::Sender<Spawn>> = LazyLock::new(|| {
    let (sender, receiver) = mpsc::channel::<Spawn>();
    thread::spawn(move || {
        for (mut command, reply) in receiver {
            let _ = reply.send(command.spawn());
        }
    });
    sender
});

/// Process ids of the children of a process and of theirs.
pub(crate) fn children_of(pid: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, parent_of(pid)?)))
        .collect();
    let mut found = vec![pid];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(parents.iter().filter(|(_, p)| *p == parent).map(|(child, _)| *child));
        next += 1;
    }
    found.split_off(1)
}

/// The fields of `/proc/<pid>/stat` from the state on, unless the process is gone or a zombie.
fn stat_of(pid: u32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    (!fields.starts_with('Z')).then(|| fields.split(' ').map(str::to_owned).collect())
}

fn parent_of(pid: u32) -> Option<u32> {
    stat_of(pid)?[1].parse().ok()
}

/// CPU time a process has used, in clock ticks.
pub(crate) fn cpu_ticks(pid: u32) -> u64 {
    let stat = stat_of(pid).expect("the process runs");
    stat[11..=12].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

/// How long ago a process began.
pub(crate) fn age(pid: u32) -> Duration {
    const TICKS_PER_SECOND: f64 = 100.0;
    let begun: f64 = stat_of(pid).expect("the process runs")[19].parse().unwrap();
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    Duration::from_secs_f64((uptime - begun / TICKS_PER_SECOND).max(0.0))
}

/// Whether a process runs.
pub(crate) fn is_alive(pid: u32) -> bool {
    parent_of(pid).is_some()
}

/// Sends a signal.
pub(crate) fn signal(pid: u32, signal: i32) {
    // SAFETY: no memory is passed.
    unsafe { libc::kill(pid.cast_signed(), signal) };
}
