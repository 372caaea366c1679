//! What is wrong with an input is said in a 4xx or in `deployError`, never with a 5xx, and leaves
//! nothing half-written.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{Account, Answer, PATIENCE, deploy, send, server};

#[track_caller]
fn assert_refused(what: &str, answer: &Answer) {
    assert!((400..500).contains(&answer.status), "{what}: {} {}", answer.status, answer.text());
    let body = answer.json();
    assert!(body["error"]["code"].as_str().is_some_and(|code| !code.is_empty()), "{what}: {body}");
    assert!(body["message"].as_str().is_some_and(|text| !text.is_empty()), "{what}: {body}");
}

async fn assert_no_functions(owner: &Account) {
    let list = owner.get("/api/function").await.expect(200).json();
    assert_eq!(list["functions"], json!([]));
}

fn too_long() -> String {
    "x".repeat(300)
}

#[tokio::test]
async fn bodies_that_are_no_json_object_are_refused_everywhere() {
    let owner = server().await.register().await;
    let routes = [
        (Method::POST, "/api/auth/register"),
        (Method::POST, "/api/auth/login"),
        (Method::POST, "/api/apikeys"),
        (Method::POST, "/api/function/deploy"),
    ];
    let bodies: [&[u8]; 10] = [
        b"",
        b"{",
        b"[]",
        b"null",
        b"42",
        b"\"text\"",
        b"{\"name\":}",
        b"{\"name\":\"\xff\xfe\"}",
        b"\xff\xfe\x00\x01",
        b"{} trailing",
    ];
    for (method, path) in routes {
        for body in bodies {
            let request = owner
                .api(method.clone(), path)
                .header("content-type", "application/json")
                .body(body.to_vec());
            let what = format!("{path} {}", String::from_utf8_lossy(body));
            assert_refused(&what, &send(request).await);
        }
        let deep = "[".repeat(100_000);
        let request = owner.api(method, path).header("content-type", "application/json").body(deep);
        assert_refused("deep nesting", &send(request).await);
    }
    assert_no_functions(&owner).await;
}

#[tokio::test]
async fn fields_are_checked_and_named() {
    let owner = server().await.register().await;
    let account = |field: &str, value: Value| {
        let mut body = json!({
            "fullName": "Eve", "userName": "eve-of-bad-input", "email": "eve@example.org",
            "password": "correct horse battery",
        });
        if value.is_null() {
            body.as_object_mut().unwrap().remove(field);
        } else {
            body[field] = value;
        }
        ("/api/auth/register", field.to_owned(), body)
    };
    let function = |field: &str, value: Value| {
        let mut body = json!({ "name": "f", "filename": "f.mjs", "code": "export default 1" });
        if value.is_null() {
            body.as_object_mut().unwrap().remove(field);
        } else {
            body[field] = value;
        }
        ("/api/function/deploy", field.to_owned(), body)
    };
    let key = |field: &str, value: Value| {
        let mut body = json!({ "name": "k" });
        body[field] = value;
        ("/api/apikeys", field.to_owned(), body)
    };
    let cases = [
        account("userName", Value::Null),
        account("userName", json!(7)),
        account("userName", json!("")),
        account("userName", json!("a/b")),
        account("userName", json!("..")),
        account("userName", json!("nul\0nul")),
        account("userName", json!(too_long())),
        account("email", Value::Null),
        account("email", json!("no-address")),
        account("email", json!(["a@b.c"])),
        account("email", json!(format!("{}@example.org", too_long()))),
        account("password", Value::Null),
        account("password", json!("short")),
        account("password", json!("x".repeat(100_000))),
        account("fullName", Value::Null),
        account("fullName", json!(too_long())),
        function("name", Value::Null),
        function("name", json!(7)),
        function("name", json!("")),
        function("name", json!("a/b")),
        function("name", json!("..")),
        function("name", json!("nul\0nul")),
        function("name", json!(too_long())),
        function("name", json!("ünïcode")),
        function("code", Value::Null),
        function("code", json!(7)),
        function("code", json!("")),
        function("filename", json!("../../etc/passwd")),
        function("filename", json!("/etc/passwd")),
        function("filename", json!("a\0.js")),
        function("files", json!({ "a.mjs": "export default 1" })),
        function("files", json!({})),
        function("files", json!("text")),
        function("dependencies", json!(7)),
        function("dependencies", json!({ "lodash": 4 })),
        function("dependencies", json!({ "../evil": "1" })),
        function("dependencies", json!({ "-g": "1" })),
        function("dependencies", json!({ "lodash": "file:///etc" })),
        function("dependencies", json!({ "lodash": "git+ssh://git@example.org/x.git" })),
        function("dependencies", json!({ "lodash": "--registry=http://example.org" })),
        function("packageJson", json!("{")),
        function("packageLock", json!("{")),
        function("packageLock", json!({ "packages": "x".repeat(4 << 20) })),
        function("env", json!("text")),
        function("env", json!({ "A=B": "1" })),
        function("env", json!({ "A": 1 })),
        function("env", json!({ "NUL": "a\0b" })),
        function("env", json!({ "BIG": "x".repeat(70_000) })),
        function("visibility", json!("secret")),
        function("limits", json!({ "timeoutMs": 0 })),
        function("limits", json!({ "timeoutMs": -1 })),
        function("limits", json!({ "timeoutMs": 1.5 })),
        function("limits", json!({ "memoryMb": 1_000_000 })),
        function("limits", json!({ "memory": 128 })),
        function("surprise", json!(true)),
        key("name", json!("")),
        key("name", json!(7)),
        key("name", json!(too_long())),
        key("scopes", json!([])),
        key("scopes", json!(["admin"])),
        key("expiresAt", json!("tomorrow")),
        key("expiresAt", json!("2001-01-01T00:00:00Z")),
    ];
    for (path, field, body) in cases {
        let answer = owner.post(path, &body).await;
        let what = format!("{path} {field}={}", body[&field].to_string().get(..60).unwrap_or("?"));
        assert_refused(&what, &answer);
        assert!(answer.text().contains(&field), "{what}: {}", answer.text());
    }
    assert_no_functions(&owner).await;
}

#[tokio::test]
async fn ids_and_queries_are_checked() {
    let owner = server().await.register().await;
    for path in [
        "/api/function/not-an-id",
        "/api/function/%00",
        "/api/function/..%2f..%2fetc",
        "/api/function/00000000-0000-0000-0000-000000000000",
        "/api/logs/not-an-id",
        "/api/logs/00000000-0000-0000-0000-000000000000",
        "/api/function?limit=0",
        "/api/function?limit=x",
        "/api/function?limit=-1",
        "/api/function?cursor=nonsense",
        "/api/usage?functionId=x",
        "/api/usage?from=yesterday",
        "/api/usage?groupBy=colour",
        "/api/no-such-route",
        "/nothing.js",
    ] {
        assert_refused(path, &owner.get(path).await);
    }
    assert_refused("a wrong method", &owner.delete("/api/auth/login").await);
    for path in ["%00", "..%2f..%2fetc", "a%2fb", &too_long(), "%ff%fe", "-x"] {
        let answer = owner.call(path).await;
        assert_refused(path, &answer);
    }
    let far = send(owner.run_of(&too_long(), Method::GET, "f")).await;
    assert_refused("a user name of 300 characters", &far);
}

/// Sends a request as it is written, its target as bytes; gives the body of the answer.
async fn send_raw(owner: &Account, target: &str) -> String {
    let request = owner.run(Method::GET, "f").build().unwrap();
    let (url, key) = (request.url(), request.headers()["authorization"].to_str().unwrap());
    let address = url.socket_addrs(|| None).unwrap()[0];
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "GET {}{target} HTTP/1.1\r\nhost: a\r\nauthorization: {key}\r\nconnection: close\r\n\r\n",
        url.path(),
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an end").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{target}: {answer}");
    answer.split_once("\r\n\r\n").expect("a body").1.to_owned()
}

/// The low bytes of these characters are CR, LF and a blank: what a server would read of them, if
/// each were taken for a byte, is a header, or another request.
#[tokio::test]
async fn a_target_beyond_ascii_stays_one_line() {
    let owner = server().await.register().await;
    let code = "
        require('node:http').createServer((req, res) => {
          res.end(JSON.stringify([req.url, req.headers['x-smuggled'] ?? null]));
        }).listen(3000);
    ";
    owner.deploy(&deploy("f", "f.cjs", code)).await;
    for (target, seen) in [
        ("/č?ü", "/%C4%8D?%C3%BC"),
        ("/ĠHTTP/1.1čĊx-smuggled:1čĊx:", "/%C4%A0HTTP/1.1%C4%8D%C4%8Ax-smuggled:1%C4%8D%C4%8Ax:"),
        ("?čĊčĊGETĠ/secret", "/?%C4%8D%C4%8A%C4%8D%C4%8AGET%C4%A0/secret"),
    ] {
        let got: Value = serde_json::from_str(&send_raw(&owner, target).await).unwrap();
        assert_eq!(got, json!([seen, null]), "{target}");
    }
}

#[tokio::test]
async fn bodies_that_are_too_large_are_refused_without_being_read() {
    let owner = server().await.register().await;
    owner.deploy(&deploy("f", "f.mjs", "export default () => 1")).await;
    for path in ["/api/auth/login", "/api/apikeys", "/api/function/deploy"] {
        for is_endless in [false, true] {
            assert_too_large(path, owner.api(Method::POST, path), is_endless).await;
        }
    }
    assert_too_large("a call", owner.run(Method::POST, "f"), false).await;
    assert_eq!(owner.call("f").await.expect(200).text(), "1");
}

/// Sends this and a body of 100 MB, for as long as it is taken. A server that has refused a body may close
/// the connection before it was sent, but who sends it sees the refusal.
async fn assert_too_large(what: &str, request: RequestBuilder, is_endless: bool) {
    const PIECES: usize = 100;
    let request = request.build().unwrap();
    let (url, key) = (request.url(), request.headers()["authorization"].to_str().unwrap());
    let mut piece = vec![b'x'; 1 << 20];
    let mut framing = format!("content-length: {}", PIECES * piece.len());
    if is_endless {
        "transfer-encoding: chunked".clone_into(&mut framing);
        piece = [&b"100000\r\n"[..], &piece, b"\r\n"].concat();
    }
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: a\r\nauthorization: {key}\r\ncontent-type: application/json\r\n\
         {framing}\r\n\r\n",
        url.path(),
    );
    let mut stream = TcpStream::connect(url.socket_addrs(|| None).unwrap()[0]).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..PIECES {
        let sent = timeout(PATIENCE, stream.write_all(&piece)).await.expect("taken, or refused");
        if sent.is_err() {
            break;
        }
    }
    let mut answer = String::new();
    let mut buffer = [0; 4_096];
    // Its code is in the body, so this is all of it.
    while !answer.contains("\"payload_too_large\"") {
        let read = timeout(PATIENCE, stream.read(&mut buffer)).await.expect("an answer");
        let n = read.unwrap_or_else(|error| panic!("{what}: {error} after {answer:?}"));
        assert!(n > 0, "{what}: cut off after {answer:?}");
        answer.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
    }
    assert!(answer.starts_with("HTTP/1.1 413 "), "{what}: {answer}");
}

#[tokio::test]
async fn source_that_cannot_be_bundled_fails_with_file_line_and_column() {
    let owner = server().await.register().await;
    let syntax = "export default () => {\n  const a = ;\n};\n";
    let error = owner.deploy_failing(&deploy("syntax", "broken.ts", syntax)).await;
    assert_eq!(error["code"], "bundle_error");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("broken.ts:2:12"), "{message}");

    let missing = "\nimport x from 'left-pad-that-is-not-there';\nexport default x;\n";
    let error = owner.deploy_failing(&deploy("missing", "f.ts", missing)).await;
    assert_eq!(error["code"], "bundle_error");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("left-pad-that-is-not-there"), "{message}");
    assert!(message.contains("f.ts:2:14"), "{message}");
    // Nothing of the place where it was built.
    assert!(!message.contains("/tmp") && !message.contains("/data/"), "{message}");

    for (name, path) in
        [("dot", "./gone.js"), ("up", "../../../../etc/passwd"), ("abs", "/etc/passwd")]
    {
        let code = format!("import x from '{path}';\nexport default x;\n");
        let error = owner.deploy_failing(&deploy(name, "f.mjs", &code)).await;
        assert_eq!(error["code"], "bundle_error", "{path}: {error}");
        assert!(!error.to_string().contains("root:"), "{error}");
    }
}

#[tokio::test]
async fn packages_that_do_not_exist_fail_with_what_npm_said() {
    let owner = server().await.register().await;
    let code = "import x from 'lodash'; export default () => x.VERSION;";
    for (name, package, version, says) in [
        ("version", "lodash", "99.99.99", "99.99.99"),
        ("range", "lodash", "^99", "lodash"),
        (
            "package",
            "this-package-is-not-there-31415926",
            "1.0.0",
            "this-package-is-not-there-31415926",
        ),
    ] {
        let deploy = deploy(name, "f.mjs", code)
            .with("dependencies", json!({ "lodash": "^4", package: version }));
        let error = owner.deploy_failing(&deploy).await;
        assert_eq!(error["code"], "dependency_error", "{error:#}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(says), "{message}");
        assert!(!message.contains("/root") && !message.contains("/tmp"), "{message}");
    }
}

#[tokio::test]
async fn cyclic_imports_work_as_in_node() {
    let owner = server().await.register().await;
    let files = json!({
        "index.mjs": "import { b } from './b.mjs'; export const a = () => 'a'; export default () => b();",
        "b.mjs": "import { a } from './index.mjs'; export const b = () => a() + 'b';",
    });
    let mut cyclic = deploy("cyclic", "", "");
    for field in ["filename", "code"] {
        cyclic.0.as_object_mut().unwrap().remove(field);
    }
    owner.deploy(&cyclic.with("files", files)).await;
    assert_eq!(owner.call("cyclic").await.expect(200).text(), "ab");
}
