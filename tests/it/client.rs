//! The commands, as scripts use them: with a key, `--json`, and exit codes.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc::channel;
use std::thread;

use serde_json::json;

use crate::support::{Account, Client, deploy, server, wait_for};

pub(crate) const ALL: [&str; 3] = ["invoke", "deploy", "read"];

/// Somebody with a new account and nothing but a key of it.
pub(crate) async fn script(scopes: &[&str]) -> (Client, Account) {
    let server = server().await;
    let owner = server.register().await;
    let key = owner.key(scopes).await;
    (Client::of(server).with("CLOUDSERVE_API_KEY", &key), owner)
}

#[tokio::test]
async fn a_script_with_a_key_does_the_whole_journey() {
    let (script, owner) = script(&ALL).await;
    let me = script.json(&["whoami"]);
    assert_eq!(me["user"]["userName"], owner.user_name.as_str());

    let made = script.json(&["init", "greet", "--template", "hello"]);
    assert_eq!(made["name"], "greet");
    let first = script.json(&["deploy", "greet"]);
    assert_eq!((&first["status"], &first["version"]), (&json!("active"), &json!(1)));
    assert!(
        first["bundleBytes"].as_u64().unwrap() > 0 && first["sourceBytes"].as_u64().unwrap() > 0
    );
    assert!(first["url"].as_str().unwrap().ends_with("/greet"), "{first:#}");
    assert!(first["durationMs"].is_u64());

    let call = script.json(&["invoke", "greet", "--path", "?name=ada"]);
    assert_eq!((&call["status"], &call["success"]), (&json!(200), &json!(true)));
    assert_eq!(call["result"]["message"], "Hello, ada!");
    assert!(call["timings"]["exec"].is_f64(), "{call:#}");
    assert_eq!(call["logs"][0]["message"], "greeting ada");
    let execution = call["executionId"].as_str().unwrap();
    wait_for("the logs", || async {
        let logs = script.json(&["logs", "greet", "--execution", execution]);
        (logs["logs"][0]["logs"][0]["message"] == "greeting ada").then_some(())
    })
    .await;
    wait_for("the usage", || async {
        let usage = script.json(&["usage", "greet"]);
        (usage["totals"]["executed"] == 1).then_some(())
    })
    .await;

    script.write("greet/index.mjs", "export default () => 'second'");
    assert_eq!(script.json_in("greet", &["deploy"], b"")["version"], 2);
    assert_eq!(script.json_in("greet", &["invoke", "."], b"")["result"], "second");
    script.write("greet/index.mjs", "export default () => {");
    let failed = script.run_in("greet", &["deploy", "--json"], b"").expect(1).json();
    assert_eq!(failed["error"]["code"], "bundle_error");
    assert!(failed["error"]["message"].as_str().unwrap().contains("index.mjs:1"), "{failed:#}");

    let versions = script.json(&["versions", "greet"]);
    let states: Vec<_> = versions["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| (&v["version"], &v["active"]))
        .collect();
    assert_eq!(
        states,
        [(&json!(3), &json!(false)), (&json!(2), &json!(true)), (&json!(1), &json!(false))]
    );

    let list = script.json(&["list"]);
    assert_eq!(list["functions"][0]["name"], "greet");
    let info = script.json(&["info", "greet"]);
    assert_eq!((&info["activeVersion"], &info["status"]), (&json!(2), &json!("failed")));
    let url = script.json(&["open", "greet", "--print"]);
    assert_eq!(url["url"], first["url"]);
    script.json(&["delete", "greet", "--yes"]);
    assert_eq!(script.json(&["list"])["functions"], json!([]));
}

#[tokio::test]
async fn bodies_come_from_an_argument_a_file_or_standard_input() {
    let (script, _) = script(&ALL).await;
    script.write(
        "echo.mjs",
        "export default ({ method, body, headers, path, query }) => \
         ({ statusCode: Number(query.status ?? 200), body: { method, body, path, \
         type: headers['content-type'], colour: headers['x-colour'] } });",
    );
    script.json(&["deploy", "echo.mjs"]);
    script.write("body.json", "{\"from\":\"file\"}");
    let result = |args: &[&str], input: &[u8]| {
        script.json_in("", &[&["invoke", "echo"], args].concat(), input)["result"].clone()
    };
    let answer = result(&["{\"n\":1}", "-H", "x-colour: blue"], b"");
    assert_eq!((&answer["method"], &answer["body"]), (&json!("POST"), &json!({ "n": 1 })));
    assert_eq!((&answer["type"], &answer["colour"]), (&json!("application/json"), &json!("blue")));
    assert_eq!(result(&["@body.json"], b"")["body"]["from"], "file");
    let answer = result(&["-"], b"plain text");
    assert_eq!(answer["body"], "plain text");
    assert_eq!(answer["type"], "text/plain; charset=utf-8");
    let answer = result(&["-X", "put", "x", "--path", "a/b"], b"");
    assert_eq!((&answer["method"], &answer["path"]), (&json!("PUT"), &json!("/a/b")));
    assert_eq!(result(&[], b"ignored")["method"], "GET");

    // For people: the answer on one side, everything else on the other.
    let shown = script.run(&["invoke", "echo", "--path", "?status=404"]).expect(1);
    assert!(shown.stdout.contains("\"method\": \"GET\""), "{shown:#?}");
    assert!(shown.stderr.starts_with("404 ") && shown.stderr.contains("exec "), "{shown:#?}");
    let raw = script.run(&["invoke", "echo", "--raw"]).expect(0);
    assert!(raw.stdout.starts_with('{') && raw.stderr.is_empty(), "{raw:#?}");
    let head = script.run(&["invoke", "echo", "-X", "HEAD", "--json"]).expect(2).json();
    assert!(head["error"]["hint"].as_str().unwrap().contains("--raw"), "{head:#}");
    assert_eq!(script.run(&["invoke", "echo", "-X", "HEAD", "--raw"]).expect(0).stdout, "");
    // Numbers are as the function wrote them.
    let large = "[\n  123456789012345678901,\n  1e400\n]";
    let code = "export default () => new Response('[123456789012345678901,1e400]', \
                { headers: { 'content-type': 'application/json' } });";
    script.write("large.mjs", code);
    script.json(&["deploy", "large.mjs"]);
    assert_eq!(script.run(&["invoke", "large"]).expect(0).stdout.trim_end(), large);
    let shown = script.run(&["invoke", "large", "--json"]).expect(0).stdout;
    assert!(shown.contains("[123456789012345678901,1e400]"), "{shown}");

    // Below 400 it has answered, shown or passed on.
    for (status, code) in [(302, 0), (399, 0), (400, 1)] {
        let path = format!("?status={status}");
        script.run(&["invoke", "echo", "--path", &path]).expect(code);
        script.run(&["invoke", "echo", "--raw", "--path", &path]).expect(code);
    }
}

#[tokio::test]
async fn a_key_does_what_its_scopes_say_and_the_refusal_says_what_is_missing() {
    let (deployer, owner) = script(&["deploy"]).await;
    deployer.write("f.mjs", "export default () => 'called'");
    assert_eq!(deployer.json(&["deploy", "f.mjs"])["status"], "active");
    let refused = deployer.run(&["list", "--json"]).expect(1).json();
    assert_eq!(refused["error"]["code"], "forbidden");
    assert!(refused["error"]["hint"].as_str().unwrap().contains("--scope"), "{refused:#}");
    let refused = deployer.run(&["keys", "list", "--json"]).expect(1).json();
    assert!(refused["error"]["hint"].as_str().unwrap().contains("cloudserve login"), "{refused:#}");

    let server = server().await;
    let caller = Client::of(server).with("CLOUDSERVE_API_KEY", &owner.key(&["invoke"]).await);
    let refused = caller.run(&["invoke", "f", "--json"]).expect(1).json();
    assert!(refused["error"]["hint"].as_str().unwrap().contains("USER/f"), "{refused:#}");
    let name = format!("{}/f", owner.user_name);
    let caller = caller.with("CLOUDSERVE_GATEWAY_URL", &server.gateway);
    assert_eq!(caller.json(&["invoke", &name])["result"], "called");
}

#[tokio::test]
async fn every_template_is_deployed_and_answers() {
    let (script, _) = script(&ALL).await;
    for (template, path, body, status) in [
        ("hello", "?name=ada", None, 200),
        ("typescript", "", Some("{\"item\":\"tea\"}"), 201),
        ("typescript", "", Some("{}"), 422),
        ("hono", "/items/7", None, 200),
        ("hono", "/items", Some("{\"n\":1}"), 201),
        ("express", "/items/7", None, 200),
        ("express", "/items", Some("{\"n\":1}"), 201),
        ("worker", "/x", None, 200),
        ("worker", "/x", Some("{\"n\":1}"), 201),
    ] {
        if !script.dir().join(template).exists() {
            script.json(&["init", template, "--template", template]);
            script.json_in(template, &["deploy"], b"");
        }
        let mut args = vec!["invoke", template, "--json", "--path", path];
        args.extend(body);
        let run = script.run(&args);
        assert_eq!(run.json()["status"], status, "{template} {path} {body:?}: {run:#?}");
    }
}

#[tokio::test]
async fn what_git_ignores_stays_here() {
    let (script, _) = script(&ALL).await;
    for (path, content) in [
        ("p/index.mjs", &b"export { default } from './lib/a.mjs'"[..]),
        ("p/lib/a.mjs", b"export default () => 'sent'"),
        ("p/logo.bin", &[0xff, 0xfe, 0]),
        ("p/.gitignore", b"dist/\n"),
        ("p/dist/out.mjs", b"no"),
        ("p/.env", b"SECRET=1"),
        ("p/node_modules/left-pad/index.js", b"no"),
    ] {
        script.write(path, content);
    }
    let deployed = script.json(&["deploy", "p", "--name", "ignoring"]);
    assert_eq!(deployed["sourceFiles"], 3);
    let source = script.json(&["info", "ignoring"])["source"].clone();
    let files: Vec<_> = source["files"].as_object().unwrap().keys().collect();
    assert_eq!(files, ["index.mjs", "lib/a.mjs"]);
    assert_eq!(source["binaryFiles"], json!(["logo.bin"]));
    assert_eq!(script.json(&["invoke", "ignoring"])["result"], "sent");
}

#[tokio::test]
async fn a_project_says_how_it_is_deployed() {
    let (script, _) = script(&ALL).await;
    script.write(
        "shop/cloudserve.toml",
        "data_dir = './for-serve'\n[function]\nname = 'orders'\nentry = 'main/start.mjs'\n\
         visibility = 'public'\n[function.limits]\ntimeoutMs = 1234\n",
    );
    script.write("shop/main/start.mjs", "export default () => 'started'");
    script.write("shop/index.mjs", "export default () => 'not this'");
    let deployed = script.json_in("shop", &["deploy"], b"");
    let view = &deployed["function"];
    assert_eq!((&view["name"], &view["visibility"]), (&json!("orders"), &json!("public")));
    assert_eq!(view["limits"]["timeoutMs"], 1234);
    assert_eq!(script.json_in("shop", &["invoke", "."], b"")["result"], "started");
    let versions = script.json_in("shop", &["versions"], b"");
    assert_eq!(versions["versions"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn errors_have_a_code_an_exit_code_and_the_next_step() {
    let (script, owner) = script(&ALL).await;
    let server = server().await;
    script.write("README.md", "no code");
    script.write("empty/README.md", "no code");
    script.write("f.mjs", "export default 1");
    script.write("broken/cloudserve.toml", "[function]\nnmae = 'x'\n");
    let nobody = Client::of(server);
    let stranger = Client::of(server).with("CLOUDSERVE_API_KEY", "cs_live_not_a_key");
    let lost = Client::knowing(&[
        ("CLOUDSERVE_URL", "http://127.0.0.1:1"),
        ("CLOUDSERVE_API_KEY", "cs_live_not_a_key"),
    ]);
    let cases: [(&Client, &[&str], i32, &str, &str); 14] = [
        (&nobody, &["whoami"], 3, "not_logged_in", "cloudserve login"),
        (&stranger, &["whoami"], 3, "unauthorized", "CLOUDSERVE_API_KEY"),
        (&stranger, &["list", "--url", "ftp://x"], 2, "usage", "http"),
        (&lost, &["list"], 4, "unreachable", "CLOUDSERVE_URL"),
        (&script, &["info", "nothing-of-this-name"], 1, "function_not_found", "cloudserve"),
        (&script, &["info"], 2, "usage", "cloudserve.toml"),
        (&script, &["deploy", "README.md"], 2, "usage", ".ts"),
        (&script, &["deploy", "empty"], 1, "project", "cloudserve init"),
        (&script, &["deploy", "broken"], 1, "project", "docs/CLI.md"),
        (&script, &["deploy", "f.mjs", "--name", "a b"], 2, "usage", "--name"),
        (&script, &["deploy", "gone.mjs"], 1, "file", ""),
        (&script, &["invoke", "f", "@/no/such/file", "--gateway", &server.gateway], 1, "", ""),
        (&nobody, &["login", "--user", &owner.user_name], 2, "no_terminal", "standard input"),
        (&nobody, &["init", "a b"], 2, "usage", "--name"),
    ];
    for (client, args, exit, code, hint) in cases {
        let run = client.run(&[args, &["--json"]].concat()).expect(exit);
        let error = &run.json()["error"];
        assert!(code.is_empty() || error["code"] == code, "{args:?}: {run:#?}");
        assert!(!error["message"].as_str().unwrap().is_empty(), "{args:?}");
        assert!(error["hint"].as_str().unwrap_or_default().contains(hint), "{args:?}: {run:#?}");
        assert_eq!(run.stdout.lines().count(), 1, "{args:?}: {run:#?}");
        // The same for people, on the other side.
        let run = client.run(args).expect(exit);
        assert!(run.stdout.is_empty() && run.stderr.starts_with("error: "), "{args:?}: {run:#?}");
        assert!(!run.stderr.contains('\x1b'), "{args:?}: {run:#?}");
    }
    assert!(!nobody.dir().join("a b").exists());
    let gone = script.run(&["deploy", "gone.mjs", "--json"]).expect(1).json();
    assert!(gone["error"]["because"].as_str().unwrap().contains("No such file"), "{gone:#}");
    script.json(&["deploy", "f.mjs"]);
    let nowhere = ["invoke", "f", "--gateway", "http://127.0.0.1:1", "--json"];
    let nowhere = script.run(&nowhere).expect(4).json();
    assert!(nowhere["error"]["message"].as_str().unwrap().contains("127.0.0.1:1/"), "{nowhere:#}");
    assert!(nowhere["error"]["hint"].as_str().unwrap().contains("--gateway"), "{nowhere:#}");
    let unsure = script.run(&["delete", "f", "--json"]).expect(2).json();
    assert_eq!(unsure["error"]["code"], "no_terminal");
    assert!(unsure["error"]["hint"].as_str().unwrap().contains("--yes"));
    for wrong in [&["deploy", "--no-such-flag"][..], &["login", "--password", "x"], &["nothing"]] {
        assert!(script.run(wrong).expect(2).stderr.contains("Usage:"), "{wrong:?}");
        let told = script.run(&[wrong, &["--json"]].concat()).expect(2).json();
        assert_eq!(told["error"]["code"], "usage", "{wrong:?}: {told:#}");
        assert!(told["error"]["hint"].as_str().unwrap().contains("Usage:"), "{wrong:?}: {told:#}");
    }
}

/// Where a request is answered with what `answer` makes of its head: status, headers and body.
fn listens(mut answer: impl FnMut(Vec<String>) -> String + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            let mut request = BufReader::new(&connection);
            let lines = request.by_ref().lines().map_while(Result::ok);
            let head: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
            let length = head.iter().find_map(|line| line.strip_prefix("content-length: "));
            let length = length.map_or(0, |length| length.parse().unwrap());
            // What is not read cuts the answer off.
            let _ = io::copy(&mut request.take(length), &mut io::sink());
            let answer = format!("HTTP/1.1 {}", answer(head));
            // Whoever asked may be gone.
            let _ = (&connection).write_all(answer.as_bytes());
        }
    });
    url
}

/// Where everything is answered with this status, and perhaps a header.
fn answers(status: &'static str) -> String {
    listens(move |_| format!("{status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"))
}

#[tokio::test]
async fn a_deploy_is_waited_for_in_short_steps_and_past_a_restart() {
    let (told, asked) = channel();
    let mut n_asked = 0;
    let url = listens(move |head| {
        told.send(head[0].clone()).unwrap();
        n_asked += 1;
        let (status, deploy) = match n_asked {
            1 => ("202 Accepted", "pending"),
            2 => ("502 Bad Gateway", ""),
            3 => ("202 Accepted", "deploying"),
            _ => ("200 OK", "active"),
        };
        let view = json!({
            "id": "of-it", "name": "f", "version": 7, "activeVersion": 7, "status": deploy,
        });
        let body = if deploy.is_empty() { String::new() } else { view.to_string() };
        let length = body.len();
        format!("{status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
    });
    let person = Client::knowing(&[("CLOUDSERVE_URL", &url), ("CLOUDSERVE_API_KEY", "cs_x")]);
    person.write("f.mjs", "export default 1");
    assert_eq!(person.json(&["deploy", "f.mjs"])["status"], "active");
    let asked: Vec<_> = asked.try_iter().collect();
    let waits = "GET /api/function/of-it/versions/7/deploy?wait=1 HTTP/1.1";
    assert_eq!(asked, ["POST /api/function/deploy HTTP/1.1", waits, waits, waits]);
}

#[tokio::test]
async fn a_broken_log_goes_on_where_it_was() {
    let (told, heads) = channel();
    let mut n_asked = 0;
    let url = listens(move |head| {
        told.send(head).unwrap();
        n_asked += 1;
        let row = "data: {\"logs\":[]}\n\n";
        let (status, media_type, body) = match n_asked {
            1 => ("200 OK", "text/event-stream", format!("id: first\n{row}")),
            // Rows that come together: the id would be that of the last one.
            2 => ("200 OK", "text/event-stream", row.to_owned()),
            _ => {
                let error = json!({ "error": { "code": "over", "message": "enough" } });
                ("404 Not Found", "application/json", error.to_string())
            }
        };
        let length = body.len();
        format!(
            "{status}\r\ncontent-type: {media_type}\r\ncontent-length: {length}\r\n\
             connection: close\r\n\r\n{body}"
        )
    });
    let person = Client::knowing(&[("CLOUDSERVE_URL", &url), ("CLOUDSERVE_API_KEY", "cs_x")]);
    let run = person
        .run(&["logs", "01890a5d-ac96-774b-bcce-b302099a8057", "--follow", "--json"])
        .expect(1);
    let lines: Vec<_> = run.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{run:#?}");
    assert!(lines[2].contains("enough"), "{run:#?}");
    let ids = heads.try_iter().map(|head| head.iter().any(|line| line == "last-event-id: first"));
    assert_eq!(ids.collect::<Vec<_>>(), [false, true, true]);
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_told_as_that() {
    let long = " ".repeat(64 * 1024 * 1024 + 1);
    let url = listens(move |_| format!("200 OK\r\nconnection: close\r\n\r\n{long}"));
    let person = Client::knowing(&[("CLOUDSERVE_URL", &url), ("CLOUDSERVE_API_KEY", "cs_x")]);
    let logs = ["logs", "01890a5d-ac96-774b-bcce-b302099a8057", "-n", "1000", "--json"];
    let error = person.run(&logs).expect(1).json()["error"].clone();
    assert_eq!(error["code"], "answer_too_long", "{error:#}");
    assert!(error["hint"].as_str().unwrap().contains("-n"), "{error:#}");
}

#[tokio::test]
async fn ways_to_a_server_that_do_not_lead_there_are_told_apart() {
    for (status, code, says) in [
        ("502 Bad Gateway", "unreachable", "502 Bad Gateway"),
        ("503 Service Unavailable", "unreachable", "503"),
        ("504 Gateway Timeout", "unreachable", "504"),
        ("404 Not Found", "not_the_api", "404"),
        ("308 Permanent Redirect\r\nlocation: https://b.example/", "not_the_api", "b.example"),
    ] {
        let url = answers(status);
        let person = Client::knowing(&[("CLOUDSERVE_URL", &url), ("CLOUDSERVE_API_KEY", "cs_x")]);
        let error = person.run(&["list", "--json"]).expect(4).json()["error"].clone();
        assert_eq!(error["code"], code, "{status}");
        assert!(error["message"].as_str().unwrap().contains(says), "{status}: {error:#}");
    }
    // Without certificates there is no https, but all the rest.
    let (bare, _) = script(&ALL).await;
    let bare = bare.with("SSL_CERT_FILE", "/no/such/file").with("SSL_CERT_DIR", "/no/such/folder");
    assert_eq!(bare.json(&["list"])["functions"], json!([]));
    let refused = bare.run(&["list", "--url", "https://127.0.0.1:1", "--json"]).expect(1).json();
    assert_eq!(refused["error"]["code"], "no_certificates", "{refused:#}");
    assert!(refused["error"]["hint"].as_str().unwrap().contains("SSL_CERT_FILE"), "{refused:#}");
    // What is sent to this machine goes to no proxy.
    let (script, _) = script(&ALL).await;
    let script = script.with("http_proxy", &answers("502 Bad Gateway"));
    assert_eq!(script.json(&["list"])["functions"], json!([]));
}

#[tokio::test]
async fn logins_are_remembered_in_private_and_forgotten() {
    let server = server().await;
    let owner = server.register().await;
    let person = Client::of(server);
    let login = ["login", "--user", &owner.email];
    let answer = person.json_in("", &login, format!("{}\n", owner.password).as_bytes());
    assert_eq!(answer["user"]["userName"], owner.user_name.as_str());
    let file = person.config_dir().join("credentials.toml");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!fs::read_to_string(&file).unwrap().contains(&owner.password));
    // Remembered with the server: a variable is no longer needed, and another server gets nothing.
    assert_eq!(person.json(&["whoami"])["via"], "session");
    let elsewhere = person.run(&["whoami", "--url", "http://localhost:1", "--json"]).expect(3);
    assert_eq!(elsewhere.json()["error"]["code"], "not_logged_in");

    let key = person.run(&["keys", "create", "ci", "--scope", "read", "--expires", "2h"]).expect(0);
    let key = key.stdout.trim();
    let script = Client::of(server).with("CLOUDSERVE_API_KEY", key);
    assert_eq!(script.json(&["list"])["functions"], json!([]));
    let listed = person.run(&["keys", "list"]).expect(0);
    assert!(listed.stdout.contains("ci") && !listed.stdout.contains(key), "{listed:#?}");
    person.json(&["keys", "revoke", "ci", "--yes"]);
    script.run(&["list"]).expect(3);

    for name in ["mine", "other"] {
        owner.deploy(&deploy(name, "f.mjs", "export default () => 1")).await;
    }
    let key = person.run(&["keys", "create", "one", "--function", "mine"]).expect(0);
    let limited = Client::of(server).with("CLOUDSERVE_API_KEY", key.stdout.trim());
    let listed = limited.json(&["list"]);
    assert_eq!(listed["functions"].as_array().unwrap().len(), 1);
    assert_eq!(listed["functions"][0]["name"], "mine");
    assert!(person.run(&["keys", "list"]).expect(0).stdout.contains("1 function"));

    assert_eq!(person.json(&["logout"])["wasLoggedIn"], true);
    person.run(&["whoami"]).expect(3);
    let wrong = person.run_in("", &["login", "--user", &owner.email, "--json"], b"wrong\n");
    assert_eq!(wrong.expect(1).json()["error"]["code"], "invalid_credentials");
    let by_variable = Client::of(server).with("CLOUDSERVE_PASSWORD", &owner.password);
    by_variable.json(&["login", "--user", &owner.user_name]);
    // Only the end of a line is left out: a password may begin and end as it likes.
    for (password, code) in
        [(format!("{}\n", owner.password), 0), (format!(" {}", owner.password), 1)]
    {
        let given = Client::of(server).with("CLOUDSERVE_PASSWORD", &password);
        given.run(&["login", "--user", &owner.user_name]).expect(code);
    }
    let by_key = Client::of(server);
    let key = owner.key(&ALL).await;
    by_key.json_in("", &["login", "--key"], key.as_bytes());
    assert_eq!(by_key.json(&["whoami"])["via"], "stored key");
    by_key.run_in("", &["login", "--key"], b"cs_live_wrong").expect(1);
}

#[tokio::test]
async fn a_script_with_both_variables_reads_nothing_at_home() {
    let (script, _) = script(&ALL).await;
    fs::create_dir_all(script.config_dir()).unwrap();
    fs::write(script.config_dir().join("credentials.toml"), "servers = 7").unwrap();
    assert_eq!(script.json(&["list"])["functions"], json!([]));
    // Where a login is needed, the file is.
    let error = script.run(&["logout", "--json"]).expect(1).json();
    assert_eq!(error["error"]["code"], "project");
}

#[tokio::test]
async fn a_project_is_never_written_over() {
    let person = Client::knowing(&[]);
    person.json(&["init", "mine", "--template", "worker"]);
    person.write("mine/index.ts", "changed");
    let again = person.run(&["init", "mine", "--template", "hello", "--json"]).expect(1).json();
    assert_eq!(again["error"]["code"], "project");
    assert_eq!(fs::read_to_string(person.dir().join("mine/index.ts")).unwrap(), "changed");
    assert!(!person.dir().join("mine/index.mjs").exists());
}

#[tokio::test]
async fn every_command_explains_itself() {
    let person = Client::knowing(&[]);
    let overview = person.run(&["--help"]).expect(0).stdout;
    let commands = [
        "login",
        "logout",
        "whoami",
        "init",
        "dev",
        "deploy",
        "list",
        "info",
        "invoke",
        "logs",
        "usage",
        "env",
        "keys",
        "versions",
        "rollback",
        "delete",
        "open",
        "completions",
    ];
    for command in commands {
        assert!(overview.contains(&format!("\n  {command} ")), "{command}: {overview}");
        let help = person.run(&[command, "--help"]).expect(0).stdout;
        assert!(help.contains("Usage: cloudserve"), "{command}: {help}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = person.run(&["completions", shell]).expect(0).stdout;
        assert!(commands.iter().all(|command| script.contains(command)), "{shell}");
    }
}
