//! Calls of functions that nobody deployed, before a worker is anybody's.
//!
//! What runs first is slow: closures are made ready, hidden classes come to be, regular expressions
//! are compiled, property accesses learn where to look. In a zygote that happens once for all
//! workers. Afterwards the isolate is as it was, but for what it has learnt.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cloudserve_protocol::assignment::{Assignment, JailTerms};
use cloudserve_protocol::call::Env;
use cloudserve_protocol::headers::HeaderBlockBuilder;
use cloudserve_protocol::ids::{ExecutionId, FunctionId};
use cloudserve_protocol::limits::Limits;
use deno_core::{JsRuntime, ModuleSpecifier, PollEventLoopOptions, v8};
use deno_runtime::worker::MainWorker;

use crate::bridge::{Bridge, IncomingCall};
use crate::host::Host;
use crate::leftovers::Leftovers;
use crate::permissions;

/// The forms that most functions have, with what most of them use.
const FUNCTIONS: [&str; 4] = [
    "export default (event, context) => ({ message: event.query.name ?? context.functionName });",
    "export default {
        async fetch(request) {
            const url = new URL(request.url);
            const name = url.searchParams.get('name') ?? request.headers.get('x-name');
            return Response.json({ message: name });
        },
    };",
    "export const handler = async (event) => ({
        statusCode: 200,
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ message: event.query.name }),
    });",
    "export default () => ({ message: 'hello' });",
];

const HEADERS: [(&str, &str); 4] = [
    ("host", "localhost"),
    ("accept", "*/*"),
    ("user-agent", "rehearsal"),
    ("content-type", "application/json"),
];

const TIME: Duration = Duration::from_secs(10);

/// The functions of the rehearsal, loaded.
pub(crate) struct Rehearsal {
    host: Rc<Host>,
    namespaces: Vec<v8::Global<v8::Object>>,
}

impl Rehearsal {
    /// Loads the functions.
    pub(crate) async fn new(worker: &mut MainWorker) -> Self {
        let mut namespaces = Vec::new();
        for (number, source) in FUNCTIONS.into_iter().enumerate() {
            let url = format!("file:///rehearsal/{number}.js");
            let url = ModuleSpecifier::parse(&url).expect("a URL");
            let loaded = worker.js_runtime.load_side_es_module_from_code(&url, source).await;
            let module = loaded.expect("what is rehearsed loads");
            worker.evaluate_module(module).await.expect("what is rehearsed evaluates");
            let namespace = worker.js_runtime.get_module_namespace(module);
            namespaces.push(namespace.expect("it was evaluated"));
        }
        Self { host: Host::new(), namespaces }
    }

    /// Assigns and calls each of the functions so many times. Afterwards the isolate's host is
    /// `host`.
    pub(crate) async fn run(
        &self,
        runtime: &mut JsRuntime,
        bridge: &Bridge,
        host: &Rc<Host>,
        times: u32,
    ) {
        Bridge::set_host(runtime, self.host.clone());
        let assignment = assignment();
        for _ in 0..times {
            permit(runtime);
            for namespace in &self.namespaces {
                bridge.assign(runtime, &assignment);
                let _ = bridge.loaded(runtime, namespace);
                let _ = Leftovers::loaded(runtime, bridge);
                for call in incoming() {
                    let now = Instant::now();
                    self.host.begin(call.call, now, call.deadline, false);
                    bridge.request(runtime, &call, now);
                    // Once: what would have to be waited for is not rehearsed, and asynchronous
                    // operations would belong to an event loop that a fork does not take along.
                    poll_fn(|cx| {
                        let _ = runtime.poll_event_loop(cx, PollEventLoopOptions::default());
                        Poll::Ready(())
                    })
                    .await;
                    assert!(!self.host.has_calls(), "what is rehearsed ends at once");
                    self.host.report_finished(runtime.v8_isolate());
                    self.host.outgoing().clear();
                }
                bridge.forget(runtime);
            }
        }
        Bridge::set_host(runtime, host.clone());
    }
}

/// Makes permissions as an assignment does, and takes them back.
fn permit(runtime: &mut JsRuntime) {
    let made = permissions::permissions(&["/rehearsal"], &["/tmp"], None);
    let state = runtime.op_state();
    let mut state = state.borrow_mut();
    if let Ok(made) = made {
        state.put(made);
    }
    state.put(permissions::none());
}

fn assignment() -> Assignment {
    Assignment {
        function_id: FunctionId::from_bytes([0; 16]),
        function_name: "rehearsal".to_owned(),
        owner_name: "nobody".to_owned(),
        version: 1,
        bundle_path: "/rehearsal/index.mjs".to_owned(),
        node_modules_path: None,
        tmp_path: "/tmp".to_owned(),
        code_cache_path: None,
        code_cache_is_early: false,
        limits: Limits::default(),
        load_budget_ms: 0,
        lone_call_watch_us: 0,
        env: Env::default(),
        jail: JailTerms {
            tmp_bytes: 0,
            require_full: false,
            supervised_egress: false,
            egress_allow: Vec::new(),
        },
    }
}

/// A call without a body, and one with.
fn incoming() -> [IncomingCall; 2] {
    let mut headers = HeaderBlockBuilder::new();
    for (name, value) in HEADERS {
        headers.push(name.as_bytes(), value.as_bytes());
    }
    let headers = headers.finish();
    [("GET", ""), ("POST", r#"{"a":1}"#)].map(|(method, body)| IncomingCall {
        call: 1,
        execution_id: ExecutionId::from_bytes([0; 16]),
        method: method.to_owned(),
        target: "/run/nobody/rehearsal?name=you".to_owned(),
        headers: headers.clone(),
        body: Bytes::from_static(body.as_bytes()),
        end: true,
        revocable: false,
        deadline: Instant::now() + TIME,
    })
}
