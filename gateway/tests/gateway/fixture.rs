//! A gateway with two accounts, and an invoker that does what a function's name says.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body as HttpBody;
use bytes::Bytes;
use cloudserve_gateway::{Downstream, Gateway, GatewayOptions};
use cloudserve_identity::{ApiKeySecret, Authenticator, Sealer, Secret, SessionTokens};
use cloudserve_protocol::call::{
    Body, Env, HandlerKind, Invocation, Invoker, LogLevel, LogLine, Outcome, Piece, Reply,
    ResponseHead, Timings,
};
use cloudserve_protocol::fault::{Fault, FaultClass};
use cloudserve_protocol::ids::{ApiKeyId, BundleHash, FunctionId, SourceHash, UserId};
use cloudserve_protocol::limits::Limits;
use cloudserve_store::account::{ApiKey, Quota, Scope, User};
use cloudserve_store::function::{BuiltVersion, NewVersion, Source, Visibility};
use cloudserve_store::telemetry::{LogFilter, LogQuery, LogRow, UsageQuery, UsageRow};
use cloudserve_store::{Stores, Timestamp, open_embedded};
use futures::StreamExt;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use tower::ServiceExt;

/// Credentials that nobody has, looked up per second and address.
pub(crate) const UNKNOWN_PER_SECOND: u32 = 10;

pub(crate) struct World {
    pub(crate) gateway: Gateway,
    pub(crate) stores: Stores,
    pub(crate) alice: Account,
    pub(crate) bob: Account,
    sealer: Sealer,
    tokens: SessionTokens,
    secret: Secret,
    dir: Arc<tempfile::TempDir>,
}

#[derive(Clone)]
pub(crate) struct Account {
    pub(crate) id: UserId,
    pub(crate) token: String,
    pub(crate) key: String,
    pub(crate) read_key: String,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(GatewayOptions::default(), |stores| stores).await
    }

    /// The same installation behind another gateway.
    pub(crate) fn another(&self, options: GatewayOptions) -> Self {
        self.behind(options, None)
    }

    /// The same, which may show sandboxes that are other processes.
    pub(crate) fn behind(
        &self,
        options: GatewayOptions,
        downstream: Option<Arc<dyn Downstream>>,
    ) -> Self {
        let authenticator = Authenticator::new(
            self.stores.accounts.clone(),
            self.tokens.clone(),
            self.stores.changes.as_ref(),
            UNKNOWN_PER_SECOND,
        );
        let (stores, sealer) = (self.stores.clone(), self.sealer.clone());
        let invoker = Arc::new(ByName);
        let gateway =
            Gateway::new(options, stores, authenticator, sealer, invoker, None, downstream);
        Self {
            gateway,
            stores: self.stores.clone(),
            alice: self.alice.clone(),
            bob: self.bob.clone(),
            sealer: self.sealer.clone(),
            tokens: self.tokens.clone(),
            secret: self.secret.clone(),
            dir: self.dir.clone(),
        }
    }

    pub(crate) async fn with(
        options: GatewayOptions,
        change: impl FnOnce(Stores) -> Stores,
    ) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let stores = change(open_embedded(dir.path()).unwrap());
        let secret = Secret::generate().unwrap();
        let tokens = SessionTokens::new(&secret, Duration::from_hours(1));
        let alice = Account::create("alice", &stores, &tokens).await;
        let bob = Account::create("bob", &stores, &tokens).await;
        let (accounts, changes) = (stores.accounts.clone(), stores.changes.as_ref());
        let authenticator =
            Authenticator::new(accounts, tokens.clone(), changes, UNKNOWN_PER_SECOND);
        let sealer = Sealer::new(&Secret::generate().unwrap());
        let gateway = Gateway::new(
            options,
            stores.clone(),
            authenticator,
            sealer.clone(),
            Arc::new(ByName),
            None,
            None,
        );
        Self { gateway, stores, alice, bob, sealer, tokens, secret, dir }
    }

    /// Accepts version 1, to be activated or not.
    pub(crate) async fn accept(
        &self,
        owner: &Account,
        name: &str,
        visibility: Visibility,
        limits: Limits,
    ) -> FunctionId {
        let id = FunctionId::new();
        self.accept_version(owner, name, id, 1, visibility, limits).await;
        id
    }

    pub(crate) async fn accept_version(
        &self,
        owner: &Account,
        name: &str,
        function_id: FunctionId,
        version: u32,
        visibility: Visibility,
        limits: Limits,
    ) {
        let env = Env([("GREETING".to_owned(), format!("hello {version}"))].into());
        let source =
            Source { stored_version: version, entry: "index.js".into(), ..Source::default() };
        let new = NewVersion {
            function_id,
            user_id: owner.id,
            name: name.parse().unwrap(),
            version,
            of_served: None,
            visibility: Some(visibility),
            source,
            source_hash: SourceHash::of(b"source"),
            env: self.sealer.seal(function_id, &env).unwrap(),
            limits,
            built: None,
        };
        self.stores.functions.accept(new).await.unwrap();
    }

    pub(crate) async fn activate(&self, id: FunctionId, version: u32) {
        self.stores.functions.claim("test", Duration::from_mins(1)).await.unwrap();
        let built = BuiltVersion {
            bundle_hash: BundleHash::of(b"bundle"),
            bundle_bytes: 6,
            beside_bytes: 0,
            dep_hash: None,
            dependency_cache: None,
            needs_tree: false,
            handler_kind: HandlerKind::Fetch,
        };
        self.stores.functions.activate(id, version, built).await.unwrap();
    }

    pub(crate) async fn deploy(
        &self,
        owner: &Account,
        name: &str,
        visibility: Visibility,
    ) -> FunctionId {
        self.deploy_limited(owner, name, visibility, Limits::default()).await
    }

    pub(crate) async fn deploy_limited(
        &self,
        owner: &Account,
        name: &str,
        visibility: Visibility,
        limits: Limits,
    ) -> FunctionId {
        let id = self.accept(owner, name, visibility, limits).await;
        self.activate(id, 1).await;
        id
    }

    /// A key of this account for these functions alone.
    pub(crate) async fn key_for(&self, owner: &Account, functions: &[FunctionId]) -> String {
        create_key(owner.id, &Scope::ALL, functions, None, &self.stores).await
    }

    /// A key of this account that is refused from then on.
    pub(crate) async fn key_until(&self, owner: &Account, end: Timestamp) -> String {
        create_key(owner.id, &Scope::ALL, &[], Some(end), &self.stores).await
    }

    /// A session of this account that ends so soon, and when that is.
    pub(crate) fn session_for(&self, owner: &Account, lifetime: Duration) -> (String, Timestamp) {
        let token = SessionTokens::new(&self.secret, lifetime).issue(owner.id);
        let end = self.tokens.verify(&token).unwrap().expires_at();
        (token, end)
    }

    /// A key of this account with these scopes alone.
    pub(crate) async fn key_with(&self, owner: &Account, scopes: &[Scope]) -> String {
        create_key(owner.id, scopes, &[], None, &self.stores).await
    }

    pub(crate) async fn raw(&self, request: Request<HttpBody>) -> Response<HttpBody> {
        self.gateway.router().oneshot(request).await.unwrap()
    }

    pub(crate) async fn send(&self, request: Request<HttpBody>) -> Answer {
        Answer::of(self.raw(request).await).await
    }

    pub(crate) async fn get(&self, path: &str, account: &Account) -> Answer {
        let request = Request::get(path).header("authorization", account.bearer());
        self.send(request.body(HttpBody::empty()).unwrap()).await
    }

    /// All usage rows of an account, once there are this many.
    pub(crate) async fn usage(&self, owner: &Account, rows: usize) -> Vec<UsageRow> {
        for _ in 0..1_500 {
            let query = UsageQuery { user_id: owner.id, function_id: None, from: None, to: None };
            let page = self.stores.telemetry.usage_rows(query, 1_000, None).await.unwrap();
            if page.items.len() >= rows {
                return page.items;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{rows} usage rows did not come");
    }

    /// Waits until a call is in flight.
    pub(crate) async fn call_begun(&self) {
        for _ in 0..1_500 {
            if self.gateway.metrics().in_flight > 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("no call has begun");
    }

    pub(crate) async fn logs(&self, function_id: FunctionId) -> Vec<LogRow> {
        let query = LogQuery {
            function_id,
            limit: 100,
            after: None,
            execution_id: None,
            filter: LogFilter::default(),
        };
        self.stores.telemetry.logs(query).await.unwrap().rows
    }
}

impl Account {
    async fn create(name: &'static str, stores: &Stores, tokens: &SessionTokens) -> Self {
        let user = User {
            id: UserId::new(),
            full_name: name.to_owned(),
            user_name: name.parse().unwrap(),
            email: format!("{name}@example.test"),
            password_hash: String::new(),
            quota: Quota::default(),
            created_at: Timestamp::now(),
        };
        let id = user.id;
        stores.accounts.create_user(user).await.unwrap();
        let key = create_key(id, &Scope::ALL, &[], None, stores).await;
        let read_key = create_key(id, &[Scope::Read], &[], None, stores).await;
        Self { id, token: tokens.issue(id), key, read_key }
    }

    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }
}

async fn create_key(
    user_id: UserId,
    scopes: &[Scope],
    functions: &[FunctionId],
    expires_at: Option<Timestamp>,
    stores: &Stores,
) -> String {
    let secret = ApiKeySecret::generate().unwrap();
    let key = ApiKey {
        id: ApiKeyId::new(),
        user_id,
        name: "key".to_owned(),
        key_hash: secret.hash(),
        prefix: secret.shown_prefix(),
        scopes: scopes.to_vec(),
        functions: functions.to_vec(),
        expires_at,
        last_used_at: None,
        created_at: Timestamp::now(),
    };
    stores.accounts.create_api_key(key).await.unwrap();
    secret.reveal().to_owned()
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    async fn of(response: Response<HttpBody>) -> Self {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Self { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.body))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Status and error code.
    pub(crate) fn fault(&self) -> (u16, String) {
        let json = self.json();
        assert_eq!(json["message"], json["error"]["message"]);
        (self.status.as_u16(), json["error"]["code"].as_str().unwrap_or_default().to_owned())
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
}

/// Does what the function's name says.
struct ByName;

fn outcome(fault: Option<Fault>) -> Outcome {
    Outcome {
        fault,
        started: true,
        cpu_us: 1_500,
        memory_bytes: 2 * 1024 * 1024,
        ..Outcome::default()
    }
}

fn reply(body: Body, headers: &[(&str, &str)]) -> Reply {
    let head = ResponseHead { status: 200, headers: headers.iter().copied().collect() };
    let timings = Timings { queue_us: 1, boot_us: 0, exec_us: 2_500 };
    Reply { head, body, cold: false, timings }
}

fn answered(told: oneshot::Sender<Outcome>, body: Body, headers: &[(&str, &str)]) -> Reply {
    // Whoever is told may be gone.
    let _ = told.send(outcome(None));
    reply(body, headers)
}

/// As the sandbox does for whoever has given up waiting.
struct TellsWhenDropped(Option<oneshot::Sender<Outcome>>);

impl Drop for TellsWhenDropped {
    fn drop(&mut self) {
        let fault = Fault::new(FaultClass::Cancelled, "nobody waits");
        let line = LogLine { level: LogLevel::Info, message: "begun".into(), timestamp_ms: 1 };
        let over = Outcome { logs: vec![line], ..outcome(Some(fault)) };
        let _ = self.0.take().unwrap().send(over);
    }
}

#[async_trait]
impl Invoker for ByName {
    async fn invoke(&self, call: Invocation) -> Result<Reply, Box<Outcome>> {
        let text = [("content-type", "text/plain")];
        let told = call.told;
        match call.target.function_name.as_str() {
            "version" => {
                let text = format!("{} {}", call.target.version, call.target.env.0["GREETING"]);
                Ok(answered(told, Body::Full(text.into()), &[]))
            }
            "echo" => {
                let headers: Vec<_> = call
                    .head
                    .headers
                    .iter()
                    .map(|(n, v)| {
                        (String::from_utf8_lossy(n).into_owned(), String::from_utf8_lossy(v))
                    })
                    .collect();
                let json = serde_json::json!({
                    "method": call.head.method, "target": call.head.target, "headers": headers,
                });
                let json = Body::Full(json.to_string().into());
                Ok(answered(told, json, &[("content-type", "application/json")]))
            }
            "count" => {
                let kind = match &call.body {
                    Body::Empty => "empty",
                    Body::Full(_) => "full",
                    Body::Stream(_) => "stream",
                };
                match call.body.collect().await {
                    Ok(body) => {
                        let text = format!("{kind} {}", body.len());
                        Ok(answered(told, Body::Full(text.into()), &text_headers()))
                    }
                    // As a function that swallows the error and answers all the same.
                    Err(_) => Ok(answered(told, Body::Full("cut".into()), &text)),
                }
            }
            "hang" => {
                let _given_up = TellsWhenDropped(Some(told));
                std::future::pending().await
            }
            "slow" => {
                tokio::time::sleep(Duration::from_millis(300)).await;
                Ok(answered(told, Body::Full("slow".into()), &text))
            }
            "throw" => {
                let fault =
                    Fault::new(FaultClass::HandlerError, "boom").with_detail("at secret.js:1");
                let logs = vec![LogLine {
                    level: LogLevel::Info,
                    message: "before".into(),
                    timestamp_ms: 1,
                }];
                Err(Box::new(Outcome { logs, ..outcome(Some(fault)) }))
            }
            "busy" => Err(too_many(None)),
            "crowded" => Err(too_many(Some(50))),
            "unread" => Err(no_room()),
            "break" => {
                let fault = Fault::new(FaultClass::Crashed, "gone");
                let pieces = vec![Ok(Bytes::from_static(b"begin").into()), Err(fault.clone())];
                let body = Body::Stream(Box::pin(futures::stream::iter(pieces)));
                told.send(outcome(Some(fault))).unwrap();
                Ok(reply(body, &text))
            }
            "drip" | "stall" => {
                let (reply, run) = drip(told, call.target.function_name.as_str() == "stall");
                tokio::spawn(run);
                Ok(reply)
            }
            // As fast as it is taken, without an end.
            "flood" => {
                let piece = Bytes::from(vec![b'x'; 64 * 1024]);
                let read = (piece, TellsWhenDropped(Some(told)));
                let pieces = futures::stream::unfold(read, |read| async move {
                    Some((Ok::<Piece, Fault>(read.0.clone().into()), read))
                });
                Ok(reply(Body::Stream(Box::pin(pieces)), &text))
            }
            // Its end comes a moment after the last of its bytes.
            "measured" => {
                let pieces = futures::stream::iter([1, 2, 3]).then(|n| async move {
                    if n == 3 {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    let piece = if n == 3 { "" } else { "12345" };
                    Ok(Bytes::from_static(piece.as_bytes()).into())
                });
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    told.send(outcome(None))
                });
                let headers = [("content-type", "text/plain"), ("content-length", "10")];
                Ok(reply(Body::Stream(Box::pin(pieces)), &headers))
            }
            "lost" => Ok(reply(Body::Full("x".into()), &text)),
            "late" => {
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    let fault = Fault::new(FaultClass::HandlerError, "rejected afterwards");
                    told.send(outcome(Some(fault)))
                });
                Ok(reply(Body::Full("x".into()), &text))
            }
            "cookies" => Ok(answered(
                told,
                Body::Full("x".into()),
                &[("set-cookie", "a=1"), ("set-cookie", "token=t"), ("set-cookie", "b=2")],
            )),
            "logs" => {
                let line =
                    LogLine { level: LogLevel::Warn, message: "line".into(), timestamp_ms: 7 };
                told.send(Outcome { logs: vec![line], ..outcome(None) }).unwrap();
                Ok(reply(Body::Full("hi".into()), &text))
            }
            "nothing" => {
                let mut reply = answered(told, Body::Empty, &[]);
                reply.head.status = 204;
                Ok(reply)
            }
            name => panic!("no such behaviour: {name}"),
        }
    }
}

/// Of the function's calls, or of its account's, which may have so many.
fn too_many(of_account: Option<u32>) -> Box<Outcome> {
    let fault = Fault::new(FaultClass::ConcurrencyLimit, "too many calls");
    Box::new(Outcome::not_started(match of_account {
        Some(limit) => fault.with_limit(limit),
        None => fault,
    }))
}

/// For an answer that was there at once.
fn no_room() -> Box<Outcome> {
    let fault = Fault::new(FaultClass::ConcurrencyLimit, "no room for the answer");
    let timings = Timings { queue_us: 1, boot_us: 1, exec_us: 1 };
    Box::new(Outcome { timings, ..outcome(Some(fault)) })
}

fn text_headers() -> [(&'static str, &'static str); 1] {
    [("content-type", "text/plain")]
}

/// An answer that goes on until its reader has gone, or stops without an end.
fn drip(told: oneshot::Sender<Outcome>, stall: bool) -> (Reply, impl Future<Output = ()> + Send) {
    let (pieces, receiver) = tokio::sync::mpsc::channel::<Result<Piece, Fault>>(1);
    let body = tokio_stream_of(receiver);
    let reply = reply(Body::Stream(body), &text_headers());
    let run = async move {
        while pieces.send(Ok(Bytes::from_static(b"drop").into())).await.is_ok() && !stall {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if stall {
            pieces.closed().await;
        }
        let fault = Fault::new(FaultClass::Cancelled, "nobody listens");
        let _ = told.send(outcome(Some(fault)));
    };
    (reply, run)
}

fn tokio_stream_of(
    receiver: tokio::sync::mpsc::Receiver<Result<Piece, Fault>>,
) -> cloudserve_protocol::call::BodyStream {
    futures::stream::unfold(receiver, |mut r| async move { r.recv().await.map(|p| (p, r)) }).boxed()
}
