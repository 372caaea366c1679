//! Each handler form is recognised, the choice is shown, and code written for other platforms runs
//! as it is.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{deploy, send, server};

/// `(file, code, handlerKind)`; each answers GET with `ok GET`.
const FORMS: [(&str, &str, &str); 31] = [
    ("f.ts", "Deno.serve((r: Request) => new Response(`ok ${r.method}`));", "deno-serve"),
    (
        "f.mjs",
        "Deno.serve({ port: 1, handler: (r) => new Response(`ok ${r.method}`) });",
        "deno-serve",
    ),
    (
        "f.ts",
        "const server = Deno.serve((r: Request) => new Response(`ok ${r.method}`)); await server.finished;",
        "deno-serve",
    ),
    // As an app that has a pool of connections.
    (
        "f.ts",
        "setInterval(() => {}, 1000); const server = Deno.serve((r: Request) => new Response(`ok ${r.method}`)); await server.finished;",
        "deno-serve",
    ),
    (
        "f.mjs",
        "import http from 'http'; import { once } from 'events'; const server = http.createServer((q, s) => s.end(`ok ${q.method}`)).listen(80); await once(server, 'close');",
        "server",
    ),
    (
        "f.mjs",
        "import http from 'node:http'; http.createServer((q, s) => s.end(`ok ${q.method}`)).listen(80);",
        "server",
    ),
    (
        "f.cjs",
        "const http = require('http'); setTimeout(() => http.createServer((q, s) => s.end(`ok ${q.method}`)).listen(), 50);",
        "server",
    ),
    (
        "f.mjs",
        "import http2 from 'node:http2'; http2.createServer((q, s) => s.end(`ok ${q.method}`)).listen(80);",
        "server",
    ),
    ("f.mjs", "export default { fetch: (r) => new Response(`ok ${r.method}`) }", "fetch"),
    (
        "f.ts",
        "export default async (req: Request) => new Response('ok ' + req.method + (await req.text()))",
        "fetch",
    ),
    (
        "f.mjs",
        "export default ({ method, url }) => new Response(url.startsWith('http') ? `ok ${method}` : 'no url')",
        "fetch",
    ),
    // As adapters of Hono for Vercel and Netlify make it.
    (
        "f.mjs",
        "const handle = (app) => (req) => app.fetch(req); export default handle({ fetch: ({ method }) => new Response(`ok ${method}`) })",
        "fetch",
    ),
    // Names that another module, or the module itself, has as well: the bundle has others.
    (
        "f.mjs",
        "const request = globalThis.name; globalThis.kept = () => request; export default (request) => new Response(`ok ${new Request(request).method}`)",
        "fetch",
    ),
    (
        "f.mjs",
        "const res = globalThis.name; globalThis.kept = () => res; export default (req, res) => res.end(`ok ${req.method}`)",
        "listener",
    ),
    ("f.ts", "export const GET = (r: Request) => new Response(`ok ${r.method}`)", "methods"),
    (
        "f.mjs",
        "export const handler = awslambda.streamifyResponse(async (event, stream) => { stream.write('ok '); stream.end(event.requestContext.http.method); })",
        "lambda-stream",
    ),
    (
        "f.mjs",
        "import http from 'http'; export default http.createServer((q, s) => s.end(`ok ${q.method}`))",
        "app",
    ),
    (
        "f.cjs",
        "const app = (q, s) => app.handle(q, s); app.use = () => {}; app.handle = (q, s) => s.end(`ok ${q.method}`); module.exports = app;",
        "app",
    ),
    (
        "f.js",
        "export default function (req, res) { res.status(200).send(`ok ${req.method}`) }",
        "listener",
    ),
    ("f.cjs", "module.exports = async (event) => `ok ${event.method}`", "event"),
    (
        "f.cjs",
        "exports.handler = (event, context, callback) => callback(null, `ok ${event.httpMethod}`)",
        "event",
    ),
    (
        "f.cjs",
        "module.exports = async (event, context) => context.status(200).succeed(`ok ${event.method}`)",
        "event",
    ),
    (
        "f.js",
        "function main(params) { return `ok ${params.http.method}` } exports.main = main",
        "main",
    ),
    // As samples of OpenWhisk and DigitalOcean answer.
    (
        "f.js",
        "exports.main = (args) => ({ headers: { 'x-a': 'b' }, body: `ok ${args.http.method}` })",
        "main",
    ),
    (
        "f.js",
        "addEventListener('fetch', (event) => event.respondWith(answer(event.request))); async function answer(r) { return new Response(`ok ${r.method}`) }",
        "fetch",
    ),
    ("f.mjs", "export default 'ok GET'", "constant"),
    // Where several fit, the first in the order above.
    (
        "f.mjs",
        "import http from 'http'; http.createServer((q, s) => s.end('server')).listen(); Deno.serve((r) => new Response(`ok ${r.method}`));",
        "deno-serve",
    ),
    (
        "f.mjs",
        "import http from 'http'; http.createServer((q, s) => s.end(`ok ${q.method}`)).listen(); export const handler = () => 'handler'; export default { fetch: () => new Response('fetch') }",
        "server",
    ),
    (
        "f.mjs",
        "export const GET = () => new Response('GET'); export default { fetch: (r) => new Response(`ok ${r.method}`) }",
        "fetch",
    ),
    (
        "f.cjs",
        "Object.defineProperty(exports, '__esModule', { value: true }); exports.default = (event) => `ok ${event.method}`; exports.handler = () => 'handler';",
        "event",
    ),
    (
        "f.mjs",
        "export const handler = (e) => `ok ${e.method}`; export const main = () => 'main'",
        "event",
    ),
];

#[tokio::test]
async fn the_form_is_chosen_by_rule_and_shown() {
    let owner = server().await.register().await;
    let mut seen = BTreeSet::new();
    for (n, (file, code, kind)) in FORMS.into_iter().enumerate() {
        let name = format!("f{n}");
        let deployed = owner.deploy(&deploy(&name, file, code)).await;
        assert_eq!(deployed.view["handlerKind"], kind, "{code}");
        assert_eq!(owner.view(&deployed.id).await["handlerKind"], kind);
        assert_eq!(owner.call(&name).await.expect(200).text(), "ok GET", "{code}");
        seen.insert(kind);
    }
    assert_eq!(seen.len(), 10, "every kind has a case: {seen:?}");
    for (file, code, words) in [
        ("f.mjs", "export const other = 1;", "exports no handler"),
        ("f.cjs", "exports.other = (event) => 'other';", "exports no handler"),
        (
            "f.ts",
            "import { serve } from 'https://deno.land/std@0.168.0/http/server.ts'; serve(() => new Response());",
            "nothing is loaded from addresses",
        ),
        (
            "f.mjs",
            "import http from 'http'; http.createServer(() => {}).listen(80); await new Promise((r) => setTimeout(r, 5)); throw new Error('no database');",
            "no database",
        ),
        (
            "f.cjs",
            "Object.defineProperty(exports, 'handler', { get() { throw new Error('not yet') } })",
            "not yet",
        ),
    ] {
        let none = owner.deploy_failing(&deploy("none", file, code)).await;
        assert_eq!(none["code"], "startup_error", "{code}");
        assert!(none["message"].to_string().contains(words), "{code}: {none}");
    }
}

#[tokio::test]
async fn samples_of_other_platforms_run_unchanged() {
    let owner = server().await.register().await;
    let worker = deploy("worker", "worker.js", include_str!("../functions/samples/worker.js"));
    owner.deploy(&worker.with("env", json!({ "GREETING": "hi" }))).await;
    let seen = owner.call("worker").await.expect(200).json();
    assert_eq!(seen, json!({ "method": "GET", "greeting": "hi", "agent": true }));
    let digest = send(owner.run(Method::POST, "worker/digest").body("abc")).await.expect(200);
    assert!(digest.text().starts_with("ba7816bf"), "{}", digest.text());
    assert_eq!(owner.call("worker/stream").await.expect(200).text(), "one two three");

    let lambda = deploy("lambda", "index.mjs", include_str!("../functions/samples/lambda.mjs"));
    owner.deploy(&lambda).await;
    let items = owner.call("lambda/items?limit=3").await.expect(200);
    assert_eq!(items.json(), json!({ "items": [], "limit": "3" }));
    assert_eq!(items.header("set-cookie"), "seen=1");
    let put = owner.run(Method::PUT, "lambda/items").json(&json!({ "id": "a7" }));
    assert_eq!(send(put).await.expect(200).text(), "\"Put item a7\"");
    assert!(owner.call("lambda/none").await.expect(400).text().contains("Unsupported route"));

    owner
        .deploy(&deploy("vercel", "route.ts", include_str!("../functions/samples/vercel.ts")))
        .await;
    assert_eq!(owner.call("vercel?name=Ada").await.expect(200).text(), "Hello, Ada!");
    let form = owner.run(Method::POST, "vercel").form(&[("name", "Bob")]);
    assert_eq!(send(form).await.expect(201).json(), json!({ "name": "Bob" }));

    owner.deploy(&deploy("deno", "server.ts", include_str!("../functions/samples/deno.ts"))).await;
    let book = owner.call("deno/books/7").await.expect(200).json();
    assert_eq!(book, json!({ "id": "7", "from": "tcp" }));
    let echo = send(owner.run(Method::POST, "deno").body("said")).await.expect(200);
    assert_eq!((echo.text().as_str(), echo.header("x-echo")), ("said", "1"));
    assert_eq!(owner.call("deno").await.expect(500).text(), "broken");
}

#[tokio::test]
async fn events_come_in_the_format_the_code_expects() {
    const CODE: &str = "export const handler = (event) => ({ body: event })";
    let owner = server().await.register().await;
    let body = json!({ "a": 1 });
    for (format, version, expected) in [
        ("auto", "2.0", json!({ "a": 1 })),
        ("parsed", "2.0", json!({ "a": 1 })),
        ("lambda", "2.0", json!("{\"a\":1}")),
        ("lambda-v1", "1.0", json!("{\"a\":1}")),
    ] {
        let deploy = deploy("e", "e.mjs", CODE).with("limits", json!({ "eventFormat": format }));
        owner.deploy(&deploy).await;
        let event =
            owner.call_with("e/x/y?q=1&q=2", &body).await.expect(200).json()["body"].clone();
        assert_eq!((&event["version"], &event["body"]), (&json!(version), &expected), "{format}");
        if version == "1.0" {
            assert_eq!(event["multiValueQueryStringParameters"], json!({ "q": ["1", "2"] }));
            assert_eq!(event["pathParameters"], json!({ "proxy": "x/y" }));
        }
    }
    // An adapter made for AWS gets what AWS would give it, without being asked.
    let adapted = "
        import middy from '@middy/core';
        export const handler = middy().handler((event) => ({ raw: typeof event.body }));
    ";
    let middy =
        deploy("m", "m.mjs", adapted).with("dependencies", json!({ "@middy/core": "6.4.5" }));
    owner.deploy(&middy).await;
    let answer: Value = owner.call_with("m", &body).await.expect(200).json();
    assert_eq!(answer["raw"], "string");
}

/// The engine is Node 26's: `read()` gives what was buffered in the pieces it came in. Older ones
/// joined them.
#[tokio::test]
async fn streams_read_as_node_26_reads_them() {
    let code = "
        import { PassThrough, Readable } from 'node:stream';
        import { pipeline } from 'node:stream/promises';
        export default async () => {
          const out = new PassThrough();
          await pipeline(Readable.from(['a', 'b']), out);
          return [out.read(), out.read(), out.read()].map(String);
        };
    ";
    let owner = server().await.register().await;
    owner.deploy(&deploy("p", "p.mjs", code)).await;
    assert_eq!(owner.call("p").await.expect(200).json(), json!(["a", "b", "null"]));
}

/// However little of it the engine had made by then.
#[tokio::test]
async fn a_response_is_sent_once() {
    let code = "
        const kept = { text: new Response('text'), json: Response.json({ a: 1 }), empty: new Response('') };
        const made = {
          read: async (response) => void await response.text(),
          locked: (response) => void response.body.getReader(),
          copied: (response) => void response.clone(),
          changed: (response) => response.headers.set('x-a', '1'),
          streamed: (response) => void response.body,
        };
        export default {
          async fetch(request) {
            const name = new URL(request.url).searchParams.get('name');
            if (name === 'used') return Response.json(Object.values(kept).map((r) => r.bodyUsed));
            if (name in kept) return kept[name];
            const response = Response.json([name]);
            await made[name](response);
            return response;
          },
        };
    ";
    let owner = server().await.register().await;
    // What is kept is one worker's.
    let one = json!({ "concurrency": 1 });
    owner.deploy(&deploy("r", "r.mjs", code).with("limits", one)).await;
    let call = async |name: &str| owner.call(&format!("r?name={name}")).await;
    for (name, content_type, body) in [
        ("text", "text/plain;charset=UTF-8", "text"),
        ("json", "application/json", "{\"a\":1}"),
        ("empty", "text/plain;charset=UTF-8", ""),
    ] {
        let answer = call(name).await.expect(200);
        assert_eq!((answer.header("content-type"), answer.text().as_str()), (content_type, body));
        call(name).await.expect(500);
    }
    assert_eq!(call("used").await.expect(200).json(), json!([true, true, true]));
    call("read").await.expect(500);
    call("locked").await.expect(500);
    for name in ["copied", "changed", "streamed"] {
        let answer = call(name).await.expect(200);
        assert_eq!(answer.json(), json!([name]));
        assert_eq!(answer.header("content-type"), "application/json");
    }
    assert_eq!(call("changed").await.expect(200).header("x-a"), "1");
}

/// Headers and URL are made when they are asked for.
#[tokio::test]
async fn a_request_that_is_kept_is_still_its_own() {
    let code = "
        let last;
        export default {
          fetch(request) {
            const before = last && [last.headers.get('x-a'), new URL(last.url).search];
            last = request;
            return Response.json([before ?? null, new URL(request.url).host === request.headers.get('host')]);
          },
        };
    ";
    let owner = server().await.register().await;
    let one = json!({ "concurrency": 1 });
    owner.deploy(&deploy("k", "k.mjs", code).with("limits", one)).await;
    for (n, before) in
        [("1", Value::Null), ("2", json!(["1", "?n=1"])), ("3", json!(["2", "?n=2"]))]
    {
        let request = owner.run(Method::GET, &format!("k?n={n}")).header("x-a", n);
        assert_eq!(send(request).await.expect(200).json(), json!([before, true]));
    }
}

/// A body that is there when its call begins, and one that comes later.
#[tokio::test]
async fn a_body_is_read_once_in_any_way() {
    let code = "
        const sizeOf = async (stream) => {
          let size = 0;
          for await (const piece of stream) size += piece.length;
          return size;
        };
        const ways = {
          arrayBuffer: async (request) => (await request.arrayBuffer()).byteLength,
          bytes: async (request) => (await request.bytes()).length,
          text: async (request) => (await request.text()).length,
          json: async (request) => (await request.json()).length + 2,
          blob: async (request) => (await request.blob()).size,
          stream: (request) => sizeOf(request.body),
          copy: async (request) => (await new Request(request).text()).length,
          clone: async (request) => {
            const clone = request.clone();
            const [one, other] = await Promise.all([clone.text(), request.text()]);
            return one === other ? one.length : -1;
          },
        };
        export default {
          async fetch(request) {
            const way = new URL(request.url).searchParams.get('way');
            const before = request.bodyUsed;
            const size = await ways[way](request);
            const again = await request.text().catch((error) => error.name);
            return Response.json([before, size, request.bodyUsed, again]);
          },
        };
    ";
    let owner = server().await.register().await;
    owner.deploy(&deploy("b", "b.mjs", code)).await;
    for size in [12, 1_000_000] {
        let body = format!("\"{}\"", "x".repeat(size - 2));
        for way in ["arrayBuffer", "bytes", "text", "json", "blob", "stream", "copy", "clone"] {
            let request = owner.run(Method::POST, &format!("b?way={way}")).body(body.clone());
            let answer = send(request).await.expect(200).json();
            assert_eq!(answer, json!([false, size, true, "TypeError"]), "{way}");
        }
    }
}

#[tokio::test]
async fn what_a_request_is_made_of_leads_to_nothing_of_ours() {
    let code = "
        const seen = new Set();
        const leads = (value) => {
          if (value === null || !['object', 'function'].includes(typeof value) || seen.has(value)) return false;
          seen.add(value);
          return 'openWebSocket' in value || Reflect.ownKeys(value).some((key) => {
            try { return leads(value[key]); } catch { return false; }
          });
        };
        export default { fetch: (request) => Response.json([leads(request), seen.size > 1]) };
    ";
    let owner = server().await.register().await;
    owner.deploy(&deploy("o", "o.mjs", code)).await;
    // Its end is not there when it is asked for.
    let request = owner.run(Method::POST, "o").body("x".repeat(1_000_000));
    assert_eq!(send(request).await.expect(200).json(), json!([false, true]));
}

#[tokio::test]
async fn a_call_ends_whatever_it_has_made_of_promises() {
    let code = "
        let n = 0;
        export default () => {
          Promise.prototype.constructor = null;
          return `${n += 1}`;
        };
    ";
    let owner = server().await.register().await;
    // Its one worker is free for the next call.
    let one = json!({ "concurrency": 1 });
    owner.deploy(&deploy("p", "p.mjs", code).with("limits", one)).await;
    for n in ["1", "2", "3"] {
        assert_eq!(owner.call("p").await.expect(200).text(), n);
    }
}
