//! An installation of many processes: roles of their own over MongoDB and S3, two APIs, two
//! gateways, three sandboxes. They are killed and restarted while calls go on.

mod damage;
mod growth;
mod load;
mod proxy;
mod soak;

use std::io::ErrorKind;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};

use self::load::Load;
use crate::servers;
use crate::support::{Account, Deploy, Message, RoleProcess, deploy, is_alive, wait_for};

const SECRET: &str = "5c1f0a4c6b1f0a4c6b1f0a4c6b1f0a4c6b1f0a4c6b1f0a4c6b1f0a4c6b1f0a4c";
const TOKEN: &str = "an-internal-token-of-the-tests-2718281828";

struct Cluster {
    apis: Vec<RoleProcess>,
    gateways: Vec<RoleProcess>,
    sandboxes: Vec<RoleProcess>,
    /// Of the S3 server.
    objects_address: String,
    bucket: String,
}

/// Addresses that no other process of this machine uses: each has a port of its own only as long
/// as it listens, but a network of its own for good.
fn host(number: usize) -> String {
    let pid = std::process::id();
    format!("127.{}.{}.{}", 1 + pid / 250 % 250, 1 + pid % 250, 1 + number)
}

impl Cluster {
    async fn start() -> Self {
        let (mongod, s3) = tokio::join!(servers::mongod(), servers::s3());
        let urls: Vec<_> =
            (0..3).map(|n| format!("http://{}", Self::sandbox_address(0, n))).collect();
        Self::start_at(0, &mongod.address, &s3.address, &urls).await
    }

    fn sandbox_address(first_host: usize, number: usize) -> String {
        format!("{}:8082", host(first_host + number))
    }

    /// `urls` lead to the sandboxes.
    async fn start_at(first_host: usize, mongod: &str, s3: &str, urls: &[String]) -> Self {
        let name = servers::unique_name();
        let uri = format!("mongodb://{mongod}/{name}?replicaSet=rs0");
        let endpoint = format!("http://{s3}");
        let objects = [
            ("CLOUDSERVE_S3_ENDPOINT", endpoint.as_str()),
            ("CLOUDSERVE_S3_BUCKET", name.as_str()),
            ("CLOUDSERVE_S3_ACCESS_KEY", servers::ACCESS_KEY),
            ("CLOUDSERVE_S3_SECRET_KEY", servers::SECRET_KEY),
            ("CLOUDSERVE_INTERNAL_TOKEN", TOKEN),
        ];
        let records = [
            ("CLOUDSERVE_MONGODB_URI", uri.as_str()),
            ("CLOUDSERVE_JWT_SECRET", SECRET),
            ("CLOUDSERVE_MASTER_KEY", SECRET),
            ("CLOUDSERVE_INTERNAL_TOKEN", TOKEN),
            ("CLOUDSERVE_DRAIN_NOTICE_MS", "500"),
        ];
        let invoke_url = format!("http://{}:8081", host(first_host));
        let of_api = [("CLOUDSERVE_INVOKE_URL", invoke_url.as_str())];
        let of_api = [&objects[..], &of_api].concat();
        let at: Vec<_> = (0..3).map(|n| Self::sandbox_address(first_host, n)).collect();
        let sandboxes = join_all(at.iter().map(|address| {
            let own = [("CLOUDSERVE_SANDBOX_LISTEN", &**address), ("CLOUDSERVE_POOL_SIZE", "2")];
            let settings = [&objects[..], &own].concat();
            async move { RoleProcess::start("sandbox", address, &settings).await }
        }));
        let sandboxes = sandboxes.await;
        let urls = urls.join(",");
        let start = |role, variable, address: String, others: &[(&'static str, &str)]| {
            let mut settings = [&records[..], others].concat();
            settings.push(("CLOUDSERVE_SANDBOX_URLS", &urls));
            let settings: Vec<_> =
                settings.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
            async move {
                let mut settings: Vec<_> =
                    settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
                settings.push((variable, &address));
                RoleProcess::start(role, &address, &settings).await
            }
        };
        let gateway = |n| {
            start(
                "gateway",
                "CLOUDSERVE_GATEWAY_LISTEN",
                format!("{}:8081", host(first_host + n)),
                &[],
            )
        };
        let api = |n| {
            start("api", "CLOUDSERVE_API_LISTEN", format!("{}:8080", host(first_host + n)), &of_api)
        };
        let (gateways, apis) =
            tokio::join!(join_all((0..2).map(gateway)), join_all((0..2).map(api)));
        let objects_address = s3.to_owned();
        Self { apis, gateways, sandboxes, objects_address, bucket: name }
    }

    /// The same account by way of other processes.
    fn by(&self, account: &Account, api: usize, gateway: usize) -> Account {
        account.at(&self.apis[api].url, &self.gateways[gateway].url)
    }
}

/// Says which version it is, and what it was asked. Takes a while, so that most callers are in a call
/// at any moment.
fn version(name: &str, number: u32) -> Deploy {
    let code = format!(
        "import chunk from 'lodash/chunk.js';
         export default async (event) => {{
           await new Promise((done) => setTimeout(done, 30));
           return chunk(['v{number}', event.query.n], 2)[0].join(':');
         }};"
    );
    deploy(name, "echo.mjs", &code)
        .with("dependencies", json!({ "lodash": "4.17.21" }))
        .with("limits", json!({ "timeoutMs": 20_000, "concurrency": 50 }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_of_their_own_survive_kills_and_restarts() {
    let mut cluster = Cluster::start().await;
    let owner = Account::register(&cluster.apis[0].url, &cluster.gateways[0].url).await;
    let function = owner.deploy(&version("echo", 1)).await;
    let key = owner.key(&["invoke", "read"]).await;
    let gateways: Vec<_> = cluster.gateways.iter().map(|gateway| gateway.url.clone()).collect();
    for gateway in &gateways {
        let caller = owner.at(&cluster.apis[1].url, gateway).showing(&key);
        assert_eq!(caller.call("echo?n=7").await.expect(200).text(), "v1:7");
    }
    // For somebody who looks at the answer the API calls a gateway.
    let asked = format!("/api/function/{}/invoke", function.id);
    let asked = owner.post(&asked, &json!({ "path": "?n=8" })).await.expect(200).json();
    assert_eq!((&asked["status"], &asked["body"]), (&json!(200), &json!("v1:8")), "{asked:#}");
    secrets_stay_where_they_belong(&cluster, &owner).await;
    web_sockets_pass_every_process(&cluster, &owner).await;

    // A sandbox is killed: what is in it fails, and nothing else.
    let load = Load::start(&gateways, &owner.showing(&key), &["echo"]);
    load.wait_for_answers(200).await;
    let busiest = busiest(&cluster.sandboxes).await;
    cluster.sandboxes[busiest].kill().await;
    load.wait_for_answers(300).await;
    let killed = load.tally();
    assert!(
        killed.failures.iter().all(|failure| failure.contains("crashed")),
        "more than the calls in the sandbox failed: {killed:#?}"
    );
    assert!(killed.failures.len() <= load::CALLERS, "{killed:#?}");
    cluster.sandboxes[busiest].begin();
    cluster.sandboxes[busiest].wait_until_ready().await;
    load.wait_for_answers(100).await;

    // Every role is restarted in turn, and no call fails.
    let before = load.tally();
    for sandbox in &mut cluster.sandboxes {
        restart(sandbox, &load).await;
    }
    for gateway in &mut cluster.gateways {
        restart(gateway, &load).await;
    }
    for api in &mut cluster.apis {
        restart(api, &load).await;
    }
    let restarted = load.tally().since(&before);
    eprintln!("cluster: every role restarted: {restarted}");
    assert_eq!(restarted.failures, Vec::<String>::new(), "of {} calls", restarted.answered);

    // A version that one API activates is the one that both gateways call; none goes back.
    cluster.by(&owner, 1, 0).deploy(&version("echo", 2)).await;
    let by_hand = AtomicU64::new(3);
    for gateway in 0..2 {
        let caller = cluster.by(&owner, 0, gateway);
        wait_for("the new version", || async {
            by_hand.fetch_add(1, Relaxed);
            (caller.call("echo?n=1").await.expect(200).text() == "v2:1").then_some(())
        })
        .await;
    }
    let total = load.stop().await;
    eprintln!("cluster: {total}");
    assert_eq!(total.failures.len(), killed.failures.len(), "{total:#?}");
    let answered = total.answered + by_hand.into_inner();
    every_call_left_one_row(&cluster, &owner, &function.id, answered).await;

    deploys_end_once_whichever_process_ends(&mut cluster, &owner).await;
    damage::is_found_and_mended(&mut cluster, &owner).await;
}

/// Both directions until the caller ends it; then one usage row says so.
async fn web_sockets_pass_every_process(cluster: &Cluster, owner: &Account) {
    let code = include_str!("../../functions/websocket/deno.mjs");
    let form = deploy("socket", "socket.mjs", code).with("limits", json!({ "timeoutMs": 60_000 }));
    let function = owner.deploy(&form).await;
    for gateway in 0..cluster.gateways.len() {
        let caller = cluster.by(owner, 0, gateway);
        let mut socket = caller.web_socket("socket/a").open().await;
        assert_eq!(socket.next().await, Message::Text("open /a".to_owned()));
        for n in 0..20 {
            socket.text(&format!("{n}")).await;
            assert_eq!(socket.next().await, Message::Text(format!("{n}")));
        }
        let large = vec![7; 1024 * 1024];
        socket.binary(&large).await;
        assert_eq!(socket.next().await, Message::Binary(large));
        socket.close(4001, "bye").await;
        assert_eq!(socket.next().await, Message::Close(4001, "bye".to_owned()));
        assert_eq!(socket.next().await, Message::Gone);
        let usage = owner.usage_of(&function.id, socket.head.execution()).await;
        assert_eq!(usage.len(), 1, "{usage:?}");
        assert_eq!(usage[0]["status"], "success", "{usage:?}");

        // The function ends it.
        let mut socket = caller.web_socket("socket/b").open().await;
        assert_eq!(socket.next().await, Message::Text("open /b".to_owned()));
        socket.text("close").await;
        assert_eq!(socket.next().await, Message::Close(4002, "as you wish".to_owned()));
    }
}

async fn busiest(sandboxes: &[RoleProcess]) -> usize {
    let calls = sandboxes.iter().map(|sandbox| sandbox.metric("cloudserve_sandbox_calls_total"));
    let calls = join_all(calls).await;
    let most = calls.iter().max().unwrap();
    calls.iter().position(|n| n == most).unwrap()
}

async fn restart(process: &mut RoleProcess, load: &Load) {
    assert!(process.stop().await, "{}", process.output());
    process.begin();
    process.wait_until_ready().await;
    load.wait_for_answers(50).await;
}

/// Each answered call has a usage row, and only one; those that the kill cut off included.
async fn every_call_left_one_row(cluster: &Cluster, owner: &Account, id: &str, answered: u64) {
    let api = cluster.by(owner, 1, 1);
    let path = format!("/api/usage?functionId={id}");
    wait_for("the usage rows", || async {
        let usage = api.get(&path).await.expect(200).json();
        let executed = usage["totals"]["executed"].as_u64();
        let executed = executed.unwrap_or_else(|| panic!("no sum: {usage:#}"));
        assert!(executed <= answered, "{executed} rows of {answered} calls");
        (executed == answered).then_some(())
    })
    .await;
}

/// Deploys that two APIs took in are each activated once, though one of them ends meanwhile.
async fn deploys_end_once_whichever_process_ends(cluster: &mut Cluster, owner: &Account) {
    let accounts = [cluster.by(owner, 0, 0), cluster.by(owner, 1, 1)];
    let accepted = join_all((0..8).map(|n: usize| {
        let code = format!("export default () => {n}");
        let deploy = deploy(&format!("queued-{n}"), "f.mjs", &code);
        let account = accounts[n % 2].clone();
        async move { account.post("/api/function/deploy", &deploy.0).await.expect(202).json() }
    }))
    .await;
    assert!(cluster.apis[0].stop().await);
    let survivor = &accounts[1];
    for (n, view) in accepted.iter().enumerate() {
        let id = view["id"].as_str().unwrap();
        wait_for("a queued deploy to end", || async {
            (survivor.view(id).await["status"] == "active").then_some(())
        })
        .await;
        let answer = survivor.call(&format!("queued-{n}")).await.expect(200);
        assert_eq!(answer.json(), json!(n));
        let ends = |api: &RoleProcess| {
            api.output().lines().filter(|l| l.contains("deploy ended") && l.contains(id)).count()
        };
        assert_eq!(cluster.apis.iter().map(ends).sum::<usize>(), 1, "queued-{n}");
    }
    cluster.apis[0].begin();
    cluster.apis[0].wait_until_ready().await;
}

/// Workers see no secret, and a sandbox is asked nothing without the token.
async fn secrets_stay_where_they_belong(cluster: &Cluster, owner: &Account) {
    owner.deploy(&deploy("env", "env.mjs", "export default () => ({ ...process.env })")).await;
    let env: Value = owner.call("env").await.expect(200).json();
    assert!(!env.to_string().contains("CLOUDSERVE"), "{env}");
    for sandbox in &cluster.sandboxes {
        let mut n_read = 0;
        for pid in sandbox.children() {
            let environ = match std::fs::read(format!("/proc/{pid}/environ")) {
                Ok(environ) => environ,
                // A worker with a user of its own keeps it to itself. It is that of the zygote, which does
                // not, and of which it is a fork.
                Err(error) if error.kind() == ErrorKind::PermissionDenied => continue,
                Err(error) => {
                    assert!(!is_alive(pid), "the environment of a worker is not known: {error}");
                    continue;
                }
            };
            let environ = String::from_utf8_lossy(&environ);
            assert!(!environ.contains(TOKEN) && !environ.contains(servers::SECRET_KEY));
            n_read += 1;
        }
        assert!(n_read > 0, "the environment of no worker is known");
        for token in ["", "wrong", SECRET] {
            let asked = reqwest::Client::new().get(format!("{}/v1/status", sandbox.url));
            let answer = asked.bearer_auth(token).send().await.unwrap();
            assert_eq!(answer.status(), 401);
        }
        assert!(!sandbox.output().contains(TOKEN));
    }
}

#[tokio::test]
async fn roles_refuse_to_start_without_what_they_need() {
    let objects = [
        ("CLOUDSERVE_S3_BUCKET", "b"),
        ("CLOUDSERVE_S3_ACCESS_KEY", "a"),
        ("CLOUDSERVE_S3_SECRET_KEY", "s"),
    ];
    let records = [
        ("CLOUDSERVE_MONGODB_URI", "mongodb://127.0.0.1:1/x?replicaSet=rs0"),
        ("CLOUDSERVE_JWT_SECRET", SECRET),
        ("CLOUDSERVE_MASTER_KEY", SECRET),
    ];
    let token = [("CLOUDSERVE_INTERNAL_TOKEN", TOKEN)];
    let urls = [("CLOUDSERVE_SANDBOX_URLS", "http://127.0.0.1:1")];
    let free = |role| match role {
        "api" => ("CLOUDSERVE_API_LISTEN", "127.0.0.1:0"),
        "gateway" => ("CLOUDSERVE_GATEWAY_LISTEN", "127.0.0.1:0"),
        _ => ("CLOUDSERVE_SANDBOX_LISTEN", "127.0.0.1:0"),
    };
    let cases: [(&str, Vec<_>); 3] = [
        ("api", [&records[..], &objects, &token, &urls].concat()),
        ("gateway", [&records[..], &token, &urls].concat()),
        ("sandbox", [&objects[..], &token].concat()),
    ];
    for (role, needed) in cases {
        for (missing, _) in &needed {
            let mut given: Vec<_> =
                needed.iter().copied().filter(|(name, _)| name != missing).collect();
            given.push(free(role));
            let output = RoleProcess::start_refused(role, &given).await;
            assert!(output.contains(missing), "{role} without {missing}: {output}");
        }
    }
    let short = [&objects[..], &[("CLOUDSERVE_INTERNAL_TOKEN", "short"), free("sandbox")]].concat();
    let output = RoleProcess::start_refused("sandbox", &short).await;
    assert!(output.contains("CLOUDSERVE_INTERNAL_TOKEN"), "{output}");
    tokio::time::timeout(Duration::from_secs(60), frontend_serves_files_alone()).await.unwrap();
}

async fn frontend_serves_files_alone() {
    let address = format!("{}:8083", host(9));
    let ops = format!("{}:8084", host(9));
    let settings = [("CLOUDSERVE_FRONTEND_LISTEN", &*address), ("CLOUDSERVE_OPS_LISTEN", &*ops)];
    let mut frontend = RoleProcess::start("frontend", &address, &settings).await;
    for path in ["/", "/functions/x"] {
        let page = reqwest::get(format!("{}{path}", frontend.url)).await.unwrap();
        assert_eq!(page.status(), 200, "{path}");
        assert!(page.headers().contains_key("content-security-policy"));
    }
    for path in ["/api/auth/me", "/run/a/b"] {
        let nothing = reqwest::get(format!("{}{path}", frontend.url)).await.unwrap();
        assert_eq!(nothing.status(), 404, "{path}");
    }
    let alive = reqwest::get(format!("{}/healthz", frontend.url)).await.unwrap();
    assert_eq!(alive.status(), 200);
    for (path, status) in [("/readyz", 200), ("/", 404)] {
        let answer = reqwest::get(format!("http://{ops}{path}")).await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
    }
    assert!(frontend.stop().await);
}
