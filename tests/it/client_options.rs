//! What the options of the commands change.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{ALL, script};
use crate::support::{Client, send, server, wait_for};

#[tokio::test]
async fn a_deploy_says_who_may_call_with_what_and_waits_if_it_is_to() {
    let (script, owner) = script(&ALL).await;
    script.write(
        "f.mjs",
        "import chunk from 'lodash/chunk.js';
         export default () => [process.env.A, ...chunk([1, 2, 3], 2)];",
    );
    script.write("vars", "A=from a file\n");
    let named = ["deploy", "f.mjs", "--name", "chunks", "--env-file", "vars"];
    let first = ["--dependency", "lodash@4.17.21", "--visibility", "public"];
    let view = script.json(&[&named[..], &first].concat())["function"].clone();
    assert_eq!((&view["name"], &view["visibility"]), (&json!("chunks"), &json!("public")));
    let everybody = || send(owner.showing("").run(Method::GET, "chunks"));
    let answer = everybody().await.expect(200);
    assert_eq!(answer.json(), json!(["from a file", [1, 2], [3]]));

    // What was in its environment goes, and it is private before it is built.
    script.write("vars", "B=1\n");
    script.write(
        "f.mjs",
        "export default () => Object.keys(process.env).filter((name) => name.length === 1);",
    );
    let then = ["--visibility", "private", "--no-wait"];
    let accepted = script.json(&[&named[..], &then].concat());
    assert_eq!((&accepted["version"], &accepted["status"]), (&json!(2), &json!("pending")));
    everybody().await.expect(401);
    wait_for("the second version", || async {
        (owner.call("chunks").await.expect(200).json() == json!(["B"])).then_some(())
    })
    .await;
}

/// The lines of a log, as they are listed.
fn lines(logs: &Value) -> Vec<String> {
    let rows = logs["logs"].as_array().unwrap().iter();
    let lines = rows.flat_map(|row| row["logs"].as_array().unwrap());
    lines.map(|line| line["message"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn logs_and_usage_are_chosen() {
    let (script, owner) = script(&ALL).await;
    script.write(
        "talk.mjs",
        "export default ({ query }) => {
           console.log('plain', query.n);
           if (query.n === '2') console.error('odd one');
         };",
    );
    script.json(&["deploy", "talk.mjs"]);
    for n in 1..=3 {
        owner.call(&format!("talk?n={n}")).await.expect(204);
    }
    wait_for("the logs", || async {
        (lines(&script.json(&["logs", "talk"])).len() == 4).then_some(())
    })
    .await;
    for (options, expected) in [
        (&["-n", "2"][..], &["plain 3", "plain 2", "odd one"][..]),
        (&["--limit", "1"], &["plain 3"]),
        (&["--level", "error"], &["odd one"]),
        (&["--level", "warn,error"], &["odd one"]),
        (&["--level", "debug"], &[]),
        (&["--containing", "ODD"], &["odd one"]),
        (&["--containing", "plain 1"], &["plain 1"]),
    ] {
        let logs = script.json(&[&["logs", "talk"], options].concat());
        assert_eq!(lines(&logs), expected, "{options:?}");
    }

    let usage = |options: &[&str]| script.json(&[&["usage", "talk"], options].concat());
    wait_for("the usage", || async { (usage(&[])["totals"]["executed"] == 3).then_some(()) }).await;
    for (options, executed) in [
        (&["--from", "2000-01-01", "--to", "2100-01-01"][..], 3),
        (&["--from", "2100-01-01"], 0),
        (&["--to", "2000-01-01"], 0),
    ] {
        assert_eq!(usage(options)["totals"]["executed"], executed, "{options:?}");
    }
    let days = usage(&["--by-day"])["days"].clone();
    let days = days.as_array().unwrap().iter();
    assert_eq!(days.map(|day| day["executed"].as_u64().unwrap()).sum::<u64>(), 3);
    let shown = script.run(&["usage", "talk", "--by-day"]).expect(0).stdout;
    assert!(shown.starts_with("DAY "), "{shown}");
    // Of the account there is more to tell.
    assert!(script.json(&["usage"])["quota"]["callsPerDay"].is_object());
    let wrong = script.run(&["usage", "--from", "yesterday", "--json"]).expect(1).json();
    assert_eq!(wrong["error"]["code"], "validation_error", "{wrong:#}");
}

#[tokio::test]
async fn a_browser_gets_an_address_and_no_secret() {
    let (script, _) = script(&ALL).await;
    script.write(
        "browser",
        "#!/bin/sh\n\
         printf '%s %s' \"$1\" \"$CLOUDSERVE_API_KEY\" > part\n\
         mv part opened\n",
    );
    let browser = script.dir().join("browser");
    fs::set_permissions(&browser, fs::Permissions::from_mode(0o755)).unwrap();
    let script = script.with("BROWSER", browser.to_str().unwrap());
    script.write("f.mjs", "export default 1");
    let url = script.json(&["deploy", "f.mjs"])["url"].as_str().unwrap().to_owned();
    let opened = script.dir().join("opened");
    assert_eq!(script.json(&["open", "f"])["url"], url.as_str());
    assert!(!opened.exists(), "a script looks at no page");
    let api = &server().await.api;
    for (args, address) in
        [(&["open", "f"][..], url.as_str()), (&["open", "--dashboard"], api.as_str())]
    {
        let shown = script.run(args).expect(0);
        assert!(shown.stdout.starts_with(address), "{shown:#?}");
        let told = wait_for("the browser", || async { fs::read_to_string(&opened).ok() }).await;
        assert_eq!(told, format!("{} ", shown.stdout.trim_end()));
        fs::remove_file(&opened).unwrap();
    }
}

#[tokio::test]
async fn what_is_said_is_not_asked_for() {
    let person = Client::of(server().await).with("CLOUDSERVE_PASSWORD", "correct horse battery");
    let name = format!("said-{}", std::process::id());
    let email = format!("{name}@example.org");
    let named = ["--user-name", &name, "--email", &email, "--full-name", "Ada Lovelace"];
    let made = person.json(&[&["register"], &named[..]].concat());
    assert_eq!(made["user"]["userName"], name.as_str());
    assert_eq!(person.json(&["whoami"])["via"], "session");
    assert_eq!(person.json(&["ls"])["functions"], json!([]));
    for args in [&["version"][..], &["--version"]] {
        let told = person.run(args).expect(0).stdout;
        assert_eq!(told.trim_end(), format!("cloudserve {}", env!("CARGO_PKG_VERSION")));
    }
    for shell in ["elvish", "powershell"] {
        let script = person.run(&["completions", shell]).expect(0).stdout;
        assert!(script.contains("rollback"), "{shell}");
    }
}
