//! Who may: sessions, keys and their scopes, public functions.

use reqwest::Method;
use serde_json::json;

use crate::support::{deploy, send, server, wait_for};

const ONE: &str = "export default () => 1";

#[tokio::test]
async fn sessions_begin_with_a_password_and_end_with_logout() {
    let owner = server().await.register().await;
    let nobody = owner.showing("");
    for (field, name) in [("email", &owner.email), ("userName", &owner.user_name)] {
        let login = json!({ field: name, "password": owner.password });
        let answer = nobody.post("/api/auth/login", &login).await.expect(200);
        let cookie = answer.header("set-cookie").to_owned();
        for part in ["token=", "HttpOnly", "SameSite"] {
            assert!(cookie.contains(part), "{cookie}");
        }
        let session = owner.showing(answer.json()["token"].as_str().unwrap());
        session.get("/api/auth/me").await.expect(200);
        session.post("/api/auth/logout", &json!({})).await.expect(204);
        session.get("/api/auth/me").await.expect(401);
        assert_eq!(session.call("f").await.status, 401);
    }
    owner.get("/api/auth/me").await.expect(200);

    let mut refusals = Vec::new();
    for login in [
        json!({ "email": owner.email, "password": "wrong password" }),
        json!({ "email": "nobody-there@example.org", "password": owner.password }),
        json!({ "userName": "nobody-there", "password": owner.password }),
    ] {
        let answer = nobody.post("/api/auth/login", &login).await.expect(401);
        assert_eq!(answer.code(), "invalid_credentials");
        refusals.push(answer.body);
    }
    assert!(refusals.iter().all(|body| body == &refusals[0]), "{refusals:?}");
}

#[tokio::test]
async fn passwords_cannot_be_guessed_at_speed() {
    let owner = server().await.register().await;
    let wrong = json!({ "email": owner.email, "password": "wrong password" });
    let refused = wait_for("too many failures", || async {
        let answer = owner.showing("").post("/api/auth/login", &wrong).await;
        (answer.status == 429).then_some(answer)
    })
    .await;
    assert!(!refused.header("retry-after").is_empty(), "{refused:?}");
}

#[tokio::test]
async fn names_and_addresses_are_unique() {
    let owner = server().await.register().await;
    let register = |user_name: &str, email: &str| json!({ "fullName": "Eve", "userName": user_name, "email": email, "password": "correct horse battery" });
    for body in [
        register(&owner.user_name, "someone-else@example.org"),
        register("someone-else", &owner.email),
        register("someone-else", &owner.email.to_uppercase()),
    ] {
        let answer = owner.showing("").post("/api/auth/register", &body).await.expect(409);
        assert_eq!(answer.code(), "user_exists");
    }
}

#[tokio::test]
async fn a_key_may_do_what_its_scopes_say() {
    let owner = server().await.register().await;
    let function = owner.deploy(&deploy("f", "f.mjs", ONE)).await;
    let change = json!({ "visibility": "private" });
    let path = format!("/api/function/{}", function.id);
    for scope in ["invoke", "deploy", "read"] {
        let key = owner.showing(&owner.key(&[scope]).await);
        let outcomes = [
            ("invoke", key.call("f").await),
            ("deploy", key.put(&path, &change).await),
            ("read", key.get(&path).await),
            ("read", key.get("/api/usage").await),
            ("read", key.get(&format!("/api/logs/{}", function.id)).await),
        ];
        for (needed, answer) in outcomes {
            let expected = if needed == scope { 200 } else { 403 };
            assert_eq!(answer.status, expected, "{scope} for {needed}: {}", answer.text());
        }
        // No key manages keys.
        key.get("/api/apikeys").await.expect(403);
        key.post("/api/apikeys", &json!({ "name": "more" })).await.expect(403);
    }
}

#[tokio::test]
async fn a_revoked_key_is_refused_at_once() {
    let owner = server().await.register().await;
    owner.deploy(&deploy("f", "f.mjs", ONE)).await;
    let created = owner.post("/api/apikeys", &json!({ "name": "k" })).await.expect(201).json();
    let key = created["key"].as_str().unwrap();
    for header in ["x-api-key", "api-key"] {
        let request = owner.showing("").run(Method::GET, "f").header(header, key);
        send(request).await.expect(200);
    }
    let with_key = owner.showing(key);
    with_key.call("f").await.expect(200);
    let id = created["id"].as_str().unwrap();
    owner.delete(&format!("/api/apikeys/{id}")).await.expect(204);
    assert_eq!(with_key.call("f").await.status, 401);
    assert_eq!(with_key.get("/api/function").await.status, 401);
    owner.delete(&format!("/api/apikeys/{id}")).await.expect(404);
}

#[tokio::test]
async fn invented_credentials_are_refused() {
    let owner = server().await.register().await;
    owner.deploy(&deploy("f", "f.mjs", ONE)).await;
    let header_end = owner.credential.find('.').unwrap();
    let unsigned = format!("eyJhbGciOiJub25lIn0{}", &owner.credential[header_end..]);
    let key = owner.key(&["invoke"]).await;
    let typo = format!("{}{}", &key[..key.len() - 1], if key.ends_with('a') { 'b' } else { 'a' });
    for credential in ["x", "a.b.c", "cs_live_x", &unsigned, &typo, &"x".repeat(10_000)] {
        let stranger = owner.showing(credential);
        assert_eq!(stranger.call("f").await.status, 401, "{credential:.40}");
        assert_eq!(stranger.get("/api/function").await.status, 401, "{credential:.40}");
    }
}

#[tokio::test]
async fn a_public_function_is_for_everyone_and_a_private_one_is_not() {
    let server = server().await;
    let (owner, other) = (server.register().await, server.register().await);
    let public = deploy("f", "f.mjs", ONE).with("visibility", json!("public"));
    let function = owner.deploy(&public).await;
    let (nobody, name) = (owner.showing(""), &owner.user_name);
    send(nobody.run(Method::GET, "f")).await.expect(200);
    send(other.run_of(name, Method::GET, "f")).await.expect(200);

    let path = format!("/api/function/{}", function.id);
    owner.put(&path, &json!({ "visibility": "private" })).await.expect(200);
    send(nobody.run(Method::GET, "f")).await.expect(401);
    send(other.run_of(name, Method::GET, "f")).await.expect(403);
    owner.call("f").await.expect(200);
}

#[tokio::test]
async fn a_cookie_changes_nothing_from_another_site() {
    let owner = server().await.register().await;
    let nobody = owner.showing("");
    let cookie = format!("token={}", owner.credential);
    let create = || {
        nobody
            .api(Method::POST, "/api/apikeys")
            .header("cookie", &cookie)
            .json(&json!({ "name": "k" }))
    };
    send(nobody.api(Method::GET, "/api/auth/me").header("cookie", &cookie)).await.expect(200);
    send(create().header("origin", "https://evil.example")).await.expect(403);
    send(create().header("sec-fetch-site", "cross-site")).await.expect(403);
    let keys = owner.get("/api/apikeys").await.expect(200).json();
    assert_eq!(keys["apiKeys"], json!([]));
    let own_origin = nobody.api_base();
    send(create().header("origin", own_origin)).await.expect(201);
}
