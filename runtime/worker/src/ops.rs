//! Operations of the engine that are exchanged, because the jail refuses what they do: packages that ask
//! get an answer they know from Node, which says nothing of the host.

use deno_core::serde::Serialize;
use deno_core::{OpDecl, op2};
use deno_error::JsErrorBox;

use crate::ciphers;

/// Makes a socket of any descriptor: see `bootstrap-js/descriptors.js`.
const DISABLED: &str = "op_node_udp_open";

/// Prepares a `Response` with a status or headers of its own for the engine's server, which never gets
/// one here. What it prepares has all of the answer, and stays until a finalizer has run.
const NEEDLESS: &str = "op_http_new_response_native_headers";

/// What an operation is here. Those that are exchanged have no fast variant, and ours must have none; those
/// on ciphers have the same variants as the engine's.
pub(crate) fn exchanged(op: OpDecl) -> OpDecl {
    match op.name {
        NEEDLESS => op.with_implementation_from(&deno_core::op_void_sync()),
        DISABLED => op.disable(),
        "op_create_worker" => op.with_implementation_from(&op_no_thread()),
        "op_spawn_child" | "op_node_spawn_child" | "op_spawn_sync" => {
            op.with_implementation_from(&op_no_program())
        }
        "op_network_interfaces" => op.with_implementation_from(&op_loopback()),
        "op_node_os_user_info" => op.with_implementation_from(&op_user()),
        _ => ciphers::exchanged(op),
    }
}

/// It would be an isolate outside of every limit.
#[op2(nofast)]
fn op_no_thread() -> Result<u32, JsErrorBox> {
    Err(JsErrorBox::generic("a function has no threads: Worker and worker_threads start none"))
}

/// Node says `ENOENT` then, which packages expect where a program may be missing.
#[op2(nofast)]
fn op_no_program() -> Result<u32, JsErrorBox> {
    Err(JsErrorBox::new("NotFound", "a function starts no programs"))
}

#[derive(Serialize)]
#[serde(crate = "deno_core::serde")]
struct Interface {
    name: &'static str,
    family: &'static str,
    address: &'static str,
    netmask: &'static str,
    scopeid: Option<u32>,
    cidr: &'static str,
    mac: &'static str,
}

/// As in a container without a network. `process.report.getReport()` asks, too, by which loaders of
/// native packages look for the C library.
#[op2]
#[serde]
fn op_loopback() -> Vec<Interface> {
    vec![Interface {
        name: "lo",
        family: "IPv4",
        address: "127.0.0.1",
        netmask: "255.0.0.0",
        scopeid: None,
        cidr: "127.0.0.1/8",
        mac: "00:00:00:00:00:00",
    }]
}

#[derive(Serialize)]
#[serde(crate = "deno_core::serde")]
struct User {
    username: &'static str,
    homedir: &'static str,
    shell: Option<&'static str>,
}

/// The host's list of users is closed.
#[op2]
#[serde]
fn op_user() -> User {
    User { username: "function", homedir: "/tmp", shell: None }
}
