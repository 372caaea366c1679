//! Every way to fail has its own code, is over by the deadline plus a second, leaves one usage row
//! and one log row, and touches no other function.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    Account, Answer, Deployed, cpu_ticks, deploy, send, server, signal, wait_for,
};

const FAULTS: &str = include_str!("../functions/faults.mjs");
const TIMEOUT: Duration = Duration::from_secs(5);
const GRACE: Duration = Duration::from_secs(1);

struct Case {
    way: &'static str,
    status: u16,
    /// Of the answer and of the usage row.
    code: &'static str,
    /// What the owner's log must say and the caller must not see.
    log: &'static str,
}

const CASES: &[Case] = &[
    Case { way: "spin", status: 504, code: "timeout", log: "" },
    Case { way: "hang", status: 504, code: "timeout", log: "" },
    Case { way: "throw", status: 500, code: "handler_error", log: "secret detail" },
    Case { way: "reject", status: 500, code: "handler_error", log: "secret detail" },
    Case { way: "recurse", status: 500, code: "handler_error", log: "RangeError" },
    Case { way: "exit", status: 500, code: "crashed", log: "" },
    Case { way: "abort", status: 500, code: "crashed", log: "" },
    Case { way: "heap", status: 500, code: "memory_limit", log: "" },
    Case { way: "buffers", status: 500, code: "memory_limit", log: "" },
    Case { way: "tooMuch", status: 502, code: "response_too_large", log: "" },
];

async fn deploy_faults(owner: &Account) -> Deployed {
    let limits = json!({ "timeoutMs": TIMEOUT.as_millis(), "memoryMb": 64 });
    owner.deploy(&deploy("faults", "faults.mjs", FAULTS).with("limits", limits)).await
}

/// One call and its two rows, which must be exactly two.
async fn one_call(owner: &Account, function: &Deployed, way: &str) -> (Answer, Value, Value) {
    let started = Instant::now();
    let answer = owner.call(&format!("faults?way={way}")).await;
    let elapsed = started.elapsed();
    assert!(elapsed < TIMEOUT + GRACE, "{way} took {elapsed:?}");
    let mut usage = owner.usage_of(&function.id, answer.execution()).await;
    let mut logs = owner.logs_of(&function.id, answer.execution()).await;
    assert_eq!((usage.len(), logs.len()), (1, 1), "{way}: {usage:#?} {logs:#?}");
    (answer, usage.remove(0), logs.remove(0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_has_its_code_and_its_rows_and_stays_alone() {
    let server = server().await;
    let (owner, neighbour) = (server.register().await, server.register().await);
    let function = deploy_faults(&owner).await;
    neighbour.deploy(&deploy("calm", "calm.mjs", "export default () => 'calm'")).await;

    let done = AtomicBool::new(false);
    let watch = async {
        let mut calls = 0;
        while !done.load(Ordering::Relaxed) {
            assert_eq!(neighbour.call("calm").await.expect(200).text(), "calm");
            calls += 1;
        }
        calls
    };
    let fail = async {
        for case in CASES {
            let way = case.way;
            let (answer, usage, log) = one_call(&owner, &function, way).await;
            assert_eq!((answer.status, answer.code().as_str()), (case.status, case.code), "{way}");
            assert!(!answer.text().contains("secret detail"), "{way}: {}", answer.text());
            assert!(!answer.text().contains(" at "), "no stack: {}", answer.text());
            assert_eq!(answer.json()["error"]["executionId"], answer.execution());
            assert_eq!((&usage["status"], &usage["code"]), (&json!("error"), &json!(case.code)));
            assert!(usage["memoryUsed"].as_f64() > Some(0.0), "{way}: {usage:#}");
            assert_eq!(log["status"], "error", "{way}: {log:#}");
            assert!(log["logs"].to_string().contains(case.log), "{way}: {log:#}");
            assert_eq!(owner.call("faults?way=fine").await.expect(200).text(), "fine", "{way}");
        }
        done.store(true, Ordering::Relaxed);
    };
    let (calls, ()) = futures::join!(watch, fail);
    assert!(calls > 0);
}

#[tokio::test]
async fn a_huge_log_is_cut_and_marked() {
    let owner = server().await.register().await;
    let function = deploy_faults(&owner).await;
    let (answer, usage, log) = one_call(&owner, &function, "shout").await;
    assert_eq!(answer.expect(200).text(), "hoarse");
    assert_eq!(usage["status"], "success");
    assert_eq!(log["truncated"], true);
    let bytes: usize = log["logs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["message"].as_str().unwrap().len())
        .sum();
    assert!((200 * 1024..=260 * 1024).contains(&bytes), "{bytes}");
}

#[tokio::test]
async fn a_rejection_after_the_answer_does_not_change_it() {
    let owner = server().await.register().await;
    let function = deploy_faults(&owner).await;
    let (answer, usage, _) = one_call(&owner, &function, "rejectLater").await;
    assert_eq!(answer.expect(200).text(), "answered");
    assert_eq!(usage["status"], "success");
    for _ in 0..20 {
        assert_eq!(owner.call("faults?way=fine").await.expect(200).text(), "fine");
    }
}

#[tokio::test]
async fn a_worker_that_is_killed_is_a_crash_and_the_next_call_works() {
    let server = server().await;
    let owner = server.register().await;
    let code = "
        export default ({ query }) => {
          const end = Date.now() + Number(query.spin ?? 0);
          while (Date.now() < end);
          return process.pid;
        };
    ";
    let limits = json!({ "timeoutMs": 60_000, "concurrency": 1 });
    let function = owner.deploy(&deploy("pid", "pid.mjs", code).with("limits", limits)).await;
    let pid: u32 = owner.call("pid").await.expect(200).text().parse().unwrap();
    assert!(server.children().contains(&pid));

    let idle = cpu_ticks(pid);
    let call = tokio::spawn(send(owner.run(Method::GET, "pid?spin=50000")));
    wait_for("the call to be in the worker", || async move {
        (cpu_ticks(pid) > idle + 5).then_some(())
    })
    .await;
    signal(pid, libc::SIGKILL);
    let answer = call.await.unwrap();
    assert_eq!((answer.status, answer.code().as_str()), (500, "crashed"));
    assert_eq!(owner.usage_of(&function.id, answer.execution()).await[0]["code"], "crashed");

    let next: u32 = owner.call("pid").await.expect(200).text().parse().unwrap();
    assert_ne!(next, pid);
}

#[tokio::test]
async fn cpu_time_has_a_limit_of_its_own() {
    let owner = server().await.register().await;
    let limits = json!({ "timeoutMs": TIMEOUT.as_millis(), "memoryMb": 64, "cpuMs": 300 });
    let faults = deploy("faults", "faults.mjs", FAULTS).with("limits", limits);
    let function = owner.deploy(&faults).await;
    let (answer, usage, log) = one_call(&owner, &function, "spin").await;
    assert_eq!((answer.status, answer.code().as_str()), (500, "cpu_limit"));
    assert_eq!((&usage["status"], &usage["code"]), (&json!("error"), &json!("cpu_limit")));
    assert!(usage["cpu"].as_f64() >= Some(300.0), "{usage:#}");
    assert!(log["logs"].to_string().contains("limits.cpuMs"), "{log:#}");
    assert_eq!(owner.call("faults?way=fine").await.expect(200).text(), "fine");
}

#[tokio::test]
async fn a_module_that_fails_later_is_a_startup_error() {
    let owner = server().await.register().await;
    // It loads while it is deployed, and from a moment on never again.
    let code = "
        if (Date.now() > Number(process.env.UNTIL)) throw new Error('secret detail');
        export default ({ query }) => { if (query.exit) process.exit(0); return 'fine'; };
    ";
    let mut time_ms = 2_000;
    loop {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let until = now.as_millis() + time_ms;
        let late = deploy("late", "f.mjs", code).with("env", json!({ "UNTIL": until.to_string() }));
        let view = owner.try_deploy(&late).await.expect(200).json();
        if view["status"] == "active" {
            break;
        }
        // The machine was slower than that.
        time_ms *= 2;
        assert!(time_ms < 60_000, "{view:#}");
    }
    let refused = wait_for("the module to fail", || async {
        let answer = owner.call("late?exit=1").await.expect(500);
        match answer.code().as_str() {
            "crashed" => None,
            "startup_error" => Some(answer),
            other => panic!("{other}"),
        }
    })
    .await;
    assert!(!refused.text().contains("secret detail"), "{}", refused.text());
}
