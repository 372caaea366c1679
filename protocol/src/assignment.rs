//! What a worker is told when it becomes a function's, and what it says of its jail.

use serde::{Deserialize, Serialize};

use crate::call::Env;
use crate::egress::EgressRule;
use crate::ids::FunctionId;
use crate::limits::Limits;

/// Makes a READY worker one function version's, for life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    /// The function.
    pub function_id: FunctionId,
    /// Its name, for its context.
    pub function_name: String,
    /// Its owner's name, for its context.
    pub owner_name: String,
    /// The version.
    pub version: u32,
    /// Absolute path of the bundle, an ES module. `node_modules` lies beside it when the version
    /// needs its dependency tree at run time.
    pub bundle_path: String,
    /// Absolute path of the dependency tree's `node_modules`, with links resolved.
    pub node_modules_path: Option<String>,
    /// Absolute path of a directory of the worker's own: `/tmp` for the function.
    pub tmp_path: String,
    /// Absolute path of V8's code cache for the bundle, if there is one.
    pub code_cache_path: Option<String>,
    /// Whether that was made before any call: it has nothing of what calls compile, and the worker makes
    /// another one when it has had a call.
    #[serde(default)]
    pub code_cache_is_early: bool,
    /// Bounds.
    pub limits: Limits,
    /// Time the module may take to load.
    pub load_budget_ms: u32,
    /// How long the worker may look for the next call before it sleeps, in microseconds, while calls
    /// come one at a time and soon after each other; 0: not at all.
    #[serde(default)]
    pub lone_call_watch_us: u32,
    /// The function's environment.
    pub env: Env,
    /// What confines it.
    pub jail: JailTerms,
}

/// What the supervisor asks of a worker's jail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JailTerms {
    /// Size of the worker's temporary directory.
    pub tmp_bytes: u64,
    /// Whether a worker that cannot have all of the jail must not run the function.
    pub require_full: bool,
    /// Whether the supervisor decides about each connection: the worker then hands its listener
    /// over in [`Jailed`] and waits for [`ToWorker::Watched`].
    pub supervised_egress: bool,
    /// Addresses outside the public internet that may be connected to.
    pub egress_allow: Vec<EgressRule>,
}

/// A worker has jailed itself. User code has not run yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Jailed {
    /// The worker's descriptor of the listener that its network calls are reported to.
    pub listener: Option<i32>,
    /// What it could not have, in words.
    pub missing: Vec<String>,
}
