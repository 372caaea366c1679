//! npm by itself: no other process comes of it, whatever a package asks for.
//!
//! For packages of git npm runs git and, to prepare them, npm again, which obeys what such a package
//! says of the programs to use. Its options refuse all of that; this holds if one of them does not.

use std::io;

use libc::{c_long, sock_filter};
use nix::sys::prctl::set_no_new_privs;
use tokio::process::Command;

const LOAD: u16 = 0x20;
const JUMP_IF_ABOVE: u16 = 0x25;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

/// Where the kernel's description of a call has its number, the set of numbers it is of, and the lower
/// half of its first argument: of `clone`, the flags.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FLAGS: u32 = 16;

/// `AUDIT_ARCH_X86_64`
#[cfg(target_arch = "x86_64")]
const THIS_ARCHITECTURE: u32 = 0xc000_003e;
/// `AUDIT_ARCH_AARCH64`
#[cfg(target_arch = "aarch64")]
const THIS_ARCHITECTURE: u32 = 0xc000_00b7;

/// Numbers from here on are of the 32-bit calls that x86-64 has beside its own.
const SECOND_ABI: u32 = 0x4000_0000;

/// Calls that make a process and nothing else.
#[cfg(target_arch = "x86_64")]
const FORKS: &[c_long] = &[libc::SYS_fork, libc::SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
const FORKS: &[c_long] = &[];

const NO_SUCH_CALL: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
const NOT_PERMITTED: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();

/// Lets the program have threads, but no child. It may still become another program, as a script does
/// whose interpreter `env` looks up.
pub(super) fn keep_alone(command: &mut Command) {
    let filter = filter();
    // SAFETY: after the fork the closure makes two system calls; it allocates nothing and waits for
    // no lock.
    unsafe { command.pre_exec(move || install(&filter)) };
}

fn filter() -> Vec<sock_filter> {
    let mut program = vec![
        step(LOAD, 0, 0, ARCHITECTURE),
        step(JUMP_IF_EQUAL, 1, 0, THIS_ARCHITECTURE),
        step(RETURN, 0, 0, NOT_PERMITTED),
        step(LOAD, 0, 0, NUMBER),
        step(JUMP_IF_ABOVE, 0, 1, SECOND_ABI - 1),
        step(RETURN, 0, 0, NOT_PERMITTED),
    ];
    for call in FORKS {
        program.push(step(JUMP_IF_EQUAL, 0, 1, number(*call)));
        program.push(step(RETURN, 0, 0, NOT_PERMITTED));
    }
    program.extend([
        // It hides its flags in memory; the C library falls back to `clone` when it does not exist.
        step(JUMP_IF_EQUAL, 0, 1, number(libc::SYS_clone3)),
        step(RETURN, 0, 0, NO_SUCH_CALL),
        step(JUMP_IF_EQUAL, 0, 3, number(libc::SYS_clone)),
        step(LOAD, 0, 0, FLAGS),
        step(JUMP_IF_ANY_BIT, 1, 0, libc::CLONE_THREAD.cast_unsigned()),
        step(RETURN, 0, 0, NOT_PERMITTED),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]);
    program
}

fn step(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

fn number(call: c_long) -> u32 {
    u32::try_from(call).unwrap_or(u32::MAX)
}

fn install(filter: &[sock_filter]) -> io::Result<()> {
    // Without it the kernel takes filters from those who have privileges only.
    set_no_new_privs()?;
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).unwrap_or(u16::MAX),
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: `program` describes `filter`, which the kernel copies and does not write to.
    let done = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    async fn run(script: &str, dir: &Path) -> bool {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).current_dir(dir);
        keep_alone(&mut command);
        command.status().await.unwrap().success()
    }

    #[tokio::test]
    async fn a_program_may_become_another_one_and_have_none_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        assert!(run("exec touch became", dir.path()).await);
        assert!(dir.path().join("became").exists());
        for script in ["touch beside; exit 0", "(echo 1 > beside); exit 0", "true | true"] {
            assert!(!run(script, dir.path()).await, "{script}");
            assert!(!dir.path().join("beside").exists(), "{script}");
        }
    }
}
