//! The description of the API: what it says is there, and a case of authorisation for every route.

use std::collections::BTreeSet;
use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};

use crate::isolation;
use crate::support::{Account, TestServer, deploy, send, server};

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Everyone,
    /// Any credential of the account.
    Account,
    /// A session, or a key with this scope.
    Scope(&'static str),
    /// A session, and no key.
    Session,
}

/// Every route: method, path, who may use it, and a body with which it does no harm. `FUNCTION` and
/// `KEY` are ids of the account that asks.
const ROUTES: &[(&str, &str, Who)] = &[
    ("POST", "/api/auth/register", Who::Everyone),
    ("POST", "/api/auth/login", Who::Everyone),
    ("POST", "/api/auth/logout", Who::Session),
    ("GET", "/api/auth/me", Who::Account),
    ("GET", "/api/account/quota", Who::Scope("read")),
    ("GET", "/api/account/audit", Who::Session),
    ("GET", "/api/apikeys", Who::Session),
    ("POST", "/api/apikeys", Who::Session),
    ("DELETE", "/api/apikeys/{id}", Who::Session),
    ("GET", "/api/function", Who::Scope("read")),
    ("POST", "/api/function/deploy", Who::Scope("deploy")),
    ("POST", "/api/function/redeploy/{id}", Who::Scope("deploy")),
    ("GET", "/api/function/{id}", Who::Scope("read")),
    ("PUT", "/api/function/{id}", Who::Scope("deploy")),
    ("DELETE", "/api/function/{id}", Who::Scope("deploy")),
    ("GET", "/api/function/{id}/versions", Who::Scope("read")),
    ("GET", "/api/function/{id}/versions/{version}", Who::Scope("read")),
    ("GET", "/api/function/{id}/versions/{version}/deploy", Who::Scope("deploy")),
    ("POST", "/api/function/{id}/invoke", Who::Scope("invoke")),
    ("POST", "/api/function/{id}/rollback", Who::Scope("deploy")),
    ("GET", "/api/function/{id}/env", Who::Scope("read")),
    ("PATCH", "/api/function/{id}/env", Who::Scope("deploy")),
    ("GET", "/api/logs/{functionId}", Who::Scope("read")),
    ("GET", "/api/usage", Who::Scope("read")),
    ("GET", "/api/usage/latency", Who::Scope("read")),
    ("GET", "/api/usage/series", Who::Scope("read")),
    ("GET", "/api/openapi.json", Who::Everyone),
    ("GET", "/api/docs", Who::Everyone),
];

async fn description() -> Value {
    let nobody = server().await.register().await.showing("");
    let answer = nobody.get("/api/openapi.json").await.expect(200);
    assert_eq!(answer.header("content-type"), "application/json");
    answer.json()
}

/// Every operation: method, path, and what is said of it.
fn operations(description: &Value) -> Vec<(String, String, &Value)> {
    let paths = description["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, methods)| {
            methods
                .as_object()
                .unwrap()
                .iter()
                .map(move |(method, operation)| (method.to_uppercase(), path.clone(), operation))
        })
        .collect()
}

#[tokio::test]
async fn every_route_has_a_case_of_authorisation() {
    let description = description().await;
    let described: BTreeSet<_> = operations(&description)
        .into_iter()
        .map(|(method, path, _)| format!("{method} {path}"))
        .collect();
    let cases: BTreeSet<_> =
        ROUTES.iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    assert_eq!(described, cases, "a new route needs a line in ROUTES, and in isolation.rs");
    for (method, path, operation) in operations(&description) {
        let (_, _, who) = ROUTES.iter().find(|(m, p, _)| (*m, *p) == (&method, &path)).unwrap();
        let is_open = operation["security"] == json!([{}]);
        assert_eq!(is_open, *who == Who::Everyone, "{method} {path}");
    }
    // What is somebody's is tried by others.
    for (method, path, _) in ROUTES {
        let whose = if path.starts_with("/api/apikeys") { "KEY" } else { "FUNCTION" };
        let asked = path.replace("{id}", whose).replace("{functionId}", whose);
        let asked = asked.replace("{version}", "1");
        let is_tried = isolation::ROUTES
            .iter()
            .any(|(by, tried)| by == method && tried.split('?').next() == Some(asked.as_str()));
        assert!(is_tried || asked == *path, "{method} {path}: no line in isolation.rs");
    }
}

async fn ask(account: &Account, method: &str, path: &str) -> u16 {
    // Of no account: with a right credential it is not found, with a wrong one not looked for.
    let path = path
        .replace("{id}", "00000000-0000-7000-8000-000000000000")
        .replace("{functionId}", "00000000-0000-7000-8000-000000000000")
        .replace("{version}", "1");
    let request = account.api(method.parse::<Method>().unwrap(), &path);
    let request = if method == "GET" || method == "DELETE" {
        request
    } else {
        // No field of any request: refused, but only after it was decided who asks.
        request.json(&json!({ "no such field": 1 }))
    };
    send(request).await.status
}

#[tokio::test]
async fn every_route_is_for_whom_it_is() {
    let owner = server().await.register().await;
    let keys = [
        ("read", owner.key(&["read"]).await),
        ("deploy", owner.key(&["deploy"]).await),
        ("invoke", owner.key(&["invoke"]).await),
    ];
    for (method, path, who) in ROUTES {
        let nobody = ask(&owner.showing(""), method, path).await;
        assert_eq!(nobody == 401, *who != Who::Everyone, "{method} {path}: {nobody}");
        for (scope, key) in &keys {
            let status = ask(&owner.showing(key), method, path).await;
            let may = match who {
                Who::Everyone | Who::Account => true,
                Who::Scope(needed) => needed == scope,
                Who::Session => false,
            };
            assert_eq!(status != 403, may, "{method} {path} with {scope}: {status}");
            assert_ne!(status, 401, "{method} {path} with {scope}");
        }
        // The session that logs out is one of its own.
        let login = json!({ "email": owner.email, "password": owner.password });
        let session = owner.showing("").post("/api/auth/login", &login).await.expect(200).json();
        let session = owner.showing(session["token"].as_str().unwrap());
        let status = ask(&session, method, path).await;
        assert!(!matches!(status, 401 | 403 | 500..), "{method} {path}: {status}");
    }
}

#[tokio::test]
async fn every_route_of_functions_is_there_under_its_other_name() {
    let nobody = server().await.register().await.showing("");
    for (method, path, _) in ROUTES {
        let Some(rest) = path.strip_prefix("/api/function") else { continue };
        // Where there is no route, nobody is asked who it is.
        let status = ask(&nobody, method, &format!("/api/functions{rest}")).await;
        assert_eq!(status, 401, "{method} {path}");
    }
}

#[tokio::test]
async fn the_description_is_complete() {
    let description = description().await;
    assert_eq!(description["openapi"], "3.1.0");
    let mut ids = BTreeSet::new();
    for (method, path, operation) in operations(&description) {
        let place = format!("{method} {path}");
        assert!(ids.insert(operation["operationId"].to_string()), "{place}: not a new id");
        assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{place}");
        let responses = operation["responses"].as_object().unwrap();
        assert!(responses.keys().any(|status| status.starts_with('2')), "{place}");
        if operation["security"] != json!([{}]) {
            assert!(responses.contains_key("401"), "{place}");
        }
        // What is wrong with a body cannot be wrong where there is none.
        let of_bodies = ["400", "408", "413", "415"].map(|status| responses.contains_key(status));
        assert_eq!(of_bodies, [operation["requestBody"].is_object(); 4], "{place}");
        for (status, response) in responses {
            if status.starts_with('4') || status.starts_with('5') {
                let schema = &response["content"]["application/json"]["schema"]["$ref"];
                assert_eq!(schema, "#/components/schemas/Error", "{place} {status}");
            }
        }
    }
    // Every schema that is named is there.
    let text = description.to_string();
    let schemas = description["components"]["schemas"].as_object().unwrap();
    for part in text.split("#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn the_description_is_the_one_that_is_kept() {
    let now = format!("{:#}\n", description().await);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/it/openapi.json");
    if std::env::var_os("CLOUDSERVE_UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(path, &now).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    let difference = now.lines().zip(kept.lines()).find(|(now, kept)| now != kept);
    assert!(
        now == kept,
        "the API changed: look at the difference and, if it is meant, run again with \
         CLOUDSERVE_UPDATE_SNAPSHOTS=1; first difference: {difference:?}",
    );
}

/// What is described as the largest is taken, and one more is not.
#[tokio::test]
async fn bounds_that_are_described_are_those_that_hold() {
    let description = description().await;
    let schema = |name: &str| &description["components"]["schemas"][name]["properties"];
    let owner = server().await.register().await;
    let longest = schema("Registration")["password"]["maxLength"].as_u64().unwrap();
    let longest = usize::try_from(longest).unwrap();
    for (length, status) in [(longest + 1, 422), (longest, 201)] {
        let body = json!({
            "fullName": "Ada Lovelace",
            "userName": format!("{}x", owner.user_name),
            "email": format!("x{}", owner.email),
            "password": "x".repeat(length),
        });
        owner.post("/api/auth/register", &body).await.expect(status);
    }

    let id = owner.deploy(&deploy("f", "f.mjs", "export default () => 1")).await.id;
    let path = format!("/api/function/{id}");
    let limits = schema("FunctionUpdate")["limits"]["properties"].as_object().unwrap();
    let view = owner.get(&path).await.expect(200).json();
    let names = |of: &serde_json::Map<String, Value>| of.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(limits), names(view["limits"].as_object().unwrap()));
    for (name, bounds) in limits {
        let Some(max) = bounds["maximum"].as_u64() else { continue };
        let body = json!({ "limits": { name: max + 1 } });
        let refused = owner.put(&path, &body).await.expect(422).json();
        let wrong = &refused["error"]["details"][format!("limits.{name}")];
        assert!(wrong.as_str().is_some_and(|text| text.contains(&max.to_string())), "{refused}");
    }
    for format in
        schema("FunctionUpdate")["limits"]["properties"]["eventFormat"]["enum"].as_array().unwrap()
    {
        let body = json!({ "limits": { "eventFormat": format } });
        owner.put(&format!("{path}?wait=true"), &body).await.expect(200);
    }
}

#[tokio::test]
async fn the_description_is_readable_without_other_hosts() {
    let nobody = server().await.register().await.showing("");
    let page = nobody.get("/api/docs").await.expect(200);
    assert!(page.header("content-type").starts_with("text/html"));
    assert!(page.header("content-security-policy").contains("default-src 'none'"));
    let text = page.text();
    assert!(text.contains("/api/openapi.json"));
    assert!(!text.contains("http://") && !text.contains("https://"), "{text}");
}

#[tokio::test]
async fn a_key_for_chosen_functions_sees_no_others() {
    let owner = server().await.register().await;
    let mine = owner.deploy(&deploy("mine", "f.mjs", "export default () => 1")).await.id;
    let other = owner.deploy(&deploy("other", "f.mjs", "export default () => 2")).await.id;
    let body = json!({ "name": "CI", "functions": ["mine"] });
    let created = owner.post("/api/apikeys", &body).await.expect(201).json();
    assert_eq!(created["functions"], json!([mine]));
    assert_eq!(created["lastUsedAt"], Value::Null);
    let key = owner.showing(created["key"].as_str().unwrap());

    for path in ["", "/versions", "/env"] {
        key.get(&format!("/api/function/{mine}{path}")).await.expect(200);
        key.get(&format!("/api/function/{other}{path}")).await.expect(404);
    }
    for (path, status) in [
        (format!("/api/usage?functionId={mine}"), 200),
        (format!("/api/usage?functionId={other}"), 404),
        (format!("/api/logs/{other}"), 404),
        ("/api/usage".to_owned(), 403),
        ("/api/usage/latency".to_owned(), 403),
        ("/api/account/quota".to_owned(), 403),
    ] {
        assert_eq!(key.get(&path).await.status, status, "{path}");
    }
    let list = key.get("/api/function").await.expect(200).json();
    assert_eq!(list["functions"].as_array().unwrap().len(), 1);
    key.call("mine").await.expect(200);
    assert_eq!(key.call("other").await.expect(403).code(), "forbidden");

    key.deploy(&deploy("mine", "f.mjs", "export default () => 3")).await;
    key.try_deploy(&deploy("other", "f.mjs", "export default () => 3")).await.expect(404);
    key.try_deploy(&deploy("new", "f.mjs", "export default () => 3")).await.expect(403);
    let change = json!({ "visibility": "public" });
    key.put(&format!("/api/function/{other}"), &change).await.expect(404);
    key.delete(&format!("/api/function/{other}")).await.expect(404);
    assert_eq!(owner.call("other").await.expect(200).text(), "2");

    for functions in [json!(["no-such"]), json!([1]), json!("mine"), json!([""])] {
        let body = json!({ "name": "CI", "functions": functions });
        owner.post("/api/apikeys", &body).await.expect(422);
    }
}

#[tokio::test]
async fn the_use_of_a_key_and_what_was_done_with_it_is_told() {
    let owner = server().await.register().await;
    let created = owner.post("/api/apikeys", &json!({ "name": "CI" })).await.expect(201).json();
    let key = owner.showing(created["key"].as_str().unwrap());
    let id = key.deploy(&deploy("f", "f.mjs", "export default () => 1")).await.id;
    crate::support::wait_for("the last use", || async {
        let keys = owner.get("/api/apikeys").await.expect(200).json();
        keys["apiKeys"][0]["lastUsedAt"].is_string().then_some(())
    })
    .await;
    owner.delete(&format!("/api/apikeys/{}", created["id"].as_str().unwrap())).await.expect(204);
    owner.delete(&format!("/api/function/{id}")).await.expect(204);

    let trail = owner.get("/api/account/audit").await.expect(200).json();
    let entries = trail["entries"].as_array().unwrap();
    let told: Vec<_> = entries
        .iter()
        .map(|entry| (entry["action"].as_str().unwrap(), entry["actor"].as_str().unwrap()))
        .collect();
    let expected = [
        ("function.deleted", "session"),
        ("apikey.revoked", "session"),
        ("function.deployed", "apiKey"),
        ("apikey.created", "session"),
    ];
    assert_eq!(told, expected);
    assert_eq!(entries[2]["apiKeyId"], created["id"]);
    assert!(entries.iter().all(|entry| entry["id"].is_string() && entry["_id"] == entry["id"]));
    let page = owner.get("/api/account/audit?limit=3").await.expect(200).json();
    let next = page["nextCursor"].as_str().unwrap();
    let rest = owner.get(&format!("/api/account/audit?cursor={next}")).await.expect(200).json();
    assert_eq!(rest["entries"].as_array().unwrap().len(), 1);
    assert!(!trail.to_string().contains(created["key"].as_str().unwrap()));
}

/// schemathesis asks for everything that the description allows, and for what it does not: no 5xx,
/// no status and no answer that is not described.
#[tokio::test]
async fn the_api_holds_to_its_description() {
    let server = TestServer::start().await;
    let mut fuzz = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tools/fuzz-api"));
    fuzz.args(["--api", &server.api, "--seconds", "15"]);
    let done = tokio::task::spawn_blocking(move || fuzz.output()).await.unwrap().unwrap();
    let told = String::from_utf8_lossy(&done.stdout);
    let complaints = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{}: {told}\n{complaints}", done.status);
}
