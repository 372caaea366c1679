//! `cloudserve dev`: a project on this machine, again after every change.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::Value;

use crate::support::{Client, children_of, is_alive, signal, wait_for};

/// A running `dev` and what it tells.
pub(crate) struct Dev {
    child: Child,
    events: Receiver<Value>,
    said: Receiver<String>,
}

impl Dev {
    pub(crate) fn start(person: &Client, args: &[&str]) -> Self {
        let mut child = person
            .command("project", &[&["dev", "--json"], args].concat())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (speaker, said) = channel();
        let words = BufReader::new(child.stderr.take().unwrap()).lines();
        std::thread::spawn(move || {
            for line in words.map_while(Result::ok) {
                eprintln!("{line}");
                let _ = speaker.send(line);
            }
        });
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, events) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str(&line).unwrap());
            }
        });
        Self { child, events, said }
    }

    /// The next event of this kind.
    pub(crate) async fn next(&self, kind: &str) -> Value {
        wait_for(kind, || async { self.seen(kind) }).await
    }

    /// The next event of this kind, if it has happened.
    pub(crate) fn seen(&self, kind: &str) -> Option<Value> {
        self.events.try_iter().find(|event| event["event"] == kind)
    }

    /// What it warns of next.
    async fn warning(&self) -> String {
        wait_for("a warning", || async { self.warned() }).await
    }

    fn warned(&self) -> Option<String> {
        self.said.try_iter().find(|line| line.contains("warning:"))
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) async fn text_of(url: &str) -> String {
    let answer = reqwest::get(url).await.unwrap();
    answer.text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_project_is_served_and_served_again_after_every_change() {
    let person = Client::knowing(&[]);
    person.write("project/index.mjs", "export { default } from './lib/say.mjs'");
    person.write("project/lib/say.mjs", "export default () => 'one ' + process.env.WHO");
    person.write("project/.env", "WHO=dev\n");
    let mut dev = Dev::start(&person, &[]);
    let first = dev.next("deployed").await;
    let url = first["url"].as_str().unwrap().to_owned();
    assert_eq!(text_of(&url).await, "one dev");

    person.write("project/lib/say.mjs", "export default () => 'two'");
    assert_eq!(dev.next("deployed").await["version"], 2);
    assert_eq!(text_of(&url).await, "two");

    // What cannot be built is told; what was there before is still served.
    person.write("project/lib/say.mjs", "export default () => {");
    let failed = dev.next("failed").await;
    assert_eq!(failed["error"]["code"], "bundle_error");
    assert_eq!(text_of(&url).await, "two");
    // A file in a folder that was not there before.
    person.write("project/new/deep.mjs", "export default () => 'three'");
    person.write("project/lib/say.mjs", "export { default } from '../new/deep.mjs'");
    assert!(dev.next("deployed").await["version"].as_u64() > Some(3));
    assert_eq!(text_of(&url).await, "three");
    person.write("project/new/deep.mjs", "export default () => 'four'");
    dev.next("deployed").await;
    assert_eq!(text_of(&url).await, "four");

    // Another name is another function: it has an address of its own, and its lines are shown.
    person.write("project/lib/say.mjs", "export default () => (console.log('said'), 'five')");
    person.write("project/cloudserve.toml", "[function]\nname = 'renamed'\n");
    let renamed = wait_for("the other name", || async {
        dev.seen("deployed").filter(|event| event["name"] == "renamed")
    })
    .await;
    // Again and again: what was written before `dev` listened is not shown.
    let renamed_url = renamed["url"].as_str().unwrap();
    let said = wait_for("what it wrote", || async {
        assert_eq!(text_of(renamed_url).await, "five");
        dev.seen("log")
    })
    .await;
    assert_eq!(said["row"]["logs"][0]["message"], "said");

    // Ctrl-C ends all of it.
    let children = children_of(dev.child.id());
    assert!(!children.is_empty());
    signal(dev.child.id(), libc::SIGINT);
    let status = wait_for("dev to end", || {
        let status = dev.child.try_wait().unwrap();
        async move { status }
    })
    .await;
    assert_eq!(status.code(), Some(0));
    wait_for("its server to end", || {
        let any_alive = children.iter().any(|pid| is_alive(*pid));
        async move { (!any_alive).then_some(()) }
    })
    .await;

    // The next time it is the same account, and calls go where they are asked to.
    person.write("project/cloudserve.toml", "");
    person.write("project/lib/say.mjs", "export default () => 'of ' + process.env.WHO");
    person.write("shared/dev.env", "WHO=one\n");
    let dev = Dev::start(&person, &["--env-file", "../shared/dev.env"]);
    let again = dev.next("deployed").await;
    assert!(again["version"].as_u64() > Some(4));
    let url = again["url"].as_str().unwrap();
    assert_eq!(text_of(url).await, "of one");
    // A file of variables is heard of wherever it lies.
    person.write("shared/dev.env", "WHO=all\n");
    dev.next("deployed").await;
    assert_eq!(text_of(url).await, "of all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_deploy_warns_of_is_told_once() {
    let person = Client::knowing(&[]);
    person.write("project/index.mjs", "export default 1");
    person.write("project/yarn.lock", "");
    let dev = Dev::start(&person, &[]);
    assert!(dev.warning().await.contains("yarn.lock is not heeded"));
    dev.next("deployed").await;

    person.write("project/index.mjs", "export default 2");
    dev.next("deployed").await;
    assert_eq!(dev.warned(), None);
    // Nothing of it is sent.
    std::os::unix::fs::symlink("index.mjs", person.dir().join("project/link")).unwrap();
    assert!(dev.warning().await.contains("left out: link"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dev_server_dies_with_its_command() {
    let person = Client::knowing(&[]);
    person.write("project/index.mjs", "export default 1");
    let dev = Dev::start(&person, &[]);
    dev.next("deployed").await;
    let children = children_of(dev.child.id());
    assert!(!children.is_empty());
    drop(dev);
    wait_for("its server to end", || {
        let any_alive = children.iter().any(|pid| is_alive(*pid));
        async move { (!any_alive).then_some(()) }
    })
    .await;
    assert!(person.dir().join("project/.cloudserve/.gitignore").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_of_other_servers_are_not_a_projects() {
    let person = Client::knowing(&[
        ("CLOUDSERVE_CONFIG", "/no/such/file.toml"),
        ("CLOUDSERVE_OPS_LISTEN", "nowhere"),
        ("CLOUDSERVE_S3_BUCKET", "theirs"),
    ]);
    person.write(
        "project/index.mjs",
        "import chunk from 'lodash/chunk.js'; export default () => chunk([1, 2, 3], 2).length",
    );
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port().to_string();
    drop(free);
    let dev = Dev::start(&person, &["--port", &port, "--dependency", "lodash@4.17.21"]);
    let url = dev.next("deployed").await["url"].as_str().unwrap().to_owned();
    assert!(url.starts_with(&format!("http://127.0.0.1:{port}/")), "{url}");
    assert_eq!(text_of(&url).await, "2");
}
