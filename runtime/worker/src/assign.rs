//! Makes a booted worker one function's: its limits, permissions, environment, directory and
//! artifacts. Nothing of the function runs yet.

use std::path::{Path, PathBuf};

use cloudserve_protocol::fault::{Chain, Fault, FaultClass};
use cloudserve_protocol::wire::Assignment;
use deno_core::ModuleSpecifier;
use deno_runtime::deno_permissions::PermissionsContainer;

use crate::boot::Booted;
use crate::jail::{self, Entered, JailError, Prepared};
use crate::loader::Artifacts;
use crate::mapped::map;
use crate::permissions::permissions;
use crate::time_zone;

fn broken(what: impl Into<String>) -> Fault {
    Fault::new(FaultClass::SandboxUnavailable, what)
}

/// A process in its jail that is not told yet whose it is.
pub(crate) struct Confined {
    pub(crate) jail: Entered,
    code_cache: Option<&'static [u8]>,
    bundle_dir: PathBuf,
    bundle_url: ModuleSpecifier,
}

/// Enters the jail, and the bundle's directory. A fault means that the sandbox assigned what does
/// not exist, or that the platform is not what it seemed: nobody blames the function yet.
pub(crate) fn confine(
    prepared: Result<Prepared, JailError>,
    assignment: &Assignment,
) -> Result<Confined, Fault> {
    // Before the jail: it may lie where the function cannot read.
    let code_cache = assignment.code_cache_path.as_ref().and_then(|p| map(Path::new(p)).ok());
    let entered = prepared.and_then(|prepared| jail::enter(assignment, prepared));
    let jail = entered.map_err(|error| {
        broken("the function's process cannot be confined").with_detail(Chain(&error).to_string())
    })?;
    let bundle_path = Path::new(&assignment.bundle_path);
    let bundle_dir = bundle_path.parent().map(Path::to_path_buf);
    let bundle_dir = bundle_dir.ok_or_else(|| broken("the bundle has no directory"))?;
    let bundle_url = ModuleSpecifier::from_file_path(bundle_path)
        .map_err(|()| broken("the bundle's path is not absolute"))?;
    enter(&bundle_dir)?;
    Ok(Confined { jail, code_cache, bundle_dir, bundle_url })
}

/// Takes the assignment on, in the jail.
pub(crate) fn assign(
    booted: &mut Booted,
    assignment: &Assignment,
    Confined { jail, code_cache, bundle_dir, bundle_url }: Confined,
) -> Result<(), Fault> {
    let host = booted.host.clone();
    host.limits.set(assignment.limits);
    let source_root = bundle_url.join(".").map_err(|error| broken(error.to_string()))?;
    host.source_root.replace(source_root.into());
    let tree = assignment.node_modules_path.as_deref().map(Path::new).and_then(Path::parent);
    if let Some(tree) = tree.and_then(|tree| ModuleSpecifier::from_directory_path(tree).ok()) {
        host.tree_root.replace(tree.into());
    }
    booted.limit_memory(assignment.limits.memory_mb);

    let dir = bundle_dir.to_string_lossy().into_owned();
    let mut readable = vec![dir.as_str()];
    readable.extend(assignment.node_modules_path.as_deref());
    let tmp = jail.tmp.to_string_lossy().into_owned();
    let terms = &assignment.jail;
    let open = (!terms.supervised_egress).then_some(terms.egress_allow.as_slice());
    let permissions =
        permissions(&readable, &[&tmp], open).map_err(|error| broken(error.to_string()))?;
    let runtime = &mut booted.worker.js_runtime;
    runtime.op_state().borrow_mut().put::<PermissionsContainer>(permissions);

    set_environment(assignment, &tmp);
    if assignment.env.0.contains_key(time_zone::VARIABLE) {
        time_zone::find_out(runtime.v8_isolate());
    }
    booted.bridge.assign(runtime, assignment);

    let mut roots = vec![bundle_dir];
    roots.extend(assignment.node_modules_path.as_ref().map(Into::into));
    booted.loader.assign(Artifacts { bundle_url, roots, code_cache });
    Ok(())
}

/// The function's variables, and what Node programs expect besides. What the operating system
/// cannot hold is left out.
#[allow(clippy::disallowed_methods, reason = "this process is the function's")]
fn set_environment(assignment: &Assignment, tmp: &str) {
    let own = [("HOME", tmp), ("TMPDIR", tmp), ("NODE_ENV", "production")];
    let given = assignment.env.0.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in own.into_iter().chain(given) {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            continue;
        }
        // SAFETY: no other thread of this process reads or writes the environment: V8's platform
        // threads and the watchdog never do.
        unsafe { std::env::set_var(name, value) };
    }
}

#[allow(clippy::disallowed_methods, reason = "this process is the function's")]
fn enter(dir: &Path) -> Result<(), Fault> {
    std::env::set_current_dir(dir).map_err(|_| broken("the bundle's directory does not exist"))
}
