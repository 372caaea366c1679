//! Calls of functions that nobody deployed, before a worker is anybody's.
//!
//! What runs first is slow: closures are made ready, hidden classes come to be, regular expressions
//! are compiled, property accesses learn where to look. In a zygote that happens once for all
//! workers. Afterwards the isolate is as it was, but for what it has learnt.

use std::cell::{Cell, OnceCell};
use std::fmt::Display;
use std::future::poll_fn;
use std::pin::pin;
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
use crate::code_cache;
use crate::host::Host;
use crate::leftovers::Leftovers;
use crate::loader::BundleLoader;
use crate::permissions;

/// The forms that most functions have, with what most of them use.
const FUNCTIONS: [&str; 5] = [
    // Without a date, which Node keeps for a second, by a timer.
    "export default (req, res) => {
        res.sendDate = false;
        res.setHeader('content-type', 'application/json');
        res.end(JSON.stringify({ message: req.query.name }));
    };",
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
    HELLO,
];

/// The first so many take a worker that waits too long, and are called before the fork alone.
const BEFORE: usize = 1;

/// One that sees nothing of its calls.
const HELLO: &str = "export default () => ({ message: 'hello' });";

const HEADERS: [(&str, &str); 4] = [
    ("host", "localhost"),
    ("accept", "*/*"),
    ("user-agent", "rehearsal"),
    ("content-type", "application/json"),
];

const TIME: Duration = Duration::from_secs(10);

/// Of the rehearsals in a row, so many load a module: each stays, and they are loaded from a code cache,
/// by code that learns nothing.
const LOADS: u32 = 4;

/// The functions of the rehearsal, loaded.
pub(crate) struct Rehearsal {
    host: Rc<Host>,
    loader: Rc<BundleLoader>,
    namespaces: Vec<v8::Global<v8::Object>>,
    /// Of [`HELLO`].
    code_cache: OnceCell<Option<&'static [u8]>>,
    loads: Cell<u32>,
}

fn url_of(name: impl Display) -> ModuleSpecifier {
    ModuleSpecifier::parse(&format!("file:///rehearsal/{name}.js")).expect("a URL")
}

impl Rehearsal {
    /// Loads the functions.
    pub(crate) async fn new(worker: &mut MainWorker, loader: Rc<BundleLoader>) -> Self {
        let mut namespaces = Vec::new();
        for (number, source) in FUNCTIONS.into_iter().enumerate() {
            let url = url_of(number);
            let loaded = worker.js_runtime.load_side_es_module_from_code(&url, source).await;
            let module = loaded.expect("what is rehearsed loads");
            worker.evaluate_module(module).await.expect("what is rehearsed evaluates");
            let namespace = worker.js_runtime.get_module_namespace(module);
            namespaces.push(namespace.expect("it was evaluated"));
        }
        let (code_cache, loads) = (OnceCell::new(), Cell::new(0));
        Self { host: Host::new(), loader, namespaces, code_cache, loads }
    }

    /// Before a fork: assigns and calls each of the functions so many times. Afterwards the isolate's
    /// host is `host`.
    pub(crate) async fn run(
        &self,
        runtime: &mut JsRuntime,
        bridge: &Bridge,
        host: &Rc<Host>,
        times: u32,
    ) {
        self.play(&self.namespaces, runtime, bridge, host, times).await;
    }

    /// The same, once, in a worker that waits.
    pub(crate) async fn repeat(&self, runtime: &mut JsRuntime, bridge: &Bridge, host: &Rc<Host>) {
        self.play(&self.namespaces[BEFORE..], runtime, bridge, host, 1).await;
    }

    async fn play(
        &self,
        namespaces: &[v8::Global<v8::Object>],
        runtime: &mut JsRuntime,
        bridge: &Bridge,
        host: &Rc<Host>,
        times: u32,
    ) {
        Bridge::set_host(runtime, self.host.clone());
        let assignment = assignment();
        for time in 0..times {
            permit(runtime);
            for namespace in namespaces {
                self.call(runtime, bridge, &assignment, namespace).await;
            }
            if time < LOADS {
                let loaded = self.load(runtime).await;
                self.call(runtime, bridge, &assignment, &loaded).await;
            }
        }
        Bridge::set_host(runtime, host.clone());
    }

    /// Assigns and calls a function.
    async fn call(
        &self,
        runtime: &mut JsRuntime,
        bridge: &Bridge,
        assignment: &Assignment,
        namespace: &v8::Global<v8::Object>,
    ) {
        bridge.assign(runtime, assignment);
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

    /// Loads a module as a bundle is loaded: from a code cache that was made after a call.
    async fn load(&self, runtime: &mut JsRuntime) -> v8::Global<v8::Object> {
        let code_cache = *self.code_cache.get_or_init(|| {
            let made = code_cache::make(runtime, &url_of(FUNCTIONS.len() - 1), HELLO);
            made.map(|bytes| &*bytes.leak())
        });
        let number = self.loads.replace(self.loads.get() + 1);
        let url = url_of(format_args!("loaded/{number}"));
        self.loader.rehearse(&url, HELLO, code_cache);
        let module = runtime.load_side_es_module(&url).await.expect("what is rehearsed loads");
        let mut evaluated = pin!(runtime.mod_evaluate(module));
        poll_fn(|cx| {
            let _ = runtime.poll_event_loop(cx, PollEventLoopOptions::default());
            evaluated.as_mut().poll(cx)
        })
        .await
        .expect("what is rehearsed evaluates");
        runtime.get_module_namespace(module).expect("it was evaluated")
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
