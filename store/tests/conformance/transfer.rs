//! Everything is walked in one order and put back as it was, whichever the back ends.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use cloudserve_protocol::artifact::{ArtifactError, ArtifactKey};
use cloudserve_protocol::call::{LogLevel, LogLine};
use cloudserve_protocol::ids::{ApiKeyId, AuditId, BundleHash, DepHash, FunctionId, UserId};
use cloudserve_store::account::{Actor, ApiKey, AuditEntry, Quota, Scope};
use cloudserve_store::function::{NewVersion, Version, Visibility};
use cloudserve_store::telemetry::{CallStatus, LogFilter, LogQuery, LogRow, UsageQuery, UsageRow};
use cloudserve_store::transfer::{Kind, ObjectTransfer, Record, StoredObject, Transfer, UsageSums};
use cloudserve_store::{OpenError, Stores, Timestamp};
use futures::TryStreamExt;

use crate::Installation;
use crate::fixtures::{
    NOON, built, deploy_error, first_version, log, next_version, registered, usage,
};

/// More than a page.
const ROWS: u32 = 1_234;

/// What is looked for again.
struct Filled {
    ada: UserId,
    function: FunctionId,
    key_hash: String,
}

fn number(n: u32) -> f64 {
    // Many digits, none of them round.
    f64::from(n) / 7.0 + 0.1
}

async fn fill_accounts(stores: &Stores) -> (UserId, String) {
    let ada = registered(stores, "ada").await;
    registered(stores, "bob").await;
    let quota =
        Quota { calls_per_day: Some(5), gb_seconds_per_month: Some(0.5), ..Quota::default() };
    stores.accounts.set_quota(ada, quota).await.unwrap();
    for (n, expires_at) in [(1_u8, None), (2, Some(Timestamp(i64::from(u32::MAX) * 1_000)))] {
        let key = ApiKey {
            id: ApiKeyId::new(),
            user_id: ada,
            name: format!("key \"{n}\""),
            key_hash: format!("{n:02x}").repeat(32),
            prefix: "cs_live".to_owned(),
            scopes: vec![Scope::Invoke, Scope::Read],
            functions: if n == 1 { Vec::new() } else { vec![FunctionId::new()] },
            expires_at,
            last_used_at: expires_at,
            created_at: Timestamp(NOON),
        };
        stores.accounts.create_api_key(key).await.unwrap();
    }
    for (n, actor) in
        [Actor::Session, Actor::Operator, Actor::ApiKey(ApiKeyId::new())].into_iter().enumerate()
    {
        let entry = AuditEntry {
            id: AuditId::new(),
            user_id: ada,
            actor,
            action: "quota.changed".to_owned(),
            subject: (n == 1).then(|| "something".to_owned()),
            detail: format!("line\nof {n}"),
            at: Timestamp(NOON + 1),
        };
        stores.accounts.record_audit(entry).await.unwrap();
    }
    let later = Timestamp::now().after(Duration::from_hours(1));
    stores.accounts.revoke_token("a token", later).await.unwrap();
    (ada, "01".repeat(32))
}

/// A function with a version of every kind, and one that is only accepted.
async fn fill_functions(stores: &Stores, ada: UserId) -> FunctionId {
    let new = first_version(ada, "hello");
    let id = new.function_id;
    for version in 1..=4 {
        stores.functions.accept(next_version(&new, version)).await.unwrap();
    }
    stores.functions.activate(id, 2, built()).await.unwrap();
    stores.functions.activate(id, 1, built()).await.unwrap();
    stores.functions.fail(id, 3, deploy_error()).await.unwrap();
    let lease = Duration::from_mins(1);
    assert_eq!(stores.functions.claim("a", lease).await.unwrap().unwrap().version.version, 4);
    stores.functions.set_visibility(ada, id, Visibility::Public).await.unwrap();
    let opening = NewVersion { visibility: Some(Visibility::Public), ..next_version(&new, 5) };
    stores.functions.accept(opening).await.unwrap();
    let other = NewVersion { built: Some(built()), ..first_version(ada, "other") };
    stores.functions.accept(other).await.unwrap();
    id
}

fn call(of: (UserId, FunctionId), n: u32) -> UsageRow {
    UsageRow {
        duration_ms: number(n),
        cpu_ms: number(n) / 3.0,
        memory_mb: number(n) / 11.0,
        status: if n.is_multiple_of(5) { CallStatus::Error } else { CallStatus::Success },
        cold: n.is_multiple_of(7),
        ..usage(of.0, of.1, NOON + i64::from(n) * 100_000)
    }
}

async fn fill_telemetry(
    stores: &Stores,
    ada: UserId,
    [function, other]: [FunctionId; 2],
    calls: std::ops::Range<u32>,
) {
    let of = |n: u32| (ada, if n.is_multiple_of(2) { function } else { other });
    let rows = calls.clone().map(|n| call(of(n), n)).collect();
    let logs = calls.step_by(100).map(|n| LogRow {
        lines: vec![LogLine {
            level: LogLevel::Warn,
            message: format!("{n}: \u{0} \"quoted\"\n\u{1f980}"),
            timestamp_ms: 1_700_000_000_123,
        }],
        duration_ms: number(n),
        truncated: n > 300,
        ..log(function, NOON + i64::from(n))
    });
    stores.telemetry.record(rows, logs.collect()).await.unwrap();
}

fn artifacts(function: FunctionId) -> Vec<ArtifactKey> {
    let (hash, deps) = (BundleHash::of(b"bundle"), DepHash::of(b"deps"));
    let source = |version, path: &str| ArtifactKey::Source { function, version, path: path.into() };
    vec![
        source(1, "abc/index.ts"),
        source(10, "abc/\u{e9}.ts"),
        source(2, &format!("abc/{}.ts", "long".repeat(50))),
        ArtifactKey::PackageJson { function },
        ArtifactKey::Bundle { function, hash: hash.clone() },
        ArtifactKey::SourceMap { function, hash: hash.clone() },
        ArtifactKey::Assets { function, hash },
        ArtifactKey::DependencyTree { hash: deps.clone() },
        ArtifactKey::DependencyMetadata { hash: deps },
        ArtifactKey::Resolution { spec_hash: "ab".repeat(32) },
    ]
}

fn content(n: usize) -> Bytes {
    vec![n.to_le_bytes()[0]; n * 100_000].into()
}

async fn fill(installation: &Installation) -> Filled {
    let stores = &installation.stores;
    let (ada, key_hash) = fill_accounts(stores).await;
    let function = fill_functions(stores, ada).await;
    // Calls are in another order than functions.
    let functions = [function, FunctionId::new()];
    fill_telemetry(stores, ada, functions, 0..ROWS / 2).await;
    // Another process, which may have sums of its own.
    let other = installation.place.open().await.unwrap();
    fill_telemetry(&other, ada, functions, ROWS / 2..ROWS).await;
    for (n, key) in artifacts(function).iter().enumerate() {
        stores.artifacts.put(key, content(n)).await.unwrap();
    }
    Filled { ada, function, key_hash }
}

/// All records of a kind, page by page.
async fn records(transfer: &Transfer, kind: Kind) -> Vec<Record> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = transfer.records.read(kind, after.as_ref()).await.unwrap();
        let Some(last) = page.last() else { return all };
        after = Some(last.key());
        all.extend(page);
    }
}

/// All lines, which are read again as what they were.
async fn lines(transfer: &Transfer) -> Vec<(Kind, Vec<String>)> {
    let mut all = Vec::new();
    for kind in Kind::ALL {
        let records = records(transfer, kind).await;
        assert!(records.iter().all(|record| record.kind() == kind), "{kind}");
        assert!(records.is_sorted_by(|a, b| a.key() < b.key()), "{kind}");
        let lines: Vec<String> = records.iter().map(|record| record.to_line().unwrap()).collect();
        for line in &lines {
            assert_eq!(&Record::parse(line).unwrap().to_line().unwrap(), line);
        }
        all.push((kind, lines));
    }
    all
}

async fn objects(transfer: &Transfer) -> Vec<StoredObject> {
    let objects: Vec<StoredObject> = transfer.objects.list().try_collect().await.unwrap();
    assert!(objects.is_sorted_by(|a, b| a.key < b.key), "{objects:#?}");
    objects
}

async fn whole(objects: &dyn ObjectTransfer, key: &str) -> Vec<u8> {
    let pieces: Vec<Bytes> = objects.open(key).await.unwrap().try_collect().await.unwrap();
    pieces.concat()
}

async fn copy(from: &Transfer, to: &Transfer) {
    let kinds = [Kind::Users].into_iter().chain(Kind::ALL);
    for kind in kinds {
        let all = records(from, kind).await;
        for some in all.chunks(100) {
            to.records.insert(kind, some.to_vec()).await.unwrap();
        }
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for object in objects(from).await {
        let bytes = whole(&*from.objects, &object.key).await;
        file.as_file().set_len(0).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        file.write_all(&bytes).unwrap();
        to.objects.put(&object.key, file.path()).await.unwrap();
    }
}

pub(crate) async fn everything_moves(from: &Installation, to: &Installation) {
    assert!(lines(&to.transfer).await.iter().all(|(_, lines)| lines.is_empty()));
    assert!(objects(&to.transfer).await.is_empty());
    let filled = fill(from).await;
    let before = lines(&from.transfer).await;
    let counts: Vec<(Kind, usize)> = before.iter().map(|(kind, all)| (*kind, all.len())).collect();
    let rows = ROWS as usize;
    let expected = [
        (Kind::RevokedTokens, 1),
        (Kind::ApiKeys, 2),
        (Kind::Audit, 3),
        (Kind::Functions, 2 + 6),
        (Kind::Users, 2),
        (Kind::UsageDays, 2 * 3),
        (Kind::Usages, rows),
        (Kind::Logs, 14),
    ];
    assert_eq!(counts, expected);
    // Nothing is added twice, to the sums neither; nothing is added to where it came from.
    copy(&from.transfer, &to.transfer).await;
    copy(&from.transfer, &to.transfer).await;
    copy(&from.transfer, &from.transfer).await;
    for transfer in [&to.transfer, &from.transfer] {
        assert_eq!(lines(transfer).await, before);
    }
    same_objects(from, to, filled.function).await;
    same_answers(&from.stores, &to.stores, &filled).await;
}

async fn same_objects(from: &Installation, to: &Installation, function: FunctionId) {
    let mut expected: Vec<_> = artifacts(function)
        .iter()
        .enumerate()
        .map(|(n, key)| StoredObject { key: key.to_string(), bytes: content(n).len() as u64 })
        .collect();
    expected.sort_by(|a, b| a.key.cmp(&b.key));
    for installation in [from, to] {
        assert_eq!(objects(&installation.transfer).await, expected);
        for (n, key) in artifacts(function).iter().enumerate() {
            let bytes = whole(&*installation.transfer.objects, &key.to_string()).await;
            assert_eq!(bytes, content(n), "{key}");
        }
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    for key in ["", "cloudserve.json", "/x/y", "../x", "a/../../x", ".tmp/x", "a//b", "a/"] {
        let put = to.transfer.objects.put(key, file.path()).await;
        assert!(matches!(put, Err(ArtifactError::Backend { .. })), "{key}");
        assert!(to.transfer.objects.open(key).await.is_err(), "{key}");
    }
    let absent = to.transfer.objects.open("a/b").await.err();
    assert!(matches!(absent, Some(ArtifactError::NotFound { .. })), "{absent:?}");
}

/// The product sees the same over both.
async fn same_answers(from: &Stores, to: &Stores, filled: &Filled) {
    let usage = UsageQuery { user_id: filled.ada, function_id: None, from: None, to: None };
    let logs = LogQuery {
        function_id: filled.function,
        limit: 100,
        after: None,
        execution_id: None,
        filter: LogFilter::default(),
    };
    for stores in [from, to] {
        let ada = stores.accounts.user_by_email("ada@example.org").await.unwrap().unwrap();
        assert_eq!((ada.id, ada.quota.calls_per_day), (filled.ada, Some(5)));
        let key = stores.accounts.api_key_by_hash(&filled.key_hash).await.unwrap().unwrap();
        assert_eq!(key.user_id, filled.ada);
        assert!(stores.accounts.is_token_revoked("a token").await.unwrap());
        let name = "hello".parse().unwrap();
        let route = stores.functions.route(&ada.user_name, &name).await.unwrap().unwrap();
        assert_eq!(route.active.unwrap().version, 2);
        let totals = stores.telemetry.usage_totals(usage.clone()).await.unwrap();
        assert_eq!(totals.executed, u64::from(ROWS));
        let latency = stores.telemetry.latency_by_day(usage.clone()).await.unwrap();
        let calls: u64 = latency.iter().map(|day| day.latency.calls()).sum();
        assert_eq!(calls, u64::from(ROWS));
        assert_eq!(stores.telemetry.logs(logs.clone()).await.unwrap().rows.len(), 14);
    }
    let (here, there) = (
        from.functions.versions(filled.ada, filled.function, 10),
        to.functions.versions(filled.ada, filled.function, 10),
    );
    let (here, there) = (here.await.unwrap(), there.await.unwrap());
    assert_eq!(here[2..], there[2..]);
    // What waited or was in work begins there, the oldest first.
    let lease = Duration::from_mins(1);
    let mut waiting = Vec::new();
    while let Some(claimed) = to.functions.claim("b", lease).await.unwrap() {
        let Version { version, makes_public, .. } = claimed.version;
        waiting.push((claimed.function.name.to_string(), version, makes_public));
    }
    let waited = [("hello", 4, false), ("hello", 5, true), ("other", 1, false)];
    assert_eq!(waiting, waited.map(|(name, version, opens)| (name.to_owned(), version, opens)));
}

pub(crate) async fn an_unfinished_import_keeps_others_out(installation: &Installation) {
    let Installation { transfer, place, .. } = installation;
    for _ in 0..2 {
        transfer.records.begin_import().await.unwrap();
        let refused = place.open().await.err().unwrap();
        assert!(matches!(refused, OpenError::Importing { .. }), "{refused:?}");
        let refused = place.open_transfer().await.err().unwrap();
        assert!(matches!(refused, OpenError::Importing { .. }), "{refused:?}");
    }
    for _ in 0..2 {
        transfer.records.finish_import().await.unwrap();
        place.open().await.unwrap();
    }
}

/// As it may be in what was exported beside a running server.
pub(crate) async fn a_call_without_its_sum_is_found(installation: &Installation) {
    let Installation { stores, transfer, .. } = installation;
    let (ada, function) = (UserId::new(), FunctionId::new());
    let row = call((ada, function), 1);
    let of_ada = || UsageQuery { user_id: ada, function_id: None, from: None, to: None };
    let calls = || vec![Record::Usage(row.clone())];
    transfer.records.insert(Kind::Usages, calls()).await.unwrap();
    let page = stores.telemetry.usage_rows(of_ada(), 10, None).await.unwrap();
    assert_eq!(page.items, std::slice::from_ref(&row));
    assert_eq!(records(transfer, Kind::Usages).await.len(), 1);
    // Of nothing there is no sum.
    assert!(records(transfer, Kind::UsageDays).await.is_empty());
    assert!(stores.telemetry.usage_by_day(of_ada()).await.unwrap().is_empty());
    assert!(stores.telemetry.usage_by_function(of_ada()).await.unwrap().is_empty());

    let sums = UsageSums {
        function_id: function,
        day: row.timestamp.day(),
        user_id: ada,
        executed: 1,
        errors: 0,
        cold: 0,
        duration_ms: row.duration_ms,
        cpu_ms: row.cpu_ms,
        memory_mb: row.memory_mb,
        gb_seconds: 0.5,
        latency: Default::default(),
    };
    for _ in 0..2 {
        let sums = vec![Record::UsageDay(sums.clone())];
        transfer.records.insert(Kind::UsageDays, sums).await.unwrap();
        transfer.records.insert(Kind::Usages, calls()).await.unwrap();
    }
    assert_eq!(stores.telemetry.usage_totals(of_ada()).await.unwrap().executed, 1);
    let found = records(transfer, Kind::UsageDays).await;
    let [Record::UsageDay(found)] = &found[..] else { panic!("{} sums", found.len()) };
    assert_eq!(found, &sums);
}
