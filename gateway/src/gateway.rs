//! The pipeline of one request, from top to bottom.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use cloudserve_identity::{Authenticator, Sealer, client_address};
use cloudserve_protocol::call::Invoker;
use cloudserve_store::{AccountStore, Stores};
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use tokio_util::sync::CancellationToken;

use crate::admit::RateLimit;
use crate::answer::{AnswerBody, answer, failure};
use crate::authenticate::{Caller, authenticate, strip_credentials};
use crate::authorise::{Permitted, authorise};
use crate::body::{Incoming, Leftover};
use crate::dispatch::{deadline_of, dispatch};
use crate::downstream::Downstream;
use crate::envelope;
use crate::head::{ExecutionText, request_head};
use crate::link::Link;
use crate::meter::{Call, Meter};
use crate::metrics::{Metrics, MetricsSnapshot};
use crate::options::GatewayOptions;
use crate::path::RunPath;
use crate::quota::Allowances;
use crate::refusal::Refusal;
use crate::route::Routes;
use crate::trace::{TRACEPARENT, Tracer};
use crate::upgrade::Upgrade;

/// Time for the rows of the last calls to be stored.
const STORING: Duration = Duration::from_secs(2);

/// The data plane. Cheap to clone.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

struct Inner {
    options: GatewayOptions,
    accounts: Arc<dyn AccountStore>,
    authenticator: Authenticator,
    routes: Routes,
    rate: RateLimit,
    meter: Meter,
    invoker: Arc<dyn Invoker>,
    metrics: Arc<Metrics>,
    draining: AtomicBool,
    /// Tells connections that would stay open for long.
    closing: CancellationToken,
    downstream: Option<Arc<dyn Downstream>>,
    tracer: Option<Tracer>,
}

/// A call that nothing refuses. It leaves a row, whatever becomes of it.
struct Admitted {
    caller: Caller,
    call: Box<Call>,
    /// Whether the caller may see the function's logs in the answer.
    may_read_logs: bool,
}

/// The address of who is at the other end of a connection, if it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Peer {
    address: Option<IpAddr>,
    /// The same, written once for all requests; empty if it is not known.
    text: Arc<str>,
}

impl Peer {
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

impl From<IpAddr> for Peer {
    fn from(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address: Some(address), text: address.to_string().into() }
    }
}

impl Gateway {
    /// A gateway over these parts. Starts the task that stores usage and logs, so it must be
    /// called within a tokio runtime.
    #[must_use]
    pub fn new(
        options: GatewayOptions,
        stores: Stores,
        authenticator: Authenticator,
        sealer: Sealer,
        invoker: Arc<dyn Invoker>,
        tracer: Option<Tracer>,
        downstream: Option<Arc<dyn Downstream>>,
    ) -> Self {
        let metrics = Arc::new(Metrics::default());
        let changes = stores.changes.as_ref();
        let allowances =
            Arc::new(Allowances::new(stores.telemetry.clone(), options.quota_refresh_ms));
        let entries = options.route_entries;
        Self(Arc::new(Inner {
            routes: Routes::new(stores.functions, sealer, allowances.clone(), changes, entries),
            rate: RateLimit::new(options.rate_per_second, options.rate_entries),
            meter: Meter::start(&options, stores.telemetry, allowances, metrics.clone()),
            accounts: stores.accounts,
            authenticator,
            invoker,
            metrics,
            draining: AtomicBool::new(false),
            closing: CancellationToken::new(),
            downstream,
            tracer,
            options,
        }))
    }

    /// The counters.
    #[must_use]
    pub fn metrics(&self) -> MetricsSnapshot {
        self.0.metrics.snapshot(self.0.meter.places_in_use())
    }

    /// Takes no more calls, waits for those in flight and stores every usage row; for at most
    /// [`GatewayOptions::drain_ms`], or somewhat longer than calls that were cut off may take to be
    /// told of. To be called when nothing serves this gateway any more.
    pub async fn drain(&self) {
        self.begin_to_drain();
        let options = &self.0.options;
        let longest = options.drain().max(options.hang_up_wait() + STORING);
        self.0.meter.drain(longest).await;
        if let Some(tracer) = &self.0.tracer {
            tracer.clone().shut_down().await;
        }
    }

    pub(crate) fn options(&self) -> &GatewayOptions {
        &self.0.options
    }

    pub(crate) fn counters(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Says from now on that it is not ready, and goes on as before: so that whoever balances load
    /// looks for another.
    pub fn stop_being_ready(&self) {
        self.0.draining.store(true, Relaxed);
    }

    /// Tells connections that would stay open for long to end, too.
    pub(crate) fn begin_to_drain(&self) {
        self.stop_being_ready();
        self.0.closing.cancel();
    }

    /// Answers one request.
    pub(crate) async fn handle<B: Incoming>(
        &self,
        mut request: Request<B>,
        link: &Link,
    ) -> Response<AnswerBody> {
        let arrived = Instant::now();
        let upgrade = Upgrade::requested(&mut request, &self.0.closing);
        let (mut parts, body) = request.into_parts();
        let leftover = Leftover::of(self.options(), &parts.headers, &body);
        let close = leftover.ends_connection(&body) && parts.version < Version::HTTP_2;
        let Some(path) = RunPath::parse(parts.uri.path()) else {
            leftover.discard_unread(body);
            return self.operations(&parts, close).await;
        };

        let admitted = match self.admit(&parts, &path, link, arrived).await {
            Ok(admitted) => admitted,
            Err(refusal) => {
                leftover.discard_unread(body);
                return self.refuse(refusal, close);
            }
        };
        let Admitted { caller, mut call, may_read_logs } = admitted;

        let inner = &*self.0;
        let Link { peer, patience, .. } = link;
        let trust_forwarded = inner.options.trust_forwarded;
        let wants_envelope = envelope::is_wanted(&parts.headers);
        strip_credentials(&mut parts.headers, &caller, &inner.authenticator);
        let execution = ExecutionText::of(call.execution_id());
        let is_upgrade = upgrade.is_some();
        if let Some(traceparent) = call.traceparent() {
            parts.headers.insert(TRACEPARENT, traceparent);
        }
        let head = request_head(&parts, &path, peer, &execution, trust_forwarded, is_upgrade);
        if let Some(upgrade) = upgrade {
            return upgrade.serve(&*inner.invoker, &inner.options, call, patience, head).await;
        }
        let reply =
            dispatch(&*inner.invoker, &inner.options, &mut call, patience, head, body, leftover)
                .await;

        let refused = reply.as_ref().err().is_some_and(|o| !o.started) && close;
        let mut response = match reply {
            reply if wants_envelope => {
                envelope::envelope(call, reply, may_read_logs, &inner.options).await
            }
            Ok(reply) => answer(call, reply, parts.method == Method::HEAD),
            Err(outcome) => failure(call, *outcome),
        };
        if refused {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Begins the call that is asked for, unless something refuses it.
    async fn admit(
        &self,
        parts: &Parts,
        path: &RunPath<'_>,
        link: &Link,
        arrived: Instant,
    ) -> Result<Admitted, Refusal> {
        let inner = &*self.0;
        let trust_forwarded = inner.options.trust_forwarded;
        let address = || client_address(link.peer.address, &parts.headers, trust_forwarded);
        let authenticated =
            authenticate(&inner.authenticator, &parts.headers, &link.shown, arrived, address);
        let caller = authenticated.await?;
        // Before anything is looked up: what will be refused counts, too.
        let admitted = inner.rate.admit(&caller, address);
        admitted.map_err(|per_second| Refusal::TooOften { per_second })?;
        let permitted = authorise(&inner.routes, &caller, path, parts, &link.found, arrived);
        let Permitted { target, allowance, may_read_logs } = permitted.await?;
        let limit_bytes = inner.options.unread_answer_bytes;
        if limit_bytes != 0 && allowance.unread().is_beyond(limit_bytes) {
            return Err(Refusal::TooMuchUnread { limit_bytes });
        }
        let deadline = deadline_of(arrived, target.limits.timeout_ms);
        let place = inner.meter.place(deadline).await.ok_or(Refusal::Unavailable)?;
        let began = SystemTime::now();
        allowance.admit(began.into()).map_err(Refusal::QuotaExceeded)?;
        let trace = inner.tracer.as_ref().and_then(|t| t.begin(&parts.method, &parts.headers));
        let call = inner.meter.begin(place, target, allowance, began, arrived, deadline);
        Ok(Admitted { caller, call: call.traced(trace), may_read_logs })
    }

    fn refuse(&self, refusal: Refusal, close: bool) -> Response<AnswerBody> {
        self.0.metrics.refused(&refusal);
        let mut response = refusal.into_response();
        if close {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// What is not a function.
    async fn operations(&self, request: &Parts, close: bool) -> Response<AnswerBody> {
        let reads = matches!(request.method, Method::GET | Method::HEAD);
        match request.uri.path() {
            "/healthz" if reads => text(StatusCode::OK, "ok\n".to_owned()),
            "/readyz" if reads => match self.readiness().await {
                Ok(()) => text(StatusCode::OK, "ready\n".to_owned()),
                Err(reason) => {
                    text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n"))
                }
            },
            "/metrics" if reads => {
                let below = self.0.downstream.as_ref().map(|below| below.metrics());
                let ours = self.metrics().to_string();
                text(StatusCode::OK, ours + &below.unwrap_or_default())
            }
            _ => self.refuse(Refusal::NoSuchPath, close),
        }
    }

    /// Whether calls can be served, and if not, why.
    pub async fn readiness(&self) -> Result<(), NotReady> {
        if self.0.draining.load(Relaxed) {
            return Err(NotReady::Draining);
        }
        if self.0.downstream.as_ref().is_some_and(|below| !below.is_ready()) {
            return Err(NotReady::NoSandbox);
        }
        self.0.accounts.answers().await.map_err(|_| NotReady::Storage)
    }
}

/// Why a gateway cannot serve calls. What storage said is not for whoever can reach a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// It takes no more calls, or will not for long.
    #[error("shutting down")]
    Draining,
    /// Sandboxes are other processes, and none is there.
    #[error("no sandbox was found")]
    NoSandbox,
    /// Nothing can be decided without it.
    #[error("storage does not answer")]
    Storage,
}

fn text(status: StatusCode, body: String) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::whole(body.into()));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
