//! Accounts, sessions and keys.

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use cloudserve_identity::ApiKeySecret;
use serde_json::{Value, json};

use crate::support::{Answer, Plane, UNKNOWN_PER_SECOND};

async fn login(plane: &Plane, body: &Value) -> Answer {
    plane.call("", "POST", "/api/auth/login", body).await
}

#[tokio::test]
async fn sessions_begin_and_end() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    let me = plane.get(&token, "/api/auth/me").await.expect(200);
    assert_eq!(me.body["user"]["userName"], "ada");
    assert!(!me.text.contains("argon2") && !me.text.contains("password"), "{}", me.text);

    for who in [
        json!({ "email": "ADA@example.org" }),
        json!({ "userName": "Ada" }),
        json!({ "email": "ada" }),
    ] {
        let mut body = who;
        body["password"] = json!("correct horse");
        let answer = login(&plane, &body).await.expect(200);
        let cookie = answer.header("set-cookie").to_owned();
        for part in ["token=ey", "; HttpOnly", "; SameSite=Strict", "; Path=/"] {
            assert!(cookie.contains(part), "{cookie}");
        }
        let session = answer.body["token"].as_str().unwrap();
        let ended = plane.call(session, "POST", "/api/auth/logout", &Value::Null).await.expect(204);
        assert!(ended.header("set-cookie").starts_with("token=; "));
        let refused = plane.get(session, "/api/auth/me").await.expect(401);
        assert_eq!(
            (refused.code(), refused.header("www-authenticate")),
            ("unauthorized", "Bearer")
        );
    }
    plane.get(&token, "/api/auth/me").await.expect(200);
    plane.call("", "POST", "/api/auth/logout", &Value::Null).await.expect(401);
}

#[tokio::test]
async fn behind_tls_the_session_is_sent_over_nothing_else() {
    let plane = Plane::start_with(|options| options.secure_cookie = true);
    plane.register("ada").await;
    let body = json!({ "userName": "ada", "password": "correct horse" });
    let begun = login(&plane, &body).await.expect(200);
    let session = begun.body["token"].as_str().unwrap().to_owned();
    let ended = plane.call(&session, "POST", "/api/auth/logout", &Value::Null).await.expect(204);
    for answer in [begun, ended] {
        let cookie = answer.header("set-cookie");
        let flags: Vec<&str> = cookie.split("; ").skip(1).collect();
        for flag in ["HttpOnly", "Secure", "SameSite=Strict", "Path=/"] {
            assert!(flags.contains(&flag), "{cookie}");
        }
    }
}

#[tokio::test]
async fn a_login_hashes_a_password_whether_there_is_such_an_account_or_not() {
    // One is hashed at a time and none may wait: who comes meanwhile is turned away, if it came
    // to be hashed.
    let plane = Plane::start_with(|options| {
        options.password_hashes_in_parallel = 1;
        options.password_hashes_waiting = 0;
        options.login_failures_per_account = 1_000;
        options.login_failures_per_address = 1_000;
    });
    plane.register("ada").await;
    for who in ["ada", "nobody", "not a name", "nobody@example.org"] {
        let body = json!({ "email": who, "password": "wrong horse" });
        let at_once = (0..20).map(|_| login(&plane, &body));
        let answers = futures::future::join_all(at_once).await;
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        assert!(statuses.contains(&401) && statuses.contains(&503), "{who}: {statuses:?}");
        assert!(statuses.iter().all(|status| [401, 503].contains(status)), "{who}: {statuses:?}");
    }
}

async fn register(plane: &Plane, name: &str) -> u16 {
    let body = json!({
        "fullName": name, "userName": name, "email": format!("{name}@example.org"),
        "password": "correct horse",
    });
    plane.call("", "POST", "/api/auth/register", &body).await.status
}

#[tokio::test]
async fn registrations_leave_room_for_logins() {
    let plane = Plane::start_with(|options| {
        options.password_hashes_in_parallel = 1;
        options.password_hashes_waiting = 0;
        options.registrations_waiting = 1;
    });
    plane.register("ada").await;
    let names: Vec<_> = (0..20).map(|n| format!("new-{n}")).collect();
    let registrations = futures::future::join_all(names.iter().map(|name| register(&plane, name)));
    let known = json!({ "userName": "ada", "password": "correct horse" });
    let (statuses, session) = futures::join!(registrations, login(&plane, &known));
    session.expect(200);
    assert!(statuses.contains(&201) && statuses.contains(&503), "{statuses:?}");
    assert!(statuses.iter().all(|status| [201, 503].contains(status)), "{statuses:?}");

    // What is taken costs no hash: nobody waits for one.
    let again = futures::future::join_all((0..20).map(|_| register(&plane, "ada"))).await;
    assert!(again.iter().all(|status| *status == 409), "{again:?}");
}

#[tokio::test]
async fn only_so_many_accounts_begin_at_one_address() {
    let plane = Plane::start_with(|options| {
        options.trust_forwarded = true;
        options.registrations_per_hour = 2;
    });
    let register = |name: &str, password: &str, address: &str| {
        let body = json!({
            "fullName": name, "userName": name, "email": format!("{name}@example.org"),
            "password": password,
        });
        let request = Request::post("/api/auth/register")
            .header("content-type", "application/json")
            .header("x-forwarded-for", address)
            .body(Body::from(body.to_string()))
            .unwrap();
        plane.send(request)
    };
    let good = "correct horse";
    register("ada", good, "203.0.113.1").await.expect(201);
    // What comes to nothing counts for nothing.
    for (name, password, status) in [("ada", good, 409), ("bob", "short", 422)] {
        for _ in 0..2 {
            register(name, password, "203.0.113.1").await.expect(status);
        }
    }
    register("bob", good, "203.0.113.1").await.expect(201);
    let refused = register("eve", good, "203.0.113.1").await.expect(429);
    assert_eq!(refused.code(), "rate_limit");
    let wait_s: u32 = refused.header("retry-after").parse().unwrap();
    assert!((1..=1_800).contains(&wait_s), "{wait_s}");
    assert!(refused.text.contains("more than 2 accounts per hour"), "{}", refused.text);
    // Who has an account there goes on.
    login(&plane, &json!({ "userName": "ada", "password": good })).await.expect(200);

    // Of IPv6 everybody has a network of addresses.
    register("eve", good, "2001:db8::1").await.expect(201);
    register("kim", good, "2001:db8::2").await.expect(201);
    register("lee", good, "2001:db8::3").await.expect(429);
    register("lee", good, "2001:db8:0:1::1").await.expect(201);
}

#[tokio::test]
async fn of_registrations_at_once_no_more_begin_than_may() {
    let plane = Plane::start_with(|options| {
        options.registrations_per_hour = 3;
        options.registrations_waiting = 32;
    });
    let names: Vec<_> = (0..8).map(|n| format!("new-{n}")).collect();
    let at_once = futures::future::join_all(names.iter().map(|name| register(&plane, name))).await;
    let begun = at_once.iter().filter(|status| **status == 201).count();
    assert_eq!(begun, 3, "{at_once:?}");
    assert!(at_once.iter().all(|status| [201, 429].contains(status)), "{at_once:?}");
}

#[tokio::test]
async fn every_failed_login_looks_alike_and_many_cost_time() {
    let plane = Plane::start();
    plane.register("ada").await;
    let mut answers = Vec::new();
    for body in [
        json!({ "email": "ada@example.org", "password": "wrong" }),
        json!({ "email": "bob@example.org", "password": "correct horse" }),
        json!({ "userName": "not a name", "password": "x".repeat(10_000) }),
    ] {
        let answer = login(&plane, &body).await.expect(401);
        assert_eq!(answer.code(), "invalid_credentials");
        answers.push(answer.text);
    }
    assert!(answers.iter().all(|text| *text == answers[0]), "{answers:?}");

    let wrong = json!({ "email": "ada@example.org", "password": "wrong" });
    let mut refused = None;
    for _ in 0..10 {
        let answer = login(&plane, &wrong).await;
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("ten failures are too many");
    assert_eq!(refused.code(), "too_many_attempts");
    assert!(refused.header("retry-after").parse::<u32>().unwrap() >= 1);
    // Even the right password has to wait, and others do not.
    let right = json!({ "email": "ada@example.org", "password": "correct horse" });
    login(&plane, &right).await.expect(429);
    plane.register("bob").await;
    let other = json!({ "email": "bob@example.org", "password": "correct horse" });
    login(&plane, &other).await.expect(200);
}

#[tokio::test]
async fn behind_a_proxy_failed_logins_cost_time_to_who_made_them() {
    for (trust_forwarded, another) in [(true, 401), (false, 429)] {
        let plane = Plane::start_with(|options| {
            options.trust_forwarded = trust_forwarded;
            options.login_failures_per_address = 3;
            options.login_backoff_ms = 60_000;
        });
        let attempt = |n: usize, address: &str| {
            let body = json!({ "userName": format!("nobody-{n}"), "password": "wrong horse" });
            let mut request = Request::post("/api/auth/login")
                .header("content-type", "application/json")
                // What the caller says of itself, and what the proxy adds.
                .header("x-forwarded-for", "203.0.113.2")
                .header("x-forwarded-for", address)
                .body(Body::from(body.to_string()))
                .unwrap();
            let proxy = SocketAddr::from(([10, 0, 0, 9], 4711));
            request.extensions_mut().insert(ConnectInfo(proxy));
            plane.send(request)
        };
        for n in 0..3 {
            attempt(n, "203.0.113.1").await.expect(401);
        }
        attempt(3, "203.0.113.1").await.expect(429);
        attempt(4, "203.0.113.2").await.expect(another);
        // Of IPv6 everybody has a network of addresses.
        for n in 5..8 {
            attempt(n, &format!("2001:db8::{n}")).await.expect(another);
        }
        attempt(8, "2001:db8::8").await.expect(429);
        attempt(9, "2001:db8:0:1::1").await.expect(another);
    }
}

#[tokio::test]
async fn made_up_keys_are_looked_up_only_so_often() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    plane.get(&token, "/api/auth/me").await.expect(200);
    let mut refused = None;
    for _ in 0..400 {
        let made_up = ApiKeySecret::generate().unwrap();
        let answer = plane.get(made_up.reveal(), "/api/auth/me").await;
        match answer.status {
            429 => refused = Some(answer),
            _ => assert_eq!(answer.expect(401).code(), "unauthorized"),
        }
    }
    let refused = refused.expect("400 are too many");
    assert_eq!(refused.code(), "rate_limit");
    assert!(refused.header("retry-after").parse::<u32>().unwrap() >= 1);
    assert!(refused.text.contains(&format!("more than {UNKNOWN_PER_SECOND}")), "{}", refused.text);
    // Whoever was there before goes on, and whoever logs in now is let in; what cannot be a key is one
    // as little as ever.
    plane.get(&token, "/api/auth/me").await.expect(200);
    let login = json!({ "userName": "ada", "password": "correct horse" });
    let login = plane.call("", "POST", "/api/auth/login", &login).await.expect(200).body;
    let another = login["token"].as_str().unwrap();
    assert_ne!(another, token);
    let made_up = async || {
        let made_up = ApiKeySecret::generate().unwrap();
        plane.get(made_up.reveal(), "/api/auth/me").await.status
    };
    while made_up().await != 429 {}
    plane.get(another, "/api/auth/me").await.expect(200);
    // One that has ended is told so.
    plane.call(another, "POST", "/api/auth/logout", &json!(null)).await.expect(204);
    plane.get(another, "/api/auth/me").await.expect(401);
    plane.get("not a key", "/api/auth/me").await.expect(401);
}

#[tokio::test]
async fn names_and_addresses_are_unique() {
    let plane = Plane::start();
    plane.register("ada").await;
    for (name, email) in
        [("ada", "x@example.org"), ("x-y-z", "ada@example.org"), ("x-y-z", "Ada@Example.org")]
    {
        let body = json!({
            "fullName": "X", "userName": name, "email": email, "password": "correct horse",
        });
        let answer = plane.call("", "POST", "/api/auth/signup", &body).await.expect(409);
        assert_eq!(answer.code(), "user_exists");
    }
}

#[tokio::test]
async fn keys_are_shown_once_and_do_what_their_scopes_say() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    let body =
        json!({ "name": "ci", "scopes": ["read", "read"], "expiresAt": "2999-01-01T00:00:00Z" });
    let created = plane.call(&token, "POST", "/api/apikeys", &body).await.expect(201).body;
    let (id, key) = (created["id"].as_str().unwrap(), created["key"].as_str().unwrap());
    assert_eq!(created["scopes"], json!(["read"]));
    assert_eq!(created["expiresAt"], "2999-01-01T00:00:00.000Z");

    let listed = plane.get(&token, "/api/apikeys").await.expect(200);
    assert_eq!(listed.body["apiKeys"][0]["id"], id);
    assert!(!listed.text.contains(key), "{}", listed.text);

    plane.get(key, "/api/function").await.expect(200);
    let deploy = json!({ "name": "f", "code": "export default 1" });
    let refused = plane.call(key, "POST", "/api/function/deploy", &deploy).await.expect(403);
    assert_eq!(refused.code(), "forbidden");
    for (method, path) in
        [("GET", "/api/apikeys"), ("POST", "/api/apikeys"), ("POST", "/api/auth/logout")]
    {
        plane.call(key, method, path, &json!({ "name": "more" })).await.expect(403);
    }

    let path = format!("/api/apikeys/{id}");
    let other = plane.register("bob").await;
    let missing = plane.call(&other, "DELETE", &path, &Value::Null).await.expect(404);
    assert_eq!(missing.code(), "api_key_not_found");
    plane.call(&token, "DELETE", &path, &Value::Null).await.expect(204);
    plane.call(&token, "DELETE", &path, &Value::Null).await.expect(404);
    plane.get(key, "/api/function").await.expect(401);
}

#[tokio::test]
async fn an_account_has_a_bounded_number_of_keys() {
    let plane = Plane::start_with(|options| options.api_keys_per_user = 2);
    let token = plane.register("ada").await;
    let body = json!({ "name": "k" });
    for status in [201, 201, 409] {
        plane.call(&token, "POST", "/api/apikeys", &body).await.expect(status);
    }
}

#[tokio::test]
async fn a_cookie_changes_nothing_for_another_site() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    let send = |method: &str, path: &str, header: (&str, &str)| {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "127.0.0.1:8080")
            .header("cookie", format!("a=b; token={token}"))
            .header("content-type", "application/json")
            .header(header.0, header.1)
            .body(Body::from("{\"name\":\"k\"}"))
            .unwrap();
        plane.send(request)
    };
    let evil = ("origin", "https://evil.example");
    send("GET", "/api/auth/me", evil).await.expect(200);
    for header in [evil, ("origin", "null"), ("sec-fetch-site", "cross-site")] {
        let refused = send("POST", "/api/apikeys", header).await.expect(403);
        assert_eq!(refused.code(), "cross_site_request");
    }
    for header in
        [("origin", "http://127.0.0.1:8080"), ("sec-fetch-site", "same-origin"), ("x", "y")]
    {
        send("POST", "/api/apikeys", header).await.expect(201);
    }
}
