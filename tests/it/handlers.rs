//! The forms a handler may have, what it is given and what it may give back.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Account, Answer, deploy, send, server, wait_for};

const EVENT: &str = include_str!("../functions/event.mjs");

async fn owner_of(name: &str, filename: &str, code: &str) -> Account {
    let owner = server().await.register().await;
    owner.deploy(&deploy(name, filename, code)).await;
    owner
}

#[tokio::test]
async fn every_form_is_recognised() {
    let owner = server().await.register().await;
    for (name, filename, code) in [
        (
            "fetch",
            "f.mjs",
            "export default { fetch: (request) => new Response(`ok ${request.method}`) }",
        ),
        (
            "fetch-class",
            "f.mjs",
            "class App { greeting = 'ok'; fetch(r) { return new Response(`${this.greeting} ${r.method}`) } } export default new App()",
        ),
        (
            "methods",
            "f.ts",
            "export const GET = (request: Request): Response => new Response('ok ' + request.method)",
        ),
        (
            "default",
            "f.ts",
            "export default ({ method }: { method: string }): string => `ok ${method}`",
        ),
        ("handler", "f.mjs", "export const handler = async (event) => `ok ${event.method}`"),
        ("module-exports", "f.cjs", "module.exports = (event) => 'ok ' + event.method"),
        ("exports-handler", "f.cjs", "exports.handler = async (event) => 'ok ' + event.method"),
        ("exports-default", "f.cjs", "exports.default = (event) => 'ok ' + event.method"),
        (
            "callback",
            "f.js",
            "exports.handler = (event, context, callback) => { setTimeout(() => callback(null, 'ok ' + event.method), 5) }",
        ),
        ("constant", "f.mjs", "export default 'ok GET'"),
    ] {
        owner.deploy(&deploy(name, filename, code)).await;
        assert_eq!(owner.call(name).await.expect(200).text(), "ok GET", "{name}");
    }
}

/// In AWS's older style: by the callback or the context, whatever that is called by then. As on AWS,
/// nobody waits when nothing is left that could answer.
#[tokio::test]
async fn a_handler_may_answer_after_it_has_returned() {
    let owner = server().await.register().await;
    for (name, code, status, body) in [
        (
            "alias",
            "exports.handler = (event, context) => { const ctx = context; setTimeout(() => ctx.succeed('later'), 20); }",
            200,
            "later",
        ),
        (
            "handed-on",
            "const route = (event, c) => void setTimeout(() => c.done(null, 'later'), 20); exports.handler = (event, context) => { route(event, context); }",
            200,
            "later",
        ),
        (
            "immediates",
            "exports.handler = (event, context, callback) => { setImmediate(() => setImmediate(callback, null, 'later')); }",
            200,
            "later",
        ),
        (
            "operation",
            "const crypto = require('crypto'); exports.handler = (event, context, callback) => { crypto.randomBytes(8, (error, bytes) => callback(error, bytes.length)); }",
            200,
            "8",
        ),
        (
            "never",
            "exports.handler = (event, context, callback) => { setTimeout(() => {}, 20); }",
            204,
            "",
        ),
    ] {
        owner.deploy(&deploy(name, "f.cjs", code)).await;
        assert_eq!(owner.call(name).await.expect(status).text(), body, "{name}");
    }
}

#[tokio::test]
async fn exported_methods_answer_only_those_methods() {
    let code = "
        export const GET = () => new Response('got');
        export async function POST(request) { return Response.json(await request.json(), { status: 201 }); }
    ";
    let owner = owner_of("m", "m.mjs", code).await;
    assert_eq!(owner.call("m").await.expect(200).text(), "got");
    let posted = owner.call_with("m", &json!({ "a": 1 })).await.expect(201);
    assert_eq!(posted.json(), json!({ "a": 1 }));
    let refused = send(owner.run(Method::DELETE, "m")).await.expect(405);
    assert!(refused.header("allow").contains("GET"), "{refused:?}");
}

#[tokio::test]
async fn a_request_of_a_caller_is_one_like_any_other() {
    let code = "
        export default {
          async fetch(request) {
            const { method, redirect, cache, mode, referrer } = request;
            const copy = request.clone();
            const made = new Request(request, { headers: { 'x-b': '2' } });
            const thrown = (f) => { try { f() } catch (error) { return error.name } };
            return Response.json({
              own: [method, redirect, cache, mode, referrer, request.headers.get('x-a'), request.bodyUsed],
              path: new URL(request.url).search,
              copy: [copy.method, copy.url === request.url, copy.headers.get('x-a'), await copy.text()],
              made: [made.method, made.url === request.url, made.headers.get('x-a'), made.headers.get('x-b'), await made.text()],
              set: thrown(() => request.headers.set('x-a', '3')),
            });
          },
        };
    ";
    let owner = owner_of("r", "r.mjs", code).await;
    let request = owner.run(Method::POST, "r?q=1").header("x-a", "1").body("text");
    assert_eq!(
        send(request).await.expect(200).json(),
        json!({
            "own": ["POST", "follow", "default", "cors", "about:client", "1", true],
            "path": "?q=1",
            "copy": ["POST", true, "1", "text"],
            "made": ["POST", true, null, "2", "text"],
            "set": "TypeError",
        })
    );
}

#[tokio::test]
async fn results_become_answers() {
    let owner = server().await.register().await;
    let code = "
        const results = {
          object: { a: 1 },
          array: [1, 2],
          number: 7,
          truth: true,
          nothing: null,
          text: 'plain ünïcode',
          bytes: new Uint8Array([0, 255, 10]),
          buffer: Buffer.from('buffer'),
          blob: new Blob(['blob'], { type: 'image/svg+xml' }),
          form: new URLSearchParams({ a: 'b c' }),
          nested: Promise.resolve({ deep: true }),
          undefined: undefined,
          lambda: { statusCode: 418, headers: { 'x-a': 'b', 'content-type': 'text/teapot' }, body: 'teapot' },
          status: { status: 202, body: { accepted: true } },
          base64: { statusCode: 200, isBase64Encoded: true, body: 'AP8K', headers: { 'content-type': 'application/octet-stream' } },
          cookies: { statusCode: 200, cookies: ['a=1; Path=/', 'b=2'], body: '' },
          response: new Response('made', { status: 203, headers: { 'x-made': 'yes' } }),
        };
        export default ({ query }) => results[query.result];
    ";
    owner.deploy(&deploy("r", "r.mjs", code)).await;
    let cases: [(&str, u16, &str, &[u8]); 17] = [
        ("object", 200, "application/json", b"{\"a\":1}"),
        ("array", 200, "application/json", b"[1,2]"),
        ("number", 200, "application/json", b"7"),
        ("truth", 200, "application/json", b"true"),
        ("nothing", 200, "application/json", b"null"),
        ("text", 200, "text/plain", "plain ünïcode".as_bytes()),
        ("bytes", 200, "application/octet-stream", b"\x00\xff\x0a"),
        ("buffer", 200, "application/octet-stream", b"buffer"),
        ("blob", 200, "image/svg+xml", b"blob"),
        ("form", 200, "application/x-www-form-urlencoded", b"a=b+c"),
        ("nested", 200, "application/json", b"{\"deep\":true}"),
        ("undefined", 204, "", b""),
        ("lambda", 418, "text/teapot", b"teapot"),
        ("status", 202, "application/json", b"{\"accepted\":true}"),
        ("base64", 200, "application/octet-stream", b"\x00\xff\x0a"),
        ("cookies", 200, "", b""),
        ("response", 203, "text/plain", b"made"),
    ];
    for (result, status, content_type, body) in cases {
        let answer = owner.call(&format!("r?result={result}")).await.expect(status);
        assert!(answer.header("content-type").starts_with(content_type), "{result}: {answer:?}");
        assert_eq!(answer.body, body, "{result}");
        match result {
            "lambda" => assert_eq!(answer.header("x-a"), "b"),
            "response" => assert_eq!(answer.header("x-made"), "yes"),
            "cookies" => {
                let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
                assert_eq!(cookies, ["a=1; Path=/", "b=2"]);
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn the_event_holds_the_whole_request() {
    let owner = owner_of("e", "e.mjs", EVENT).await;
    let request = owner
        .run(Method::POST, "e/deeper/p%20q?a=1&b=x%20y&a=2&empty=")
        .header("cookie", "theme=dark; lang=en")
        .header("X-Custom", "Kept")
        .json(&json!({ "n": [1, 2] }));
    let answer = send(request).await.expect(200);
    let seen = answer.json();
    let event = &seen["event"];
    for (field, value) in [
        ("method", json!("POST")),
        ("httpMethod", json!("POST")),
        ("body", json!({ "n": [1, 2] })),
        ("rawBody", json!("{\"n\":[1,2]}")),
        ("isBase64Encoded", json!(false)),
        ("rawQueryString", json!("a=1&b=x%20y&a=2&empty=")),
        ("version", json!("2.0")),
        ("cookies", json!(["theme=dark", "lang=en"])),
        ("rawPath", json!("/deeper/p%20q")),
    ] {
        assert_eq!(event[field], value, "{field} of {event:#}");
    }
    assert_eq!(event["query"]["b"], "x y");
    assert_eq!(event["queryStringParameters"]["empty"], "");
    assert_eq!(event["headers"]["x-custom"], "Kept");
    assert_eq!(event["requestContext"]["http"]["method"], "POST", "{event:#}");

    let context = &seen["context"];
    assert_eq!(context["functionName"], "e");
    assert_eq!(context["functionVersion"].to_string().trim_matches('"'), "1");
    assert_eq!(context["memoryLimitInMB"].to_string().trim_matches('"'), "128");
    assert_eq!(context["awsRequestId"], answer.execution());
    assert_eq!(context["executionId"], answer.execution());
    let remaining = context["remaining"].as_f64().unwrap();
    assert!((0.0..=5_000.0).contains(&remaining), "{remaining}");
}

#[tokio::test]
async fn bodies_are_parsed_by_their_content_type() {
    let owner = owner_of("e", "e.mjs", EVENT).await;
    let cases: [(&str, &[u8], Value); 5] = [
        ("application/json", b"{\"a\":1}", json!({ "a": 1 })),
        ("application/vnd.api+json; charset=utf-8", b"[1]", json!([1])),
        ("application/x-www-form-urlencoded", b"a=1&b=x+y", json!({ "a": "1", "b": "x y" })),
        ("text/plain", b"{\"a\":1}", json!("{\"a\":1}")),
        ("application/json", b"{broken", json!("{broken")),
    ];
    for (content_type, body, expected) in cases {
        let request =
            owner.run(Method::POST, "e").header("content-type", content_type).body(body.to_vec());
        let event = &send(request).await.expect(200).json()["event"];
        assert_eq!(event["body"], expected, "{content_type}: {event:#}");
    }
    let binary = owner
        .run(Method::POST, "e")
        .header("content-type", "application/octet-stream")
        .body(vec![0, 255, 10]);
    let event = &send(binary).await.expect(200).json()["event"];
    assert_eq!((&event["isBase64Encoded"], &event["body"]), (&json!(true), &json!("AP8K")));

    let lambda = deploy("l", "e.mjs", EVENT).with("limits", json!({ "eventFormat": "lambda" }));
    owner.deploy(&lambda).await;
    let event = &owner.call_with("l", &json!({ "a": 1 })).await.expect(200).json()["event"];
    assert_eq!(event["body"], "{\"a\":1}");
}

#[tokio::test]
async fn node_is_there() {
    let code = "
        import crypto from 'node:crypto';
        import fs from 'node:fs/promises';
        import os from 'node:os';
        import path from 'path';
        import util from 'util';
        import zlib from 'zlib';
        import { EventEmitter, once } from 'events';
        import { pipeline } from 'node:stream/promises';
        import { Readable, PassThrough } from 'node:stream';
        import { text } from 'node:stream/consumers';
        import { AsyncLocalStorage } from 'node:async_hooks';
        const store = new AsyncLocalStorage();
        export default async () => {
          const note = path.join(os.tmpdir(), 'note');
          await fs.writeFile(note, 'kept');
          const emitter = new EventEmitter();
          const out = new PassThrough();
          await pipeline(Readable.from(['ab']), out);
          return {
            hash: crypto.createHash('md5').update('x').digest('hex'),
            file: await fs.readFile(note, 'utf8'),
            path: path.join('/a', '..', 'b'),
            zip: zlib.gunzipSync(zlib.gzipSync('zip')).toString(),
            event: (await (setImmediate(() => emitter.emit('go', 5)), once(emitter, 'go')))[0],
            piped: await text(out),
            local: store.run('inside', () => store.getStore()),
            format: util.format('%s %d', 'n', 1),
            env: process.env.GREETING,
            missing: process.env.PATH ?? null,
            url: new URL('/b', 'https://example.org/a').href,
            uuid: crypto.randomUUID().length,
            eol: os.EOL,
            base64: Buffer.from('hi').toString('base64'),
            globals: [typeof fetch, typeof structuredClone, typeof AbortController, typeof TextDecoder],
          };
        };
    ";
    let owner = server().await.register().await;
    let deploy = deploy("n", "n.mjs", code).with("env", json!({ "GREETING": "hello" }));
    owner.deploy(&deploy).await;
    assert_eq!(
        owner.call("n").await.expect(200).json(),
        json!({
            "hash": "9dd4e461268c8034f5c8564e155c67a6", "file": "kept", "path": "/b", "zip": "zip",
            "event": 5, "piped": "ab", "local": "inside", "format": "n 1", "env": "hello",
            "missing": null, "url": "https://example.org/b", "uuid": 36, "eol": "\n",
            "base64": "aGk=", "globals": ["function", "function", "function", "function"],
        }),
    );
}

/// As on other platforms, wherever the server is.
#[tokio::test]
async fn local_time_is_utc_unless_the_function_says_otherwise() {
    let code = "
        const noon = new Date(Date.UTC(2026, 6, 1, 12));
        const { timeZone } = new Intl.DateTimeFormat().resolvedOptions();
        export default () => [noon.getHours(), timeZone, process.env.TZ ?? null];
    ";
    let owner = server().await.register().await;
    for (env, expected) in [
        (json!({}), json!([12, "UTC", null])),
        (json!({ "TZ": "Asia/Tokyo" }), json!([21, "Asia/Tokyo", "Asia/Tokyo"])),
    ] {
        owner.deploy(&deploy("zone", "z.mjs", code).with("env", env)).await;
        assert_eq!(owner.call("zone").await.expect(200).json(), expected);
    }
}

/// What a handler that answers at once has put off is its call's, and what it has entered is no other
/// call's.
#[tokio::test]
async fn calls_that_are_answered_at_once_keep_to_themselves() {
    let owner = server().await.register().await;
    let event = "
        import { AsyncLocalStorage } from 'node:async_hooks';
        const store = new AsyncLocalStorage();
        let finished = 0;
        export default (event, context) => {
          const before = store.getStore() ?? null;
          store.enterWith(event.path);
          Promise.resolve().then(() => context.waitUntil(
            new Promise((done) => setTimeout(() => { finished += 1; done(); }, 20)),
          ));
          return { before, finished };
        };
    ";
    let one = json!({ "concurrency": 1 });
    owner.deploy(&deploy("event", "e.mjs", event).with("limits", one.clone())).await;
    for n in 0..4 {
        let answer = owner.call(&format!("event/{n}")).await.expect(200).json();
        assert_eq!(answer, json!({ "before": null, "finished": n }));
    }
    let served = "
        let completed = 0;
        Deno.serve((request, info) => {
          // Asked for at once, a moment later, and when all is over.
          info.completed.then(() => completed += 1);
          if (request.url.endsWith('late')) setTimeout(() => info.completed.then(() => completed += 10), 5);
          return new Response(String(completed));
        });
    ";
    owner.deploy(&deploy("served", "s.mjs", served).with("limits", one)).await;
    for expected in ["0", "1"] {
        assert_eq!(owner.call("served").await.expect(200).text(), expected);
    }
    owner.call("served/late").await.expect(200);
    wait_for("the promise of an answer that is over", || async {
        let completed: u32 = owner.call("served").await.expect(200).text().parse().unwrap();
        (completed >= 13).then_some(())
    })
    .await;
}

/// A function that is in the snapshot without its source compiles from something else.
#[tokio::test]
async fn every_function_of_node_has_its_own_source() {
    let owner = server().await.register().await;
    let limits = json!({ "timeoutMs": 60_000 });
    let deploy = deploy("b", "b.mjs", include_str!("../functions/builtins.mjs"));
    owner.deploy(&deploy.with("limits", limits)).await;
    let found = owner.call("b").await.expect(200).json();
    assert!(found["checked"].as_u64().unwrap() > 2_000, "{found:#}");
    assert_eq!(found["wrong"], json!([]), "{found:#}");
}

/// As some packages for Node do.
#[tokio::test]
async fn modules_may_set_prototypes_and_have_a_global_object_of_their_own() {
    let owner = server().await.register().await;
    let code = "
        const globalThis = typeof window === 'undefined' ? global : window;
        const one = {};
        one.__proto__ = { hi: () => 'hi' };
        export default () => [
            one.hi(), Object.keys(one), {}.__proto__ === Object.prototype,
            globalThis.__dirname === __dirname, require('node:path').sep,
        ];
    ";
    owner.deploy(&deploy("own", "o.mjs", code)).await;
    let told = owner.call("own").await.expect(200).json();
    assert_eq!(told, json!(["hi", [], true, true, "/"]));
}

#[tokio::test]
async fn several_files_become_one_function() {
    let owner = server().await.register().await;
    let files = json!({
        "src/index.ts": "import { greet } from './lib/greet'; import data from './data.json'; export default () => greet(data.name);",
        "src/lib/greet.ts": "export const greet = (name: string): string => `hello ${name}`;",
        "src/data.json": "{\"name\":\"files\"}",
    });
    let body = json!({ "name": "many", "files": files, "entry": "src/index.ts" });
    owner.deploy(&crate::support::Deploy(body)).await;
    assert_eq!(owner.call("many").await.expect(200).text(), "hello files");
}

#[tokio::test]
async fn a_project_archive_becomes_a_function() {
    let owner = server().await.register().await;
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(
        Vec::new(),
        flate2::Compression::default(),
    ));
    for (path, text) in [
        (
            "package.json",
            "{\"name\":\"p\",\"main\":\"main.js\",\"dependencies\":{\"lodash\":\"4.17.21\"}}",
        ),
        (
            "main.js",
            "const _ = require('lodash'); const { two } = require('./two'); exports.handler = async () => _.add(1, two);",
        ),
        ("two.js", "exports.two = 2;"),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    let bytes = archive.into_inner().unwrap().finish().unwrap();
    let request = owner
        .api(Method::POST, "/api/function/deploy?name=packed&wait=true")
        .header("content-type", "application/gzip")
        .body(bytes);
    let view = send(request).await.expect(200).json();
    assert_eq!(view["status"], "active", "{view:#}");
    assert_eq!(owner.call("packed").await.expect(200).text(), "3");
}

#[tokio::test]
async fn work_handed_to_wait_until_is_finished() {
    let code = "
        let finished = 0;
        export default ({ query }, context) => {
          if (query.ask) return { finished };
          context.waitUntil(new Promise((done) => setTimeout(() => { finished += 1; done(); }, 50)));
          return 'answered';
        };
    ";
    let owner = server().await.register().await;
    let limits = json!({ "concurrency": 1 });
    owner.deploy(&deploy("w", "w.mjs", code).with("limits", limits)).await;
    assert_eq!(owner.call("w").await.expect(200).text(), "answered");
    assert_eq!(owner.call("w?ask=1").await.expect(200).json()["finished"], 1);
}

/// Also of a handler that throws, and by the names that other platforms have for it.
#[tokio::test]
async fn work_handed_to_wait_until_is_finished_whatever_becomes_of_the_call() {
    let code = "
        let finished = 0;
        const later = () => new Promise((done) => setTimeout(() => { finished += 1; done(); }, 50));
        const ways = {
          context: (context) => context.waitUntil(later()),
          supabase: () => EdgeRuntime.waitUntil(later()),
          vercel: () => globalThis[Symbol.for('@vercel/request-context')].get().waitUntil(later()),
        };
        const ends = {
          answered: () => 'answered',
          thrown: () => { throw new Error('thrown'); },
          rejected: async () => { throw new Error('rejected'); },
        };
        export default ({ query: { way, end } }, context) => {
          if (way === undefined) return { finished };
          ways[way](context);
          return ends[end]();
        };
    ";
    let owner = server().await.register().await;
    let limits = json!({ "concurrency": 1 });
    owner.deploy(&deploy("w", "w.mjs", code).with("limits", limits)).await;
    let mut calls: u64 = 0;
    for way in ["context", "supabase", "vercel"] {
        for (end, status) in [("answered", 200), ("thrown", 500), ("rejected", 500)] {
            owner.call(&format!("w?way={way}&end={end}")).await.expect(status);
            calls += 1;
            let finished = &owner.call("w").await.expect(200).json()["finished"];
            assert_eq!(finished, calls, "{way}, {end}");
        }
    }
}

/// Work that waits for the end of a call that throws, that outlives it, and that would keep an answer
/// open which breaks off.
#[tokio::test]
async fn a_call_that_throws_does_not_wait_for_ever() {
    let code = "
        let finished = 0;
        const ways = {
          completed: (info) => {
            EdgeRuntime.waitUntil(info.completed.then(() => { finished += 1; }));
            throw new Error('thrown before completed');
          },
          outlived: () => {
            EdgeRuntime.waitUntil(new Promise(() => setTimeout(() => {}, 60_000)));
            throw new Error('thrown before the timeout');
          },
          cut: () => {
            EdgeRuntime.waitUntil(new Promise((done) => setTimeout(done, 30_000)));
            let pulls = 0;
            return new Response(new ReadableStream({
              async pull(controller) {
                await new Promise((done) => setTimeout(done, 20));
                if (pulls++ > 0) throw new Error('broken off');
                controller.enqueue(new Uint8Array(10));
              },
            }));
          },
          finished: () => Response.json(finished),
        };
        Deno.serve((request, info) => ways[new URL(request.url).pathname.split('/').pop()](info));
    ";
    let owner = server().await.register().await;
    let limits = json!({ "timeoutMs": 4_000, "concurrency": 1 });
    let function = owner.deploy(&deploy("w", "w.mjs", code).with("limits", limits)).await;
    let logged = |answer: &Answer| {
        let (owner, id, execution) = (owner.clone(), function.id.clone(), answer.execution());
        let execution = execution.to_owned();
        async move { owner.logs_of(&id, &execution).await[0]["logs"].to_string() }
    };

    let thrown = owner.call("w/completed").await.expect(500);
    assert_eq!(thrown.code(), "handler_error");
    let log = logged(&thrown).await;
    assert!(log.contains("thrown before completed\\n    at "), "with its stack: {log}");
    assert_eq!(owner.call("w/finished").await.expect(200).json(), 1);

    let started = Instant::now();
    let response = owner.run(Method::GET, "w/cut").send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.bytes().await.is_err(), "a cut answer must not look whole");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());

    let outlived = owner.call("w/outlived").await.expect(504);
    let log = logged(&outlived).await;
    assert!(log.contains("thrown before the timeout"), "{log}");
}

/// ECMA-429, the minimum that runtimes for servers have in common.
#[tokio::test]
async fn the_minimum_common_web_api_is_there() {
    let code = include_str!("../functions/wintertc.mjs");
    let owner = owner_of("wintertc", "wintertc.mjs", code).await;
    let seen = owner.call("wintertc").await.expect(200).json();
    assert_eq!(seen["wrong"], json!([]));
    assert!(seen["checked"].as_u64() >= Some(40), "{seen}");
}
