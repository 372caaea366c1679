//! Requests whose callers hang up before they are answered: what has begun is done, all of it, and noted.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use cloudserve_protocol::ids::{FunctionId, UserId};
use cloudserve_store::function::Visibility;
use serde_json::{Value, json};

use crate::support::{Answer, Plane};

/// Polls a request so many times, each time when it is woken. `None`: its caller hung up then. What it wants
/// is done when this ends, or never; what follows from it may be under way.
async fn polled(
    plane: &Plane,
    times: usize,
    request: impl Future<Output = Answer>,
) -> Option<Answer> {
    let mut left = times;
    let answer = {
        let mut request = pin!(request);
        poll_fn(|cx| {
            if left == 0 {
                return Poll::Ready(None);
            }
            left -= 1;
            request.as_mut().poll(cx).map(Some)
        })
        .await
    };
    // What has begun comes to its write now, and writes are done one after the other.
    tokio::task::yield_now().await;
    let (nobody, nothing) = (UserId::new(), FunctionId::new());
    let functions = &plane.stores.functions;
    assert!(!functions.set_visibility(nobody, nothing, Visibility::Public).await.unwrap());
    answer
}

async fn wait_until(is_so: impl AsyncFn() -> bool) {
    for _ in 0..250 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it never came to be so");
}

/// How often the audit trail tells of this.
async fn noted(plane: &Plane, token: &str, action: &str) -> usize {
    let trail = plane.get(token, "/api/account/audit?limit=1000").await.expect(200).body;
    let entries = trail["entries"].as_array().unwrap();
    entries.iter().filter(|entry| entry["action"] == action).count()
}

#[tokio::test]
async fn what_is_deleted_is_gone_with_all_it_had() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    for times in 1.. {
        let source = json!({ "name": "f", "code": "export default 1" });
        let view = plane.deploy(&token, &source).await;
        let id: FunctionId = view["id"].as_str().unwrap().parse().unwrap();
        let path = format!("/api/function/{id}");
        let before = noted(&plane, &token, "function.deleted").await;
        let answer = polled(&plane, times, plane.call(&token, "DELETE", &path, &Value::Null)).await;
        if plane.get(&token, &path).await.status == 404 {
            let objects = plane.data.path().join("data/objects").join(id.to_string());
            wait_until(async || {
                let is_retired = plane.sandbox.retired.lock().contains(&(id, u32::MAX));
                let is_noted = noted(&plane, &token, "function.deleted").await == before + 1;
                is_retired && is_noted && !objects.exists()
            })
            .await;
        }
        if let Some(answer) = answer {
            answer.expect(204);
            break;
        }
    }
}

#[tokio::test]
async fn what_is_changed_is_noted() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    let view = plane.deploy(&token, &json!({ "name": "f", "code": "export default 1" })).await;
    let function = format!("/api/function/{}", view["id"].as_str().unwrap());
    let visibility =
        async || plane.get(&token, &function).await.expect(200).body["visibility"].clone();
    let action = "function.visibility_changed";
    for times in 1.. {
        let (before, noted_before) = (visibility().await, noted(&plane, &token, action).await);
        let other = if before == "public" { "private" } else { "public" };
        let change = json!({ "visibility": other });
        let answer = polled(&plane, times, plane.call(&token, "PUT", &function, &change)).await;
        wait_until(async || {
            let changes = usize::from(visibility().await != before);
            noted(&plane, &token, action).await == noted_before + changes
        })
        .await;
        if let Some(answer) = answer {
            answer.expect(200);
            break;
        }
    }
    let keys = async || {
        let listed = plane.get(&token, "/api/apikeys").await.expect(200).body;
        listed["apiKeys"].as_array().unwrap().len()
    };
    for times in 1.. {
        let key = json!({ "name": "k" });
        let answer = polled(&plane, times, plane.call(&token, "POST", "/api/apikeys", &key)).await;
        wait_until(async || noted(&plane, &token, "apikey.created").await == keys().await).await;
        if let Some(answer) = answer {
            answer.expect(201);
            break;
        }
    }
}
