//! `cloudserve-worker`: one process, one V8 isolate, one function version for life.
//!
//! Started by the sandbox with a cleared environment and no arguments. File descriptor 0 is the
//! control socket, a Unix stream that speaks [`cloudserve_protocol::wire`]; 1 and 2 are pipes
//! whose lines become log lines. The worker boots before it knows its function, says `Ready`,
//! gets `Assign`, loads, says `Loaded`, and then serves calls until it is drained, its socket
//! closes, or a call leaves it in a state nobody should build on.
//!
//! The only crate that knows `deno_*` and `v8`. Order matters: V8's platform is initialised on
//! the main thread before the tokio runtime exists.

mod assign;
mod boot;
mod bridge;
mod callbacks;
mod code_cache;
mod commonjs;
mod control;
mod cpu;
mod host;
mod loader;
mod memory;
mod permissions;
mod serve;
mod watchdog;

use std::process::ExitCode;
use std::time::Instant;

#[allow(clippy::disallowed_methods, reason = "ends with the isolate as it is, see below")]
fn main() -> ExitCode {
    let started = Instant::now();
    let socket = match control::take_socket() {
        Ok(socket) => socket,
        Err(error) => {
            eprintln!("cloudserve-worker is started by the sandbox: {error}");
            return ExitCode::from(2);
        }
    };
    boot::init_platform();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a worker without an event loop is none");
    let code = runtime.block_on(serve::run(socket, started));
    // Not dropped: tearing down an isolate takes milliseconds, and everything in it dies anyway.
    std::mem::forget(runtime);
    std::process::exit(code)
}
