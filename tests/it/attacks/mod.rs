//! Programs that want to harm: each is deployed and called as any tenant could, and must end as
//! its row says, in time, while another account's function is called all along and notices
//! nothing.

mod files;
mod memory;
mod network;
mod process;
mod time;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use crate::support::{Account, TestServer, deploy};

/// Attackers at the same time: enough to be a nuisance, on two cores.
const AT_ONCE: usize = 3;

/// One group after the other: the rest of the suite has a machine to run on, too.
static GROUP: Mutex<()> = Mutex::const_new(());

/// What a call may take past its deadline.
const GRACE: Duration = Duration::from_secs(1);

/// What the victim's answer may take, however busy the machine.
const VICTIM: Duration = Duration::from_secs(5);

/// How an attack must end.
enum End {
    /// The attempt throws, and the program says so.
    Refused,
    /// The call fails with one of these codes.
    Fault(&'static [&'static str]),
    /// The attempt throws or the call fails with one of these.
    RefusedOr(&'static [&'static str]),
    /// Whatever it does hurts nobody but itself.
    Harmless,
    /// It is answered with this text.
    Answer(&'static str),
}

struct Attack {
    name: &'static str,
    /// The body of an async function. `API`, `REDIRECT`, `DATA` and `SECRET` are filled in.
    body: &'static str,
    end: End,
    timeout_ms: u64,
    cpu_ms: u64,
}

const fn attack(name: &'static str, end: End, body: &'static str) -> Attack {
    Attack { name, body, end, timeout_ms: 2_000, cpu_ms: 30_000 }
}

impl Attack {
    const fn within(mut self, timeout_ms: u64) -> Self {
        self.timeout_ms = timeout_ms;
        self
    }

    const fn cpu(mut self, cpu_ms: u64) -> Self {
        self.cpu_ms = cpu_ms;
        self
    }
}

/// What must never come back from any attack.
const SECRET: &str = "the-secret-of-the-victim";

/// What attacks are aimed at.
struct Scene {
    server: TestServer,
    victim: Account,
    redirector: u16,
}

async fn scene() -> Scene {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let redirector = listener.local_addr().unwrap().port();
    let open = format!("127.0.0.1:{redirector}");
    let server = TestServer::start_with(&[("CLOUDSERVE_EGRESS_ALLOW", &open)]).await;
    tokio::spawn(redirect(listener, format!("{}/healthz", server.api)));
    let victim = server.register().await;
    let code = "
        import fs from 'node:fs';
        fs.writeFileSync('/tmp/secret', process.env.SECRET);
        let calls = 0;
        export default () => ({ calls: ++calls, secret: fs.readFileSync('/tmp/secret', 'utf8') });
    ";
    let limits = json!({ "timeoutMs": 10_000, "concurrency": 1 });
    let function = deploy("victim", "victim.mjs", code)
        .with("env", json!({ "SECRET": SECRET }))
        .with("limits", limits);
    victim.deploy(&function).await;
    Scene { server, victim, redirector }
}

/// Answers every request: `/to` with a redirect to `target`, anything else with `reached`.
async fn redirect(listener: TcpListener, target: String) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let target = target.clone();
        tokio::spawn(async move {
            let mut head = vec![0; 4096];
            let n = stream.read(&mut head).await.unwrap_or(0);
            let answer = if head[..n].starts_with(b"GET /to") {
                format!(
                    "HTTP/1.1 302 Found\r\nlocation: {target}\r\ncontent-length: 0\r\n\
                     connection: close\r\n\r\n"
                )
            } else {
                "HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: close\r\n\r\nreached"
                    .to_owned()
            };
            let _ = stream.write_all(answer.as_bytes()).await;
        });
    }
}

impl Scene {
    fn program(&self, attack: &Attack) -> String {
        let data = self.server.data_dir();
        let body = attack
            .body
            .replace("API", self.server.api.trim_start_matches("http://127.0.0.1:"))
            .replace("REDIRECT", &self.redirector.to_string())
            .replace("DATA", data.to_str().unwrap());
        format!(
            "
            import fs from 'node:fs';
            import {{ createRequire }} from 'node:module';
            const require = createRequire(import.meta.url);
            const attempt = async (event) => {{ {body} }};
            export default async (event) => {{
              try {{
                return {{ got: String(await attempt(event)) }};
              }} catch (error) {{
                return {{ refused: String(error?.message ?? error) }};
              }}
            }};
            "
        )
    }

    /// Deploys and calls it. Says what is wrong with how it ended, if something is.
    async fn run(&self, attacker: &Account, attack: &Attack) -> Option<String> {
        let name = attack.name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let limits = json!({
            "timeoutMs": attack.timeout_ms, "cpuMs": attack.cpu_ms, "memoryMb": 64,
        });
        let function = deploy(&name, "attack.mjs", &self.program(attack)).with("limits", limits);
        attacker.deploy(&function).await;
        let begun = Instant::now();
        let answer = attacker.call(&name).await;
        let took = begun.elapsed();
        let (status, code, text) = (answer.status, answer.code(), answer.text());
        let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let is_refused = status == 200 && said["refused"].is_string();
        let is_one_of = |codes: &[&str]| status >= 500 && codes.contains(&code.as_str());
        let is_fine = match attack.end {
            End::Refused => is_refused,
            End::Fault(codes) => is_one_of(codes),
            End::RefusedOr(codes) => is_refused || is_one_of(codes),
            End::Harmless => true,
            End::Answer(expected) => status == 200 && said["got"] == expected,
        };
        let text: String = text.chars().take(300).collect();
        if !is_fine {
            return Some(format!("{}: {status} {code} {text}", attack.name));
        }
        if text.contains(SECRET) {
            return Some(format!("{}: it has the secret: {text}", attack.name));
        }
        if took > Duration::from_millis(attack.timeout_ms) + GRACE {
            return Some(format!("{}: took {took:?}", attack.name));
        }
        None
    }
}

async fn mount(attacks: &[Attack]) {
    let _one = GROUP.lock().await;
    let scene = scene().await;
    let attacker = scene.server.register().await;
    let is_over = AtomicBool::new(false);
    let watch = async {
        let mut calls = 0;
        while !is_over.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let answer = scene.victim.call("victim").await.expect(200).json();
            assert_eq!(answer["secret"], SECRET, "its file is its own");
            assert!(begun.elapsed() < VICTIM, "the victim waited for {:?}", begun.elapsed());
            calls += 1;
            // It never lost its process, with all it had in memory.
            assert_eq!(answer["calls"], calls, "the victim was started anew");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        calls
    };
    let strike = async {
        let wrong: Vec<String> = stream::iter(attacks)
            .map(|attack| scene.run(&attacker, attack))
            .buffer_unordered(AT_ONCE)
            .filter_map(|wrong| async { wrong })
            .collect()
            .await;
        is_over.store(true, Ordering::Relaxed);
        wrong
    };
    let (calls, wrong) = futures::join!(watch, strike);
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), attacks.len(), wrong.join("\n"));
    assert!(calls > 10, "{calls}");
}
