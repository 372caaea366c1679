//! From nothing to an isolate that waits for its function. Knows no tenant.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use cloudserve_protocol::call::HandlerKind;
use deno_core::error::CoreError;
use deno_core::{Extension, JsRuntime, ModuleSpecifier, PollEventLoopOptions, scope, v8};
use deno_runtime::deno_fetch::dns::Resolver;
use deno_runtime::deno_os::WatcherExitHandle;
use deno_runtime::deno_web::{InMemoryBroadcastChannel, StartTime};
use deno_runtime::worker::{MainWorker, WorkerOptions, WorkerServiceOptions};
use deno_runtime::{BootstrapOptions, UNSTABLE_FEATURES};

use crate::bridge::Bridge;
use crate::engine::Engine;
use crate::host::Host;
use crate::loader::{self, BundleLoader};
use crate::memory::{BOOT_HEAP_BYTES, out_of_memory};
use crate::names::latin1;
use crate::ops;
use crate::permissions;
use crate::rehearsal::Rehearsal;
use crate::time_zone;

static SNAPSHOT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/snapshot.bin"));
include!(concat!(env!("OUT_DIR"), "/residual.rs"));

/// Modules that the snapshot cannot hold, or does not for their size: evaluated before a worker is
/// READY, since packages that use them pay tens of milliseconds for them.
const TOUCHED: &str = "
    import 'node:crypto';
    import 'node:assert';
    import 'node:child_process';
    import 'node:console';
    import 'node:constants';
    import 'node:dgram';
    import 'node:diagnostics_channel';
    import 'node:dns';
    import 'node:dns/promises';
    import 'node:fs/promises';
    import 'node:http2';
    import 'node:perf_hooks';
    import 'node:punycode';
    import 'node:readline';
    import 'node:stream/consumers';
    import 'node:stream/promises';
    import 'node:stream/web';
    import 'node:timers';
    import 'node:timers/promises';
    import 'node:tty';
    import 'node:util/types';
    import 'node:v8';
    import 'node:vm';
    import 'node:worker_threads';";

/// The same, of what asks `process` when it is evaluated.
const TOUCHED_LAST: &str = "import 'node:process';";

/// Rehearsals before a fork: V8 begins to learn from a function when it has run a few times, and
/// compiles it after some more.
const REHEARSALS: u32 = 16;

/// Names that V8's table is to have room for, besides the platform's.
const NAMES_AHEAD: u32 = 8 * 1024;

/// An isolate that belongs to no process yet.
pub(crate) struct Unsettled(Booted);

/// An isolate without a function.
pub(crate) struct Booted {
    engine: Engine,
    pub(crate) host: Rc<Host>,
    pub(crate) worker: MainWorker,
    pub(crate) bridge: Bridge,
    rehearsal: Rehearsal,
    pub(crate) loader: Rc<BundleLoader>,
    isolate: v8::IsolateHandle,
}

/// Boots an isolate, as far as a fork of this process can take it along: nothing in it knows the
/// process. [`Unsettled::settle`] does the rest.
pub(crate) async fn boot(engine: Engine, host: Rc<Host>) -> Unsettled {
    let (loader, node_services) = loader::new();
    let create_params = v8::CreateParams::default()
        // Without the first, V8 would begin to collect garbage at half the second.
        .heap_limits(BOOT_HEAP_BYTES, BOOT_HEAP_BYTES)
        .array_buffer_allocator(host.memory.allocator());
    let placeholder =
        ModuleSpecifier::parse("file:///unassigned.js").expect("a constant that is a URL");
    let mut worker = MainWorker::bootstrap_from_options(
        &placeholder,
        WorkerServiceOptions {
            blob_store: Arc::new(deno_web::BlobStore::default()),
            broadcast_channel: InMemoryBroadcastChannel::default(),
            deno_rt_native_addon_loader: None,
            feature_checker: Arc::default(),
            fs: Arc::new(deno_fs::RealFs),
            module_loader: loader.clone(),
            node_services: Some(node_services),
            npm_process_state_provider: None,
            permissions: permissions::none(),
            root_cert_store_provider: None,
            fetch_dns_resolver: Resolver::default(),
            // Without one, nothing can be transferred, not even within the isolate.
            shared_array_buffer_store: Some(deno_core::SharedArrayBufferStore::default()),
            compiled_wasm_module_store: Some(deno_core::CompiledWasmModuleStore::default()),
            v8_code_cache: None,
            bundle_provider: None,
        },
        WorkerOptions {
            bootstrap: BootstrapOptions {
                user_agent: concat!("CloudServe/", env!("CARGO_PKG_VERSION")).to_owned(),
                unstable_features: as_in_node(),
                ..BootstrapOptions::default()
            },
            startup_snapshot: Some(SNAPSHOT),
            skip_op_registration: true,
            residual_lazy_js_sources: RESIDUAL_LAZY_JS,
            residual_lazy_esm_sources: RESIDUAL_LAZY_ESM,
            // The snapshot's extension by name; its sources are in the snapshot.
            extensions: vec![Extension {
                name: "cloudserve",
                middleware_fn: Some(Box::new(ops::exchanged)),
                ..Extension::default()
            }],
            create_params: Some(create_params),
            ..WorkerOptions::default()
        },
    );
    let isolate = worker.js_runtime.v8_isolate().thread_safe_handle();
    worker.js_runtime.v8_isolate().set_oom_error_handler(out_of_memory);
    time_zone::begin_with_utc(worker.js_runtime.v8_isolate());
    host.memory.attach(isolate.clone());
    watch_heap(&mut worker.js_runtime, &host);
    // `process.exit` becomes a termination, so that logs still leave.
    worker.js_runtime.op_state().borrow_mut().put(WatcherExitHandle(isolate.clone()));
    Engine::compile_lazily(false);
    touch(&mut worker, "file:///touch.js", TOUCHED).await;
    Engine::compile_lazily(true);
    let bridge = Bridge::take(&mut worker.js_runtime);
    bridge.offer(&mut worker.js_runtime);
    bridge.boot(&mut worker.js_runtime);
    touch(&mut worker, "file:///touch_last.js", TOUCHED_LAST).await;
    make_room_for_names(&mut worker.js_runtime);
    let v8_isolate = worker.js_runtime.v8_isolate();
    // What booting left behind is no part of any worker, nor of what the platform holds.
    v8_isolate.low_memory_notification();
    // It leaves pages to be swept when they are next allocated from: by each worker again, which
    // copies them for it. What looks at the whole heap sweeps it first.
    let _ = v8_isolate.get_heap_code_and_metadata_statistics();
    host.memory.set_platform(v8_isolate.get_heap_statistics().used_heap_size());
    // After it, which takes hidden classes without objects for garbage.
    let rehearsal = Rehearsal::new(&mut worker, loader.clone()).await;
    rehearsal.run(&mut worker.js_runtime, &bridge, &host, REHEARSALS).await;
    // A fork that finds it half full collects it that much earlier.
    Engine::collect_young(worker.js_runtime.v8_isolate());
    Unsettled(Booted { engine, host, worker, bridge, rehearsal, loader, isolate })
}

/// Makes V8's table of names larger: when it is full it is made twice as large, and all names in it are
/// looked at. The platform leaves a fourteenth of it free, and a package has more names than that. Those made
/// here are gone with the next collection, which leaves the table as it is.
fn make_room_for_names(runtime: &mut JsRuntime) {
    scope!(scope, runtime);
    for number in 0..NAMES_AHEAD {
        let _ = latin1(scope, format!("name {number}").as_bytes(), v8::NewStringType::Internalized);
    }
}

fn watch_heap(runtime: &mut JsRuntime, host: &Host) {
    let memory = host.memory.clone();
    runtime.add_near_heap_limit_callback(move |current, _| memory.near_heap_limit(current));
}

impl Unsettled {
    /// What is used of an isolate before it is settled.
    pub(crate) fn parts(&self) -> (Rc<Host>, v8::IsolateHandle) {
        (self.0.host.clone(), self.0.isolate.clone())
    }

    /// Makes the isolate this process's: its ids, and its clock, which begins.
    pub(crate) fn settle(self) -> Booted {
        let Self(mut booted) = self;
        let runtime = &mut booted.worker.js_runtime;
        runtime.op_state().borrow_mut().put(StartTime::default());
        booted.bridge.settle(runtime);
        booted
    }
}

impl Booted {
    /// Once more, in this process: pages that the zygote shares become its own when they are first
    /// written to.
    pub(crate) async fn rehearse(&mut self) {
        self.rehearsal.repeat(&mut self.worker.js_runtime, &self.bridge, &self.host).await;
    }

    /// Sets the memory limit of the assigned function.
    pub(crate) fn limit_memory(&mut self, memory_mb: u32) {
        let runtime = &mut self.worker.js_runtime;
        let limit_bytes = self.host.memory.assign(memory_mb);
        // V8 lowers the limit of an existing heap in no other way.
        runtime.remove_near_heap_limit_callback(limit_bytes.min(BOOT_HEAP_BYTES));
        watch_heap(runtime, &self.host);
    }

    /// See [`Bridge::loaded`].
    pub(crate) fn loaded(&mut self, namespace: &v8::Global<v8::Object>) -> Option<HandlerKind> {
        self.bridge.loaded(&mut self.worker.js_runtime, namespace)
    }

    /// Runs JavaScript until it waits: the event loop, and what V8 has put off.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CoreError>> {
        loop {
            let polled = self.poll_event_loop(cx);
            if matches!(polled, Poll::Ready(Err(_)))
                || !self.engine.run_tasks(self.worker.js_runtime.v8_isolate())
            {
                return polled;
            }
        }
    }

    /// Runs the event loop alone: what V8 has put off waits for [`Booted::poll`].
    pub(crate) fn poll_event_loop(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CoreError>> {
        self.worker.js_runtime.poll_event_loop(cx, PollEventLoopOptions::default())
    }
}

async fn touch(worker: &mut MainWorker, url: &str, imports: &'static str) {
    let url = ModuleSpecifier::parse(url).expect("a constant that is a URL");
    let id = worker
        .js_runtime
        .load_side_es_module_from_code(&url, imports)
        .await
        .expect("built-in modules load");
    worker.evaluate_module(id).await.expect("built-in modules evaluate");
}

/// What Deno leaves out and packages made for Node count on: that objects have a `__proto__`.
fn as_in_node() -> Vec<i32> {
    let wanted = UNSTABLE_FEATURES.iter().filter(|feature| feature.name == "unsafe-proto");
    wanted.map(|feature| feature.id).collect()
}
