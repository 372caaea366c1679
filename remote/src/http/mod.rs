//! The node's end: routes, who may use them, and what they do with what the node offers.

mod answer;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use axum::body::Body as HttpBody;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use cloudserve_protocol::build::{
    BuiltDependencies, DependencyBuilder, DependencyError, DependencySpec,
};
use cloudserve_protocol::call::{
    Body, Invocation, Invoker, LoadReport, Outcome, Piece, Target, VersionLoader,
};
use cloudserve_protocol::fault::{Fault, FaultClass};
use cloudserve_protocol::ids::ExecutionId;
use futures::StreamExt;
use futures::stream;
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, BodyStream};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use self::answer::Answer;
use crate::frame::append;
use crate::message::{
    CANCEL, DEPENDENCIES, INVOKE, LOAD, Malformed, RETIRE, Retirement, STATUS, Status,
    take_preamble, unwrap_trailers,
};
use crate::options::ServerOptions;
use crate::token::InternalToken;

/// Calls of known length up to this are read whole before they are made.
const WHOLE_BYTES: u64 = 4 * 1024 * 1024;

/// What a node offers.
#[derive(Clone)]
pub struct Offered {
    /// Runs calls.
    pub invoker: Arc<dyn Invoker>,
    /// Loads versions.
    pub loader: Arc<dyn VersionLoader>,
    /// Builds dependency sets.
    pub builder: Arc<dyn DependencyBuilder>,
    /// Says whether it takes calls.
    pub is_ready: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// Offers it to other roles. A cheap handle.
#[derive(Clone)]
pub struct Server(Arc<Shared>);

struct Shared {
    offered: Offered,
    token: InternalToken,
    previous: Option<InternalToken>,
    options: ServerOptions,
    is_draining: AtomicBool,
    places: Arc<Semaphore>,
    calls: Calls,
}

/// The calls whose consumer may still go away.
#[derive(Default)]
struct Calls(Mutex<HashMap<ExecutionId, Current>>);

/// One of them. It is here more than once for a moment when it is made again before the attempt whose
/// connection was lost has ended.
#[derive(Default)]
struct Current {
    attempts: u32,
    gone: CancellationToken,
}

impl Calls {
    /// Lists an attempt. Cancelled when nobody waits for the call any more.
    fn begin(&self, id: ExecutionId) -> CancellationToken {
        let mut calls = self.0.lock();
        let call = calls.entry(id).or_default();
        call.attempts += 1;
        call.gone.clone()
    }

    fn end(&self, id: ExecutionId) {
        if let Entry::Occupied(mut call) = self.0.lock().entry(id) {
            call.get_mut().attempts -= 1;
            if call.get().attempts == 0 {
                call.remove();
            }
        }
    }
}

impl Server {
    /// Puts it together. Nothing listens yet. Whoever shows `previous` is let in as well: a token is
    /// changed in one process after the other.
    #[must_use]
    pub fn new(
        offered: Offered,
        token: InternalToken,
        previous: Option<InternalToken>,
        options: ServerOptions,
    ) -> Self {
        Self(Arc::new(Shared {
            offered,
            token,
            previous,
            is_draining: AtomicBool::new(false),
            places: Arc::new(Semaphore::new(options.max_calls.min(Semaphore::MAX_PERMITS))),
            calls: Calls::default(),
            options,
        }))
    }

    /// The routes, all under `/v1`.
    pub fn router(&self) -> Router {
        let shared = self.0.clone();
        Router::new()
            .route(INVOKE, post(invoke))
            .route(&format!("{CANCEL}{{id}}"), post(cancel))
            .route(LOAD, post(load))
            .route(RETIRE, post(retire))
            .route(DEPENDENCIES, post(build))
            .route(STATUS, get(status))
            .layer(DefaultBodyLimit::max(shared.options.max_message_bytes))
            .layer(middleware::from_fn_with_state(shared.clone(), authenticate))
            .with_state(shared)
    }

    /// Refuses what is new from now on. What was taken goes on.
    pub fn drain(&self) {
        self.0.is_draining.store(true, Relaxed);
    }
}

impl Shared {
    fn takes_calls(&self) -> bool {
        !self.is_draining.load(Relaxed) && (self.offered.is_ready)()
    }
}

async fn authenticate(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let shown = request.headers().get(AUTHORIZATION);
    let mut known = iter::once(&shared.token).chain(&shared.previous);
    if known.any(|token| token.is_shown_by(shown)) {
        next.run(request).await
    } else {
        StatusCode::UNAUTHORIZED.into_response()
    }
}

/// A call that is not taken: another node may have it.
fn declined(message: &str) -> Response {
    let fault = Fault::new(FaultClass::SandboxUnavailable, message);
    (StatusCode::SERVICE_UNAVAILABLE, Json(Outcome::not_started(fault))).into_response()
}

async fn status(State(shared): State<Arc<Shared>>) -> Json<Status> {
    Json(Status { ready: shared.takes_calls() })
}

async fn invoke(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let arrived = Instant::now();
    if !shared.takes_calls() {
        return declined("the sandbox takes no calls; try again");
    }
    let Ok(place) = shared.places.clone().try_acquire_owned() else {
        return declined("the sandbox has too many calls; try again");
    };
    let (told, outcome) = oneshot::channel();
    let Ok(call) = receive(request.into_body(), arrived, told).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let id = call.execution_id;
    let gone = shared.calls.begin(id);
    let listed = Listed { shared: shared.clone(), id };
    let invoker = shared.offered.invoker.clone();
    let answer = Answer::new(move |out| async move {
        answer::run(&*invoker, call, outcome, &gone, out).await;
        drop((listed, place));
    });
    answering(answer, "application/octet-stream")
}

fn answering(answer: Answer, media_type: &'static str) -> Response {
    let mut response = Response::new(HttpBody::from_stream(answer));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// Takes something that may last for minutes: the head of the answer, which says so, is out before it
/// begins. Whoever drops the answer gives it up.
fn taken<A: Serialize + Send + 'static>(
    work: impl Future<Output = A> + Send + 'static,
) -> Response {
    let answer = Answer::new(move |out| async move {
        let answer = work.await;
        // What an answer without a byte means nobody knows, so nobody acts on it.
        let bytes = serde_json::to_vec(&answer).unwrap_or_default();
        // Fails when nobody reads it any more.
        let _ = out.send(bytes.into()).await;
    });
    answering(answer, "application/json")
}

/// An attempt of a call is listed for as long as this is held.
struct Listed {
    shared: Arc<Shared>,
    id: ExecutionId,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.shared.calls.end(self.id);
    }
}

async fn receive(
    body: HttpBody,
    arrived: Instant,
    told: oneshot::Sender<Outcome>,
) -> Result<Invocation, Malformed> {
    if body.size_hint().exact().is_some_and(|length| length <= WHOLE_BYTES) {
        let mut received = body.collect().await.map_err(|_| Malformed)?.to_bytes();
        let (head, headers) = take_preamble(&mut received)?.ok_or(Malformed)?;
        return head.into_call(headers, received.into(), arrived, told);
    }
    let mut pieces = BodyStream::new(body);
    let mut received = Bytes::new();
    let (head, headers) = loop {
        if let Some(preamble) = take_preamble(&mut received)? {
            break preamble;
        }
        let frame = pieces.next().await.ok_or(Malformed)?.map_err(|_| Malformed)?;
        append(&mut received, frame.into_data().map_err(|_| Malformed)?);
    };
    let first = (!received.is_empty()).then_some(Ok(Piece::Data(received)));
    let rest = pieces.map(|frame| piece_of(frame.map_err(|_| Fault::request_cut_off())?));
    let body = Body::Stream(Box::pin(stream::iter(first).chain(rest)));
    head.into_call(headers, body, arrived, told)
}

fn piece_of(frame: Frame<Bytes>) -> Result<Piece, Fault> {
    let trailers = match frame.into_data() {
        Ok(bytes) => return Ok(Piece::Data(bytes)),
        Err(frame) => frame.into_trailers().unwrap_or_default(),
    };
    // Nobody but a gateway sends any.
    unwrap_trailers(&trailers).map(Piece::Trailers).map_err(|_| Fault::request_cut_off())
}

async fn cancel(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> StatusCode {
    let Ok(id) = id.parse::<ExecutionId>() else { return StatusCode::BAD_REQUEST };
    if let Some(call) = shared.calls.0.lock().get(&id) {
        call.gone.cancel();
    }
    StatusCode::NO_CONTENT
}

async fn load(State(shared): State<Arc<Shared>>, Json(target): Json<Arc<Target>>) -> Response {
    if !shared.takes_calls() {
        return declined("the sandbox is shutting down; try again");
    }
    let loader = shared.offered.loader.clone();
    taken::<Result<LoadReport, Fault>>(async move { loader.load(target).await })
}

async fn retire(State(shared): State<Arc<Shared>>, Json(old): Json<Retirement>) -> StatusCode {
    shared.offered.loader.retire_below(old.function_id, old.below);
    StatusCode::NO_CONTENT
}

async fn build(State(shared): State<Arc<Shared>>, Json(spec): Json<DependencySpec>) -> Response {
    // Not asked whether it is ready: a build takes no worker.
    if shared.is_draining.load(Relaxed) {
        return declined("the sandbox is shutting down; try again");
    }
    let builder = shared.offered.builder.clone();
    taken::<Result<BuiltDependencies, DependencyError>>(async move { builder.build(spec).await })
}
