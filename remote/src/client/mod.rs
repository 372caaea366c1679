//! The other roles' end: one sandbox, as far as they know, that is many.

mod answer;
mod offer;
mod upload;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use cloudserve_protocol::build::{
    BuiltDependencies, DependencyBuilder, DependencyError, DependencySpec,
};
use cloudserve_protocol::call::{
    Invocation, Invoker, LoadReport, Outcome, Reply, Target, VersionLoader,
};
use cloudserve_protocol::fault::{Chain, Fault, FaultClass};
use cloudserve_protocol::ids::{ExecutionId, FunctionId};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, TRAILER};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, ResponseFuture};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tracing::warn;

use self::answer::Call;
use self::offer::Offer;
use self::upload::{Source, Upload};
use crate::message::{
    CANCEL, DEPENDENCIES, INVOKE, LOAD, RETIRE, Retirement, STATUS, Status, TRAILERS, preamble,
};
use crate::metrics::{Counters, RemoteMetrics};
use crate::nodes::url::SandboxUrl;
use crate::nodes::{Node, Nodes, follow, spread};
use crate::options::{RemoteOptions, millis};
use crate::token::InternalToken;

/// An idle connection is closed after this.
const IDLE: Duration = Duration::from_secs(90);

/// After so long without a packet the kernel asks whether the other host is still there, and ends the
/// connection when so many questions in a row are not answered: half a minute together. Otherwise a
/// call on a host that is gone would wait until its deadline.
const ASK_AFTER: Duration = Duration::from_secs(15);
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(5);
const QUESTIONS: u32 = 3;

/// An answer that is no call's: a report of a load, or a tree's metadata.
const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// How often a node is told of old versions that does not take it in.
const RETIRE_ATTEMPTS: u32 = 5;

/// How long telling one may take.
const RETIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// All sandboxes of an installation, as one. A cheap handle.
#[derive(Clone)]
pub struct Sandboxes(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) options: RemoteOptions,
    pub(crate) urls: Vec<SandboxUrl>,
    pub(crate) nodes: Nodes,
    pub(crate) counters: Counters,
    token: InternalToken,
    http: Client<HttpConnector, Upload>,
}

/// Why a node has not taken what it was asked for. Then it has not begun it, unless it is silent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotTaken {
    /// It cannot be reached, or was lost.
    #[error("the sandbox {0} cannot be reached")]
    Unreachable(SocketAddr),
    /// It was asked, as far as is known, and says nothing: it may begin it yet.
    #[error("the sandbox {0} does not say whether it takes what it is asked for")]
    Silent(SocketAddr),
    /// It says so.
    #[error("the sandbox {0} takes no calls")]
    Declined(SocketAddr),
    /// It does not understand, or does not believe us.
    #[error("the sandbox {0} answers with {1}; do the roles have the same token and release?")]
    Refused(SocketAddr, StatusCode),
}

impl Sandboxes {
    /// The sandboxes behind these addresses and names. Within a tokio runtime, which also keeps
    /// looking for them and asking how they are for as long as a clone lives.
    #[must_use]
    pub fn start(options: RemoteOptions, urls: Vec<SandboxUrl>, token: InternalToken) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(millis(options.connect_timeout_ms)));
        connector.set_keepalive(Some(ASK_AFTER));
        connector.set_keepalive_interval(Some(ASK_AGAIN_AFTER));
        connector.set_keepalive_retries(Some(QUESTIONS));
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(options.idle_connections)
            .build(connector);
        let nodes = Nodes::new(&options);
        let counters = Counters::default();
        let shared = Arc::new(Shared { options, urls, nodes, counters, token, http });
        follow(&shared);
        Self(shared)
    }

    /// Whether a sandbox was found. Stays so: when all are lost, callers get better answers from us
    /// than from whoever finds nobody ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.nodes.was_ready()
    }

    /// The figures of this moment.
    #[must_use]
    pub fn metrics(&self) -> RemoteMetrics {
        self.0.counters.snapshot(self.0.nodes.census())
    }
}

#[async_trait]
impl Invoker for Sandboxes {
    async fn invoke(&self, call: Invocation) -> Result<Reply, Box<Outcome>> {
        self.0.invoke(call).await
    }
}

#[async_trait]
impl VersionLoader for Sandboxes {
    async fn load(&self, target: Arc<Target>) -> Result<LoadReport, Fault> {
        let key = spread(target.function_id.as_bytes());
        let longest = millis(self.0.options.load_timeout_ms);
        self.0.ask(LOAD, key, &target, longest).await.unwrap_or_else(|| Err(unavailable()))
    }

    fn retire_below(&self, function_id: FunctionId, version: u32) {
        for node in self.0.nodes.all().iter() {
            let (shared, node) = (self.0.clone(), node.clone());
            let old = Retirement { function_id, below: version };
            tokio::spawn(async move { shared.retire(&node, &old).await });
        }
    }
}

#[async_trait]
impl DependencyBuilder for Sandboxes {
    async fn build(&self, spec: DependencySpec) -> Result<BuiltDependencies, DependencyError> {
        // Equal sets go to the same node, which builds them once.
        let names = serde_json::to_vec(&spec.dependencies).unwrap_or_default();
        let longest = millis(self.0.options.build_timeout_ms);
        self.0
            .ask(DEPENDENCIES, spread(&names), &spec, longest)
            .await
            .unwrap_or(Err(DependencyError::Unavailable))
    }
}

impl Shared {
    async fn invoke(self: &Arc<Self>, call: Invocation) -> Result<Reply, Box<Outcome>> {
        let key = spread(call.target.function_id.as_bytes());
        let last_moment = call.deadline + millis(self.options.deadline_grace_ms);
        let timeout_ms = call.target.limits.timeout_ms;
        let sent = Arc::new(AtomicBool::new(false));
        let work = self.invoke_somewhere(call, key, &sent);
        let done = tokio::time::timeout_at(last_moment.into(), work).await;
        done.unwrap_or_else(|_| {
            if !sent.load(Relaxed) {
                // It looked for a node all the time: that is not the function's.
                Counters::count(&self.counters.unavailable);
                return Err(Box::new(Outcome::not_started(unavailable())));
            }
            let fault = Fault::timeout(timeout_ms);
            Err(Box::new(Outcome::lost(fault)))
        })
    }

    async fn invoke_somewhere(
        self: &Arc<Self>,
        call: Invocation,
        key: u64,
        sent: &Arc<AtomicBool>,
    ) -> Result<Reply, Box<Outcome>> {
        let Invocation { execution_id, target, deadline, head, body, mut told } = call;
        let source = Source::of(body);
        let mut search = Search::of_a_call(self, key, deadline);
        loop {
            let Some(node) = search.next().await else {
                Counters::count(&self.counters.unavailable);
                return Err(Box::new(search.refusal()));
            };
            // Anew each time: less time is left.
            let Ok(preamble) = preamble(execution_id, &target, deadline, &head) else {
                return Err(Box::new(search.refusal()));
            };
            let upload = source.upload(preamble);
            let (shared, source, occupied) = (self.clone(), source.clone(), node.occupy());
            let call = Call { shared, node, id: execution_id, source, told, _occupied: occupied };
            let (call, answer) = Offer::make(call, upload, sent).taken().await;
            let body = match answer {
                Ok(body) => body,
                Err(silent @ NotTaken::Silent(_)) if sent.load(Relaxed) => {
                    self.note(&call.node, &silent);
                    Counters::count(&self.counters.lost);
                    warn!(error = %silent, %execution_id, "a sandbox was lost with a call");
                    let fault =
                        Fault::new(FaultClass::Crashed, "the sandbox was lost with the call");
                    return Err(Box::new(Outcome::lost(fault)));
                }
                Err(not_taken) => {
                    self.note(&call.node, &not_taken);
                    told = call.told;
                    Counters::count(&self.counters.retries);
                    continue;
                }
            };
            call.source.open();
            let taken = Instant::now();
            let (outcome, call) = match call.answer(body).await {
                Ok(reply) => return Ok(reply),
                Err(failed) => failed,
            };
            if !is_retryable(&outcome, &call.source) {
                return Err(outcome);
            }
            search.last_refusal = Some(outcome);
            search.was_held_for(taken.elapsed());
            told = call.told;
            Counters::count(&self.counters.retries);
        }
    }

    /// Asks for something that is no call and may be done twice.
    async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        path: &str,
        key: u64,
        question: &Q,
        longest: Duration,
    ) -> Option<A> {
        let question = Bytes::from(serde_json::to_vec(question).ok()?);
        let mut search = Search::new(self, key, Instant::now() + longest);
        let work = async {
            while let Some(node) = search.next().await {
                let _occupied = node.occupy();
                match self.exchange(&node, Method::POST, path, question.clone()).await {
                    Ok(answer) => match serde_json::from_slice(&answer) {
                        Ok(answer) => return Some(answer),
                        Err(error) => warn!(%error, path, "a sandbox's answer is not understood"),
                    },
                    Err(not_taken) => self.note(&node, &not_taken),
                }
            }
            None
        };
        timeout(longest, work).await.unwrap_or_else(|_| {
            warn!(path, "no answer of a sandbox in time");
            None
        })
    }

    /// How a node says it is.
    pub(crate) async fn status(&self, node: &Node) -> Result<bool, NotTaken> {
        let longest = millis(self.options.check_timeout_ms);
        let lost = || NotTaken::Unreachable(node.address);
        let asked = self.exchange(node, Method::GET, STATUS, Bytes::new());
        let answer = match timeout(longest, asked).await {
            Ok(Err(refused @ NotTaken::Refused(..))) => {
                warn!(error = %refused, "a sandbox cannot be used");
                return Err(refused);
            }
            answer => answer.map_err(|_| lost())??,
        };
        let status: Status = serde_json::from_slice(&answer).map_err(|_| lost())?;
        Ok(status.ready)
    }

    async fn retire(&self, node: &Node, old: &Retirement) {
        let Ok(message) = serde_json::to_vec(old) else { return };
        let message = Bytes::from(message);
        for attempt in 0..RETIRE_ATTEMPTS {
            let told = self.exchange(node, Method::POST, RETIRE, message.clone());
            if let Ok(Ok(_)) = timeout(RETIRE_TIMEOUT, told).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100) * 3_u32.pow(attempt)).await;
        }
        // Its idle workers of the old version end when they have been idle for long enough.
        warn!(node = %node.address, function = %old.function_id,
            "a sandbox was not told of old versions");
    }

    /// Tells a node that nobody reads the answer of a call any more.
    async fn cancel(&self, node: &Node, id: ExecutionId) -> Result<(), NotTaken> {
        let path = format!("{CANCEL}{id}");
        self.exchange(node, Method::POST, &path, Bytes::new()).await.map(drop)
    }

    /// One request with its whole answer.
    async fn exchange(
        &self,
        node: &Node,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Bytes, NotTaken> {
        let request = self.request(method, node.address, path, Upload::whole(body));
        let body = self.answered(node, &mut self.http.request(request)).await?;
        let body = Limited::new(body, MAX_MESSAGE_BYTES).collect().await;
        Ok(body.map_err(|_| NotTaken::Unreachable(node.address))?.to_bytes())
    }

    fn request(
        &self,
        method: Method,
        address: SocketAddr,
        path: &str,
        body: Upload,
    ) -> Request<Upload> {
        let is_in_pieces = body.is_in_pieces();
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = format!("http://{address}{path}")
            .parse()
            .expect("an address and a path of ours make a URI");
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, self.token.header());
        let is_call = path == INVOKE;
        let media_type = if is_call { "application/octet-stream" } else { "application/json" };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        if is_in_pieces {
            headers.insert(TRAILER, HeaderValue::from_name(TRAILERS));
        }
        request
    }

    /// Waits for what a node says that was asked: at once whether it takes what it is asked for, however
    /// long that takes. What it answers is still to be read.
    async fn answered(
        &self,
        node: &Node,
        answer: &mut ResponseFuture,
    ) -> Result<Incoming, NotTaken> {
        let longest = millis(self.options.take_timeout_ms);
        let answer = timeout(longest, answer).await;
        let answer = answer.map_err(|_| NotTaken::Silent(node.address))?;
        let response = answer.map_err(|error| {
            tracing::debug!(node = %node.address, error = %Chain(&error),
                "a request to a sandbox failed");
            NotTaken::Unreachable(node.address)
        })?;
        let status = response.status();
        if !status.is_success() {
            return Err(not_taken(node, status));
        }
        Ok(response.into_body())
    }

    fn note(&self, node: &Node, not_taken: &NotTaken) {
        match not_taken {
            NotTaken::Declined(_) => node.declined(),
            NotTaken::Unreachable(_) | NotTaken::Silent(_) => self.failed(node),
            NotTaken::Refused(..) => {
                warn!(error = %not_taken, "a sandbox cannot be used");
                self.failed(node);
            }
        }
    }

    /// A node could not be reached, or be used.
    pub(crate) fn failed(&self, node: &Node) {
        self.nodes.failed(node, &self.options, &self.counters);
    }
}

fn not_taken(node: &Node, status: StatusCode) -> NotTaken {
    if status == StatusCode::SERVICE_UNAVAILABLE {
        NotTaken::Declined(node.address)
    } else {
        NotTaken::Refused(node.address, status)
    }
}

/// Whether a call that a node has taken and failed may be made again elsewhere. Its body is then taken
/// back from this attempt.
fn is_retryable(outcome: &Outcome, source: &Source) -> bool {
    let class = outcome.fault.as_ref().map(|fault| fault.class);
    !outcome.started && class == Some(FaultClass::SandboxUnavailable) && source.take_back()
}

fn unavailable() -> Fault {
    Fault::new(FaultClass::SandboxUnavailable, "no sandbox takes the call; try again")
}

/// One node after the other, each once; then, after a pause, all over again, for a bounded time.
struct Search<'a> {
    shared: &'a Shared,
    key: u64,
    tried: Vec<SocketAddr>,
    /// When it begins no more all over again.
    until: Instant,
    /// When no other node is asked, either; `None`: each is asked once, however long that takes.
    asks_until: Option<Instant>,
    last_refusal: Option<Box<Outcome>>,
}

impl<'a> Search<'a> {
    fn new(shared: &'a Shared, key: u64, deadline: Instant) -> Self {
        let longest = millis(shared.options.unavailable_wait_ms);
        let until = deadline.min(Instant::now() + longest);
        Self { shared, key, tried: Vec::new(), until, asks_until: None, last_refusal: None }
    }

    /// Each node that cannot be reached takes as long as connecting may: of many, a call asks no more
    /// than its time is for, and is refused before its deadline has passed.
    fn of_a_call(shared: &'a Shared, key: u64, deadline: Instant) -> Self {
        let search = Self::new(shared, key, deadline);
        Self { asks_until: Some(search.until), ..search }
    }

    /// A node had the call for so long before it refused it: meanwhile nobody looked for one.
    fn was_held_for(&mut self, time: Duration) {
        self.asks_until = self.asks_until.map(|until| until + time);
    }

    async fn next(&mut self) -> Option<Arc<Node>> {
        loop {
            let is_late = self.asks_until.is_some_and(|until| Instant::now() >= until);
            if is_late && !self.tried.is_empty() {
                return None;
            }
            if let Some(node) = self.shared.nodes.choose(self.key, &self.tried) {
                self.tried.push(node.address);
                return Some(node);
            }
            let pause = millis(self.shared.options.retry_pause_ms.max(1));
            if Instant::now() + pause >= self.until {
                return None;
            }
            tokio::time::sleep(pause).await;
            self.tried.clear();
        }
    }

    fn refusal(&mut self) -> Outcome {
        let last = self.last_refusal.take();
        last.map_or_else(|| Outcome::not_started(unavailable()), |last| *last)
    }
}
