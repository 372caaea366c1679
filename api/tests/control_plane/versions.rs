//! Versions that are served again, and those that differ in their environment.

use std::os::unix::fs::symlink;
use std::sync::Arc;

use serde_json::json;
use tempfile::TempDir;

use crate::support::{Plane, esbuild, version};

#[tokio::test]
async fn a_rollback_and_another_environment_build_nothing() {
    let data = Arc::new(TempDir::new().unwrap());
    let program = data.path().join("esbuild");
    symlink(std::fs::canonicalize(esbuild()).unwrap(), &program).unwrap();
    let mut plane = Plane::at(data, |options| {
        options.esbuild = program.clone();
        options.deploy_attempts = 1;
    });
    plane.start_deployer();
    let token = plane.register("ada").await;
    let first = plane.deploy(&token, &version(1)).await;
    assert_eq!(plane.deploy(&token, &version(2)).await["activeVersion"], 2);

    // From here on nothing can be built.
    std::fs::remove_file(&program).unwrap();
    let path = format!("/api/function/{}", first["id"].as_str().unwrap());
    let (rollback, to) = (format!("{path}/rollback"), json!({ "version": 1 }));
    let view = plane.call(&token, "POST", &rollback, &to).await.expect(200).body;
    assert_eq!(view["activeVersion"], 1);
    let (env, set) = (format!("{path}/env"), json!({ "set": { "A": "1" } }));
    let view = plane.call(&token, "PATCH", &env, &set).await.expect(200).body;
    assert_eq!((&view["status"], &view["activeVersion"]), (&json!("active"), &json!(3)));
    assert_eq!(plane.sandbox.loaded.lock().last().unwrap().env.0["A"], "1");
    let view = plane.deploy(&token, &version(3)).await;
    assert_eq!(view["deployError"]["code"], "internal", "{view:#}");
    assert_eq!(view["activeVersion"], 3);
}
