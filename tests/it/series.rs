//! What charts show is what the calls were.

use serde_json::{Value, json};

use crate::support::{deploy, server, wait_for};

#[tokio::test]
async fn a_series_counts_every_call_once() {
    const CODE: &str =
        "export default (e) => { if (e.query.fail) throw new Error('no'); return 1 }";
    let account = server().await.register().await;
    let id = account.deploy(&deploy("counted", "f.mjs", CODE)).await.id;
    for path in ["counted", "counted", "counted?fail=1"] {
        account.call(path).await;
    }
    let path =
        &format!("/api/usage/series?functionId={id}&from=2020-01-01&to=2100-01-01&points=80");
    let account = &account;
    let series = wait_for("three calls", || async move {
        let series = account.get(path).await.expect(200).json();
        (sum(&series, "executed") == 3).then_some(series)
    })
    .await;
    assert_eq!((sum(&series, "errors"), sum(&series, "cold") <= 3), (1, true));
    assert_eq!(series["points"].as_array().unwrap().len(), 80);
    assert_eq!(series["completeFrom"], Value::Null);
    let used = series["points"].as_array().unwrap().iter().find(|p| p["executed"] != 0).unwrap();
    for figure in ["p50", "p99", "memory"] {
        assert!(used[figure].as_f64().unwrap() > 0.0, "{used}");
    }
    assert!(series["overall"]["p50"].as_f64() <= series["overall"]["p99"].as_f64());

    for query in [
        "",
        "from=2020-01-01",
        "from=2020-01-02&to=2020-01-01",
        "from=2020-01-01&to=2020-01-02&points=0",
        "from=2020-01-01&to=2020-01-02&points=501",
        "from=x&to=2020-01-02",
    ] {
        account.get(&format!("/api/usage/series?{query}")).await.expect(422);
    }
}

fn sum(series: &Value, field: &str) -> u64 {
    series["points"].as_array().unwrap().iter().map(|point| point[field].as_u64().unwrap()).sum()
}

#[tokio::test]
async fn the_source_of_every_version_can_be_read() {
    let account = server().await.register().await;
    let of = |word: &str| deploy("told", "f.mjs", &format!("export default () => '{word}'"));
    let id = account.deploy(&of("one")).await.id;
    account.deploy(&of("two").with("dependencies", json!({}))).await;
    for (version, word) in [(1, "one"), (2, "two")] {
        let path = format!("/api/function/{id}/versions/{version}");
        let told = account.get(&path).await.expect(200).json();
        assert_eq!((&told["version"], &told["active"]), (&json!(version), &json!(version == 2)));
        let file = told["source"]["files"]["f.mjs"].as_str().unwrap();
        assert!(file.contains(word), "{file}");
    }
    for version in ["3", "0", "x", "4294967296"] {
        let answer = account.get(&format!("/api/function/{id}/versions/{version}")).await;
        assert_eq!(answer.expect(404).code(), "version_not_found");
    }
}
