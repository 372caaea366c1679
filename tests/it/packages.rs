//! npm packages as people use them: each file of `tests/functions/packages` is a function that is
//! deployed with real packages from the registry and called through the gateway, and says what it
//! must answer. What comes of it is the table in `docs/COMPATIBILITY.md`.
//!
//! Functions that share a `tree` are deployed with the packages of all of them, so that npm runs
//! once for a tree. Databases are real servers on loopback; where one is not installed, its
//! functions are left out and that is said.

mod report;
mod services;
mod table;

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Instant;

use futures::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};

use self::report::Row;
use self::services::Services;
use self::table::Case;
use crate::support::{Account, Deploy, TestServer, send, wait_for};

/// Deploys at a time: npm and esbuild have threads of their own.
const DEPLOYS_AT_A_TIME: usize = 4;

/// The table is written, with new times, when this is set; else it is compared.
const WRITE: &str = "CLOUDSERVE_WRITE_COMPATIBILITY";

/// Packages may be large, machines busy; a case that needs less or more says so.
const TIMEOUT_MS: u32 = 20_000;

#[tokio::test]
async fn packages_do_what_they_do_in_node() {
    let begun = Instant::now();
    let cases = table::read();
    let services = Services::start(&cases).await;
    let server = TestServer::start_with(&[("CLOUDSERVE_EGRESS_ALLOW", "127.0.0.0/8")]).await;
    let owner = server.register().await;
    let trees = table::trees(&cases);
    let (skipped, cases): (Vec<_>, Vec<_>) =
        cases.into_iter().partition(|case| !services.has(&case.needs));
    for case in &skipped {
        say(&format!("left out: {}: {} is not installed", case.package, case.needs.join(", ")));
    }

    let mut rows: Vec<(Case, Result<Row, String>)> = futures::stream::iter(cases)
        .map(|case| {
            let (owner, tree, services) = (owner.clone(), trees[&case.tree].clone(), &services);
            async move {
                let row = exercise(&owner, &case, tree, services).await;
                (case, row)
            }
        })
        .buffer_unordered(DEPLOYS_AT_A_TIME)
        .collect()
        .await;
    rows.sort_by(|(a, _), (b, _)| (&a.package, &a.file).cmp(&(&b.package, &b.file)));
    say(&format!("{} packages in {} s", rows.len(), begun.elapsed().as_secs()));

    let failures: Vec<String> = rows
        .iter()
        .filter_map(|(case, row)| Some(format!("{}: {}", case.file, row.as_ref().err()?)))
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let mut rows: Vec<Row> = rows.into_iter().filter_map(|(_, row)| row.ok()).collect();
    if std::env::var_os(WRITE).is_some() {
        assert!(skipped.is_empty(), "the table is written where every server is installed");
        measure_loads(server, &owner, &mut rows).await;
        report::write(&rows);
    } else {
        let skipped: Vec<&str> = skipped.iter().map(|case| &case.package[..]).collect();
        report::compare(&rows, &skipped);
    }
}

/// Tells those who look at the run, even when it goes well.
fn say(what: &str) {
    let _ = writeln!(std::io::stderr(), "packages: {what}");
}

/// Deploys a case, calls it and compares.
async fn exercise(
    owner: &Account,
    case: &Case,
    tree: BTreeMap<String, String>,
    services: &Services,
) -> Result<Row, String> {
    let mut limits = json!({ "timeoutMs": TIMEOUT_MS });
    for (name, value) in case.limits.as_object().into_iter().flatten() {
        limits[name] = value.clone();
    }
    let deploy = Deploy(json!({
        "name": case.name(),
        "filename": case.file,
        "code": case.code,
        "dependencies": tree,
        "env": services.fill(&case.env),
        "limits": limits,
    }));
    let answer = owner.try_deploy(&deploy).await;
    if answer.status != 200 {
        return Err(format!("not deployed: {} {}", answer.status, answer.text()));
    }
    let view = answer.json();
    if let Some(instead) = &case.refused {
        let error = &view["deployError"];
        let message = error["message"].as_str().unwrap_or_default();
        let is_clear =
            message.contains(&format!("{:?}", case.package)) && message.contains(instead);
        if error["code"] != "native_addon" || !is_clear {
            return Err(format!("not refused: {view:#}"));
        }
        return Ok(Row::refused(case, message));
    }
    if view["status"] != "active" {
        return Err(format!("not active: {:#}", view["deployError"]));
    }
    let answer = call(owner, case).await;
    let mut wrong = case.differences(&answer);
    let log = || async {
        let rows = owner.logs_of(view["id"].as_str()?, answer.execution()).await;
        let texts = rows[0]["logs"].as_array()?.iter().filter_map(|line| line["message"].as_str());
        Some(texts.collect::<Vec<_>>().join("\n"))
    };
    if let Some(expected) = &case.log {
        let log = wait_for("the log", log).await;
        if !log.contains(expected) {
            wrong.push(format!("no {expected:?} in the log: {log}"));
        }
    } else if answer.status == 500 && !answer.code().is_empty() {
        wrong.push(wait_for("the log", log).await);
    }
    if wrong.is_empty() { Ok(Row::works(case)) } else { Err(wrong.join("\n  ")) }
}

async fn call(owner: &Account, case: &Case) -> crate::support::Answer {
    let request = &case.request;
    let method = request["method"].as_str().unwrap_or("GET").parse::<Method>().unwrap();
    let path = request["path"].as_str().unwrap_or_default();
    let mut call = owner.run(method, &format!("{}{path}", case.name()));
    for (name, value) in request["headers"].as_object().into_iter().flatten() {
        call = call.header(name, value.as_str().unwrap());
    }
    if let Value::String(text) = &request["text"] {
        call = call.body(text.clone());
    } else if !request["json"].is_null() {
        call = call.json(&request["json"]);
    }
    send(call).await
}

/// Starts the server again, so that every function is cold, and notes what its load takes.
async fn measure_loads(server: TestServer, owner: &Account, rows: &mut [Row]) {
    let (_, home) = server.stop().await;
    let server = TestServer::start_at(home).await;
    let owner = owner.at(&server.api, &server.gateway);
    for row in rows {
        let Some(case) = &row.case else { continue };
        let answer = call(&owner, case).await;
        assert_eq!(answer.header("x-cloudserve-cold"), "1", "{}", row.package);
        let boot = answer
            .header("server-timing")
            .split(',')
            .find_map(|part| part.trim().strip_prefix("boot;dur=")?.parse::<f64>().ok());
        row.load_ms = boot;
    }
}
