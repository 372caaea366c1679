//! Node servers behave as they do on Node, which is asked the same at the same time.

use std::path::Path;
use std::process::{Child, Command};

use reqwest::header::HeaderMap;
use reqwest::{Body, Client, Method, RequestBuilder, redirect};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Account, Deploy, deploy, send, server, spawn, wait_for};

const MB: usize = 1024 * 1024;

const APP: &str = include_str!("../functions/express/app.cjs");
/// `(name, entry, handlerKind, what Node runs of it)`
const PACKAGINGS: [(&str, &str, &str, &str); 6] = [
    ("listen", include_str!("../functions/express/listen.cjs"), "server", "listen.cjs"),
    ("exported", include_str!("../functions/express/exported.cjs"), "app", "listen.cjs"),
    ("listener", include_str!("../functions/express/listener.cjs"), "listener", "listen.cjs"),
    ("lambda", include_str!("../functions/express/lambda.cjs"), "event", "listen.cjs"),
    ("codegenie", include_str!("../functions/express/codegenie.cjs"), "event", "listen.cjs"),
    ("google", include_str!("../functions/express/google.cjs"), "server", "google.cjs"),
];

/// What Express answers by its final handler. It does not get along with this adapter's socket, on
/// Node neither: the caller gets an empty 500.
const BEYOND_CODEGENIE: [&str; 4] = ["not found", "an error", "a rejection", "broken JSON"];

fn dependencies() -> Value {
    json!({
        "express": "5.1.0",
        "serverless-http": "4.0.0",
        "@codegenie/serverless-express": "5.0.0",
        "@google-cloud/functions-framework": "5.0.0",
    })
}

/// Real Node, running real packages.
struct Node {
    dir: TempDir,
    children: Vec<Child>,
}

impl Node {
    fn install() -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        let package = json!({ "name": "oracle", "private": true, "dependencies": dependencies() });
        write("package.json", &package.to_string());
        write("app.cjs", APP);
        for (name, entry, ..) in PACKAGINGS {
            write(&format!("{name}.cjs"), entry);
        }
        let arguments =
            ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
        let installed =
            Command::new("npm").args(arguments).current_dir(dir.path()).status().unwrap();
        assert!(installed.success(), "npm install: {installed}");
        Self { dir, children: Vec::new() }
    }

    /// Starts a server; gives its address.
    async fn start(&mut self, file: &str) -> String {
        let log = self.dir.path().join(format!("{file}.log"));
        let mut node = Command::new("node");
        node.arg(file).current_dir(self.dir.path()).env("PORT", "0").env("NODE_ENV", "production");
        self.children.push(spawn(node, &log));
        let port = wait_for("Node to listen", || async { port_in(&log) }).await;
        format!("http://127.0.0.1:{port}")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn port_in(log: &Path) -> Option<u16> {
    let output = std::fs::read_to_string(log).ok()?;
    output.lines().find_map(|line| line.strip_prefix("port=")?.parse().ok())
}

/// A request both are sent.
struct Asked {
    what: &'static str,
    method: Method,
    path: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: fn() -> Option<Body>,
}

fn none() -> Option<Body> {
    None
}

/// 6 MB, which differ everywhere.
fn large() -> Vec<u8> {
    (0..6 * MB).map(|n| u8::try_from((n / 4_099 + n) % 251).expect("below 251")).collect()
}

fn chunked(whole: &[u8], len: usize) -> Body {
    let pieces: Vec<Result<Vec<u8>, std::io::Error>> =
        whole.chunks(len).map(|piece| Ok(piece.to_vec())).collect();
    Body::wrap_stream(futures::stream::iter(pieces))
}

fn get(what: &'static str, path: &'static str) -> Asked {
    Asked { what, method: Method::GET, path, headers: &[], body: none }
}

fn matrix() -> Vec<Asked> {
    let mut asked = vec![
        get("home", "/"),
        get("parameters", "/hello/a%20b?x=1&x=2&y=%C3%BC"),
        get("several cookies", "/cookies"),
        get("raw headers", "/raw"),
        get("a teapot", "/status/418"),
        get("an error status", "/status/503"),
        get("a redirect", "/redirect"),
        get("a permanent redirect", "/moved"),
        get("no content", "/empty"),
        get("bytes", "/bytes"),
        get("not found", "/nothing/here?x=<b>"),
        get("an error", "/throw"),
        get("a rejection", "/reject"),
        get("a download", "/download"),
        Asked {
            what: "headers",
            headers: &[("x-one", "1"), ("x-two", "a"), ("x-two", "b")],
            ..get("", "/headers")
        },
        Asked { what: "cookies", headers: &[("cookie", "k=v; l=w")], ..get("", "/cookies") },
        Asked {
            what: "a cached page",
            headers: &[("if-none-match", "\"v1\"")],
            ..get("", "/etag")
        },
        Asked {
            what: "JSON",
            method: Method::POST,
            headers: &[("content-type", "application/json")],
            body: || Some("{\"a\":[1,\"ü\"]}".into()),
            ..get("", "/json")
        },
        Asked {
            what: "broken JSON",
            method: Method::POST,
            headers: &[("content-type", "application/json")],
            body: || Some("{\"a\":".into()),
            ..get("", "/json")
        },
        Asked {
            what: "a form",
            method: Method::POST,
            headers: &[("content-type", "application/x-www-form-urlencoded")],
            body: || Some("a=1&b[]=2&b[]=3".into()),
            ..get("", "/form")
        },
        Asked {
            what: "6 MB",
            method: Method::POST,
            headers: &[("content-type", "application/octet-stream")],
            body: || Some(large().into()),
            ..get("", "/upload")
        },
        Asked {
            what: "a chunked upload",
            method: Method::POST,
            headers: &[("content-type", "application/octet-stream")],
            body: || Some(chunked(&large()[..MB], 10_007)),
            ..get("", "/upload")
        },
        Asked {
            what: "an empty upload",
            method: Method::POST,
            headers: &[("content-type", "application/octet-stream")],
            ..get("", "/upload")
        },
    ];
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        asked.push(Asked {
            what: "a method",
            method: method.parse().unwrap(),
            ..get("", "/method")
        });
    }
    asked
}

/// What must be the same. A length may be known to one and not to the other; the rest describes
/// connections and clocks.
fn comparable(headers: &HeaderMap) -> Vec<(String, String)> {
    let mut kept: Vec<_> = headers
        .iter()
        .map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        })
        .filter(|(name, _)| {
            !matches!(
                name.as_str(),
                "connection"
                    | "keep-alive"
                    | "transfer-encoding"
                    | "content-length"
                    | "server-timing"
            ) && !name.starts_with("x-cloudserve-")
        })
        .map(|(name, value)| if name == "date" { (name, String::new()) } else { (name, value) })
        .collect();
    // Stable: repeated headers keep their order.
    kept.sort_by(|a, b| a.0.cmp(&b.0));
    kept
}

async fn ask(request: RequestBuilder, asked: &Asked) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let mut request = request;
    for (name, value) in asked.headers {
        request = request.header(*name, *value);
    }
    if let Some(body) = (asked.body)() {
        request = request.body(body);
    }
    let answer = send(request).await;
    (answer.status, comparable(&answer.headers), answer.body.to_vec())
}

async fn deploy_packaging(owner: &Account, name: &str, entry: &str) -> Value {
    let file = format!("{name}.cjs");
    let mut files = json!({ "app.cjs": APP });
    files[&file] = entry.into();
    let limits = json!({ "timeoutMs": 60_000, "memoryMb": 256 });
    let deployed = owner
        .deploy(&Deploy(json!({
            "name": name, "files": files, "entry": file, "dependencies": dependencies(),
            "limits": limits, "visibility": "public",
        })))
        .await;
    deployed.view
}

#[tokio::test]
async fn one_express_app_in_six_packagings_answers_as_on_node() {
    let owner = server().await.register().await;
    let mut node = tokio::task::spawn_blocking(Node::install).await.unwrap();
    // A connection of its own for each request: Node ends those whose body it did not read.
    let client = Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .pool_max_idle_per_host(0)
        .build()
        .unwrap();
    let plain = node.start("listen.cjs").await;
    let google = node.start("google.cjs").await;
    for (name, entry, kind, oracle) in PACKAGINGS {
        let view = deploy_packaging(&owner, name, entry).await;
        assert_eq!(view["handlerKind"], kind, "{name}");
        let base = if oracle == "google.cjs" { &google } else { &plain };
        let ours = owner.run(Method::GET, name).build().unwrap().url().to_string();
        for asked in matrix() {
            if name == "codegenie" && BEYOND_CODEGENIE.contains(&asked.what) {
                continue;
            }
            let request =
                |base: &str| client.request(asked.method.clone(), format!("{base}{}", asked.path));
            let expected = ask(request(base), &asked).await;
            let got = ask(request(&ours), &asked).await;
            let which = format!("{name}: {} ({} {})", asked.what, asked.method, asked.path);
            assert_eq!(got.0, expected.0, "{which}: {:?}", String::from_utf8_lossy(&got.2));
            // Headers behind a Lambda event are the adapter's, and the event format's, choice.
            if kind != "event" {
                assert_eq!(got.1, expected.1, "{which}");
            }
            let text =
                |body: &[u8]| String::from_utf8_lossy(&body[..body.len().min(500)]).into_owned();
            assert!(got.2 == expected.2, "{which}: {} <> {}", text(&got.2), text(&expected.2));
        }
    }
}

/// Express 4 puts a prototype of its own under the request, and parses no query where there is one.
#[tokio::test]
async fn an_express_4_app_that_a_listener_calls_has_query_and_body() {
    let code = "
        const express = require('express');
        const app = express();
        app.use((req, res, next) => {
          req.body ??= {};
          req.body.user = req.query.user;
          next();
        });
        app.get('/body', (req, res) => res.json(req.body));
        app.post('/items/:id', express.json(), (req, res) => {
          res.json({ id: req.params.id, path: req.path, query: req.query, body: req.body });
        });
        module.exports = (req, res) => app(req, res);
    ";
    let owner = server().await.register().await;
    let function =
        deploy("four", "four.cjs", code).with("dependencies", json!({ "express": "4.22.3" }));
    assert_eq!(owner.deploy(&function).await.view["handlerKind"], "listener");
    let got = owner.call("four/body?user=u").await.expect(200).json();
    assert_eq!(got, json!({ "user": "u" }));
    let request =
        owner.run(Method::POST, "four/items/7?user=u&x=1&x=2").json(&json!({ "n": [1, "ü"] }));
    let got = send(request).await.expect(200).json();
    assert_eq!(
        got,
        json!({
            "id": "7", "path": "/items/7", "query": { "user": "u", "x": ["1", "2"] },
            "body": { "n": [1, "ü"] },
        })
    );
}
