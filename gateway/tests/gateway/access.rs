//! Who may call what, and how soon a change is seen.

use axum::body::Body;
use cloudserve_protocol::limits::Limits;
use cloudserve_store::function::{DeployError, Sweep, Visibility};
use http::{Method, Request};

use crate::fixture::World;

type Header = (&'static str, String);

async fn check(
    world: &World,
    method: &Method,
    path: &str,
    headers: &[Header],
    expected: (u16, &str),
) {
    let mut request = Request::builder().method(method).uri(path).header("host", "gw.test");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let answer = world.send(request.body(Body::empty()).unwrap()).await;
    let got = match answer.status.as_u16() {
        200 => (200, String::new()),
        _ => answer.fault(),
    };
    assert_eq!((got.0, got.1.as_str()), expected, "{method} {path} {headers:?}");
}

#[tokio::test]
async fn credentials_decide() {
    let w = World::new().await;
    w.deploy(&w.alice, "version", Visibility::Private).await;
    w.deploy(&w.alice, "echo", Visibility::Public).await;
    let (get, post) = (Method::GET, Method::POST);
    let none = || vec![];
    let auth = |v: String| vec![("authorization", v)];
    let alice = || auth(w.alice.bearer());
    let bob = || auth(w.bob.bearer());
    let long = format!("/run/alice/{}", "x".repeat(300));

    for (path, headers, expected) in [
        ("/run/alice/version", none(), (401, "unauthorized")),
        ("/run/alice/unknown", none(), (401, "unauthorized")),
        ("/run/nobody/unknown", none(), (401, "unauthorized")),
        ("/run/alice/version", auth("Bearer nonsense".into()), (401, "unauthorized")),
        ("/run/alice/version", auth(format!("Bearer {}", w.alice.key)), (200, "")),
        ("/run/alice/version", vec![("x-api-key", w.alice.key.clone())], (200, "")),
        ("/run/alice/version", vec![("api-key", w.alice.key.clone())], (200, "")),
        ("/run/alice/version", vec![("api-key", w.alice.read_key.clone())], (403, "forbidden")),
        ("/run/alice/unknown", vec![("api-key", w.alice.read_key.clone())], (403, "forbidden")),
        ("/run/alice/version", alice(), (200, "")),
        ("/run/alice/version/a/b?c=d", alice(), (200, "")),
        ("/run/Alice/version", alice(), (200, "")),
        ("/run/alice/Version", alice(), (404, "function_not_found")),
        ("/run/Alice/version", bob(), (403, "forbidden")),
        ("/run/alice/unknown", alice(), (404, "function_not_found")),
        ("/run/alice/version", bob(), (403, "forbidden")),
        ("/run/alice/unknown", bob(), (403, "forbidden")),
        ("/run/nobody/unknown", bob(), (403, "forbidden")),
        ("/run/alice/echo", none(), (200, "")),
        ("/run/alice/echo", bob(), (200, "")),
        ("/run/alice/echo", auth("Bearer nonsense".into()), (200, "")),
        ("/run/alice/..", alice(), (404, "function_not_found")),
        ("/run/alice/%2E%2E", alice(), (404, "function_not_found")),
        ("/run/alice/a%2Fb", alice(), (404, "function_not_found")),
        ("/run/alice/a%00b", alice(), (404, "function_not_found")),
        ("/run/alice/%FF", alice(), (404, "function_not_found")),
        (long.as_str(), alice(), (404, "function_not_found")),
        (long.as_str(), bob(), (403, "forbidden")),
        ("/run/%00/..", bob(), (403, "forbidden")),
        ("/run/alice", alice(), (404, "not_found")),
        ("/elsewhere", alice(), (404, "not_found")),
    ] {
        check(&w, &get, path, &headers, expected).await;
    }

    // The dashboard's cookie comes with whatever page of a function is open: it is no credential.
    let cookie = || {
        let token = format!("token={}", w.alice.token);
        vec![("cookie", token), ("origin", "http://gw.test".to_owned())]
    };
    for (method, path, expected) in [
        (&get, "/run/alice/version", (401, "unauthorized")),
        (&post, "/run/alice/version", (401, "unauthorized")),
        (&get, "/run/alice/unknown", (401, "unauthorized")),
        (&post, "/run/alice/echo", (200, "")),
    ] {
        check(&w, method, path, &cookie(), expected).await;
    }
}

#[tokio::test]
async fn a_key_for_chosen_functions_is_for_no_others() {
    let w = World::new().await;
    let id = w.deploy(&w.alice, "version", Visibility::Private).await;
    w.deploy(&w.alice, "echo", Visibility::Private).await;
    w.deploy(&w.alice, "count", Visibility::Public).await;
    let key = w.key_for(&w.alice, &[id]).await;
    for (path, expected) in [
        ("/run/alice/version", (200, "")),
        ("/run/alice/echo", (403, "forbidden")),
        // As without a key.
        ("/run/alice/count", (200, "")),
        ("/run/alice/unknown", (404, "function_not_found")),
        ("/run/bob/version", (403, "forbidden")),
    ] {
        check(&w, &Method::GET, path, &[("x-api-key", key.clone())], expected).await;
    }
}

#[tokio::test]
async fn the_owner_may_name_a_version() {
    let w = World::new().await;
    let limits = Limits::default();
    let id = w.deploy(&w.alice, "version", Visibility::Public).await;
    for version in 2..=4 {
        w.accept_version(&w.alice, "version", id, version, Visibility::Public, limits).await;
    }
    w.activate(id, 2).await;
    let call = |version: &str, bearer: Option<String>| {
        let mut request =
            Request::get("/run/alice/version").header("x-cloudserve-version", version);
        if let Some(bearer) = bearer {
            request = request.header("authorization", bearer);
        }
        w.send(request.body(Body::empty()).unwrap())
    };
    let owner = || Some(w.alice.bearer());
    for version in ["1", "2"] {
        let expected = format!("{version} hello {version}");
        assert_eq!(call(version, owner()).await.text(), expected);
    }
    for version in ["0", "4", "9", "-1", "x", ""] {
        let fault = call(version, owner()).await.fault();
        assert_eq!(fault, (404, "version_not_found".to_owned()), "{version:?}");
    }
    for stranger in [None, Some(w.bob.bearer())] {
        assert_eq!(call("1", stranger).await.fault(), (403, "forbidden".to_owned()));
    }
    // What was not there may be built, and what was there may go.
    w.activate(id, 4).await;
    assert_eq!(call("4", owner()).await.text(), "4 hello 4");
    w.stores.functions.rollback(w.alice.id, id, 2).await.unwrap();
    assert_eq!(w.get("/run/alice/version", &w.bob).await.text(), "2 hello 2");
    let error = DeployError { code: "internal".into(), message: String::new() };
    w.stores.functions.fail(id, 3, error).await.unwrap();
    w.stores.functions.prune(id, 2, &Sweep::default()).await.unwrap();
    w.stores.functions.set_visibility(w.alice.id, id, Visibility::Private).await.unwrap();
    assert_eq!(call("1", owner()).await.status, 404);
}

#[tokio::test]
async fn strangers_cannot_tell_private_from_absent() {
    let w = World::new().await;
    w.deploy(&w.alice, "version", Visibility::Private).await;
    assert_eq!(w.get("/run/alice/version", &w.alice).await.status, 200);
    let there = w.get("/run/alice/version", &w.bob).await;
    let not_there = w.get("/run/alice/unknown", &w.bob).await;
    assert_eq!(there.body, not_there.body);
    assert_eq!(there.headers, not_there.headers);
    assert_eq!(w.gateway.metrics().refusals.iter().map(|(_, n)| n).sum::<u64>(), 2);
}

#[tokio::test]
async fn our_credentials_stay_here_and_the_functions_own_pass() {
    let w = World::new().await;
    w.deploy(&w.alice, "echo", Visibility::Public).await;
    let cookie = format!("a=1; token={}", w.bob.token);
    let hidden = format!("token=set-by-a-page; token={}", w.bob.token);
    for (name, value, passes) in [
        ("authorization", w.alice.bearer(), None),
        ("authorization", format!("Bearer {}", w.bob.key), None),
        ("x-api-key", w.bob.key.clone(), None),
        ("cookie", cookie, Some("a=1")),
        ("cookie", hidden, Some("token=set-by-a-page")),
        ("authorization", "Bearer theirs".to_owned(), Some("Bearer theirs")),
        ("cookie", "token=theirs".to_owned(), Some("token=theirs")),
    ] {
        let request = Request::get("/run/alice/echo").header(name, &value);
        let seen = w.send(request.body(Body::empty()).unwrap()).await.json();
        let seen = seen["headers"].as_array().unwrap().iter().find(|h| h[0] == name);
        assert_eq!(seen.map(|h| h[1].as_str().unwrap()), passes, "{name}: {value}");
    }
    // Two at once: the second is no less ours for the first.
    let request = Request::get("/run/alice/echo")
        .header("authorization", w.alice.bearer())
        .header("x-api-key", &w.alice.key)
        .header("cookie", format!("token={}", w.alice.token));
    let seen = w.send(request.body(Body::empty()).unwrap()).await;
    assert!(!seen.text().contains(&w.alice.token) && !seen.text().contains(&w.alice.key));
}

#[tokio::test]
async fn no_line_of_a_header_hides_a_credential_behind_another() {
    let w = World::new().await;
    w.deploy(&w.alice, "echo", Visibility::Public).await;
    w.deploy(&w.alice, "version", Visibility::Private).await;
    let bearer: &str = &w.alice.bearer();
    let key: &str = &w.alice.key;
    let cookie: &str = &format!("token={}", w.alice.token);
    let joined: &str = &format!("Basic dTpw, Bearer {key}");
    for (name, lines, passes) in [
        ("authorization", vec!["Basic dTpw", bearer], vec!["Basic dTpw"]),
        ("authorization", vec![bearer, "Basic dTpw"], vec!["Basic dTpw"]),
        ("authorization", vec!["Bearer theirs", bearer], vec!["Bearer theirs"]),
        ("authorization", vec![joined], vec!["Basic dTpw"]),
        ("x-api-key", vec!["foo", key], vec!["foo"]),
        ("api-key", vec!["foo", key], vec!["foo"]),
        ("cookie", vec!["a=1", cookie], vec!["a=1"]),
    ] {
        let mut request = Request::get("/run/alice/echo");
        for line in &lines {
            request = request.header(name, *line);
        }
        let seen = w.send(request.body(Body::empty()).unwrap()).await;
        assert!(!seen.text().contains(&w.alice.token) && !seen.text().contains(key), "{lines:?}");
        let seen = seen.json();
        let seen = seen["headers"].as_array().unwrap().iter().filter(|h| h[0] == name);
        let seen: Vec<_> = seen.map(|h| h[1].as_str().unwrap()).collect();
        assert_eq!(seen, passes, "{name}: {lines:?}");
    }
    // The first bearer token counts, and no key makes up for a first one that is none.
    for (headers, expected) in [
        (
            vec![("authorization", "Basic dTpw".to_owned()), ("authorization", bearer.to_owned())],
            (200, ""),
        ),
        (
            vec![("x-api-key", "foo".to_owned()), ("x-api-key", key.to_owned())],
            (401, "unauthorized"),
        ),
    ] {
        check(&w, &Method::GET, "/run/alice/version", &headers, expected).await;
    }
}

#[tokio::test]
async fn what_was_activated_is_served_at_once() {
    let w = World::new().await;
    let limits = Limits::default();
    let id = w.accept(&w.alice, "version", Visibility::Private, limits).await;
    let pending = w.get("/run/alice/version", &w.alice).await;
    assert_eq!(pending.fault(), (503, "not_active".to_owned()));
    assert_eq!(pending.header("retry-after"), "1");
    w.activate(id, 1).await;
    for version in 2..40 {
        let answer = w.get("/run/alice/version", &w.alice).await;
        let before = version - 1;
        assert_eq!(answer.text(), format!("{before} hello {before}"));
        w.accept_version(&w.alice, "version", id, version, Visibility::Private, limits).await;
        assert_eq!(w.get("/run/alice/version", &w.alice).await.text(), answer.text());
        w.activate(id, version).await;
    }
    let public = |visibility| w.stores.functions.set_visibility(w.alice.id, id, visibility);
    assert_eq!(w.get("/run/alice/version", &w.bob).await.status, 403);
    public(Visibility::Public).await.unwrap();
    assert_eq!(w.get("/run/alice/version", &w.bob).await.status, 200);
    public(Visibility::Private).await.unwrap();
    assert_eq!(w.get("/run/alice/version", &w.bob).await.status, 403);
    w.stores.functions.delete_function(w.alice.id, id).await.unwrap();
    assert_eq!(w.get("/run/alice/version", &w.alice).await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn activation_under_load_never_goes_back() {
    let w = std::sync::Arc::new(World::new().await);
    let limits = Limits::default();
    let id = w.deploy(&w.alice, "version", Visibility::Private).await;
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let w = w.clone();
            tokio::spawn(async move {
                let mut last = 0;
                for _ in 0..200 {
                    let answer = w.get("/run/alice/version", &w.alice).await;
                    let version: u32 = answer.text().split(' ').next().unwrap().parse().unwrap();
                    assert!(version >= last, "{version} after {last}");
                    last = version;
                }
            })
        })
        .collect();
    for version in 2..12 {
        w.accept_version(&w.alice, "version", id, version, Visibility::Private, limits).await;
        w.activate(id, version).await;
        let answer = w.get("/run/alice/version", &w.alice).await;
        assert_eq!(answer.text(), format!("{version} hello {version}"));
    }
    for caller in callers {
        caller.await.unwrap();
    }
}

#[tokio::test]
async fn a_failed_first_deploy_says_so() {
    let w = World::new().await;
    let id = w.accept(&w.alice, "version", Visibility::Private, Limits::default()).await;
    w.stores.functions.claim("test", std::time::Duration::from_mins(1)).await.unwrap();
    let error = DeployError { code: "bundle_error".into(), message: "secret detail".into() };
    w.stores.functions.fail(id, 1, error).await.unwrap();
    let answer = w.get("/run/alice/version", &w.alice).await;
    assert_eq!(answer.fault(), (503, "not_active".to_owned()));
    assert!(answer.text().contains("first deploy failed"), "{}", answer.text());
    assert!(!answer.text().contains("secret detail"));
}
