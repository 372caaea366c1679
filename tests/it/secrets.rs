//! What must stay secret: credentials from user code; passwords, keys and environments from the
//! disk and the server's log.

use std::fs;
use std::path::Path;

use reqwest::Method;
use serde_json::json;

use crate::support::{TestServer, deploy, send, server};

const MIRROR: &str = include_str!("../functions/mirror.mjs");

#[tokio::test]
async fn no_credential_reaches_user_code() {
    let server = server().await;
    let owner = server.register().await;
    let mirror = deploy("mirror", "mirror.mjs", MIRROR)
        .with("env", json!({ "OWN": "value" }))
        .with("visibility", json!("public"));
    owner.deploy(&mirror).await;
    let (token, key) = (owner.credential.clone(), owner.key(&["invoke"]).await);
    let bearer = |credential: &str| format!("Bearer {credential}");
    let secrets_dir = server.data_dir().join("secrets");
    let platform: Vec<String> = fs::read_dir(secrets_dir)
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap().trim().to_owned())
        .collect();
    assert_eq!(platform.len(), 2);

    let nobody = owner.showing("");
    for (name, value, secret) in [
        ("authorization", bearer(&token), &token),
        ("authorization", bearer(&key), &key),
        ("x-api-key", key.clone(), &key),
        ("api-key", key.clone(), &key),
        ("cookie", format!("theme=dark; token={token}"), &token),
        ("cookie", format!("token=set-by-a-page; theme=dark; token={token}"), &token),
    ] {
        let answer = send(nobody.run(Method::GET, "mirror").header(name, &value)).await;
        let text = answer.expect(200).text();
        for secret in platform.iter().chain([secret]) {
            assert!(!text.contains(secret.as_str()), "{name}: {text}");
        }
        assert_eq!(name == "cookie", text.contains("theme=dark"), "{name}: {text}");
    }

    // What the function's own users send stays.
    let own = send(nobody.run(Method::GET, "mirror").header("authorization", "Basic dTpw")).await;
    assert_eq!(own.expect(200).json()["event"]["headers"]["authorization"], "Basic dTpw");

    let seen = owner.call("mirror").await.expect(200).json();
    let env = seen["env"].as_object().unwrap();
    assert_eq!(env["OWN"], "value");
    let allowed = ["HOME", "NODE_ENV", "OWN", "TMPDIR"];
    assert!(env.keys().all(|name| allowed.contains(&name.as_str())), "{env:?}");
    assert_ne!(env["HOME"].as_str(), std::env::var("HOME").ok().as_deref());
    assert!(!seen["files"].to_string().contains("CLOUDSERVE_"), "{seen:#}");
}

#[tokio::test]
async fn the_disk_holds_no_password_no_key_and_no_environment_in_the_clear() {
    // Whatever it is told to say of functions.
    let log = "info,cloudserve_api=debug,cloudserve_gateway=debug,cloudserve_sandbox=debug";
    let server = TestServer::start_with(&[("CLOUDSERVE_LOG", log)]).await;
    let owner = server.register().await;
    let key = owner.key(&["invoke", "deploy", "read"]).await;
    let env = json!({ "API_TOKEN": "an-environment-value-3141592653" });
    let says = deploy("says", "f.mjs", "throw new Error('with ' + process.env.API_TOKEN)");
    let told = owner.deploy_failing(&says.with("env", env.clone())).await;
    assert!(told["message"].as_str().unwrap().contains("with ***"), "{told:#}");
    owner.deploy(&deploy("f", "f.mjs", "export default () => 1").with("env", env)).await;
    owner.showing(&key).call("f").await.expect(200);
    let login = json!({ "email": owner.email, "password": owner.password });
    owner.post("/api/auth/login", &login).await.expect(200);

    let output = server.output();
    let (status, home) = server.stop().await;
    assert!(status.success(), "{status}");
    let secrets = [&owner.password, &key, &owner.credential, "an-environment-value-3141592653"];
    let n_files = search(&home.data_dir(), &secrets);
    assert!(n_files > 3, "{n_files} files searched");
    for secret in secrets {
        assert!(!output.contains(secret), "the log holds {secret}");
    }
}

#[tokio::test]
async fn a_master_key_that_is_lost_is_given_up_by_its_id_alone() {
    let server = TestServer::start().await;
    let owner = server.register().await;
    let code = "export default () => process.env.TOKEN ?? 'none'";
    let sealed =
        |token: &str| deploy("sealed", "f.mjs", code).with("env", json!({ "TOKEN": token }));
    owner.deploy(&sealed("before")).await;
    owner.deploy(&deploy("open", "f.mjs", code)).await;
    let (_, home) = server.stop().await;
    let data_dir = home.data_dir();
    let key_file = data_dir.join("secrets/master-key");
    fs::remove_file(&key_file).unwrap();

    let at = ("CLOUDSERVE_DATA_DIR", data_dir.to_str().unwrap());
    let said = TestServer::start_refused(&[at]).await;
    // What there is to do is said as it is to be written.
    let remedy = said.split("CLOUDSERVE_MASTER_KEY_LOST=").nth(1).expect(&said);
    let id = remedy.split(|c: char| !c.is_ascii_hexdigit()).next().unwrap();
    let another = ("CLOUDSERVE_MASTER_KEY_LOST", "0123456789abcdef");
    let said = TestServer::start_refused(&[at, another]).await;
    assert!(said.contains(id) && !key_file.exists(), "{said}");

    let server = TestServer::start_with(&[at, ("CLOUDSERVE_MASTER_KEY_LOST", id)]).await;
    assert!(server.output().contains(id), "it is told at each start");
    let here = owner.at(&server.api, &server.gateway);
    assert_eq!(here.call("open").await.expect(200).text(), "none");
    // It does not run without what it was deployed with.
    assert_eq!(here.call("sealed").await.expect(503).code(), "unavailable");
    let listed = here.get("/api/function").await.expect(200).json();
    assert_eq!(listed["functions"].as_array().unwrap().len(), 2);
    here.deploy(&sealed("after")).await;
    assert_eq!(here.call("sealed").await.expect(200).text(), "after");
    server.stop().await;
    // From now on there is one that opens.
    let server = TestServer::start_with(&[at]).await;
    let here = owner.at(&server.api, &server.gateway);
    assert_eq!(here.call("sealed").await.expect(200).text(), "after");
}

fn search(dir: &Path, secrets: &[&str]) -> usize {
    let mut n_files = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            n_files += search(&path, secrets);
            continue;
        }
        n_files += 1;
        let bytes = fs::read(&path).unwrap();
        for secret in secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{} holds {secret}", path.display());
        }
    }
    n_files
}
