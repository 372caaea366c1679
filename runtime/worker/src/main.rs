//! `cloudserve-worker`: one process, one V8 isolate, one function version for life.
//!
//! Started by the sandbox with a cleared environment. Without an argument it is a worker: file
//! descriptor 0 is the control socket, a Unix stream that speaks [`cloudserve_protocol::wire`];
//! 1 and 2 are pipes whose lines become log lines. The worker boots before it knows its function,
//! says `Ready`, gets `Assign`, loads, says `Loaded`, and then serves calls until it is drained,
//! its socket closes, or a call leaves it in a state nobody should build on.
//!
//! With the argument `zygote` it boots once and is forked for every worker: see [`zygote`].
//!
//! The only crate that knows `deno_*` and `v8`. Order matters: V8's platform is initialised on
//! the main thread before the tokio runtime exists.

mod assign;
mod boot;
mod bridge;
mod callbacks;
mod ciphers;
mod claims;
mod code_cache;
mod commonjs;
mod control;
mod cpu;
mod engine;
mod given;
mod host;
mod jail;
mod leftovers;
mod loader;
mod mapped;
mod memory;
mod names;
mod ops;
mod pace;
mod permissions;
mod placing;
mod rehearsal;
mod serve;
mod time_zone;
mod watchdog;
mod web_socket;
mod zygote;

use std::mem::ManuallyDrop;
use std::process::ExitCode;
use std::time::Instant;

use cloudserve_protocol::zygote::ZYGOTE_ARGUMENT;
use tokio::runtime::{Builder, Runtime};

use crate::boot::Unsettled;
use crate::engine::Engine;
use crate::host::Host;
use crate::jail::PlatformRules;

/// Threads for files, names of hosts and slow cryptography.
const BLOCKING_THREADS: usize = 16;

/// By which the kernel chooses whom to end when there is no memory left: this goes first, and not the
/// server, which may be larger.
const OUT_OF_MEMORY: (&str, &str) = ("/proc/self/oom_score_adj", "1000");

#[allow(clippy::disallowed_methods, reason = "ends with the isolate as it is")]
fn main() -> ExitCode {
    let started = Instant::now();
    // Forks inherit it. The server cannot set it for its own fork: that keeps its memory to itself.
    let _ = std::fs::write(OUT_OF_MEMORY.0, OUT_OF_MEMORY.1);
    let is_zygote = std::env::args_os().nth(1).is_some_and(|first| first == ZYGOTE_ARGUMENT);
    if is_zygote {
        watchdog::rehearse();
        placing::side_by_side();
    }
    let engine = Engine::start();
    // Booting does no I/O, and the descriptors that tokio would open for it could not be closed
    // behind a fork: it keeps some of them for the whole process.
    let boot = || event_loop(Builder::enable_time).block_on(boot::boot(engine, Host::new()));
    let code = if is_zygote { zygote::run(boot, started) } else { serve(boot(), None, started) };
    std::process::exit(code)
}

/// Not dropped: what was registered with it lives as long as the process.
fn event_loop(enable: impl FnOnce(&mut Builder) -> &mut Builder) -> ManuallyDrop<Runtime> {
    let mut builder = Builder::new_current_thread();
    let runtime = enable(builder.max_blocking_threads(BLOCKING_THREADS)).build();
    ManuallyDrop::new(runtime.expect("a worker without an event loop is none"))
}

/// The life of a worker on descriptor 0, from an isolate that is booted and the rules for files that
/// there are. Returns its exit code.
fn serve(isolate: Unsettled, rules: Option<PlatformRules>, started: Instant) -> i32 {
    // While there is one thread. Whether the platform can give them is the supervisor's to say.
    let _ = jail::isolate();
    match control::take_socket() {
        Ok(socket) => {
            event_loop(Builder::enable_all).block_on(serve::run(socket, isolate, rules, started))
        }
        Err(error) => {
            eprintln!("cloudserve-worker is started by the sandbox: {error}");
            2
        }
    }
}
