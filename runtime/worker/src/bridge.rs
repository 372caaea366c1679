//! Between Rust and the JavaScript of `bootstrap-js`: the functions it gets, and the functions it
//! is called by. All values cross here and nowhere else.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use cloudserve_protocol::call::HandlerKind;
use cloudserve_protocol::headers::HeaderBlock;
use cloudserve_protocol::ids::ExecutionId;
use cloudserve_protocol::wire::{Assignment, INITIAL_CREDIT_BYTES};
use deno_core::{JsRuntime, scope, v8};

use crate::callbacks;
use crate::host::Host;
use crate::names::{Names, latin1};

/// A request as the isolate gets it.
pub(crate) struct IncomingCall {
    pub(crate) call: u32,
    pub(crate) execution_id: ExecutionId,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: HeaderBlock,
    pub(crate) body: Bytes,
    pub(crate) end: bool,
    /// Whether it has to be claimed before it begins.
    pub(crate) revocable: bool,
    /// When it must be over.
    pub(crate) deadline: Instant,
}

impl IncomingCall {
    /// Whether the caller asks for a connection. The gateway passes no other `upgrade` on.
    pub(crate) fn is_upgrade(&self) -> bool {
        !self.end && self.headers.get("upgrade").is_some()
    }
}

/// The functions of `bootstrap-js` that the host calls.
pub(crate) struct Bridge {
    names: Rc<Names>,
    /// Whether the handler is never called without the headers of a request.
    needs_headers: Cell<bool>,
    takes_headers: v8::Global<v8::Function>,
    offer: v8::Global<v8::Function>,
    boot: v8::Global<v8::Function>,
    settle: v8::Global<v8::Function>,
    assign: v8::Global<v8::Function>,
    loaded: v8::Global<v8::Function>,
    serves: v8::Global<v8::Function>,
    hold: v8::Global<v8::Function>,
    forget: v8::Global<v8::Function>,
    use_lambda_events: v8::Global<v8::Function>,
    use_web_socket_pair: v8::Global<v8::Function>,
    request: v8::Global<v8::Function>,
    body: v8::Global<v8::Function>,
    trailers: v8::Global<v8::Function>,
    body_aborted: v8::Global<v8::Function>,
    credit: v8::Global<v8::Function>,
    cancel: v8::Global<v8::Function>,
    idle: v8::Global<v8::Function>,
    sockets: v8::Global<v8::Function>,
}

const GLOBAL: &str = "__cloudserve";

impl Bridge {
    /// Takes the functions of the JavaScript side out of the global object, where the snapshot left
    /// them, before user code can see them.
    pub(crate) fn take(runtime: &mut JsRuntime) -> Self {
        scope!(scope, runtime);
        let global = scope.get_current_context().global(scope);
        let key = v8::String::new(scope, GLOBAL).expect("a short string");
        let bridge = global
            .get(scope, key.into())
            .and_then(|value| value.to_object(scope))
            .expect("the snapshot holds the bridge");
        global.delete(scope, key.into());
        let names = Rc::new(Names::new(scope));
        scope.set_slot(names.clone());
        let function = |name: &str| {
            let key = v8::String::new(scope, name).expect("a short string");
            let value = bridge.get(scope, key.into()).expect("the bridge has this function");
            let function = v8::Local::<v8::Function>::try_from(value).expect("it is a function");
            v8::Global::new(scope, function)
        };
        Self {
            names,
            needs_headers: Cell::new(true),
            takes_headers: function("takesHeaders"),
            offer: function("offer"),
            boot: function("boot"),
            settle: function("settle"),
            assign: function("assign"),
            loaded: function("loaded"),
            serves: function("serves"),
            hold: function("hold"),
            forget: function("forget"),
            use_lambda_events: function("useLambdaEvents"),
            use_web_socket_pair: function("useWebSocketPair"),
            request: function("request"),
            body: function("body"),
            trailers: function("trailers"),
            body_aborted: function("bodyAborted"),
            credit: function("credit"),
            cancel: function("cancel"),
            idle: function("idle"),
            sockets: function("sockets"),
        }
    }

    /// Whom the functions that JavaScript gets belong to.
    pub(crate) fn set_host(runtime: &mut JsRuntime, host: Rc<Host>) {
        runtime.v8_isolate().set_slot(host);
    }

    /// Starts what of the JavaScript side knows no process.
    pub(crate) fn boot(&self, runtime: &mut JsRuntime) {
        scope!(scope, runtime);
        let boot = v8::Local::new(scope, &self.boot);
        let this = v8::undefined(scope).into();
        boot.call(scope, this, &[]).expect("Node's globals start");
    }

    /// Makes the JavaScript side this process's.
    pub(crate) fn settle(&self, runtime: &mut JsRuntime) {
        scope!(scope, runtime);
        let settle = v8::Local::new(scope, &self.settle);
        let this = v8::undefined(scope).into();
        settle.call(scope, this, &[]).expect("Node's process is told its ids");
    }

    /// Takes back the assignment, and the module that was shown.
    pub(crate) fn forget(&self, runtime: &mut JsRuntime) {
        notify(runtime, &self.forget, &[]);
    }

    /// Hands over the host's functions.
    pub(crate) fn offer(&self, runtime: &mut JsRuntime) {
        scope!(scope, runtime);
        let host = v8::Object::new(scope);
        macro_rules! offer {
            ($($name:literal: $function:ident),* $(,)?) => {$(
                let key = v8::String::new(scope, $name).expect("a short string");
                let function =
                    v8::Function::new(scope, callbacks::$function).expect("execution goes on");
                host.set(scope, key.into(), function.into());
            )*};
        }
        offer! {
            "headers": headers, "origin": origin, "answer": answer, "head": head, "chunk": chunk,
            "trailers": trailers, "credit": credit, "fill": fill, "filled": filled, "log": log,
            "done": done, "failed": failed, "openWebSocket": open_web_socket,
        }
        let offer = v8::Local::new(scope, &self.offer);
        let this = v8::undefined(scope).into();
        offer.call(scope, this, &[host.into()]);
    }

    /// Hands over what of the assignment the handlers may see.
    pub(crate) fn assign(&self, runtime: &mut JsRuntime, assignment: &Assignment) {
        scope!(scope, runtime);
        let settings = serde_json::json!({
            "functionName": assignment.function_name,
            "ownerName": assignment.owner_name,
            "bundlePath": assignment.bundle_path,
            "functionVersion": assignment.version.to_string(),
            "memoryMb": assignment.limits.memory_mb,
            "eventFormat": assignment.limits.event_format,
            "initialCreditBytes": INITIAL_CREDIT_BYTES,
            "env": assignment.env,
        });
        let text = v8::String::new(scope, &settings.to_string()).expect("within V8's string limit");
        let settings = v8::json::parse(scope, text).expect("it was serialised as JSON");
        let assign = v8::Local::new(scope, &self.assign);
        let this = v8::undefined(scope).into();
        assign.call(scope, this, &[settings]);
    }

    /// Shows the evaluated module; says how its handler is called, once it has one that can be.
    pub(crate) fn loaded(
        &self,
        runtime: &mut JsRuntime,
        namespace: &v8::Global<v8::Object>,
    ) -> Option<HandlerKind> {
        scope!(scope, runtime);
        let namespace = v8::Local::new(scope, namespace);
        let loaded = v8::Local::new(scope, &self.loaded);
        let this = v8::undefined(scope).into();
        let kind = loaded.call(scope, this, &[namespace.into()])?;
        // As it serialises, or undefined.
        let kind = serde_json::from_value(kind.to_rust_string_lossy(scope).into()).ok()?;
        let takes_headers = v8::Local::new(scope, &self.takes_headers);
        let takes_headers = takes_headers.call(scope, this, &[]);
        self.needs_headers.set(takes_headers.is_none_or(|takes_headers| takes_headers.is_true()));
        Some(kind)
    }

    /// Whether the module has started a server, whose end it may be waiting for.
    pub(crate) fn serves(&self, runtime: &mut JsRuntime) -> bool {
        ask(runtime, &self.serves)
    }

    /// The module waits for the end of its server: the event loop does not complain of it any more.
    pub(crate) fn hold(&self, runtime: &mut JsRuntime) {
        notify(runtime, &self.hold, &[]);
    }

    /// Events are to be exactly as AWS makes them.
    pub(crate) fn use_lambda_events(&self, runtime: &mut JsRuntime) {
        notify(runtime, &self.use_lambda_events, &[]);
    }

    /// The module that is evaluated next may make a `WebSocketPair`.
    pub(crate) fn use_web_socket_pair(&self, runtime: &mut JsRuntime) {
        notify(runtime, &self.use_web_socket_pair, &[]);
    }

    /// Starts a call.
    pub(crate) fn request(&self, runtime: &mut JsRuntime, call: &IncomingCall, now: Instant) {
        scope!(scope, runtime);
        let headers = if self.needs_headers.get() {
            self.names.list(scope, &call.headers)
        } else {
            latin1(scope, call.headers.as_bytes(), v8::NewStringType::Normal)
        };
        let id = v8::Integer::new_from_unsigned(scope, call.call);
        let execution_id = text(scope, call.execution_id.text_in(&mut [0; 36]));
        let method = self.names.one_of_a_kind(scope, call.method.as_bytes());
        let target = text(scope, &call.target);
        let body =
            if call.body.is_empty() { v8::null(scope).into() } else { bytes(scope, &call.body) };
        let end = v8::Boolean::new(scope, call.end);
        let left = call.deadline.saturating_duration_since(now).as_millis();
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        let budget = v8::Integer::new_from_unsigned(scope, left);
        let request = v8::Local::new(scope, &self.request);
        let this = v8::undefined(scope).into();
        request.call(
            scope,
            this,
            &[id.into(), execution_id, method, target, headers, body, end.into(), budget.into()],
        );
    }

    /// More of a request's body.
    pub(crate) fn body(&self, runtime: &mut JsRuntime, call: u32, piece: &[u8], end: bool) {
        scope!(scope, runtime);
        let id = v8::Integer::new_from_unsigned(scope, call).into();
        let piece = bytes(scope, piece);
        let end = v8::Boolean::new(scope, end).into();
        let body = v8::Local::new(scope, &self.body);
        let this = v8::undefined(scope).into();
        body.call(scope, this, &[id, piece, end]);
    }

    /// A request's body ends, with trailers.
    pub(crate) fn trailers(&self, runtime: &mut JsRuntime, call: u32, trailers: &HeaderBlock) {
        scope!(scope, runtime);
        let id = v8::Integer::new_from_unsigned(scope, call).into();
        let list = self.names.list(scope, trailers);
        let trailers = v8::Local::new(scope, &self.trailers);
        let this = v8::undefined(scope).into();
        trailers.call(scope, this, &[id, list]);
    }

    /// The rest of a request's body will not come.
    pub(crate) fn body_aborted(&self, runtime: &mut JsRuntime, call: u32) {
        notify(runtime, &self.body_aborted, &[call]);
    }

    /// More of an answer's body may be sent.
    pub(crate) fn credit(&self, runtime: &mut JsRuntime, call: u32, bytes: u32) {
        notify(runtime, &self.credit, &[call, bytes]);
    }

    /// How many sockets of Node's modules are open.
    pub(crate) fn sockets(&self, runtime: &mut JsRuntime) -> usize {
        scope!(scope, runtime);
        let sockets = v8::Local::new(scope, &self.sockets);
        let this = v8::undefined(scope).into();
        let counted = sockets.call(scope, this, &[]).and_then(|n| n.uint32_value(scope));
        counted.map_or(0, |n| n as usize)
    }

    /// Nobody waits for the answer.
    pub(crate) fn cancel(&self, runtime: &mut JsRuntime, call: u32) {
        notify(runtime, &self.cancel, &[call]);
    }

    /// The event loop has nothing left to do, and a call is in the isolate. Whether it has waited for that.
    pub(crate) fn idle(&self, runtime: &mut JsRuntime) -> bool {
        ask(runtime, &self.idle)
    }
}

fn notify(runtime: &mut JsRuntime, function: &v8::Global<v8::Function>, numbers: &[u32]) {
    scope!(scope, runtime);
    let args: Vec<v8::Local<v8::Value>> =
        numbers.iter().map(|n| v8::Integer::new_from_unsigned(scope, *n).into()).collect();
    let function = v8::Local::new(scope, function);
    let this = v8::undefined(scope).into();
    function.call(scope, this, &args);
}

/// Anything but `true` is no.
fn ask(runtime: &mut JsRuntime, function: &v8::Global<v8::Function>) -> bool {
    scope!(scope, runtime);
    let function = v8::Local::new(scope, function);
    let this = v8::undefined(scope).into();
    function.call(scope, this, &[]).is_some_and(|answer| answer.is_true())
}

fn text<'s>(scope: &mut v8::PinScope<'s, '_>, text: &str) -> v8::Local<'s, v8::Value> {
    if text.is_ascii() {
        return latin1(scope, text.as_bytes(), v8::NewStringType::Normal);
    }
    v8::String::new(scope, text).map_or_else(|| v8::String::empty(scope).into(), Into::into)
}

fn bytes<'s>(scope: &mut v8::PinScope<'s, '_>, bytes: &[u8]) -> v8::Local<'s, v8::Value> {
    let store = v8::ArrayBuffer::new_backing_store_from_vec(bytes.to_vec()).make_shared();
    let buffer = v8::ArrayBuffer::with_backing_store(scope, &store);
    let length = buffer.byte_length();
    v8::Uint8Array::new(scope, buffer, 0, length).map_or_else(|| v8::null(scope).into(), Into::into)
}
