//! Versions, variables and followed logs, as scripts and people use them.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::client::{ALL, script};
use crate::client_dev::{Dev, text_of};
use crate::support::{Client, wait_for};

#[tokio::test]
async fn an_earlier_version_is_served_again() {
    let (script, _) = script(&ALL).await;
    for text in ["first", "second"] {
        script.write("greet.mjs", format!("export default () => '{text}'"));
        script.json(&["deploy", "greet.mjs"]);
    }
    script.write("greet.mjs", "export default () => {");
    script.run(&["deploy", "greet.mjs"]).expect(1);
    script.json(&["rollback", "greet"]);
    assert_eq!(script.json(&["invoke", "greet"])["result"], "first");
    let none = script.run(&["rollback", "greet", "--json"]).expect(1).json();
    assert_eq!(none["error"]["code"], "no_version");
    script.json(&["rollback", "greet", "--to", "2"]);
    assert_eq!(script.json(&["invoke", "greet"])["result"], "second");
    script.run(&["rollback", "greet", "--to", "77"]).expect(1);
}

#[tokio::test]
async fn variables_are_set_without_being_arguments_and_never_told() {
    let (script, _) = script(&ALL).await;
    let script = script.with("FROM_CI", " third-value\n\n");
    script.write("env.mjs", "export default () => process.env;");
    script.json(&["deploy", "env.mjs"]);
    let on = ["--function", "env"];
    script.json_in("", &[&["env", "set", "FIRST"], &on[..]].concat(), b"first-value\n");
    script.write(".env", "SECOND=\"second value\"\n");
    script.json(&[&["env", "set", "--file", ".env", "--from-env", "FROM_CI"], &on[..]].concat());
    script.json(&[&["env", "set", "LEVEL=debug"], &on[..]].concat());
    let list = script.run(&["env", "list", "--function", "env"]).expect(0);
    assert_eq!(list.stdout, "FIRST\nFROM_CI\nLEVEL\nSECOND\n");
    let seen = script.json(&["invoke", "env"])["result"].clone();
    for (name, value) in [
        ("FIRST", "first-value"),
        ("SECOND", "second value"),
        ("FROM_CI", " third-value\n"),
        ("LEVEL", "debug"),
    ] {
        assert_eq!(seen[name], value, "{seen:#}");
    }
    script.json(&["env", "unset", "FIRST", "LEVEL", "--function", "env"]);
    assert_eq!(script.json(&["invoke", "env"])["result"]["FIRST"], Value::Null);
    let info = script.run(&["info", "env", "--json"]);
    assert!(!info.stdout.contains("value"), "{}", info.stdout);
    let wrong = script.run(&["env", "set", "NO NAME=x", "--function", "env", "--json"]).expect(1);
    assert_eq!(wrong.json()["error"]["code"], "validation_error");
}

#[tokio::test]
async fn a_secret_typed_at_a_terminal_is_not_shown() {
    let (person, _) = script(&ALL).await;
    person.write("env.mjs", "export default () => process.env;");
    person.json(&["deploy", "env.mjs"]);
    let mut terminal = person.on_terminal("", &["env", "set", "TOKEN", "--function", "env"]);
    terminal.expect("Value of TOKEN").await;
    terminal.type_in("s3cret\r");
    let (code, screen) = terminal.end().await;
    assert_eq!(code, 0, "{screen}");
    assert!(!screen.contains("s3cret"), "the value was shown: {screen}");
    assert_eq!(person.json(&["invoke", "env"])["result"]["TOKEN"], "s3cret");
}

#[tokio::test]
async fn logs_are_followed_as_they_are_written() {
    let (script, owner) = script(&ALL).await;
    script
        .write("talk.mjs", "export default ({ query }) => { console.warn('said', query.what); };");
    script.json(&["deploy", "talk.mjs"]);
    let mut follower = script
        .command("", &["logs", "talk", "--follow", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        while let Some(Ok(line)) = lines.next() {
            let _ = sender.send(line);
        }
    });
    // What was written before it listens is not shown, so one call may not be enough.
    let line = wait_for("a followed line", || async {
        owner.call("talk?what=now").await.expect(204);
        receiver.try_recv().ok()
    })
    .await;
    follower.kill().unwrap();
    follower.wait().unwrap();
    let row: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(row["logs"][0]["message"], "said now");
    assert_eq!(row["logs"][0]["level"], "warn");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_shows_what_the_function_writes() {
    let person = Client::knowing(&[]);
    person.write("project/index.mjs", "export default () => { console.log('said'); return 1 }");
    let dev = Dev::start(&person, &[]);
    let url = dev.next("deployed").await["url"].as_str().unwrap().to_owned();
    let row = wait_for("a line of the function", || async {
        text_of(&url).await;
        dev.seen("log")
    })
    .await;
    assert_eq!(row["row"]["logs"][0]["message"], "said");
}
