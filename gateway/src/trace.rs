//! Traces: one span for a call, with what is known of its parts, sent to a collector by
//! OpenTelemetry's protocol.
//!
//! The caller's `traceparent` decides whether a call is traced, and the gateway if there is none.
//! The function gets a `traceparent` of the gateway's span, so that its own spans go on from there.
//! Spans that the collector does not take in time are dropped: tracing holds no call up.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use cloudserve_protocol::call::{Outcome, Target};
use cloudserve_protocol::fault::FaultClass;
use cloudserve_protocol::ids::ExecutionId;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::{HeaderExtractor, HttpClient, HttpError};
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, SpanExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, IdGenerator, RandomIdGenerator, SpanData, SpanEvents,
    SpanLinks, SpanProcessor,
};
use reqwest_tls as reqwest;
use tokio::runtime::Handle;

const SERVICE: &str = "cloudserve-gateway";
/// W3C Trace Context: which span a request belongs to.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

const ROUTE: &str = "/run/:username/:functionName";
/// Added to the collector's address, as OpenTelemetry has it.
const TRACES_PATH: &str = "/v1/traces";

/// Settings of traces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceOptions {
    /// The collector: `http://HOST:4318`. What it is to be told besides, such as a key, is in
    /// OpenTelemetry's own `OTEL_EXPORTER_OTLP_HEADERS`.
    pub endpoint: String,
    /// Of the calls whose callers have not decided, one in so many is traced; 0 traces none.
    pub one_in: u32,
    /// Spans that wait to be sent; more are dropped.
    pub queue_spans: usize,
    /// How long they wait for others.
    pub interval_ms: u32,
    /// How long the collector may take for what it is sent.
    pub timeout_ms: u32,
}

impl Default for TraceOptions {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            one_in: 1,
            queue_spans: 8_192,
            interval_ms: 1_000,
            timeout_ms: 5_000,
        }
    }
}

/// Why there are no traces.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The collector's address.
    #[error("the address of the trace collector is not a URL")]
    Endpoint(#[source] ExporterBuildError),
    /// The HTTP client.
    #[error("no HTTP client for the trace collector")]
    Client(#[source] reqwest::Error),
}

/// Makes spans of calls and sends them.
#[derive(Clone)]
pub struct Tracer(Arc<Inner>);

struct Inner {
    spans: BatchSpanProcessor,
    ids: RandomIdGenerator,
    propagator: TraceContextPropagator,
    scope: InstrumentationScope,
    one_in: u32,
    undecided: AtomicU32,
}

impl Tracer {
    /// Starts the thread that sends. Must be called within a tokio runtime, with a provider of
    /// cryptography for TLS installed.
    pub fn start(options: &TraceOptions) -> Result<Self, TraceError> {
        let timeout = Duration::from_millis(options.timeout_ms.into());
        let client = reqwest::Client::builder()
            .timeout(timeout)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(TraceError::Client)?;
        let endpoint = format!("{}{TRACES_PATH}", options.endpoint.trim_end_matches('/'));
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Collector { client, runtime: Handle::current() })
            .with_endpoint(endpoint)
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(timeout)
            .build()
            .map_err(TraceError::Endpoint)?;
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(options.queue_spans)
            .with_scheduled_delay(Duration::from_millis(options.interval_ms.into()))
            .build();
        let mut spans = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
        spans.set_resource(&Resource::builder().with_service_name(SERVICE).build());
        Ok(Self(Arc::new(Inner {
            spans,
            ids: RandomIdGenerator::default(),
            propagator: TraceContextPropagator::new(),
            scope: InstrumentationScope::builder("cloudserve")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
            one_in: options.one_in,
            undecided: AtomicU32::new(0),
        })))
    }

    /// The span of a call that has just come, if it is traced.
    pub(crate) fn begin(&self, method: &Method, headers: &HeaderMap) -> Option<Box<Traced>> {
        let context = self.0.propagator.extract(&HeaderExtractor(headers));
        let parent = context.span().span_context().clone();
        let is_traced = if parent.is_valid() { parent.is_sampled() } else { self.0.is_next() };
        is_traced.then(|| {
            Box::new(Traced {
                tracer: self.clone(),
                trace_id: if parent.is_valid() {
                    parent.trace_id()
                } else {
                    self.0.ids.new_trace_id()
                },
                span_id: self.0.ids.new_span_id(),
                parent,
                method: method.clone(),
                handed_on: Instant::now(),
                status: None,
            })
        })
    }

    /// Sends what is there, for at most the time that the collector may take.
    pub(crate) async fn shut_down(self) {
        // It waits for the thread that sends.
        let flushed = tokio::task::spawn_blocking(move || self.0.spans.shutdown()).await;
        if let Ok(Err(error)) = flushed {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer").field("one_in", &self.0.one_in).finish_non_exhaustive()
    }
}

impl Inner {
    fn is_next(&self) -> bool {
        self.one_in > 0 && self.undecided.fetch_add(1, Relaxed).is_multiple_of(self.one_in)
    }
}

/// A call that is traced.
pub(crate) struct Traced {
    tracer: Tracer,
    trace_id: opentelemetry::TraceId,
    span_id: SpanId,
    parent: SpanContext,
    method: Method,
    handed_on: Instant,
    status: Option<u16>,
}

/// What there is to say of a call that is over.
pub(crate) struct Ended<'a> {
    pub(crate) execution_id: ExecutionId,
    pub(crate) target: &'a Target,
    pub(crate) arrived: Instant,
    pub(crate) duration: Duration,
    pub(crate) outcome: &'a Outcome,
}

impl Traced {
    /// What the function is told.
    pub(crate) fn traceparent(&self) -> HeaderValue {
        let text = format!("00-{}-{}-01", self.trace_id, self.span_id);
        HeaderValue::try_from(text).expect("digits and hyphens")
    }

    /// The caller is told this status.
    pub(crate) fn answered(&mut self, status: u16) {
        self.status = Some(status);
    }

    /// Sends the span of the call and those of its parts.
    pub(crate) fn end(&self, ended: &Ended<'_>) {
        let Ended { target, outcome, arrived, duration, .. } = *ended;
        // One clock for all: what lies between two instants is what was measured.
        let began =
            SystemTime::now().checked_sub(arrived.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH);
        let fault = outcome.fault.as_ref().map(|fault| fault.class);
        let status = self.status.or_else(|| fault.map(FaultClass::http_status));
        let name = format!("{}/{}", target.owner_name, target.function_name);
        let mut attributes = vec![
            KeyValue::new("http.request.method", self.method.to_string()),
            KeyValue::new("http.route", ROUTE),
            KeyValue::new("faas.name", name),
            KeyValue::new("faas.version", target.version.to_string()),
            KeyValue::new("faas.invocation_id", ended.execution_id.to_string()),
            KeyValue::new("faas.coldstart", outcome.cold),
            KeyValue::new("faas.trigger", "http"),
        ];
        attributes.extend(
            status.map(|status| KeyValue::new("http.response.status_code", i64::from(status))),
        );
        attributes.extend(fault.map(|class| KeyValue::new("error.type", class.code())));
        let parts = self.parts(began, arrived, outcome);
        let is_error = fault.is_some() || status.is_some_and(|status| status >= 500);
        let span = self.span(SpanPlace {
            span_id: self.span_id,
            parent_span_id: self.parent.span_id(),
            parent_span_is_remote: self.parent.is_valid(),
            span_kind: SpanKind::Server,
        });
        let spans = &self.tracer.0.spans;
        for part in parts {
            spans.on_end(part);
        }
        spans.on_end(SpanData {
            name: format!("{} {ROUTE}", self.method).into(),
            start_time: began,
            end_time: began + duration,
            attributes,
            status: if is_error { Status::error("") } else { Status::Unset },
            ..span
        });
    }

    /// Waiting for a worker, loading, running: one after the other.
    fn parts(&self, began: SystemTime, arrived: Instant, outcome: &Outcome) -> Vec<SpanData> {
        let timings = outcome.timings;
        let mut from = began + self.handed_on.saturating_duration_since(arrived);
        let mut parts = Vec::new();
        for (name, us) in
            [("queue", timings.queue_us), ("load", timings.boot_us), ("handler", timings.exec_us)]
        {
            let to = from + Duration::from_micros(us);
            if us > 0 {
                let span = self.span(SpanPlace {
                    span_id: self.tracer.0.ids.new_span_id(),
                    parent_span_id: self.span_id,
                    parent_span_is_remote: false,
                    span_kind: SpanKind::Internal,
                });
                parts.push(SpanData { name: name.into(), start_time: from, end_time: to, ..span });
            }
            from = to;
        }
        parts
    }

    /// A span of this trace that says nothing yet.
    fn span(&self, place: SpanPlace) -> SpanData {
        let SpanPlace { span_id, parent_span_id, parent_span_is_remote, span_kind } = place;
        let state = if span_kind == SpanKind::Server {
            self.parent.trace_state().clone()
        } else {
            TraceState::NONE
        };
        SpanData {
            span_context: SpanContext::new(
                self.trace_id,
                span_id,
                TraceFlags::SAMPLED,
                false,
                state,
            ),
            parent_span_id,
            parent_span_is_remote,
            span_kind,
            name: "".into(),
            start_time: SystemTime::UNIX_EPOCH,
            end_time: SystemTime::UNIX_EPOCH,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: self.tracer.0.scope.clone(),
        }
    }
}

/// Where in its trace a span is.
struct SpanPlace {
    span_id: SpanId,
    parent_span_id: SpanId,
    parent_span_is_remote: bool,
    span_kind: SpanKind,
}

/// Who takes the spans. They are sent by a thread that has no runtime of its own.
#[derive(Debug)]
struct Collector {
    client: reqwest::Client,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = reqwest::Request::try_from(request)?;
        let client = self.client.clone();
        let sent = self.runtime.spawn(async move {
            let answer = client.execute(request).await?.error_for_status()?;
            let status = answer.status();
            Ok::<_, reqwest::Error>((status, answer.bytes().await?))
        });
        let (status, body) = sent.await??;
        Ok(Response::builder().status(status).body(body)?)
    }
}
