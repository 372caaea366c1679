//! What only the embedded installation promises: one server per directory, private files, no
//! acknowledged write lost to `kill -9`, and errors instead of nonsense from damaged files.

#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use cloudserve_protocol::artifact::{ArtifactError, ArtifactKey};
use cloudserve_protocol::ids::{BundleHash, DepHash, ExecutionId, FunctionId, SourceHash, UserId};
use cloudserve_protocol::limits::Limits;
use cloudserve_store::account::{Quota, User};
use cloudserve_store::function::{DeployError, NewVersion, SealedEnv, Source, Sweep};
use cloudserve_store::telemetry::{CallStatus, LogRow, UsageQuery, UsageRow};
use cloudserve_store::transfer::{Kind, Record};
use cloudserve_store::{
    DataDirLock, OpenError, StoreError, Stores, Timestamp, open_embedded, open_embedded_exclusive,
    open_embedded_transfer,
};
use futures::TryStreamExt;
use rusqlite::{Connection, params};

fn user(id: UserId) -> User {
    User {
        id,
        full_name: "Ada Lovelace".into(),
        user_name: "ada".parse().unwrap(),
        email: "ada@example.org".into(),
        password_hash: "$argon2id$".into(),
        quota: Quota::default(),
        created_at: Timestamp::now(),
    }
}

fn first_version(user_id: UserId, name: &str) -> NewVersion {
    NewVersion {
        function_id: FunctionId::new(),
        user_id,
        name: name.parse().unwrap(),
        version: 1,
        of_served: None,
        visibility: None,
        source: Source { stored_version: 1, entry: "index.ts".into(), ..Source::default() },
        source_hash: SourceHash::of(b""),
        env: SealedEnv::default(),
        limits: Limits::default(),
        built: None,
    }
}

fn call(user_id: UserId) -> UsageRow {
    UsageRow {
        function_id: FunctionId::new(),
        user_id,
        execution_id: ExecutionId::new(),
        version: 1,
        duration_ms: 1.0,
        cpu_ms: 1.0,
        memory_mb: 1.0,
        status: CallStatus::Success,
        code: "ok".into(),
        cold: false,
        timestamp: Timestamp::now(),
    }
}

/// An installation with one account and one accepted function.
async fn with_function(directory: &Path) -> (Stores, UserId, FunctionId) {
    let stores = open_embedded(directory).unwrap();
    let ada = UserId::new();
    stores.accounts.create_user(user(ada)).await.unwrap();
    let record = stores.functions.accept(first_version(ada, "hello")).await.unwrap();
    (stores, ada, record.function.id)
}

#[test]
fn one_process_serves_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let held = DataDirLock::acquire(directory.path()).unwrap();
    let error = DataDirLock::acquire(directory.path()).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }));
    assert!(error.to_string().ends_with("is in use by another cloudserve process"), "{error}");
    // Administration goes on beside the server.
    open_embedded(directory.path()).unwrap();
    drop(held);
    DataDirLock::acquire(directory.path()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_private() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("nested/data");
    let _lock = DataDirLock::acquire(&data_dir).unwrap();
    let (stores, _, function) = with_function(&data_dir).await;
    let key = ArtifactKey::Bundle { function, hash: BundleHash::of(b"x") };
    stores.artifacts.put(&key, Bytes::from_static(b"x")).await.unwrap();

    let mut pending = vec![data_dir];
    while let Some(path) = pending.pop() {
        let metadata = path.metadata().unwrap();
        let mode = metadata.permissions().mode() & 0o777;
        if metadata.is_dir() {
            assert_eq!(mode, 0o700, "{path:?}");
            pending.extend(path.read_dir().unwrap().map(|entry| entry.unwrap().path()));
        } else {
            assert_eq!(mode, 0o600, "{path:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_go_with_their_last_object_and_not_from_under_one_that_comes() {
    let directory = tempfile::tempdir().unwrap();
    let stores = open_embedded(directory.path()).unwrap();
    let hash = DepHash::of(b"deps");
    let of_a_tree = [
        ArtifactKey::DependencyMetadata { hash: hash.clone() },
        ArtifactKey::DependencyTree { hash },
    ];
    let coming_and_going = of_a_tree.map(|key| {
        let artifacts = stores.artifacts.clone();
        tokio::spawn(async move {
            for _ in 0..30 {
                artifacts.put(&key, Bytes::from_static(b"x")).await.unwrap();
                assert!(artifacts.exists(&key).await.unwrap());
                artifacts.delete(&key).await.unwrap();
            }
        })
    });
    for one in coming_and_going {
        one.await.unwrap();
    }
    let objects = directory.path().join("objects");
    assert!(!objects.join("deps").exists());

    let function = FunctionId::new();
    let source = |version| ArtifactKey::Source { function, version, path: "a/b.ts".into() };
    for version in 1..=2 {
        stores.artifacts.put(&source(version), Bytes::from_static(b"x")).await.unwrap();
    }
    stores.artifacts.delete(&source(1)).await.unwrap();
    let sources = objects.join(function.to_string()).join("src");
    assert!(!sources.join("1").exists() && sources.join("2/a/b.ts").exists());
    stores.artifacts.delete(&source(2)).await.unwrap();
    assert!(!objects.join(function.to_string()).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_of_dependencies_reads_no_folder_before_the_one_it_goes_on_from() {
    let directory = tempfile::tempdir().unwrap();
    let stores = open_embedded(directory.path()).unwrap();
    let mut keys =
        [&b"a"[..], b"b", b"c"].map(|of| ArtifactKey::DependencyTree { hash: DepHash::of(of) });
    keys.sort_by_key(ToString::to_string);
    for key in &keys {
        stores.artifacts.put(key, Bytes::from_static(b"x")).await.unwrap();
    }
    // Whoever reads this folder fails.
    let first = directory.path().join("objects").join(keys[0].to_string());
    let unreadable = first.with_file_name(OsStr::from_bytes(b"\xff"));
    std::fs::write(unreadable, b"x").unwrap();
    let list = async |after: Option<&ArtifactKey>| -> Result<Vec<ArtifactKey>, ArtifactError> {
        let listed = stores.artifacts.list_dependencies(after);
        listed.map_ok(|object| object.key).try_collect().await
    };
    assert!(list(None).await.is_err());
    assert_eq!(list(Some(&keys[1])).await.unwrap(), keys[2..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_there_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let (stores, ada, id) = with_function(directory.path()).await;
    stores.telemetry.record(vec![call(ada)], Vec::new()).await.unwrap();
    let before = stores.functions.function(ada, id).await.unwrap();
    drop(stores);

    let stores = open_embedded(directory.path()).unwrap();
    assert_eq!(stores.functions.function(ada, id).await.unwrap(), before);
    let query = UsageQuery { user_id: ada, function_id: None, from: None, to: None };
    assert_eq!(stores.telemetry.usage_totals(query).await.unwrap().executed, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn serving_again_takes_up_what_was_in_work() {
    let directory = tempfile::tempdir().unwrap();
    let (stores, ada, id) = with_function(directory.path()).await;
    let hour = Duration::from_hours(1);
    stores.functions.claim("dead", hour).await.unwrap().unwrap();
    let swept = stores.functions.accept(first_version(ada, "swept")).await.unwrap().function.id;
    let error = DeployError { code: "internal".into(), message: String::new() };
    stores.functions.fail(swept, 1, error).await.unwrap();
    let stored = vec![BundleHash::of(b"nobody's")];
    let sweep = Sweep { holder: "dead".into(), lease: hour, stored, ..Sweep::default() };
    assert!(stores.functions.prune(swept, 9, &sweep).await.unwrap().is_swept);
    let unaccepted = FunctionId::new();
    stores.functions.note_ahead(unaccepted).await.unwrap();
    let half_written = directory.path().join("objects/.tmp/half-written");
    std::fs::write(&half_written, b"x").unwrap();
    drop(stores);

    let stores = open_embedded(directory.path()).unwrap();
    assert!(stores.functions.claim("b", hour).await.unwrap().is_none());
    assert!(half_written.exists(), "it may belong to the server");
    assert!(stores.functions.is_swept(swept).await.unwrap());
    assert_eq!(stores.functions.remains(hour).await.unwrap(), None);
    drop(stores);

    let lock = DataDirLock::acquire(directory.path()).unwrap();
    let stores = open_embedded_exclusive(&lock).unwrap();
    let claimed = stores.functions.claim("b", hour).await.unwrap().unwrap();
    assert_eq!((claimed.function.id, claimed.attempt), (id, 2));
    assert!(!half_written.exists());
    assert!(!stores.functions.is_swept(swept).await.unwrap());
    assert_eq!(stores.functions.remains(hour).await.unwrap(), Some(unaccepted));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_without_its_row_does_no_harm() {
    let directory = tempfile::tempdir().unwrap();
    let (stores, ada, _) = with_function(directory.path()).await;
    let new = first_version(ada, "crashed");
    let key =
        ArtifactKey::Source { function: new.function_id, version: 1, path: "index.ts".into() };
    stores.artifacts.put(&key, Bytes::from_static(b"1")).await.unwrap();
    drop(stores);

    // The crash came before the row: the deploy was never accepted and can be sent again.
    let stores = open_embedded(directory.path()).unwrap();
    assert!(stores.functions.function_by_name(ada, &new.name).await.unwrap().is_none());
    stores.artifacts.put(&key, Bytes::from_static(b"2")).await.unwrap();
    stores.functions.accept(new).await.unwrap();
    assert_eq!(stores.artifacts.get(&key, 1).await.unwrap(), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_rows_are_errors() {
    for (damage, record) in [
        ("UPDATE versions SET limits = '{'", "function"),
        ("UPDATE versions SET source = '{\"entry\":1}'", "function"),
        ("UPDATE versions SET status = 'sleeping'", "function"),
        ("UPDATE versions SET source_hash = 'short'", "function"),
        (
            "UPDATE versions SET version = 4294967297; UPDATE functions SET latest_version = 4294967297",
            "function",
        ),
        ("UPDATE functions SET name = '../x'", "function"),
        ("UPDATE functions SET visibility = ''", "function"),
        ("UPDATE functions SET active_version = 0", "function"),
        (
            "PRAGMA foreign_keys = OFF; UPDATE functions SET id = x'00'; UPDATE versions SET function_id = x'00'",
            "function",
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let (stores, ada, _) = with_function(directory.path()).await;
        let raw = Connection::open(directory.path().join("meta.db")).unwrap();
        raw.execute_batch(damage).unwrap();
        match stores.functions.functions(ada, 10, None).await {
            Err(StoreError::Corrupt { record: found, .. }) => assert_eq!(found, record, "{damage}"),
            other => panic!("{damage}: {other:?}"),
        }
        // One damaged function does not stop the installation.
        stores.functions.accept(first_version(ada, "other")).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_deploy_does_not_stop_the_queue() {
    let directory = tempfile::tempdir().unwrap();
    let (stores, ada, damaged) = with_function(directory.path()).await;
    let raw = Connection::open(directory.path().join("meta.db")).unwrap();
    raw.execute_batch("UPDATE versions SET source = '{'").unwrap();
    let next = stores.functions.accept(first_version(ada, "next")).await.unwrap().function.id;

    let minute = Duration::from_mins(1);
    let claimed = stores.functions.claim("b", minute).await.unwrap().unwrap();
    assert_eq!(claimed.function.id, next);
    assert!(stores.functions.claim("b", minute).await.unwrap().is_none());
    let (status, error): (String, String) = raw
        .query_row(
            "SELECT status, error FROM versions WHERE function_id = ?1",
            [damaged.as_bytes()],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .unwrap();
    assert_eq!(status, "failed");
    assert!(error.contains("\"internal\""), "{error}");
}

#[test]
fn foreign_and_newer_files_are_refused_untouched() {
    for (change, message) in [
        ("PRAGMA user_version = 99", "has schema 99 but this release knows only 10"),
        ("PRAGMA application_id = 7", "is not a CloudServe database"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        drop(open_embedded(directory.path()).unwrap());
        let path = directory.path().join("meta.db");
        Connection::open(&path).unwrap().execute_batch(change).unwrap();
        let error = open_embedded(directory.path()).map(drop).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    for content in [&b"not a database, whatever the name says"[..], &[0; 5_000]] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("telemetry.db");
        std::fs::write(&path, content).unwrap();
        assert!(open_embedded(directory.path()).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), content);
    }
}

/// Usage as a release wrote it that knew two schemas; the last call was imported without its sum.
fn write_older_telemetry(path: &Path, rows: &[UsageRow]) {
    let raw = Connection::open(path).unwrap();
    raw.execute_batch(include_str!("../src/sqlite/schema/telemetry-1.sql")).unwrap();
    raw.execute_batch(include_str!("../src/sqlite/schema/telemetry-2.sql")).unwrap();
    raw.pragma_update(None, "application_id", i32::from_be_bytes(*b"CStd")).unwrap();
    raw.pragma_update(None, "user_version", 2).unwrap();
    let insert = |row: &UsageRow| {
        raw.execute(
            "INSERT INTO usage (execution_id, function_id, user_id, version, duration_ms, cpu_ms,
                                memory_mb, failed, code, cold, timestamp)
             VALUES (?1, ?2, ?3, 1, 1, 1, 1, 0, 'ok', 0, ?4)",
            params![
                row.execution_id.as_bytes(),
                row.function_id.as_bytes(),
                row.user_id.as_bytes(),
                row.timestamp.0,
            ],
        )
        .unwrap();
    };
    let (last, others) = rows.split_last().unwrap();
    others.iter().for_each(insert);
    raw.execute_batch(
        "INSERT INTO usage_days
         SELECT function_id, timestamp / 86400000, user_id, count(*), sum(failed), sum(cold),
                sum(duration_ms), sum(cpu_ms), sum(memory_mb), sum(memory_mb / 1024000.0)
         FROM usage GROUP BY function_id, timestamp / 86400000, user_id",
    )
    .unwrap();
    insert(last);
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_of_an_older_release_stays_what_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("telemetry.db");
    let (ada, bob) = (UserId::new(), UserId::new());
    let functions = [FunctionId::new(), FunctionId::new(), FunctionId::new()];
    let rows: Vec<_> = (0..61_u32)
        .map(|n| UsageRow {
            function_id: functions[if n == 60 { 2 } else { n as usize % 2 }],
            // Some begin in the same moment.
            timestamp: Timestamp(1_700_000_000_000 + i64::from(n / 4) * 30_000_000),
            ..call(if n % 5 == 3 { bob } else { ada })
        })
        .collect();
    write_older_telemetry(&path, &rows);

    // What was stored before and is sent again is not new.
    for _ in 0..2 {
        let stores = open_embedded(directory.path()).unwrap();
        stores.telemetry.record(rows.clone(), Vec::new()).await.unwrap();
        for (owner, executed) in [(ada, 48), (bob, 12)] {
            let query = UsageQuery { user_id: owner, function_id: None, from: None, to: None };
            let totals = stores.telemetry.usage_totals(query.clone()).await.unwrap();
            assert_eq!(totals.executed, executed);
            let mut expected: Vec<_> = rows.iter().filter(|row| row.user_id == owner).collect();
            expected.sort_by_key(|row| std::cmp::Reverse((row.timestamp, row.execution_id)));
            let page = stores.telemetry.usage_rows(query, 100, None).await.unwrap();
            assert_eq!(page.items.iter().collect::<Vec<_>>(), expected);
        }
    }
    let transfer = open_embedded_transfer(directory.path()).unwrap();
    let walked = transfer.records.read(Kind::Usages, None).await.unwrap();
    let walked: Vec<_> = walked.iter().map(Record::key).collect();
    assert!(walked.len() == rows.len() && walked.is_sorted(), "{walked:?}");
    let sums = transfer.records.read(Kind::UsageDays, None).await.unwrap();
    let is_of_the_last = |record: &Record| match record {
        Record::UsageDay(sums) => sums.function_id == functions[2],
        _ => false,
    };
    assert!(!sums.is_empty() && !sums.iter().any(is_of_the_last));

    let raw = Connection::open(&path).unwrap();
    let indexes = "SELECT count(*) FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'usage'";
    assert_eq!(raw.query_row(indexes, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
    let state: String = raw.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(state, "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn old_calls_go_and_their_sums_stay() {
    const BEGUN: i64 = 1_700_000_000_000;
    let directory = tempfile::tempdir().unwrap();
    let stores = open_embedded(directory.path()).unwrap();
    let ada = UserId::new();
    let functions = [FunctionId::new(), FunctionId::new(), FunctionId::new()];
    // Of two functions more than are removed at once; the third has young ones only.
    let rows: Vec<_> = (0..9_010_i64)
        .map(|n| UsageRow {
            function_id: functions[if n >= 9_000 { 2 } else { usize::from(n % 2 == 0) }],
            timestamp: Timestamp(BEGUN + n),
            ..call(ada)
        })
        .collect();
    stores.telemetry.record(rows.clone(), Vec::new()).await.unwrap();
    for gone in [8_990, 0] {
        let older = Timestamp(BEGUN + 8_990);
        assert_eq!(stores.telemetry.expire_usage(older).await.unwrap(), gone);
        let query = UsageQuery { user_id: ada, function_id: None, from: None, to: None };
        let left = stores.telemetry.usage_rows(query.clone(), 100, None).await.unwrap();
        assert!(left.items.iter().eq(rows[8_990..].iter().rev()), "{:?}", left.items);
        let totals = stores.telemetry.usage_totals(query).await.unwrap();
        assert_eq!(totals.executed, 9_010);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_from_long_ago_comes_in_bounded_steps() {
    let directory = tempfile::tempdir().unwrap();
    let stores = open_embedded(directory.path()).unwrap();
    let (own, other) = (FunctionId::new(), FunctionId::new());
    let rows: Vec<_> = (0..12_500)
        .map(|n| LogRow {
            function_id: if n % 4_000 == 1 { own } else { other },
            execution_id: ExecutionId::new(),
            lines: Vec::new(),
            duration_ms: 1.0,
            memory_mb: 1.0,
            status: CallStatus::Success,
            truncated: false,
            timestamp: Timestamp(n),
        })
        .collect();
    for batch in rows.chunks(2_500) {
        stores.telemetry.record(Vec::new(), batch.to_vec()).await.unwrap();
    }
    let (mut position, mut seen, mut steps) = ("0".to_owned(), Vec::new(), 0);
    loop {
        let tail = stores.telemetry.log_tail(own, Some(&position), 200).await.unwrap();
        seen.extend(tail.rows);
        if tail.position == position {
            break;
        }
        position = tail.position;
        steps += 1;
    }
    assert_eq!(steps, 3, "5 000 rows at a time");
    let expected: Vec<_> = rows.into_iter().filter(|row| row.function_id == own).collect();
    assert_eq!((seen.len(), seen == expected), (4, true));
}

const CHILD_DIRECTORY: &str = "CLOUDSERVE_STORE_TEST_CHILD";

/// Not a test of its own: the process that is killed. It prints what was acknowledged.
#[test]
#[ignore = "run by acknowledged_writes_survive_kill_9"]
#[allow(clippy::print_stdout)]
fn writer_to_be_killed() {
    let Ok(directory) = std::env::var(CHILD_DIRECTORY) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stores = open_embedded(Path::new(&directory)).unwrap();
        let ada = stores.accounts.user_by_email("ada@example.org").await.unwrap().unwrap().id;
        for number in 0.. {
            let new = first_version(ada, &format!("f{number}"));
            let function = new.function_id;
            let key = ArtifactKey::Source { function, version: 1, path: "index.ts".into() };
            stores.artifacts.put(&key, Bytes::from(function.to_string())).await.unwrap();
            stores.functions.accept(new).await.unwrap();
            let usage = UsageRow { function_id: function, ..call(ada) };
            stores.telemetry.record(vec![usage], Vec::new()).await.unwrap();
            println!("\nacknowledged {function}");
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_survive_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let (stores, ada, _) = with_function(directory.path()).await;
    drop(stores);
    for round in 1..=4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer_to_be_killed", "--ignored", "--nocapture"])
            .env(CHILD_DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut acknowledged: Vec<FunctionId> = Vec::new();
        for line in lines {
            if let Some(id) = line.strip_prefix("acknowledged ") {
                acknowledged.push(id.parse().unwrap());
                // Goes on reading after the kill: what was printed before it counts.
                if acknowledged.len() == round * 7 {
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        assert!(acknowledged.len() >= round * 7);

        let stores = open_embedded(directory.path()).unwrap();
        for function in acknowledged {
            assert!(stores.functions.function(ada, function).await.unwrap().is_some());
            let key = ArtifactKey::Source { function, version: 1, path: "index.ts".into() };
            assert_eq!(stores.artifacts.get(&key, 36).await.unwrap(), function.to_string());
            let stats = stores.telemetry.function_stats(&[function]).await.unwrap();
            assert_eq!(stats[0].1.executed, 1);
            // Names would collide in the next round.
            assert!(stores.functions.delete_function(ada, function).await.unwrap());
        }
        for left in stores.functions.functions(ada, 100, None).await.unwrap().items {
            stores.functions.delete_function(ada, left.function.id).await.unwrap();
        }
        drop(stores);
        let raw = Connection::open(directory.path().join("meta.db")).unwrap();
        let state: String = raw.query_row("PRAGMA integrity_check", [], |r| r.get(0)).unwrap();
        assert_eq!(state, "ok");
    }
}
