//! Invocations: what the gateway asks a sandbox to run and what comes back.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::fault::Fault;
use crate::headers::HeaderBlock;
use crate::ids::{BundleHash, DepHash, ExecutionId, FunctionId, FunctionName, UserId, UserName};
use crate::limits::Limits;
use crate::wire::MIN_LOG_LINE_BYTES;

/// A function's own environment. Its values appear in no `Debug` output.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Env(pub BTreeMap<String, String>);

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// One version of one function: everything a sandbox must know to run it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// The function.
    pub function_id: FunctionId,
    /// Its owner.
    pub owner_id: UserId,
    /// The owner's name, for the function's context.
    pub owner_name: UserName,
    /// The function's name, for its context.
    pub function_name: FunctionName,
    /// The version.
    pub version: u32,
    /// The bundle to load.
    pub bundle_hash: BundleHash,
    /// The dependency tree, when the bundle needs one at run time.
    pub runtime_deps: Option<DepHash>,
    /// Bounds.
    pub limits: Limits,
    /// The function's environment.
    pub env: Env,
}

/// Identifies what a worker is assigned to: one worker, one version, for life.
///
/// Environment and limits are part of a version; a change of either makes a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VersionKey {
    /// The function.
    pub function_id: FunctionId,
    /// Its version.
    pub version: u32,
}

impl Target {
    /// The key under which workers of this version are kept.
    #[must_use]
    pub fn key(&self) -> VersionKey {
        VersionKey { function_id: self.function_id, version: self.version }
    }
}

/// The request line and headers, as the function sees them. Credentials of the platform are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// Upper-case method.
    pub method: Cow<'static, str>,
    /// Path remainder after `/run/:username/:functionName` (at least `/`) and query string.
    pub target: Cow<'static, str>,
    /// Headers, `host` among them.
    pub headers: HeaderBlock,
}

impl RequestHead {
    /// Whether the caller asks to speak another protocol. Then the request's body is what it says
    /// after an answer of 101. Gateways pass no other `upgrade` on.
    #[must_use]
    pub fn is_upgrade(&self) -> bool {
        self.headers.get("upgrade").is_some()
    }
}

/// Status and headers of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseHead {
    /// HTTP status, 200 to 599; 101 where the request was an upgrade.
    pub status: u16,
    /// Headers.
    pub headers: HeaderBlock,
}

/// What a body in pieces consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Some of it.
    Data(Bytes),
    /// What was only known at its end. Nothing comes after it.
    Trailers(HeaderBlock),
}

impl From<Bytes> for Piece {
    fn from(bytes: Bytes) -> Self {
        Self::Data(bytes)
    }
}

/// A body in pieces.
pub type BodyStream = Pin<Box<dyn Stream<Item = Result<Piece, Fault>> + Send>>;

/// A message body. The common case, a small body that is there already, costs no stream.
pub enum Body {
    /// No body.
    Empty,
    /// All of it.
    Full(Bytes),
    /// Piece by piece. An `Err` ends it: the peer went away, or a limit was hit.
    Stream(BodyStream),
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Full(bytes) => write!(f, "Full({} bytes)", bytes.len()),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// All of it, or none.
impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::Empty } else { Self::Full(bytes) }
    }
}

impl Body {
    /// What there is of a body, and how it ends.
    #[must_use]
    pub fn ending(bytes: Bytes, last: Result<Piece, Fault>) -> Self {
        Self::Stream(Box::pin(stream::iter([Ok(Piece::Data(bytes)), last])))
    }

    /// Reads it all, but for trailers. The caller relies on the producer's bound on the body's size.
    pub async fn collect(self) -> Result<Bytes, Fault> {
        match self {
            Self::Empty => Ok(Bytes::new()),
            Self::Full(bytes) => Ok(bytes),
            Self::Stream(mut stream) => {
                let mut all = Vec::new();
                while let Some(piece) = stream.next().await {
                    if let Piece::Data(bytes) = piece? {
                        all.extend_from_slice(&bytes);
                    }
                }
                Ok(all.into())
            }
        }
    }
}

/// One call to make.
#[derive(Debug)]
pub struct Invocation {
    /// Names the call in headers, logs and usage.
    pub execution_id: ExecutionId,
    /// What to run.
    pub target: Arc<Target>,
    /// When the answer must be complete. Fixed once, at the gateway.
    pub deadline: Instant,
    /// Request line and headers.
    pub head: RequestHead,
    /// Request body.
    pub body: Body,
    /// Told when a call that has begun is over, unless [`Invoker::invoke`] says so itself: also to
    /// whoever has given up waiting for the answer. Dropped without a word, the call has not begun,
    /// or the sandbox lost the worker.
    pub told: oneshot::Sender<Outcome>,
}

/// Where the time of a call went, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Timings {
    /// Waiting for a free isolate.
    pub queue_us: u64,
    /// Assigning and loading; 0 on a warm call.
    pub boot_us: u64,
    /// From handing the request to the isolate until the head of the answer.
    pub exec_us: u64,
}

/// A time as [`Timings`] have it.
#[inline] // Several times a call.
#[must_use]
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Severity of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// `console.debug`, `console.trace`.
    Debug,
    /// `console.log`, `console.info`, standard output.
    Info,
    /// `console.warn`.
    Warn,
    /// `console.error`, standard error, faults.
    Error,
}

/// One line a function wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogLine {
    /// Severity.
    pub level: LogLevel,
    /// Text.
    pub message: String,
    /// When it was written: milliseconds since the epoch, UTC.
    pub timestamp_ms: u64,
}

/// Now, as log lines say it.
#[must_use]
pub fn epoch_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl LogLine {
    /// What it counts towards any bound on logs: an empty line takes memory as well.
    #[must_use]
    pub fn counted_bytes(&self) -> usize {
        self.message.len().max(MIN_LOG_LINE_BYTES)
    }
}

/// What is known of a call when it is over, however it ended. One usage row and one log row are
/// made of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Why it failed, if it did.
    pub fault: Option<Fault>,
    /// Whether user code was entered. A call that was never started may be retried elsewhere.
    pub started: bool,
    /// Whether the call loaded the function.
    pub cold: bool,
    /// Where the time went.
    pub timings: Timings,
    /// CPU time of the worker during the call.
    pub cpu_us: u64,
    /// The most memory the call had in use.
    pub memory_bytes: u64,
    /// What the function wrote.
    pub logs: Vec<LogLine>,
    /// Whether lines are missing because of `limits.logBytes`.
    pub logs_truncated: bool,
}

impl Outcome {
    /// A call that failed before user code was entered.
    #[must_use]
    pub fn not_started(fault: Fault) -> Self {
        Self { fault: Some(fault), ..Self::default() }
    }

    /// A call that failed and of which nothing else is known: it may have entered user code.
    #[must_use]
    pub fn lost(fault: Fault) -> Self {
        Self { started: true, ..Self::not_started(fault) }
    }
}

/// An answer that has begun.
#[derive(Debug)]
pub struct Reply {
    /// Status and headers.
    pub head: ResponseHead,
    /// Body.
    pub body: Body,
    /// Whether the call loaded the function.
    pub cold: bool,
    /// What is known of the timings at this point.
    pub timings: Timings,
}

/// Runs calls. Implemented by the sandbox, in process or remote.
#[async_trait]
pub trait Invoker: Send + Sync {
    /// Runs one call. `Err` holds the outcome of a call that failed before its answer began, its
    /// `fault` set; that of any other goes to [`Invocation::told`]. Answers or fails by the deadline
    /// plus a small grace. Dropping it gives the call up.
    async fn invoke(&self, call: Invocation) -> Result<Reply, Box<Outcome>>;
}

/// How the handler of a version is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HandlerKind {
    /// `Deno.serve(handler)`.
    DenoServe,
    /// A Node server that listens.
    Server,
    /// `export default { fetch }`.
    Fetch,
    /// `export function GET`, `POST`, ...
    Methods,
    /// A function given to `awslambda.streamifyResponse`.
    LambdaStream,
    /// An exported app of a framework for Node, or a server that does not listen.
    App,
    /// A function called with Node's `(req, res)`.
    Listener,
    /// A function called with `(event, context)`.
    Event,
    /// `main(params)`.
    Main,
    /// A value that is returned as it is.
    Constant,
}

/// What loading a version once has shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadReport {
    /// How its handler is called.
    pub handler_kind: HandlerKind,
    /// Time from assignment to loaded, in microseconds.
    pub load_us: u64,
    /// What the module wrote while it was loaded.
    pub logs: Vec<LogLine>,
}

/// Loads versions before they are activated. Implemented by the sandbox, in process or remote.
#[async_trait]
pub trait VersionLoader: Send + Sync {
    /// Loads a version in a worker of its own and keeps that worker warm. The fault's `detail`
    /// holds the stack for the owner.
    async fn load(&self, target: Arc<Target>) -> Result<LoadReport, Fault>;

    /// Says that workers of this function below `version` are no longer wanted; they finish what
    /// they have and end. `u32::MAX` means all: the function is gone.
    fn retire_below(&self, function_id: FunctionId, version: u32);
}
