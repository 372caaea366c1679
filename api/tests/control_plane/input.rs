//! What is wrong with a request is said in a 4xx that names it.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::support::{Answer, Plane};

async fn raw(plane: &Plane, token: &str, path: &str, kind: &str, body: Vec<u8>) -> Answer {
    sent(plane, token, ("POST", path), kind, body).await
}

async fn sent(
    plane: &Plane,
    token: &str,
    (method, path): (&str, &str),
    kind: &str,
    body: Vec<u8>,
) -> Answer {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", kind)
        .header("authorization", format!("Bearer {token}"))
        .body(Body::from(body))
        .unwrap();
    plane.send(request).await
}

#[tokio::test]
async fn bodies_that_are_no_json_object_are_refused() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    let deep = "[".repeat(100_000);
    for path in ["/api/auth/login", "/api/apikeys", "/api/function/deploy"] {
        for (body, status, code) in [
            (&b""[..], 400, "invalid_json"),
            (b"{", 400, "invalid_json"),
            (b"{\"name\":}", 400, "invalid_json"),
            (b"{\"name\":\"\xff\"}", 400, "invalid_json"),
            (b"{} trailing", 400, "invalid_json"),
            (deep.as_bytes(), 400, "invalid_json"),
            (b"[]", 422, "validation_error"),
            (b"null", 422, "validation_error"),
            (b"{}", 422, "validation_error"),
        ] {
            let answer = raw(&plane, &token, path, "application/json", body.to_vec()).await;
            assert_eq!((answer.status, answer.code()), (status, code), "{path} {}", answer.text);
            assert_eq!(answer.body["message"], answer.body["error"]["message"]);
        }
        let large = vec![b' '; 40 << 20];
        let answer = raw(&plane, &token, path, "application/json", large).await.expect(413);
        assert_eq!(answer.code(), "payload_too_large");
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
            let answer = raw(&plane, &token, path, kind, b"{}".to_vec()).await.expect(415);
            assert_eq!(answer.code(), "unsupported_media_type");
        }
    }
    // Read as it is, each of these objects would take six hundred bytes.
    for (path, n_objects) in [("/api/auth/login", 30_000), ("/api/function/deploy", 1_000_000)] {
        let body = format!("{{\"name\":[{}0]}}", "{\"\":0},".repeat(n_objects));
        let answer = raw(&plane, &token, path, "application/json", body.into_bytes()).await;
        assert_eq!((answer.status, answer.code()), (400, "invalid_json"), "{path}");
        let told = answer.body["error"]["message"].as_str().unwrap();
        assert!(told.starts_with("the body holds more objects"), "{path}: {told}");
        assert_eq!(answer.body["error"].get("details"), None, "{path}");
    }
    let answer =
        raw(&plane, &token, "/api/apikeys", "application/json", b"{\n \"a\": x}".to_vec()).await;
    assert_eq!(answer.body["error"]["details"], json!({ "line": 2, "column": 7 }));
}

#[tokio::test]
async fn parameters_are_checked_before_anything_is_accepted() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    let body = json!({ "name": "f", "filename": "f.mjs", "code": "export default 1" });
    let view = plane.deploy(&token, &body).await;
    let path = format!("/api/function/{}", view["id"].as_str().unwrap());
    for (method, place, body) in [
        ("POST", "/api/function/deploy".to_owned(), body),
        ("PUT", path.clone(), json!({ "code": "export default 2" })),
        ("PUT", path.clone(), json!({ "visibility": "public" })),
        ("POST", format!("{path}/redeploy"), Value::Null),
        ("PATCH", format!("{path}/env"), json!({ "set": { "A": "1" } })),
    ] {
        let refused = plane.call(&token, method, &format!("{place}?wait=maybe"), &body).await;
        assert!(refused.expect(422).body["error"]["details"]["wait"].is_string(), "{place}");
    }
    let versions = plane.get(&token, &format!("{path}/versions")).await.expect(200).body;
    assert_eq!(versions.as_array().unwrap().len(), 1, "{versions:#}");
    assert_eq!(plane.get(&token, &path).await.expect(200).body["visibility"], "private");
}

#[tokio::test]
async fn fields_are_checked_and_named() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    let account = json!({
        "fullName": "Eve", "userName": "eve", "email": "eve@example.org", "password": "correct horse",
    });
    let function = json!({ "name": "f", "filename": "f.mjs", "code": "export default 1" });
    let key = json!({ "name": "k" });
    let long = "x".repeat(300);
    let cases = [
        (&account, "userName", json!(null)),
        (&account, "userName", json!("a/b")),
        (&account, "email", json!("no-address")),
        (&account, "email", json!(["a@b.c"])),
        (&account, "password", json!("short")),
        (&account, "password", json!("eve@EXAMPLE.org")),
        (&account, "fullName", json!(long)),
        (&account, "surprise", json!(1)),
        (&function, "name", json!(null)),
        (&function, "name", json!("a\0b")),
        (&function, "name", json!(long)),
        (&function, "code", json!(null)),
        (&function, "code", json!("")),
        (&function, "code", json!(7)),
        (&function, "filename", json!("../../etc/passwd")),
        (&function, "filename", json!("/etc/x.js")),
        (&function, "filename", json!("a\0.js")),
        (&function, "filename", json!("f.txt")),
        (&function, "files", json!({ "a.mjs": "1" })),
        (&function, "files", json!("text")),
        (&function, "entry", json!("other.mjs")),
        (&function, "external", json!(["/etc/*"])),
        (&function, "dependencies", json!({ "-g": "1" })),
        (&function, "dependencies", json!({ "lodash": "file:///etc" })),
        (&function, "packageJson", json!("{")),
        (&function, "packageLock", json!("{")),
        (&function, "packageJson", json!({ "dependencies": { "a": "git+ssh://x" } })),
        (&function, "env", json!({ "A=B": "1" })),
        (&function, "env", json!({ "A": 1 })),
        (&function, "env", json!({ "A": "a\0b" })),
        (&function, "env", json!({ "A": "x".repeat(70_000) })),
        (&function, "visibility", json!("secret")),
        (&function, "limits", json!([])),
        (&function, "limits", json!({ "timeoutMs": 0 })),
        (&function, "limits", json!({ "timeoutMs": 1.5 })),
        (&function, "limits", json!({ "memory": 1 })),
        (&function, "surprise", json!(true)),
        (&key, "name", json!("")),
        (&key, "scopes", json!([])),
        (&key, "scopes", json!(["admin"])),
        (&key, "expiresAt", json!("tomorrow")),
        (&key, "expiresAt", json!("2001-01-01T00:00:00Z")),
    ];
    for (base, field, value) in cases {
        let mut body = base.clone();
        body[field] = value;
        let path = match base {
            base if *base == account => "/api/auth/register",
            base if *base == function => "/api/function/deploy",
            _ => "/api/apikeys",
        };
        let answer = plane.call(&token, "POST", path, &body).await.expect(422);
        let details = answer.body["error"]["details"].as_object().unwrap();
        assert!(details.keys().any(|name| name.starts_with(field)), "{field}: {}", answer.text);
    }
    // Of many files, packages or limits, which one it is.
    for (field, value, place, word) in [
        ("files", json!({ "a.mjs": "1", "b/logo.png": { "base64": "?" } }), "files", "b/logo.png"),
        ("external", json!(["sharp", "../evil"]), "external", "../evil"),
        ("limits", json!({ "memoryMb": "256" }), "limits.memoryMb", "between 32 and 1024"),
    ] {
        let body = match field {
            "files" => json!({ "name": "f", field: value }),
            _ => json!({ "name": "f", "code": "export default 1", field: value }),
        };
        let answer = plane.call(&token, "POST", "/api/function/deploy", &body).await.expect(422);
        let wrong = answer.body["error"]["details"][place].as_str().unwrap_or_default();
        assert!(wrong.contains(word), "{field}: {}", answer.text);
    }
    // All that is wrong is said at once.
    let body = json!({ "fullName": "", "userName": 7, "email": "x", "more": 1 });
    let answer = plane.call("", "POST", "/api/auth/register", &body).await.expect(422);
    let details = answer.body["error"]["details"].as_object().unwrap();
    let named: Vec<_> = details.keys().map(String::as_str).collect();
    assert_eq!(named, ["email", "fullName", "more", "password", "userName"]);
    let list = plane.get(&token, "/api/function").await.expect(200).body;
    assert_eq!(list, json!({ "functions": [], "nextCursor": null }));
}

#[tokio::test]
async fn what_was_sent_is_not_sent_back_at_length() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    let long = "x".repeat(1 << 20);
    let limits = Value::Object([(long.clone(), json!(1))].into_iter().collect());
    for (field, value) in [("visibility", json!(long)), ("limits", limits)] {
        let mut body = json!({ "name": "f", "code": "export default 1" });
        body[field] = value;
        let answer = plane.call(&token, "POST", "/api/function/deploy", &body).await.expect(422);
        assert!(answer.body["error"]["details"][field].is_string(), "{}", answer.text);
        assert!(answer.text.len() < 4_096, "{field}: {} bytes", answer.text.len());
    }
}

/// What is described is what is checked.
#[tokio::test]
async fn passwords_may_be_as_long_as_is_described() {
    let plane = Plane::start();
    let described = plane.get("", "/api/openapi.json").await.expect(200).body;
    let schema = &described["components"]["schemas"]["Registration"]["properties"]["password"];
    let longest = usize::try_from(schema["maxLength"].as_u64().unwrap()).unwrap();
    for (length, status) in [(longest + 1, 422), (longest, 201)] {
        let body = json!({
            "fullName": "Ada", "userName": "ada", "email": "ada@example.org",
            "password": "x".repeat(length),
        });
        plane.call("", "POST", "/api/auth/register", &body).await.expect(status);
    }
}

#[tokio::test]
async fn lock_files_are_bounded_wherever_they_come_from() {
    let plane = Plane::start_with(|options| options.package_lock_bytes = 100);
    let token = plane.register("ada").await;
    let code = "export default 1";
    for (bytes, status) in [(100, 202), (101, 422)] {
        let lock = json!({ "a": "x".repeat(bytes - r#"{"a":""}"#.len()) });
        let text = lock.to_string();
        assert_eq!(text.len(), bytes);
        for (name, field, mut body) in [
            ("object", "packageLock", json!({ "code": code, "packageLock": lock })),
            ("text", "packageLock", json!({ "code": code, "packageLock": text })),
            ("file", "files", json!({ "files": { "index.mjs": code, "package-lock.json": text } })),
            (
                "shrinkwrap",
                "files",
                json!({ "files": {
                    "index.mjs": code, "npm-shrinkwrap.json": text, "package-lock.json": "{}",
                } }),
            ),
        ] {
            body["name"] = json!(name);
            let answer = plane.call(&token, "POST", "/api/function/deploy", &body).await;
            let answer = answer.expect(status);
            if status == 422 {
                let wrong = answer.body["error"]["details"][field].as_str().unwrap();
                assert!(wrong.ends_with("must have at most 100 bytes"), "{name}: {wrong}");
            }
        }
    }
}

#[tokio::test]
async fn ids_queries_and_routes_are_checked() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    for (path, status) in [
        ("/api/function/not-an-id", 404),
        ("/api/function/%00", 404),
        ("/api/function/%ff", 404),
        ("/api/function/00000000-0000-0000-0000-000000000000", 404),
        ("/api/logs/not-an-id", 404),
        ("/api/function?limit=0", 422),
        ("/api/function?limit=-1", 422),
        ("/api/function?limit=1000000", 422),
        ("/api/function?cursor=nonsense", 422),
        ("/api/usage?functionId=x", 422),
        ("/api/usage?from=yesterday", 422),
        ("/api/usage?from=2025-01-02&to=2025-01-01", 422),
        ("/api/usage?groupBy=colour", 422),
        ("/api/no-such-route", 404),
        ("/nothing.js", 404),
        ("/api/auth/login", 405),
        ("/healthz", 200),
        ("/api/usage", 200),
        ("/api/usage?from=2025-01-01&to=2025-01-02T00:00:00Z&groupBy=day", 200),
        ("/api/usage?groupBy=none&limit=1000", 200),
        // A zone counts, its plus escaped or not.
        ("/api/usage?from=2025-01-01T02:00:00%2B01:00&to=2025-01-01T00:30:00Z", 422),
        ("/api/usage?from=2025-01-01T02:00:00+01:00&to=2025-01-01T00:30:00Z", 422),
        ("/api/usage?from=2025-01-01T02:00:00+01:00&to=2025-01-01T01:30:00Z", 200),
        ("/api/usage?from=2025-01-01+00:00:00", 422),
    ] {
        let answer = plane.get(&token, path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
        if status >= 400 {
            assert!(!answer.code().is_empty() && answer.body["message"].is_string(), "{path}");
        }
    }
    let wrong = plane.call(&token, "DELETE", "/api/apikeys", &Value::Null).await.expect(405);
    assert_eq!(wrong.code(), "method_not_allowed");
    assert!(wrong.header("allow").contains("POST"), "{wrong:?}");
    assert_eq!(plane.get(&token, "/api/nothing").await.code(), "route_not_found");
}

#[tokio::test]
async fn an_entry_that_was_given_stays_and_one_that_was_found_is_found_anew() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    let module = || json!("export default 1");
    let main = |name: &str| json!(json!({ "main": name }).to_string());
    let entry = async |body: Value| {
        let view = plane.deploy(&token, &body).await;
        let path = format!("/api/function/{}", view["id"].as_str().unwrap());
        plane.get(&token, &path).await.expect(200).body["source"]["entry"].clone()
    };
    for (name, first) in [
        ("found", json!({ "b.mjs": module() })),
        ("named", json!({ "a.mjs": module(), "b.mjs": module(), "package.json": main("b.mjs") })),
        ("given", json!({ "a.mjs": module(), "b.mjs": module() })),
    ] {
        let is_given = name == "given";
        let mut deploy = json!({ "name": name, "files": first });
        if is_given {
            deploy["entry"] = json!("b.mjs");
        }
        assert_eq!(entry(deploy).await, "b.mjs", "{name}");
        for (files, found) in [
            (json!({ "a.mjs": module(), "b.mjs": module() }), "b.mjs"),
            (json!({ "b.mjs": module(), "index.mjs": module() }), "index.mjs"),
            (
                json!({ "a.mjs": module(), "b.mjs": module(), "package.json": main("a.mjs") }),
                "a.mjs",
            ),
        ] {
            let expected = if is_given { "b.mjs" } else { found };
            let told = entry(json!({ "name": name, "files": files })).await;
            assert_eq!(told, expected, "{name}: {files}");
        }
    }
    // It may be taken back: at once where files come with that, else when the next ones do.
    let files = json!({ "b.mjs": module(), "index.mjs": module() });
    for (name, told) in [("back", "index.mjs"), ("back-later", "b.mjs")] {
        let given = json!({ "name": name, "files": files, "entry": "b.mjs" });
        let view = plane.deploy(&token, &given).await;
        let path = format!("/api/function/{}", view["id"].as_str().unwrap());
        let mut back = json!({ "entry": "" });
        if name == "back" {
            back["files"] = files.clone();
        }
        plane.call(&token, "PUT", &format!("{path}?wait=true"), &back).await.expect(200);
        let shown = plane.get(&token, &path).await.expect(200).body;
        assert_eq!(shown["source"]["entry"], told, "{name}");
        assert_eq!(entry(json!({ "name": name, "files": files })).await, "index.mjs", "{name}");
    }
    // It is gone with its file.
    for files in
        [json!({ "index.mjs": module() }), json!({ "b.mjs": module(), "index.mjs": module() })]
    {
        assert_eq!(entry(json!({ "name": "given", "files": files })).await, "index.mjs", "{files}");
    }
}

#[tokio::test]
async fn lists_are_read_page_by_page() {
    let mut plane = Plane::start();
    let token = plane.register("ada").await;
    for n in 0..5 {
        let body = json!({ "name": format!("f{n}"), "code": "export default 1" });
        plane.call(&token, "POST", "/api/function/deploy", &body).await.expect(202);
    }
    let (mut names, mut cursor) = (Vec::new(), String::new());
    loop {
        let page =
            plane.get(&token, &format!("/api/function?limit=2{cursor}")).await.expect(200).body;
        let functions = page["functions"].as_array().unwrap();
        names.extend(functions.iter().map(|f| f["name"].as_str().unwrap().to_owned()));
        let Some(next) = page["nextCursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(names, ["f4", "f3", "f2", "f1", "f0"]);
    plane.stop_deployer().await;
}

fn archive(entries: &[(&str, &str)]) -> Vec<u8> {
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut archive = tar::Builder::new(gzip);
    for (path, text) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        archive.append(&header, text.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

#[tokio::test]
async fn a_source_is_bounded_in_bytes_and_in_files_however_it_is_sent() {
    const CODE: &str = "export default 1";
    let plane = Plane::start_with(|options| {
        options.limits.source_bytes = 1_000;
        options.limits.source_files = 3;
    });
    let token = plane.register("ada").await;
    for (n_files, bytes, status, code) in [
        (3, 1_000, 202, ""),
        (3, 1_001, 413, "payload_too_large"),
        (4, 1_000, 422, "validation_error"),
    ] {
        let others = ["b.txt", "c.txt"].into_iter().take(n_files - 2).map(|name| (name, "x"));
        let rest = "x".repeat(bytes - CODE.len() - (n_files - 2));
        let mut files = vec![("index.mjs", CODE), ("a.txt", &*rest)];
        files.extend(others);
        assert_eq!(files.len(), n_files);
        let packed = archive(&files);
        let path = "/api/function/deploy?name=f";
        let answer = raw(&plane, &token, path, "application/gzip", packed).await.expect(status);
        assert_eq!(answer.code(), code, "{}", answer.text);
        let files: serde_json::Map<_, _> =
            files.iter().map(|(name, text)| ((*name).to_owned(), json!(text))).collect();
        let body = json!({ "name": "f", "files": files });
        let answer = plane.call(&token, "POST", "/api/function/deploy", &body).await;
        assert_eq!(answer.expect(status).code(), code);
    }
}

#[tokio::test]
async fn archives_are_deployed_and_hostile_ones_refused() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    let project = archive(&[
        ("project/package.json", r#"{"main":"lib/start.js","type":"module"}"#),
        ("project/lib/start.js", "import { x } from './x.js'; export default x;"),
        ("project/lib/x.js", "export const x = 'in the archive';"),
    ]);
    let deploy = "/api/function/deploy?name=packed&wait=true";
    let view =
        raw(&plane, &token, deploy, "application/gzip", project.clone()).await.expect(200).body;
    assert_eq!((&view["status"], &view["name"]), (&json!("active"), &json!("packed")), "{view:#}");
    let path = format!("/api/function/{}", view["id"].as_str().unwrap());
    let shown = plane.get(&token, &path).await.expect(200).body;
    assert_eq!(shown["source"]["entry"], "lib/start.js");
    assert_eq!(shown["source"]["files"].as_object().unwrap().len(), 3);

    // Everything else is in the archive or in no such request.
    for (method, path, wrong) in [
        (
            "POST",
            format!("{deploy}&entry=lib/x.js&visibility=public"),
            &["entry", "visibility"][..],
        ),
        ("PUT", format!("{path}?wait=true&name=other&surprise"), &["name", "surprise"]),
    ] {
        let to = (method, path.as_str());
        let refused = sent(&plane, &token, to, "application/gzip", project.clone()).await;
        let refused = refused.expect(422).body;
        let told: Vec<_> = refused["error"]["details"].as_object().unwrap().keys().collect();
        assert_eq!(told, wrong, "{path}");
    }
    let path = format!("{path}?wait=true");
    let to = ("PUT", path.as_str());
    let view = sent(&plane, &token, to, "application/gzip", project.clone()).await.expect(200).body;
    assert_eq!(view["version"], 2);

    let unnamed = raw(&plane, &token, "/api/function/deploy", "application/gzip", project).await;
    assert!(unnamed.expect(422).text.contains("name"));
    for hostile in [
        archive(&[("../../x.js", "1")]),
        archive(&[("/etc/x.js", "1")]),
        archive(&[("README.md", "no code")]),
        b"no archive".to_vec(),
        Vec::new(),
    ] {
        raw(&plane, &token, deploy, "application/gzip", hostile).await.expect(422);
    }
    let big = "x".repeat(21 << 20);
    let large = archive(&[("x.js", &big)]);
    let answer = raw(&plane, &token, deploy, "application/gzip", large).await.expect(413);
    assert_eq!(answer.code(), "payload_too_large");
}

#[tokio::test]
async fn what_belongs_to_others_is_not_there() {
    let plane = Plane::start();
    let (ada, eve) = (plane.register("ada").await, plane.register("eve").await);
    let body = json!({ "name": "f", "code": "export default 'mine'" });
    let view = plane.deploy(&ada, &body).await;
    let id = view["id"].as_str().unwrap();
    for (method, path) in [
        ("GET", format!("/api/function/{id}")),
        ("PUT", format!("/api/function/{id}")),
        ("DELETE", format!("/api/function/{id}")),
        ("POST", format!("/api/function/redeploy/{id}")),
        ("POST", format!("/api/functions/{id}/redeploy")),
        ("GET", format!("/api/function/{id}/versions")),
        ("GET", format!("/api/logs/{id}")),
        ("GET", format!("/api/usage?functionId={id}")),
    ] {
        let theirs = json!({ "code": "export default 'theirs'" });
        let answer = plane.call(&eve, method, &path, &theirs).await.expect(404);
        assert!(!answer.text.contains("mine"));
        plane.call("", method, &path, &theirs).await.expect(401);
    }
    let list = plane.get(&eve, "/api/function").await.expect(200);
    assert!(!list.text.contains(id));
    // The same name is another function.
    let other = plane.deploy(&eve, &body).await;
    assert_ne!(other["id"], view["id"]);
}
