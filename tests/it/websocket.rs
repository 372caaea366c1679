//! The WebSocket protocol through the gateway, for every form of handler that can have one. A
//! connection is a call: it has a deadline, a usage row and a log, and it ends with a Close frame
//! that says why.

use serde_json::{Value, json};

use crate::support::{
    Account, Deploy, Deployed, Message, Socket, TestServer, deploy, peak_growth, peak_memory, send,
    server, wait_for,
};

const MB: usize = 1024 * 1024;

const DENO: &str = include_str!("../functions/websocket/deno.mjs");
const WORKERS: &str = include_str!("../functions/websocket/workers.mjs");
const NODE: &str = include_str!("../functions/websocket/node.cjs");
const SOCKET_IO: &str = include_str!("../functions/websocket/socket.io.cjs");

/// The same function as Deno, Workers and Node have it.
fn forms() -> [Deploy; 3] {
    [
        deploy("deno", "deno.mjs", DENO),
        deploy("workers", "workers.mjs", WORKERS),
        deploy("node", "node.cjs", NODE).with("dependencies", json!({ "ws": "8.23.0" })),
    ]
}

fn name(form: &Deploy) -> String {
    form.0["name"].as_str().unwrap().to_owned()
}

async fn deployed(owner: &Account, form: Deploy, limits: Value) -> (Deployed, String) {
    let name = name(&form);
    (owner.deploy(&form.with("limits", limits)).await, name)
}

async fn opened(owner: &Account, name: &str) -> Socket {
    let mut socket = owner.web_socket(&format!("{name}/a/b?c=d")).open().await;
    let Message::Text(greeting) = socket.next().await else { panic!("{name} does not greet") };
    assert!(greeting.starts_with("open /a/b"), "{name}: {greeting}");
    socket
}

/// The one usage row and the log of the call that was this connection.
async fn account_of(owner: &Account, function: &Deployed, socket: &Socket) -> (Value, String) {
    let execution = socket.head.execution();
    let usage = owner.usage_of(&function.id, execution).await;
    assert_eq!(usage.len(), 1, "{usage:?}");
    let logs = owner.logs_of(&function.id, execution).await;
    let lines = logs[0]["logs"].as_array().unwrap().iter();
    let lines: Vec<_> = lines.map(|line| line["message"].as_str().unwrap()).collect();
    (usage[0].clone(), lines.join("\n"))
}

#[tokio::test]
async fn every_form_speaks_it() {
    let owner = server().await.register().await;
    for form in forms() {
        let (function, name) = deployed(&owner, form, json!({ "timeoutMs": 60_000 })).await;
        let mut socket = opened(&owner, &name).await;
        socket.text("grüße").await;
        assert_eq!(socket.next().await, Message::Text("grüße".to_owned()), "{name}");
        socket.text("").await;
        assert_eq!(socket.next().await, Message::Text(String::new()), "{name}");
        let bytes: Vec<u8> = (0..=255).collect();
        socket.binary(&bytes).await;
        assert_eq!(socket.next().await, Message::Binary(bytes), "{name}");
        socket.ping(b"here?").await;
        assert_eq!(socket.next().await, Message::Pong(b"here?".to_vec()), "{name}");
        let large: Vec<u8> = (0..MB).map(|i| u8::try_from(i * 31 % 251).unwrap()).collect();
        for _ in 0..3 {
            socket.binary(&large).await;
            let Message::Binary(back) = socket.next().await else { panic!("{name}: no bytes") };
            assert!(back == large, "{name}: 1 MB came back changed");
        }
        socket.close(4001, "bye").await;
        assert_eq!(socket.next().await, Message::Close(4001, "bye".to_owned()), "{name}");
        assert_eq!(socket.next().await, Message::Gone, "{name}");
        let (usage, log) = account_of(&owner, &function, &socket).await;
        assert_eq!(usage["status"], "success", "{name}: {usage}");
        assert_eq!(log, "closed 4001 bye", "{name}");

        // What the function begins to close is answered by the caller.
        let mut socket = opened(&owner, &name).await;
        socket.text("close").await;
        assert_eq!(socket.next().await, Message::Close(4002, "as you wish".to_owned()), "{name}");
        socket.close(4002, "as you wish").await;
        assert_eq!(socket.next().await, Message::Gone, "{name}");
        let (usage, log) = account_of(&owner, &function, &socket).await;
        assert_eq!(usage["status"], "success", "{name}: {usage}");
        assert_eq!(log, "closed 4002 as you wish", "{name}");
    }
}

#[tokio::test]
async fn what_is_no_websocket_is_answered_like_any_request() {
    let owner = server().await.register().await;
    for form in forms() {
        let (_, name) = deployed(&owner, form, json!({})).await;
        let (head, body) = owner.web_socket(&format!("{name}/refuse")).plain().await;
        assert_eq!((head.status, &body[..]), (403, "not here"), "{name}");
        for (what, handshake) in [
            ("another protocol", owner.web_socket(&name).with("upgrade", "h2c")),
            ("not asked for", owner.web_socket(&name).with("connection", "keep-alive")),
            ("no key", owner.web_socket(&name).with("sec-websocket-key", "")),
            ("a body", owner.web_socket(&name).over("GET", "POST").with("content-length", "0")),
        ] {
            let (head, body) = handshake.plain().await;
            assert_eq!((head.status, &body[..]), (200, "plain /"), "{name}: {what}");
        }
        let mut chosen =
            owner.web_socket(&name).with("sec-websocket-protocol", "chat").open().await;
        assert_eq!(chosen.head.header("sec-websocket-protocol"), "chat", "{name}");
        chosen.next().await;
        chosen.close(1000, "").await;
    }
    // Handlers that know nothing of it see a GET.
    for (file, code) in [
        ("event.mjs", "export default (event) => `plain ${event.rawPath}`"),
        ("listener.cjs", "module.exports = (req, res) => res.end(`plain ${req.url}`)"),
        ("server.cjs", "require('http').createServer((q, s) => s.end(`plain ${q.url}`)).listen(1)"),
    ] {
        owner.deploy(&deploy("plain", file, code)).await;
        let (head, body) = owner.web_socket("plain").plain().await;
        assert_eq!((head.status, &body[..]), (200, "plain /"), "{file}");
    }
    // 101 is for those who asked for it.
    let code = "export default { fetch: () => new Response(null, { status: 101 }) }";
    owner.deploy(&deploy("unasked", "f.mjs", code)).await;
    assert_eq!(owner.call("unasked").await.expect(500).code(), "handler_error");
    assert_eq!(owner.web_socket("unasked").plain().await.0.status, 500);
    // Nor is it an answer that ends the worker.
    for (file, code) in [
        ("s.cjs", "require('http').createServer((q, s) => s.writeHead(101).end()).listen(1)"),
        ("l.cjs", "module.exports = (req, res) => res.writeHead(101).end()"),
    ] {
        owner.deploy(&deploy("unasked", file, code)).await;
        assert_eq!(owner.call("unasked").await.expect(500).code(), "handler_error", "{file}");
    }
    // A pair is for handlers that take a request.
    let code = "export default (event) => {
        const pair = new WebSocketPair();
        return new Response(null, { status: 101, webSocket: pair[0] });
    }";
    let pair = owner.deploy(&deploy("pair", "f.mjs", code)).await;
    let (head, _) = owner.web_socket("pair").plain().await;
    assert_eq!(head.status, 500);
    let logs = owner.logs_of(&pair.id, head.execution()).await;
    assert!(json!(logs).to_string().contains("a handler that takes a Request"), "{logs:#?}");
}

/// `Response` takes it also where it was read before the first pair was made.
#[tokio::test]
async fn a_pair_may_be_made_within_the_first_answer() {
    let code = "
        const { Response: Answer } = globalThis;
        const greeting = () => {
          const [client, server] = Object.values(new WebSocketPair());
          server.accept();
          server.send('hello');
          return client;
        };
        const forms = {
          named: () => new Response(null, { status: 101, webSocket: greeting() }),
          renamed: () => new Answer(null, { status: 101, webSocket: greeting() }),
        };
        export default { fetch: (request) => forms[new URL(request.url).pathname.slice(1)]() };
    ";
    let owner = server().await.register().await;
    for form in ["named", "renamed"] {
        owner.deploy(&deploy(form, "f.mjs", code)).await;
        let mut socket = owner.web_socket(&format!("{form}/{form}")).open().await;
        assert_eq!(socket.next().await, Message::Text("hello".to_owned()), "{form}");
        socket.close(1000, "").await;
    }
}

#[tokio::test]
async fn socket_io_works_over_it() {
    let owner = server().await.register().await;
    let form = deploy("io", "socket.io.cjs", SOCKET_IO)
        .with("dependencies", json!({ "socket.io": "4.8.4" }));
    let (function, _) = deployed(&owner, form, json!({ "timeoutMs": 60_000 })).await;
    let path = "io/socket.io/?EIO=4&transport=websocket";
    let mut socket = owner.web_socket(path).open().await;
    // Engine.IO: 0 opens, 4 is a message. In it Socket.IO: 0 connects, 2 is an event, 3 its answer,
    // 5 an event with bytes.
    let Message::Text(open) = socket.next().await else { panic!("no handshake") };
    let open: Value = serde_json::from_str(open.strip_prefix('0').unwrap()).unwrap();
    assert_eq!(open["upgrades"], json!([]));
    socket.text("40").await;
    let Message::Text(connected) = socket.next().await else { panic!("not connected") };
    assert!(connected.starts_with("40{\"sid\":"), "{connected}");
    socket.text(r#"421["sum",[1,2,39]]"#).await;
    assert_eq!(socket.next().await, Message::Text("431[42]".to_owned()));
    socket.text(r#"451-["bytes",{"_placeholder":true,"num":0}]"#).await;
    socket.binary(&[1, 2, 3]).await;
    let expected = r#"451-["bytes back",{"_placeholder":true,"num":0}]"#;
    assert_eq!(socket.next().await, Message::Text(expected.to_owned()));
    assert_eq!(socket.next().await, Message::Binary(vec![3, 2, 1]));
    socket.text("41").await;
    socket.close(1000, "").await;
    assert_eq!(socket.next().await, Message::Close(1000, String::new()));
    let (usage, log) = account_of(&owner, &function, &socket).await;
    assert_eq!(usage["status"], "success", "{usage}");
    assert_eq!(log, "disconnected: client namespace disconnect");
}

#[tokio::test]
async fn servers_ping_and_hear_the_pong() {
    let owner = server().await.register().await;
    let [.., node] = forms();
    let (_, name) = deployed(&owner, node, json!({})).await;
    let mut socket = opened(&owner, &name).await;
    socket.text("ping").await;
    assert_eq!(socket.next().await, Message::Ping(b"are you there".to_vec()));
    socket.pong(b"are you there").await;
    assert_eq!(socket.next().await, Message::Text("pong are you there".to_owned()));
}

#[tokio::test]
async fn a_caller_that_vanishes_is_noticed() {
    let owner = server().await.register().await;
    for form in forms() {
        let limits = json!({ "timeoutMs": 60_000, "concurrency": 1 });
        let (function, name) = deployed(&owner, form, limits).await;
        let socket = opened(&owner, &name).await;
        let execution = socket.head.execution().to_owned();
        drop(socket);
        // The only worker is free again, long before the deadline.
        let answer = owner.call(&name).await.expect(200);
        assert_eq!(answer.text(), "plain /", "{name}");
        assert_eq!(owner.usage_of(&function.id, &execution).await.len(), 1, "{name}");
        let log = owner.logs_of(&function.id, &execution).await[0]["logs"].to_string();
        // Deno says 0 where there was no Close frame, and so does the engine.
        assert!(log.contains("closed 1006") || log.contains("closed 0"), "{name}: {log}");
    }
}

#[tokio::test]
async fn a_handler_that_throws_ends_its_connection() {
    let owner = server().await.register().await;
    for form in forms() {
        let (function, name) = deployed(&owner, form, json!({ "timeoutMs": 60_000 })).await;
        let mut socket = opened(&owner, &name).await;
        socket.text("throw").await;
        assert_eq!(socket.next().await, Message::Close(1011, "handler_error".to_owned()), "{name}");
        assert_eq!(socket.next().await, Message::Gone, "{name}");
        let (usage, log) = account_of(&owner, &function, &socket).await;
        assert_eq!(usage["code"], "handler_error", "{name}: {usage}");
        assert!(log.contains("thrown on purpose") && log.contains(&name), "{name}: {log}");
        opened(&owner, &name).await;
    }
}

#[tokio::test]
async fn a_connection_ends_at_its_deadline() {
    let owner = server().await.register().await;
    for form in forms() {
        let (function, name) = deployed(&owner, form, json!({ "timeoutMs": 1_500 })).await;
        let mut socket = opened(&owner, &name).await;
        assert_eq!(socket.next().await, Message::Close(1001, "timeout".to_owned()), "{name}");
        assert_eq!(socket.next().await, Message::Gone, "{name}");
        let (usage, log) = account_of(&owner, &function, &socket).await;
        assert_eq!(usage["code"], "timeout", "{name}: {usage}");
        assert!(usage["duration"].as_f64().unwrap() >= 1_400.0, "{name}: {usage}");
        assert!(log.contains("limits.timeoutMs"), "{name}: {log}");
    }
}

#[tokio::test]
async fn private_functions_need_a_credential() {
    let server = server().await;
    let (owner, other) = (server.register().await, server.register().await);
    let [deno, ..] = forms();
    let (_, name) = deployed(&owner, deno, json!({})).await;
    let key = owner.key(&["invoke"]).await;
    let nobody = owner.showing("");
    assert_eq!(nobody.web_socket(&name).plain().await.0.status, 401);
    assert_eq!(nobody.web_socket(&name).with("x-api-key", "cs_wrong").plain().await.0.status, 401);
    assert_eq!(other.web_socket_of(&owner.user_name, &name).plain().await.0.status, 403);
    let mut socket = nobody.web_socket(&name).with("x-api-key", &key).open().await;
    assert_eq!(socket.next().await, Message::Text("open /".to_owned()));
}

#[tokio::test]
async fn what_goes_both_ways_has_a_bound() {
    let owner = server().await.register().await;
    for form in forms() {
        let limits = json!({ "timeoutMs": 60_000, "streamedResponseBytes": 2 * MB });
        let (function, name) = deployed(&owner, form, limits).await;
        let mut socket = opened(&owner, &name).await;
        let piece = vec![1; MB / 2];
        let end = loop {
            socket.binary(&piece).await;
            match socket.next().await {
                Message::Binary(_) => {}
                end => break end,
            }
        };
        let codes = ["payload_too_large", "response_too_large"];
        let Message::Close(1009, reason) = end else { panic!("{name}: {end:?}") };
        assert!(codes.contains(&&reason[..]), "{name}: {reason}");
        let (usage, _) = account_of(&owner, &function, &socket).await;
        assert_eq!(usage["code"], reason, "{name}");
    }
}

/// What the other direction cannot hide: here nothing else goes either way.
#[tokio::test]
async fn each_direction_has_a_bound() {
    const LISTENS: &str = "
        Deno.serve((request) => {
          const { socket, response } = Deno.upgradeWebSocket(request);
          socket.onopen = () => socket.send(`open ${new URL(request.url).pathname}`);
          return response;
        });";
    let owner = server().await.register().await;
    let limits = json!({ "timeoutMs": 60_000, "streamedResponseBytes": 2 * MB });
    let [.., node] = forms();
    let (listens, name) =
        deployed(&owner, deploy("listens", "listens.mjs", LISTENS), limits.clone()).await;
    let mut socket = opened(&owner, &name).await;
    // With what is around each of them somewhat more than the bound.
    let piece = vec![1; MB / 2];
    for _ in 0..4 {
        socket.binary(&piece).await;
    }
    assert_eq!(socket.next().await, Message::Close(1009, "payload_too_large".to_owned()));
    let usage = owner.usage_of(&listens.id, socket.head.execution()).await;
    assert_eq!(usage[0]["code"], "payload_too_large", "{usage:?}");

    let (talks, name) = deployed(&owner, node, limits).await;
    let mut socket = opened(&owner, &name).await;
    socket.text("flood").await;
    let mut received = 0;
    let end = loop {
        match socket.next().await {
            Message::Binary(bytes) => received += bytes.len(),
            end => break end,
        }
    };
    assert!((MB..=2 * MB).contains(&received), "{received}");
    // In the middle of a message there is no place for a goodbye.
    let goodbye = Message::Close(1009, "response_too_large".to_owned());
    assert!(end == goodbye || end == Message::Gone, "{end:?}");
    let usage = owner.usage_of(&talks.id, socket.head.execution()).await;
    assert_eq!(usage[0]["code"], "response_too_large", "{usage:?}");
}

#[tokio::test]
async fn a_slow_reader_costs_no_memory() {
    const TOTAL: usize = 64 * MB;
    let server = TestServer::start().await;
    let owner = server.register().await;
    let [.., node] = forms();
    let limits = json!({ "timeoutMs": 120_000, "memoryMb": 64 });
    let (function, name) = deployed(&owner, node, limits).await;
    let mut socket = opened(&owner, &name).await;
    let before = peak_memory(server.pid());
    socket.text("flood").await;
    // Nobody reads until nothing more comes.
    let (mut last, mut same) = (0, 0);
    wait_for("the flood to stand still", || {
        let now = socket.unread_bytes();
        same = if now == last && now > 0 { same + 1 } else { 0 };
        last = now;
        async move { (same == 10).then_some(()) }
    })
    .await;
    let mut received = 0;
    while let Message::Binary(bytes) = socket.next().await {
        received += bytes.len();
    }
    assert_eq!(received, TOTAL);
    let grown = peak_growth(server.pid(), before);
    assert!(grown < 24 * MB, "the service grew by {grown} bytes");
    let usage = owner.usage_of(&function.id, socket.head.execution()).await;
    assert_ne!(usage[0]["code"], "memory_limit");
}

#[tokio::test]
async fn a_server_that_shuts_down_says_goodbye() {
    let server = TestServer::start().await;
    let owner = server.register().await;
    let [deno, ..] = forms();
    let (function, name) = deployed(&owner, deno, json!({ "timeoutMs": 600_000 })).await;
    let mut socket = opened(&owner, &name).await;
    server.signal(libc::SIGTERM);
    assert_eq!(socket.next().await, Message::Close(1001, "shutting_down".to_owned()));
    let (status, home) = server.wait().await;
    assert!(status.success(), "{status}");
    let server = TestServer::start_at(home).await;
    let owner = owner.at(&server.api, &server.gateway);
    assert_eq!(owner.usage_of(&function.id, socket.head.execution()).await.len(), 1);
}

#[tokio::test]
async fn open_connections_take_the_places_of_calls() {
    let owner = server().await.register().await;
    let [deno, ..] = forms();
    let limits = json!({ "timeoutMs": 60_000, "concurrency": 2 });
    let (_, name) = deployed(&owner, deno, limits).await;
    let (mut first, mut second) = (opened(&owner, &name).await, opened(&owner, &name).await);
    let waiting = tokio::spawn(send(owner.run(reqwest::Method::GET, &name)));
    for socket in [&mut first, &mut second] {
        socket.text("still here").await;
        assert_eq!(socket.next().await, Message::Text("still here".to_owned()));
    }
    assert!(!waiting.is_finished(), "there is no place for it");
    first.close(1000, "").await;
    assert_eq!(waiting.await.unwrap().expect(200).text(), "plain /");
}
