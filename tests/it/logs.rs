//! Logs: searched, downloaded, followed; environments masked in them. Usage by function and
//! latencies.

use std::time::Duration;

use futures::StreamExt;
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::support::{Account, PATIENCE, deploy, send, server, wait_for};

const TALKS: &str = "export default (event) => {
  console.log('order', event.query.n, { came: true });
  if (event.query.n % 2) console.error('odd: ' + process.env.API_TOKEN);
  return event.query.n;
}";

/// A function that has been called this many times.
async fn talkative(calls: usize) -> (Account, String) {
    let owner = server().await.register().await;
    let env = json!({ "API_TOKEN": "a-secret-of-the-function" });
    let id = owner.deploy(&deploy("talks", "talks.mjs", TALKS).with("env", env)).await.id;
    for n in 0..calls {
        owner.call(&format!("talks?n={n}")).await.expect(200);
    }
    let path = format!("/api/logs/{id}?limit=1000");
    wait_for("the logs", || async {
        let logs = owner.get(&path).await.expect(200).json();
        (logs["logs"].as_array().unwrap().len() == calls).then_some(())
    })
    .await;
    (owner, id)
}

fn messages(answer: &Value) -> Vec<String> {
    let rows = answer["logs"].as_array().unwrap().iter();
    let lines = rows.flat_map(|row| row["logs"].as_array().unwrap());
    lines.map(|line| line["message"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn logs_are_searched_by_text_and_level() {
    let (owner, id) = talkative(6).await;
    let search = |query: &str| {
        let (owner, path) = (owner.clone(), format!("/api/logs/{id}?{query}"));
        async move { owner.get(&path).await }
    };
    for (query, lines) in [
        ("", 9),
        ("level=error", 3),
        ("level=info", 6),
        ("level=error,info", 9),
        ("level=debug", 0),
        ("q=ORDER%203", 1),
        ("q=odd&level=error", 3),
        ("q=odd&level=info", 0),
    ] {
        let found = messages(&search(query).await.expect(200).json());
        assert_eq!(found.len(), lines, "{query}: {found:?}");
    }
    for query in ["level=loud", &format!("q={}", "x".repeat(201)), "format=xml", "limit=0"] {
        assert_eq!(search(query).await.expect(422).code(), "validation_error", "{query}");
    }
    let all = search("").await.text();
    assert!(!all.contains("a-secret-of-the-function") && all.contains("odd: ***"), "{all}");
}

#[tokio::test]
async fn no_value_of_a_large_environment_is_in_the_log() {
    let owner = server().await.register().await;
    let mut env: Map<String, Value> =
        (0..100).map(|n| (format!("V{n}"), format!("secret-{n:03}").into())).collect();
    env.insert("KEY".to_owned(), "-----BEGIN-----\nfirst-line\nsecond-line\n".into());
    // The last six bytes that fit are the beginning of a value.
    let code = "export default (event) => {
      if (event.query.cut) return console.log('x'.repeat(4096 - 6) + process.env.V7);
      for (const name in process.env) if (/^(V|KEY)/.test(name)) console.log(process.env[name]);
      process.stdout.write(process.env.KEY);
    }";
    let limits = json!({ "logBytes": 4096 });
    let talks = deploy("all", "all.mjs", code).with("env", env.into()).with("limits", limits);
    let id = owner.deploy(&talks).await.id;
    for (path, is_cut) in [("all", false), ("all?cut=1", true)] {
        let call = owner.call(path).await;
        let rows = owner.logs_of(&id, call.execution()).await;
        let text = rows[0]["logs"].to_string();
        assert!(text.contains("***") && rows[0]["truncated"] == is_cut, "{path}: {text}");
        for secret in ["secret", "first-line", "second-line"] {
            assert!(!text.contains(secret), "{path}: {secret}: {text}");
        }
    }
}

#[tokio::test]
async fn logs_are_downloaded_as_lines_of_json() {
    let (owner, id) = talkative(5).await;
    let answer = owner.get(&format!("/api/logs/{id}?format=ndjson&limit=2")).await.expect(200);
    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    assert!(answer.header("content-disposition").starts_with("attachment"));
    let rows: Vec<Value> =
        answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 5);
    assert!(rows.iter().all(|row| row["functionId"] == id.as_str()));
    let search = owner.get(&format!("/api/logs/{id}?format=ndjson&level=error")).await;
    assert_eq!(search.expect(200).text().lines().count(), 2);
}

/// The events of a stream, as they come: id and data.
fn events(response: reqwest::Response) -> impl futures::Stream<Item = (String, Value)> {
    let mut text = String::new();
    let pieces = response.bytes_stream();
    pieces.flat_map(move |piece| {
        text.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
        let mut events = Vec::new();
        while let Some((event, rest)) = text.split_once("\n\n") {
            let field =
                |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            if let Some(data) = field("data:") {
                let id = field("id:").unwrap_or_default().to_owned();
                events.push((id, serde_json::from_str(data).unwrap()));
            }
            text = rest.to_owned();
        }
        futures::stream::iter(events)
    })
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("an event in time")
}

#[tokio::test]
async fn logs_are_followed_as_they_come() {
    let (owner, id) = talkative(2).await;
    let path = format!("/api/logs/{id}?follow=true");
    let open = |query: &str| owner.api(Method::GET, &format!("{path}{query}")).send();
    let response = open("").await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut live = Box::pin(events(response));
    let mut errors = Box::pin(events(open("&level=error&limit=1").await.unwrap()));
    let (_, earlier) = soon(errors.next()).await.unwrap();
    assert_eq!(earlier["logs"][0]["message"], "odd: ***");

    let mut ids = Vec::new();
    for n in 7..=9 {
        let call = owner.call(&format!("talks?n={n}")).await.expect(200);
        let (event, row) = soon(live.next()).await.unwrap();
        assert_eq!(row["executionId"], call.execution(), "{row}");
        assert_eq!(row["logs"][0]["message"], format!("order {n} {{ came: true }}"));
        ids.push(event);
    }
    for expected in 1..=2 {
        let (_, row) = soon(errors.next()).await.unwrap();
        assert_eq!(row["logs"].as_array().unwrap().len(), 1, "{expected}: {row}");
    }
    drop((live, errors));

    // A reader that lost its connection goes on where it was.
    let again = owner.api(Method::GET, &path).header("last-event-id", &ids[0]);
    let mut again = Box::pin(events(again.send().await.unwrap()));
    for n in 8..=9 {
        let (_, row) = soon(again.next()).await.unwrap();
        assert!(row["logs"][0]["message"].as_str().unwrap().contains(&n.to_string()), "{row}");
    }
    // Of one call, nothing is heard of others.
    let earlier = owner.get(&format!("/api/logs/{id}?limit=1")).await.expect(200).json();
    let chosen = earlier["logs"][0]["executionId"].as_str().unwrap().to_owned();
    let only = open(&format!("&limit=10&executionId={chosen}")).await.unwrap();
    let mut only = Box::pin(events(only));
    assert_eq!(soon(only.next()).await.unwrap().1["executionId"], chosen.as_str());
    owner.call("talks?n=10").await.expect(200);
    soon(again.next()).await.unwrap();
    let other = tokio::time::timeout(Duration::from_millis(500), only.next()).await;
    assert!(other.is_err(), "{other:?}");
    let nonsense = owner.api(Method::GET, &path).header("last-event-id", "nonsense");
    assert_eq!(send(nonsense).await.expect(422).code(), "validation_error");
}

#[tokio::test]
async fn following_ends_with_the_credential() {
    let (owner, id) = talkative(1).await;
    let created = owner.post("/api/apikeys", &json!({ "name": "k" })).await.expect(201).json();
    let with_key = owner.showing(created["key"].as_str().unwrap());
    let path = format!("/api/logs/{id}?follow=true");
    let response = with_key.api(Method::GET, &path).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let key_id = created["id"].as_str().unwrap();
    owner.delete(&format!("/api/apikeys/{key_id}")).await.expect(204);
    let end = async { Box::pin(events(response)).next().await };
    assert!(soon(end).await.is_none());

    let mut open = Vec::new();
    let refused = loop {
        let response = owner.api(Method::GET, &path).send().await.unwrap();
        if response.status() != 200 {
            break response;
        }
        open.push(response);
        assert!(open.len() < 100, "followers are not bounded");
    };
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    let refused: Value = refused.json().await.unwrap();
    assert_eq!(refused["error"]["code"], "too_many_followers");
    drop(open);
    tokio::time::timeout(Duration::from_secs(30), async {
        while owner.api(Method::GET, &path).send().await.unwrap().status() != 200 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("places are free again");
}

#[tokio::test]
async fn usage_is_told_by_function_and_latency_by_day() {
    let (owner, id) = talkative(4).await;
    let other = owner.deploy(&deploy("other", "o.mjs", "export default () => 1")).await.id;
    owner.call("other").await.expect(200);
    let usage = wait_for("usage", || async {
        let usage = owner.get("/api/usage?groupBy=function").await.expect(200).json();
        let sums = usage["functions"].as_array().unwrap().clone();
        (sums.len() == 2).then_some(sums)
    })
    .await;
    let executed = |id: &str| {
        usage.iter().find(|sum| sum["functionId"] == id).unwrap()["executed"].as_u64().unwrap()
    };
    assert_eq!((executed(&id), executed(&other)), (4, 1));

    let latency = owner.get(&format!("/api/usage/latency?functionId={id}")).await.expect(200);
    let latency = latency.json();
    assert_eq!(latency["total"]["calls"], 4);
    let buckets = latency["days"][0]["buckets"].as_array().unwrap();
    assert_eq!(buckets.iter().map(|b| b["calls"].as_u64().unwrap()).sum::<u64>(), 4);
    assert!(latency["total"]["p50Ms"].as_f64() <= latency["total"]["p99Ms"].as_f64());
    assert_eq!(owner.get("/api/usage/latency?from=x").await.status, 422);
}
