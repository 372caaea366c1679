//! What a call leaves running is counted, and its owner is told; what it hands to `waitUntil` is
//! finished, and nobody is told anything.

use serde_json::Value;
use tokio::net::TcpListener;

use crate::support::{Account, Deployed, TestServer, deploy};

const CODE: &str = "
    import net from 'node:net';
    const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
    setInterval(() => {}, 60_000);
    const kept = [];
    const ways = {
      nothing: () => {},
      awaited: () => pause(5),
      handedOn: (_, context) => context.waitUntil(pause(20)),
      unawaited: () => { pause(5).catch(() => {}); return pause(30); },
      timer: () => { setTimeout(() => {}, 60_000); },
      timers: () => { setInterval(() => {}, 60_000); setTimeout(() => {}, 60_000); },
      socket: ({ port }) => new Promise((resolve, reject) => {
        const socket = net.connect(port, '127.0.0.1', resolve);
        socket.on('error', reject);
        kept.push(socket);
      }),
      operation: ({ port }) => { fetch(`http://127.0.0.1:${port}/`).catch(() => {}); },
    };
    export default async ({ query }, context) => {
      console.log('begins');
      await ways[query.way](query, context);
      return 'done';
    };
";

/// A way to leave something, and what the owner is told of it.
const CASES: &[(&str, Option<&str>)] = &[
    ("nothing", None),
    ("awaited", None),
    ("handedOn", None),
    ("unawaited", None),
    ("timer", Some("1 timer was left running")),
    ("timers", Some("2 timers were left running")),
    ("socket", Some("1 socket was left running")),
    ("operation", Some("1 operation was left running")),
];

/// The lines of a call's log that warn of what it left.
async fn warnings(owner: &Account, function: &Deployed, execution: &str) -> Vec<String> {
    let rows = owner.logs_of(&function.id, execution).await;
    let lines = rows[0]["logs"].as_array().unwrap().clone();
    assert_eq!(lines[0]["message"], "begins");
    let is_warning = |line: &&Value| line["level"] == "warn";
    lines
        .iter()
        .filter(is_warning)
        .map(|line| line["message"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_call_leaves_is_counted_and_told() {
    // Takes connections and never says a word.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let open = format!("127.0.0.1:{port}");
    let server = TestServer::start_with(&[("CLOUDSERVE_EGRESS_ALLOW", &open)]).await;
    let owner = server.register().await;
    for (way, expected) in CASES {
        let function = owner.deploy(&deploy(way, "leave.mjs", CODE)).await;
        let answer = owner.call(&format!("{way}?way={way}&port={port}")).await.expect(200);
        assert_eq!(answer.text(), "done");
        let told = warnings(&owner, &function, answer.execution()).await;
        match expected {
            None => assert!(told.is_empty(), "{way}: {told:?}"),
            Some(words) => {
                assert!(told.len() == 1 && told[0].starts_with(words), "{way}: {told:?}");
                assert!(told[0].contains("waitUntil"), "{way}: {told:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_answers_leaves_nothing() {
    let code = "
        import http from 'node:http';
        http.createServer((request, response) => {
          console.log('begins');
          request.resume().on('end', () => setTimeout(() => response.end('done'), 2));
        }).listen(3000);
    ";
    let owner = crate::support::server().await.register().await;
    let function = owner.deploy(&deploy("server", "server.mjs", code)).await;
    for _ in 0..3 {
        let answer = owner.call("server").await.expect(200);
        let told = warnings(&owner, &function, answer.execution()).await;
        assert!(told.is_empty(), "{told:?}");
    }
}

#[tokio::test]
async fn who_leaves_more_and_more_is_told_at_each_doubling() {
    let owner = crate::support::server().await.register().await;
    let function = owner.deploy(&deploy("more", "leave.mjs", CODE)).await;
    let mut told = Vec::new();
    for call in 1..=9 {
        let answer = owner.call("more?way=timer").await.expect(200);
        assert_eq!(answer.header("x-cloudserve-cold"), "0", "its worker lives on");
        if !warnings(&owner, &function, answer.execution()).await.is_empty() {
            told.push(call);
        }
    }
    assert_eq!(told, [1, 2, 4, 8]);
}
