//! Both ends over real sockets: what one role asks arrives at the other, at most once.

#![allow(clippy::unwrap_used)]

mod proxy;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use cloudserve_protocol::build::{
    BuiltDependencies, DependencyBuilder, DependencyError, DependencySpec,
};
use cloudserve_protocol::call::{
    Body, Env, HandlerKind, Invocation, Invoker, LoadReport, Outcome, Piece, Reply, RequestHead,
    ResponseHead, Target, Timings, VersionLoader,
};
use cloudserve_protocol::fault::{Fault, FaultClass};
use cloudserve_protocol::ids::{BundleHash, ExecutionId, FunctionId, UserId};
use cloudserve_protocol::limits::Limits;
use cloudserve_remote::{InternalToken, Offered, RemoteOptions, Sandboxes, Server, ServerOptions};
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Loading this version takes so long.
const SLOW_VERSION: u32 = 7;
const SLOW: Duration = Duration::from_millis(2_500);

/// What the sandbox of a test does with a call.
#[derive(Clone, Copy)]
enum Does {
    /// Answers with what it was sent, whole.
    Echo,
    /// Answers with what it was sent, piece by piece.
    EchoStream,
    /// Answers without end, and notices when nobody listens.
    Endless,
    /// Says that it has not begun.
    Declines,
    /// Begins and never ends.
    Hangs,
}

/// A node, and what was asked of it.
struct Node {
    address: SocketAddr,
    seen: Arc<Seen>,
    server: Server,
    task: JoinHandle<()>,
}

/// Id, function, head and time left of a call.
type Arrived = (ExecutionId, Arc<Target>, RequestHead, Duration);

struct Seen {
    does: Does,
    is_ready: AtomicBool,
    calls: AtomicUsize,
    last: Mutex<Option<Arrived>>,
    retired: Mutex<Vec<(FunctionId, u32)>>,
    loads: AtomicUsize,
    builds: AtomicUsize,
}

async fn node(does: Does, token: &str) -> Node {
    node_that_knows(does, token, None).await
}

async fn node_that_knows(does: Does, token: &str, previous: Option<&str>) -> Node {
    let seen = Arc::new(Seen {
        does,
        is_ready: AtomicBool::new(true),
        calls: AtomicUsize::new(0),
        last: Mutex::default(),
        retired: Mutex::default(),
        loads: AtomicUsize::new(0),
        builds: AtomicUsize::new(0),
    });
    let ready = seen.clone();
    let offered = Offered {
        invoker: seen.clone(),
        loader: seen.clone(),
        builder: seen.clone(),
        is_ready: Arc::new(move || ready.is_ready.load(Relaxed)),
    };
    let token = InternalToken::parse(token).unwrap();
    let previous = previous.map(|token| InternalToken::parse(token).unwrap());
    let server = Server::new(offered, token, previous, ServerOptions::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = server.router();
    let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    Node { address, seen, server, task }
}

async fn client(nodes: &[&Node]) -> Sandboxes {
    client_with(RemoteOptions::default(), nodes).await
}

async fn client_with(options: RemoteOptions, nodes: &[&Node]) -> Sandboxes {
    let urls = nodes.iter().map(|node| format!("http://{}", node.address).parse().unwrap());
    let token = InternalToken::parse(TOKEN).unwrap();
    let sandboxes = Sandboxes::start(options, urls.collect(), token);
    wait_for(|| sandboxes.is_ready()).await;
    sandboxes
}

async fn wait_for(mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < end, "waited in vain");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[async_trait]
impl Invoker for Seen {
    async fn invoke(&self, call: Invocation) -> Result<Reply, Box<Outcome>> {
        self.calls.fetch_add(1, Relaxed);
        let left = call.deadline.saturating_duration_since(Instant::now());
        *self.last.lock() = Some((call.execution_id, call.target, call.head, left));
        let told = call.told;
        let over = Outcome { started: true, cpu_us: 42, ..Outcome::default() };
        let body = match self.does {
            Does::Declines => {
                let fault = Fault::new(FaultClass::SandboxUnavailable, "no");
                return Err(Box::new(Outcome::not_started(fault)));
            }
            Does::Hangs => {
                let _given_up = TellsWhenDropped(Some((told, over)));
                std::future::pending().await
            }
            Does::Echo => {
                let body = match call.body.collect().await {
                    Ok(body) => body,
                    Err(fault) => return Err(Box::new(Outcome::not_started(fault))),
                };
                told.send(over).unwrap();
                if body.is_empty() { Body::Empty } else { Body::Full(body) }
            }
            Does::EchoStream => {
                let Body::Stream(pieces) = call.body else { panic!("not in pieces") };
                tokio::spawn(async move {
                    // After the body, as of a function that goes on.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    told.send(over).unwrap();
                });
                Body::Stream(pieces)
            }
            Does::Endless => {
                let (out, pieces) = mpsc::channel::<Result<Piece, Fault>>(1);
                tokio::spawn(async move {
                    while out.send(Ok(Bytes::from_static(&[b'x'; 4_096]).into())).await.is_ok() {}
                    let fault = Fault::new(FaultClass::Cancelled, "nobody listens");
                    told.send(Outcome { fault: Some(fault), ..over }).unwrap();
                });
                Body::Stream(Box::pin(stream::unfold(pieces, |mut pieces| async {
                    pieces.recv().await.map(|piece| (piece, pieces))
                })))
            }
        };
        let head = ResponseHead { status: 207, headers: [("a", "1")].into_iter().collect() };
        let timings = Timings { queue_us: 1, boot_us: 2, exec_us: 3 };
        Ok(Reply { head, body, cold: true, timings })
    }
}

/// As the sandbox does for whoever has given up waiting.
struct TellsWhenDropped(Option<(oneshot::Sender<Outcome>, Outcome)>);

impl Drop for TellsWhenDropped {
    fn drop(&mut self) {
        let (told, over) = self.0.take().unwrap();
        let fault = Fault::new(FaultClass::Cancelled, "nobody listens");
        let _ = told.send(Outcome { fault: Some(fault), ..over });
    }
}

#[async_trait]
impl VersionLoader for Seen {
    async fn load(&self, target: Arc<Target>) -> Result<LoadReport, Fault> {
        self.loads.fetch_add(1, Relaxed);
        if target.version == SLOW_VERSION {
            tokio::time::sleep(SLOW).await;
        }
        if target.version == 9 {
            return Err(Fault::new(FaultClass::StartupError, "bad").with_detail("at x.js:1"));
        }
        Ok(LoadReport { handler_kind: HandlerKind::Fetch, load_us: 5, logs: Vec::new() })
    }

    fn retire_below(&self, function_id: FunctionId, version: u32) {
        self.retired.lock().push((function_id, version));
    }
}

#[async_trait]
impl DependencyBuilder for Seen {
    async fn build(&self, _: DependencySpec) -> Result<BuiltDependencies, DependencyError> {
        self.builds.fetch_add(1, Relaxed);
        Err(DependencyError::Rejected("no such package".to_owned()))
    }
}

fn call(body: Body) -> Invocation {
    told_call(body).0
}

/// A call, and where its outcome will be.
fn told_call(body: Body) -> (Invocation, oneshot::Receiver<Outcome>) {
    let (told, outcome) = oneshot::channel();
    let call = Invocation {
        execution_id: ExecutionId::new(),
        target: target(3),
        deadline: Instant::now() + Duration::from_secs(20),
        head: RequestHead {
            method: "PUT".into(),
            target: "/a?b=c".into(),
            headers: [("host", "h"), ("x", "1"), ("x", "2")].into_iter().collect(),
        },
        body,
        told,
    };
    (call, outcome)
}

fn target(version: u32) -> Arc<Target> {
    Arc::new(Target {
        function_id: FunctionId::new(),
        owner_id: UserId::new(),
        owner_name: "owner".parse().unwrap(),
        function_name: "function".parse().unwrap(),
        version,
        bundle_hash: BundleHash::of(b"x"),
        runtime_deps: None,
        limits: Limits::default(),
        env: Env([("SECRET".to_owned(), "s3".to_owned())].into()),
    })
}

fn pieces(texts: &'static [&'static str]) -> Body {
    Body::Stream(Box::pin(stream::iter(
        texts.iter().map(|text| Ok(Bytes::from_static(text.as_bytes()).into())),
    )))
}

#[tokio::test]
async fn a_call_and_its_answer_cross_unchanged() {
    let node = node(Does::Echo, TOKEN).await;
    let sandboxes = client(&[&node]).await;
    assert!(sandboxes.is_ready());
    let large = Bytes::from(vec![b'y'; 3_000_000]);
    for body in [Bytes::new(), Bytes::from_static(b"hello"), large] {
        let sent = if body.is_empty() { Body::Empty } else { Body::Full(body.clone()) };
        let (sent, outcome) = told_call(sent);
        let (id, target, head) = (sent.execution_id, sent.target.clone(), sent.head.clone());
        let reply = sandboxes.invoke(sent).await.unwrap();
        assert_eq!((reply.head.status, reply.cold), (207, true));
        assert_eq!(reply.head.headers.get("a"), Some(&b"1"[..]));
        assert_eq!(reply.timings, Timings { queue_us: 1, boot_us: 2, exec_us: 3 });
        assert_eq!(reply.body.collect().await.unwrap(), body);
        let outcome = outcome.await.unwrap();
        assert_eq!((outcome.cpu_us, outcome.started), (42, true));
        let (got_id, got_target, got_head, left) = node.seen.last.lock().take().unwrap();
        assert_eq!((got_id, got_target, got_head), (id, target, head));
        assert!(left <= Duration::from_secs(20) && left > Duration::from_secs(5), "{left:?}");
    }
    assert!(sandboxes.metrics().to_string().contains("cloudserve_remote_in_flight 0\n"));
}

#[tokio::test]
async fn bodies_stream_both_ways_and_the_outcome_comes_last() {
    let node = node(Does::EchoStream, TOKEN).await;
    let sandboxes = client(&[&node]).await;
    let (send, receive) = mpsc::channel::<Result<Piece, Fault>>(1);
    let body = stream::unfold(receive, |mut receive| async {
        receive.recv().await.map(|piece| (piece, receive))
    });
    let (call, outcome) = told_call(Body::Stream(Box::pin(body)));
    let reply = sandboxes.invoke(call).await.unwrap();
    let Body::Stream(mut answer) = reply.body else { panic!("whole") };
    // Each piece comes back before the next is sent.
    for text in ["one", "two", "three"] {
        let piece = Piece::Data(Bytes::from(text));
        send.send(Ok(piece.clone())).await.unwrap();
        assert_eq!(answer.next().await.unwrap().unwrap(), piece);
    }
    let trailers = Piece::Trailers([("sum", "1"), ("sum", "\u{e9}")].into_iter().collect());
    send.send(Ok(trailers.clone())).await.unwrap();
    assert_eq!(answer.next().await.unwrap().unwrap(), trailers);
    drop(send);
    assert!(answer.next().await.is_none());
    assert_eq!(outcome.await.unwrap().cpu_us, 42);
}

#[tokio::test]
async fn a_node_hears_that_nobody_listens_and_says_what_the_call_used() {
    let node = node(Does::Endless, TOKEN).await;
    let sandboxes = client(&[&node]).await;
    let (call, outcome) = told_call(Body::Empty);
    let reply = sandboxes.invoke(call).await.unwrap();
    let Body::Stream(mut answer) = reply.body else { panic!("whole") };
    assert!(answer.next().await.unwrap().is_ok());
    drop(answer);
    let outcome = outcome.await.unwrap();
    assert_eq!(outcome.fault.unwrap().class, FaultClass::Cancelled);
    assert_eq!(outcome.cpu_us, 42);
}

#[tokio::test]
async fn a_call_that_is_given_up_before_its_answer_says_what_it_used() {
    let node = node(Does::Hangs, TOKEN).await;
    let sandboxes = client(&[&node]).await;
    let (call, outcome) = told_call(Body::Empty);
    tokio::select! {
        _ = sandboxes.invoke(call) => panic!("it hangs"),
        () = wait_for(|| node.seen.calls.load(Relaxed) == 1) => {}
    }
    let outcome = tokio::time::timeout(Duration::from_secs(5), outcome).await.unwrap().unwrap();
    assert_eq!(outcome.fault.unwrap().class, FaultClass::Cancelled);
    assert_eq!((outcome.cpu_us, outcome.started), (42, true));
}

#[tokio::test]
async fn a_call_that_is_given_up_before_it_is_taken_says_what_it_used() {
    let node = node(Does::Hangs, TOKEN).await;
    let holds = Arc::new(AtomicBool::new(false));
    let url = format!("http://{}", proxy::before(node.address, &holds).await).parse().unwrap();
    let options = RemoteOptions { check_ms: 600_000, ..RemoteOptions::default() };
    let sandboxes = Sandboxes::start(options, vec![url], InternalToken::parse(TOKEN).unwrap());
    wait_for(|| sandboxes.is_ready()).await;
    holds.store(true, Relaxed);
    let (call, outcome) = told_call(Body::Empty);
    tokio::select! {
        _ = sandboxes.invoke(call) => panic!("nothing is said"),
        () = wait_for(|| node.seen.calls.load(Relaxed) == 1) => {}
    }
    holds.store(false, Relaxed);
    let outcome = tokio::time::timeout(Duration::from_secs(5), outcome).await.unwrap().unwrap();
    assert_eq!(outcome.fault.unwrap().class, FaultClass::Cancelled);
    assert_eq!((outcome.cpu_us, outcome.started), (42, true));
}

#[tokio::test]
async fn the_end_of_one_attempt_takes_no_word_from_another_of_the_same_call() {
    let node = node(Does::Echo, TOKEN).await;
    let sandboxes = client(&[&node]).await;
    // It waits for a body that does not come.
    let (waiting, outcome) = told_call(Body::Stream(Box::pin(stream::pending())));
    let again = Invocation { execution_id: waiting.execution_id, ..call(Body::Empty) };
    tokio::select! {
        _ = sandboxes.invoke(waiting) => panic!("it waits"),
        () = async {
            wait_for(|| node.seen.calls.load(Relaxed) == 1).await;
            sandboxes.invoke(again).await.unwrap();
        } => {}
    }
    let outcome = tokio::time::timeout(Duration::from_secs(5), outcome).await.unwrap().unwrap();
    assert_eq!(outcome.fault.unwrap().class, FaultClass::Cancelled);
}

#[tokio::test]
async fn what_was_not_begun_goes_to_another_node_with_its_body() {
    let bad = node(Does::Declines, TOKEN).await;
    let stranger = node(Does::Echo, &TOKEN.replace('0', "x")).await;
    let draining = node(Does::Echo, TOKEN).await;
    let good = node(Does::Echo, TOKEN).await;
    let options = RemoteOptions { check_ms: 600_000, ..RemoteOptions::default() };
    let sandboxes = client_with(options, &[&bad, &stranger, &draining, &good]).await;
    draining.server.drain();
    for n in 0..40 {
        let body = if n % 2 == 0 { pieces(&["a", "b"]) } else { Body::Full("ab".into()) };
        let reply = sandboxes.invoke(call(body)).await.unwrap();
        assert_eq!(reply.body.collect().await.unwrap(), "ab");
    }
    let (refused, served) = (bad.seen.calls.load(Relaxed), good.seen.calls.load(Relaxed));
    assert!(refused > 0 && served == 40, "{refused} {served}");
    assert_eq!(stranger.seen.calls.load(Relaxed), 0, "a wrong token reaches nothing");
    assert_eq!(draining.seen.calls.load(Relaxed), 0);
    assert!(sandboxes.metrics().retries >= u64::try_from(refused).unwrap());

    // With nobody to take it, the refusal says so, in a bounded time.
    good.server.drain();
    let outcome = sandboxes.invoke(call(Body::Empty)).await.unwrap_err();
    assert_eq!(outcome.fault.unwrap().class, FaultClass::SandboxUnavailable);
    assert!(!outcome.started);
}

#[tokio::test]
async fn while_the_token_is_changed_a_node_takes_either() {
    let new = TOKEN.replace('0', "n");
    let new = new.as_str();
    for (token, previous, is_taken) in [
        (TOKEN, Some(new), true),
        (new, Some(TOKEN), true),
        (new, None, false),
        (new, Some(new), false),
    ] {
        let node = node_that_knows(Does::Echo, token, previous).await;
        let url = format!("http://{}", node.address).parse().unwrap();
        let options = RemoteOptions { unavailable_wait_ms: 200, ..RemoteOptions::default() };
        let sandboxes = Sandboxes::start(options, vec![url], InternalToken::parse(TOKEN).unwrap());
        if is_taken {
            wait_for(|| sandboxes.is_ready()).await;
        }
        let outcome = sandboxes.invoke(call(Body::Empty)).await;
        assert_eq!(outcome.is_ok(), is_taken, "{token} {previous:?}");
        assert_eq!(node.seen.calls.load(Relaxed), usize::from(is_taken));
    }
}

#[test]
fn a_call_whose_node_is_lost_is_not_made_again() {
    // The node has a runtime of its own, which ends as a process does: with all connections.
    let theirs = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let theirs = theirs.unwrap();
    let lost = theirs.block_on(node(Does::Hangs, TOKEN));
    let ours = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    ours.block_on(async {
        let sandboxes = client(&[&lost]).await;
        let waiting = tokio::spawn({
            let sandboxes = sandboxes.clone();
            async move { sandboxes.invoke(call(Body::Empty)).await }
        });
        wait_for(|| lost.seen.calls.load(Relaxed) == 1).await;
        theirs.shutdown_background();
        let outcome = waiting.await.unwrap().unwrap_err();
        assert_eq!(outcome.fault.unwrap().class, FaultClass::Crashed);
        assert!(outcome.started);
        assert_eq!(lost.seen.calls.load(Relaxed), 1);
        assert_eq!(sandboxes.metrics().lost, 1);
    });
}

#[tokio::test]
async fn the_deadline_holds_whatever_the_node_does() {
    let node = node(Does::Hangs, TOKEN).await;
    let sandboxes = client(&[&node]).await;
    let mut late = call(Body::Empty);
    late.deadline = Instant::now() + Duration::from_millis(100);
    let outcome = sandboxes.invoke(late).await.unwrap_err();
    assert_eq!(outcome.fault.unwrap().class, FaultClass::Timeout);
    assert!(outcome.started, "it may have been");
}

#[tokio::test]
async fn a_node_that_says_nothing_is_given_up_before_the_deadline_and_no_other_gets_the_call() {
    // The kernel connects; nobody ever reads. So does a host whose process hangs.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap()).parse().unwrap();
    let options = RemoteOptions { take_timeout_ms: 1_000, ..RemoteOptions::default() };
    let sandboxes = Sandboxes::start(options, vec![url], InternalToken::parse(TOKEN).unwrap());
    let outcome = sandboxes.invoke(call(Body::Full("x".into()))).await.unwrap_err();
    assert_eq!(outcome.fault.unwrap().class, FaultClass::Crashed);
    assert!(outcome.started, "it may have been");
    let metrics = sandboxes.metrics();
    assert_eq!((metrics.lost, metrics.retries), (1, 0));
}

/// A host that is gone: the kernel connects nobody while as many wait as may, and drops what asks. One
/// waits already.
struct Gone {
    address: SocketAddr,
    _waiting: TcpStream,
    _listener: TcpListener,
}

impl Gone {
    async fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let waiting = TcpStream::connect(address).await.unwrap();
        Self { address, _waiting: waiting, _listener: listener }
    }
}

#[tokio::test]
async fn a_call_that_finds_only_hosts_that_are_gone_is_no_timeout_of_its_function() {
    let mut gone = Vec::new();
    for _ in 0..20 {
        gone.push(Gone::new().await);
    }
    // Connecting to all takes longer than the call has; connecting to one does.
    for (connect_timeout_ms, time_left_ms) in [(500, 5_000), (10_000, 100)] {
        let options = RemoteOptions {
            connect_timeout_ms,
            unavailable_wait_ms: 200,
            check_ms: 600_000,
            eject_after_failures: u32::MAX,
            ..RemoteOptions::default()
        };
        let urls = gone.iter().map(|gone| format!("http://{}", gone.address).parse().unwrap());
        let token = InternalToken::parse(TOKEN).unwrap();
        let sandboxes = Sandboxes::start(options, urls.collect(), token);
        let known = "cloudserve_remote_nodes{state=\"unknown\"} 20\n";
        wait_for(|| sandboxes.metrics().to_string().contains(known)).await;
        let mut call = call(Body::Empty);
        call.deadline = Instant::now() + Duration::from_millis(time_left_ms);
        let outcome = sandboxes.invoke(call).await.unwrap_err();
        assert_eq!(outcome.fault.unwrap().class, FaultClass::SandboxUnavailable);
        assert!(!outcome.started);
        assert_eq!(sandboxes.metrics().unavailable, 1);
    }
}

#[tokio::test]
async fn a_node_that_says_nothing_delays_no_check_of_another() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let good = node(Does::Echo, TOKEN).await;
    let addresses = [silent.local_addr().unwrap(), good.address];
    let urls = addresses.iter().map(|address| format!("http://{address}").parse().unwrap());
    let options = RemoteOptions {
        take_timeout_ms: 600_000,
        check_ms: 20,
        check_timeout_ms: 600_000,
        ..RemoteOptions::default()
    };
    let sandboxes = Sandboxes::start(options, urls.collect(), InternalToken::parse(TOKEN).unwrap());
    for (is_ready, state) in [(true, "ready"), (false, "not_ready"), (true, "ready")] {
        good.seen.is_ready.store(is_ready, Relaxed);
        let expected = format!("cloudserve_remote_nodes{{state=\"{state}\"}} 1\n");
        wait_for(|| sandboxes.metrics().to_string().contains(&expected)).await;
    }
}

#[tokio::test]
async fn a_load_leaves_a_node_that_says_nothing_and_none_that_takes_long() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let good = node(Does::Echo, TOKEN).await;
    let addresses = [silent.local_addr().unwrap(), good.address];
    let urls = addresses.iter().map(|address| format!("http://{address}").parse().unwrap());
    let options = RemoteOptions {
        take_timeout_ms: 2_000,
        load_timeout_ms: 15_000,
        eject_after_failures: u32::MAX,
        ..RemoteOptions::default()
    };
    let sandboxes = Sandboxes::start(options, urls.collect(), InternalToken::parse(TOKEN).unwrap());
    wait_for(|| sandboxes.is_ready()).await;
    // Of a dozen functions some have the silent node as their first.
    let loads = (0..12).map(|_| sandboxes.load(target(SLOW_VERSION)));
    for report in futures::future::join_all(loads).await {
        assert_eq!(report.unwrap().handler_kind, HandlerKind::Fetch);
    }
    assert_eq!(good.seen.loads.load(Relaxed), 12, "each once");
}

#[tokio::test]
async fn loads_builds_and_retirements_cross() {
    let nodes = [node(Does::Echo, TOKEN).await, node(Does::Echo, TOKEN).await];
    let sandboxes = client(&[&nodes[0], &nodes[1]]).await;
    let report = sandboxes.load(target(1)).await.unwrap();
    assert_eq!(report.handler_kind, HandlerKind::Fetch);
    let fault = sandboxes.load(target(9)).await.unwrap_err();
    assert_eq!(fault.class, FaultClass::StartupError);
    assert_eq!(fault.detail.as_deref(), Some("at x.js:1"));

    let spec = DependencySpec::default();
    for _ in 0..3 {
        let error = sandboxes.build(spec.clone()).await.unwrap_err();
        assert!(matches!(error, DependencyError::Rejected(text) if text == "no such package"));
    }
    let mut builds: Vec<_> = nodes.iter().map(|node| node.seen.builds.load(Relaxed)).collect();
    builds.sort_unstable();
    assert_eq!(builds, [0, 3], "equal sets go to one node");

    let id = FunctionId::new();
    sandboxes.retire_below(id, 4);
    for node in &nodes {
        wait_for(|| *node.seen.retired.lock() == [(id, 4)]).await;
    }
    // A node that is not there takes nothing away from the others.
    nodes[0].task.abort();
    for _ in 0..20 {
        sandboxes.load(target(1)).await.unwrap();
    }
}
