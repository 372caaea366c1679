//! The supervisor with workers that lie, stall and die: this program, started again as a worker
//! that does what the name of its function says.

#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "shared with the other tests")]
mod support;

use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use cloudserve_protocol::call::{
    Body, HandlerKind, Invoker, LogLevel, Outcome, Target, VersionLoader,
};
use cloudserve_protocol::fault::{Fault, FaultClass};
use cloudserve_protocol::headers::HeaderBlock;
use cloudserve_protocol::limits::Limits;
use cloudserve_protocol::wire::{
    Done, EXIT_OUT_OF_MEMORY, FromWorker, INITIAL_CREDIT_BYTES, Jailed, Loaded, MAX_CHUNK_BYTES,
    Ready, ToWorker,
};
use cloudserve_sandbox::{LaunchMode, SandboxOptions};
use tempfile::TempDir;

use support::{Bench, Called, options, wait_until};

/// Not a test of its own: what the others start as a worker.
#[test]
#[ignore = "started by the other tests"]
fn act_as_a_worker() {
    // SAFETY: the supervisor gave us descriptor 0 as our control socket.
    let socket = unsafe { UnixStream::from_raw_fd(0) };
    Actor { socket, incoming: BytesMut::new() }.act();
}

/// More than an answer and its head may be.
const LARGE_BYTES: u32 = 4 << 20;

/// The beginning of such a frame, and the kind of an answer's.
const LARGE: [u8; 4] = LARGE_BYTES.to_le_bytes();
const HEAD: u8 = 69;

/// An answer that is large enough to take room, and no larger than a line of a log may be.
const ROOMY: [u8; 4] = ((1_u32 << 20) + 1).to_le_bytes();

/// Without what a test program does when it ends.
fn exit(code: i32) -> ! {
    // SAFETY: ends this process and runs nothing else.
    unsafe { libc::_exit(code) }
}

fn ready(code_cache_tag: &str) -> FromWorker {
    let code_cache_tag = code_cache_tag.to_owned();
    FromWorker::Ready(Ready { boot_us: 1, code_cache_tag, claims: None })
}

struct Actor {
    socket: UnixStream,
    incoming: BytesMut,
}

impl Actor {
    fn say(&mut self, frame: &FromWorker) {
        let mut out = BytesMut::new();
        frame.encode(&mut out);
        self.raw(&out);
    }

    fn raw(&mut self, bytes: &[u8]) {
        if self.socket.write_all(bytes).is_err() {
            exit(0);
        }
    }

    fn hear(&mut self) -> ToWorker {
        loop {
            if let Some(frame) = ToWorker::decode(&mut self.incoming).unwrap() {
                return frame;
            }
            let mut piece = [0; 4096];
            match self.socket.read(&mut piece) {
                Ok(0) | Err(_) => exit(0),
                Ok(n) => self.incoming.put_slice(&piece[..n]),
            }
        }
    }

    fn call(&mut self) -> u32 {
        loop {
            if let ToWorker::Request { call, .. } = self.hear() {
                return call;
            }
        }
    }

    fn head(&mut self, call: u32, status: u16, end: bool) {
        let (headers, body) = (HeaderBlock::default(), Bytes::from_static(b"fine"));
        self.say(&FromWorker::Head { call, status, headers, body, end });
    }

    fn log(&mut self, call: u32, bytes: usize) {
        let (level, message) = (LogLevel::Info, "x".repeat(bytes));
        self.say(&FromWorker::Log { call, level, timestamp_ms: 1, message });
    }

    fn done(&mut self, call: u32, fault: Option<Fault>) {
        let done = Done { fault, discard: false, cpu_us: 1, busy_us: 1, memory_bytes: 1 };
        self.say(&FromWorker::Done { call, done });
    }

    fn answer(&mut self, call: u32) {
        self.head(call, 200, true);
        self.done(call, None);
    }

    fn claim(&mut self, call: u32, words: &str) {
        self.done(call, Some(Fault::new(FaultClass::SandboxUnavailable, words)));
    }

    fn stream_without_pause(&mut self, call: u32) {
        self.head(call, 200, false);
        let mut frames = BytesMut::new();
        for _ in 0..200 {
            for _ in 0..60 {
                FromWorker::Credit { call, bytes: 1 }.encode(&mut frames);
            }
            let bytes = Bytes::from_static(b"x");
            FromWorker::Chunk { call, bytes, end: false }.encode(&mut frames);
        }
        loop {
            self.raw(&frames);
        }
    }

    fn behave(&mut self) {
        loop {
            let call = self.call();
            self.answer(call);
        }
    }

    fn act(mut self) {
        self.say(&ready("x"));
        let ToWorker::Assign(assignment) = self.hear() else { panic!("it is assigned first") };
        let role = assignment.function_name;
        let jailed = || FromWorker::Jailed(Jailed { listener: None, missing: Vec::new() });
        self.say(&jailed());
        match role.as_str() {
            "load-never" => std::thread::sleep(Duration::from_secs(60)),
            "load-flood" => loop {
                self.log(0, 100);
            },
            "load-slow" => std::thread::sleep(Duration::from_millis(200)),
            "load-head" => self.head(1, 200, true),
            "load-roomy" => self.raw(&[&ROOMY[..], &[HEAD]].concat()),
            "load-jailed-twice" => self.say(&jailed()),
            "load-claim" => {
                let fault = Fault::new(FaultClass::SandboxUnavailable, "not my fault");
                self.say(&FromWorker::LoadFailed(fault));
            }
            _ => {}
        }
        let (handler_kind, code_cache_used) = (HandlerKind::Event, role == "large-cached");
        self.say(&FromWorker::Loaded(Loaded { handler_kind, load_us: 1, code_cache_used }));
        let call = if role == "early" { 1 } else { self.call() };
        match role.as_str() {
            "status" => self.head(call, 99, true),
            "other-call" => self.head(call + 1, 200, true),
            "twice" => {
                self.head(call, 200, false);
                self.head(call, 200, true);
            }
            "done-first" => self.done(call, None),
            "ready-again" => {
                self.say(&ready(""));
            }
            "garbage" => self.raw(&[0xaa; 1_000]),
            "huge" => self.raw(&(65_u32 << 20).to_le_bytes()),
            "large" => {
                // Only code caches may be this large, and these are all it may send.
                for _ in 0..2 {
                    self.say(&FromWorker::CodeCache(Bytes::from_static(b"cache")));
                }
                self.raw(&LARGE);
            }
            // It was given one, so it may send none at all.
            "large-cached" => self.raw(&LARGE),
            "large-answer" => self.raw(&[&LARGE[..], &[HEAD]].concat()),
            "large-log" => self.log(call, 2 << 20),
            "large-done" => self.claim(call, &"x".repeat(3 << 19)),
            "large-cache" => {
                self.say(&FromWorker::CodeCache(Bytes::from(vec![0; LARGE_BYTES as usize])));
                self.answer(call);
                self.behave();
            }
            "over-credit" => {
                self.head(call, 200, false);
                let piece = Bytes::from(vec![0; MAX_CHUNK_BYTES]);
                for _ in 0..=INITIAL_CREDIT_BYTES as usize / MAX_CHUNK_BYTES {
                    self.say(&FromWorker::Chunk { call, bytes: piece.clone(), end: false });
                }
            }
            "large-head" => {
                let headers = [("x", "y".repeat(80_000))].into_iter().collect();
                let body = Bytes::new();
                self.say(&FromWorker::Head { call, status: 200, headers, body, end: true });
            }
            "claim" => self.claim(call, "not my fault"),
            "exit" => exit(5),
            "oom-code" => exit(EXIT_OUT_OF_MEMORY),
            "oom-words" => {
                eprintln!("#\n# Fatal JavaScript out of memory: Reached heap limit\n#");
                std::process::abort();
            }
            "cut-off" => {
                self.head(call, 200, false);
                std::process::abort();
            }
            "hang-up" => {
                self.socket.shutdown(std::net::Shutdown::Both).unwrap();
                std::thread::sleep(Duration::from_secs(60));
            }
            "flood" => loop {
                self.log(call, 100);
            },
            "flood-stream" => self.stream_without_pause(call),
            "flood-idle" => {
                self.answer(call);
                let mut frames = BytesMut::new();
                for _ in 0..1_000 {
                    FromWorker::Credit { call, bytes: 1 }.encode(&mut frames);
                }
                loop {
                    self.raw(&frames);
                }
            }
            "flood-idle-large" => {
                self.answer(call);
                loop {
                    self.log(call, 1 << 20);
                }
            }
            "caches" => {
                for _ in 0..5 {
                    self.say(&FromWorker::CodeCache(Bytes::from_static(b"cache")));
                }
            }
            "afterwards" => {
                self.answer(call);
                self.head(call, 200, true);
            }
            "afterwards-roomy" => {
                self.answer(call);
                self.raw(&[&ROOMY[..], &[HEAD]].concat());
            }
            "behave" => {
                self.answer(call);
                self.behave();
            }
            _ => {}
        }
        std::thread::sleep(Duration::from_secs(60));
    }
}

/// A sandbox whose worker program is [`act_as_a_worker`].
async fn bench() -> (Bench, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("worker");
    let me = std::env::current_exe().unwrap();
    let script = format!(
        "#!/bin/sh\nexec '{}' --ignored --exact --nocapture act_as_a_worker\n",
        me.display()
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut options =
        SandboxOptions { worker_program: program, launch: LaunchMode::Process, ..options() };
    options.platform.load_ms = 500;
    (Bench::start_with(options).await, dir)
}

fn actor(bench: &Bench, role: &str) -> Arc<Target> {
    let limits = Limits { timeout_ms: 1_000, response_body_bytes: 1_000, ..Limits::default() };
    let target = bench.function_with("", limits);
    Arc::new(Target { function_name: role.parse().unwrap(), ..(*target).clone() })
}

async fn call(bench: &Bench, role: &str) -> Result<Called, Box<Outcome>> {
    bench.try_get(&actor(bench, role), "/").await
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_break_the_protocol_are_ended_and_their_calls_answered() {
    let (bench, _dir) = bench().await;
    for (role, class, words) in [
        ("status", FaultClass::Crashed, "misbehaved"),
        ("other-call", FaultClass::Crashed, "misbehaved"),
        ("twice", FaultClass::Crashed, "misbehaved"),
        ("done-first", FaultClass::Crashed, "misbehaved"),
        ("ready-again", FaultClass::Crashed, "misbehaved"),
        ("garbage", FaultClass::Crashed, "misbehaved"),
        ("huge", FaultClass::Crashed, "misbehaved"),
        ("large", FaultClass::Crashed, "misbehaved"),
        ("large-cached", FaultClass::Crashed, "misbehaved"),
        ("large-answer", FaultClass::Crashed, "misbehaved"),
        ("large-log", FaultClass::Crashed, "misbehaved"),
        ("large-done", FaultClass::Crashed, "misbehaved"),
        ("caches", FaultClass::Crashed, "misbehaved"),
        ("early", FaultClass::Timeout, "1000 ms"),
        ("large-head", FaultClass::ResponseTooLarge, "headers"),
        ("claim", FaultClass::HandlerError, "not my fault"),
        ("exit", FaultClass::Crashed, "exit code 5"),
        ("oom-code", FaultClass::MemoryLimit, "128 MB"),
        ("oom-words", FaultClass::MemoryLimit, "128 MB"),
        ("cut-off", FaultClass::Crashed, "SIGABRT"),
        ("hang-up", FaultClass::Crashed, "misbehaved"),
        ("deaf", FaultClass::Timeout, "1000 ms"),
        ("flood", FaultClass::Timeout, "1000 ms"),
    ] {
        let begun = Instant::now();
        let outcome = call(&bench, role).await.unwrap_err();
        let fault = outcome.fault.clone().unwrap();
        assert_eq!(fault.class, class, "{role}: {fault:?}");
        assert!(fault.message.contains(words), "{role}: {fault:?}");
        assert!(outcome.started, "{role}");
        assert!(begun.elapsed() < Duration::from_millis(2_000), "{role}: {:?}", begun.elapsed());
        let kept: usize = outcome.logs.iter().map(|line| line.message.len()).sum();
        assert!(kept < 300 * 1024, "{role}: {kept}");
    }
    bench.is_well().await;
    let deaths = bench.sandbox.metrics().deaths;
    let of = |cause| deaths.iter().find(|(label, _)| *label == cause).unwrap().1;
    assert_eq!((of("oom"), of("exit"), of("timeout")), (2, 1, 3), "{deaths:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_cache_may_be_larger_than_an_answer() {
    let (bench, _dir) = bench().await;
    assert_eq!(call(&bench, "large-cache").await.unwrap().text(), "fine");
    bench.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_never_stops_talking_is_ended_at_the_deadline() {
    let (bench, _dir) = bench().await;
    for role in ["flood", "flood-stream"] {
        let begun = Instant::now();
        let outcome = call(&bench, role).await.unwrap_err();
        assert_eq!(outcome.fault.unwrap().class, FaultClass::Timeout, "{role}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{role}");
    }
    bench.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_sends_more_than_its_consumer_takes_is_ended() {
    let (bench, _dir) = bench().await;
    let (call, outcome) = Bench::invocation(&actor(&bench, "over-credit"), "/", Body::Empty);
    let reply = bench.sandbox.invoke(call).await.unwrap();
    let fault = outcome.await.unwrap().fault.unwrap();
    assert!(fault.message.contains("misbehaved"), "{fault:?}");
    assert_eq!(reply.body.collect().await.unwrap_err(), fault);
    bench.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_do_not_load_are_ended() {
    let (bench, _dir) = bench().await;
    for (role, words) in [
        ("load-never", "500 ms"),
        ("load-flood", "500 ms"),
        ("load-head", "misbehaved"),
        ("load-roomy", "misbehaved"),
        ("load-jailed-twice", "misbehaved"),
        ("load-claim", "not my fault"),
    ] {
        let outcome = call(&bench, role).await.unwrap_err();
        let fault = outcome.fault.unwrap();
        assert_eq!(fault.class, FaultClass::StartupError, "{role}: {fault:?}");
        assert!(fault.message.contains(words), "{role}: {fault:?}");
        assert!(outcome.started && outcome.cold, "{role}");
    }
    bench.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_talks_out_of_turn_harms_no_later_call() {
    let (bench, _dir) = bench().await;
    assert_eq!(call(&bench, "behave").await.unwrap().text(), "fine");
    for (role, ended) in [("afterwards", 1), ("afterwards-roomy", 2)] {
        assert_eq!(call(&bench, role).await.unwrap().text(), "fine");
        let are_ended = || bench.sandbox.metrics().deaths.contains(&("protocol_violation", ended));
        wait_until(role, are_ended).await;
    }
    bench.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_nobody_waits_for_leaves_the_books_in_order() {
    let (bench, _dir) = bench().await;
    let target = actor(&bench, "load-slow");
    let load = bench.sandbox.load(target.clone());
    assert!(tokio::time::timeout(Duration::from_millis(50), load).await.is_err());
    wait_until("it is loaded", || bench.sandbox.metrics().workers_idle == 1).await;
    bench.sandbox.retire_below(target.function_id, u32::MAX);
    bench.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_never_stops_talking_holds_up_nobody_and_is_ended() {
    let (bench, _dir) = bench().await;
    let other = actor(&bench, "behave");
    assert_eq!(bench.get(&other, "/").await.text(), "fine");
    for (role, ended) in [("flood-idle", 1), ("flood-idle-large", 2)] {
        assert_eq!(call(&bench, role).await.unwrap().text(), "fine");
        let begun = Instant::now();
        for _ in 0..100 {
            assert_eq!(bench.get(&other, "/").await.text(), "fine");
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "{role}: {:?}", begun.elapsed());
        let are_ended = || bench.sandbox.metrics().deaths.contains(&("protocol_violation", ended));
        wait_until("it is ended", are_ended).await;
    }
    bench.is_well().await;
}
