//! What only the production back ends promise: processes that share them see each other's changes,
//! servers that are down are said to be down, only those who serve say how long things are kept, large
//! objects arrive in parts, and damaged ones are mended.

#![allow(clippy::unwrap_used, clippy::large_futures)]

#[allow(dead_code, reason = "shared with other test programs")]
mod servers;

use std::io::Write;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cloudserve_protocol::artifact::{ArtifactKey, ArtifactStore};
use cloudserve_protocol::ids::{BundleHash, DepHash, FunctionId, SourceHash, UserId};
use cloudserve_protocol::limits::Limits;
use cloudserve_store::account::{Quota, User};
use cloudserve_store::function::{NewVersion, SealedEnv, Source, Visibility};
use cloudserve_store::{
    Ages, Change, ChecksumMode, MongoOptions, OpenError, S3Options, StoreError, Stores, Timestamp,
    open_production, open_production_import, open_production_transfer,
};
use futures::TryStreamExt;
use mongodb::IndexModel;
use mongodb::bson::{Document, doc};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const PART_BYTES: usize = 5 * 1024 * 1024;
const DAY: Duration = Duration::from_hours(24);

/// Options of a new installation on the shared servers.
async fn new_options() -> (MongoOptions, S3Options) {
    let (mongod, s3) = tokio::join!(servers::mongod(), servers::s3());
    servers::options(mongod, s3, &servers::unique_name())
}

async fn open(options: &(MongoOptions, S3Options)) -> Stores {
    open_production(&options.0, &options.1).await.unwrap()
}

async fn account(stores: &Stores) -> UserId {
    let id = UserId::new();
    let user = User {
        id,
        full_name: "Ada Lovelace".into(),
        user_name: "ada".parse().unwrap(),
        email: "ada@example.org".into(),
        password_hash: "$argon2id$".into(),
        quota: Quota::default(),
        created_at: Timestamp::now(),
    };
    stores.accounts.create_user(user).await.unwrap();
    id
}

fn version(user_id: UserId, name: &str) -> NewVersion {
    NewVersion {
        function_id: FunctionId::new(),
        user_id,
        name: name.parse().unwrap(),
        version: 1,
        of_served: None,
        visibility: None,
        source: Source {
            stored_version: 1,
            entry: "index.ts".into(),
            dependencies: [("lodash.chunk".into(), "^4".into())].into(),
            ..Source::default()
        },
        source_hash: SourceHash::of(b""),
        env: SealedEnv::default(),
        limits: Limits::default(),
        built: None,
    }
}

async fn next(feed: &mut tokio::sync::broadcast::Receiver<Change>) -> Change {
    let change = tokio::time::timeout(Duration::from_mins(1), feed.recv()).await;
    change.expect("the change arrives").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_learns_what_another_one_changed() {
    let options = new_options().await;
    let (here, there) = (open(&options).await, open(&options).await);
    let ada = account(&here).await;
    let (mut near, mut far) = (here.changes.subscribe(), there.changes.subscribe());
    let new = version(ada, "hello");
    let id = new.function_id;
    here.functions.accept(new).await.unwrap();
    for feed in [&mut near, &mut far] {
        assert_eq!(next(feed).await, Change::Function(id));
        assert_eq!(next(feed).await, Change::DeploymentQueued);
    }
    there.functions.set_visibility(ada, id, Visibility::Public).await.unwrap();
    for feed in [&mut near, &mut far] {
        assert_eq!(next(feed).await, Change::Function(id));
    }
    let seen = here.functions.function(ada, id).await.unwrap().unwrap();
    assert_eq!(seen.function.visibility, Visibility::Public);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_polled_for_while_the_stream_is_broken() {
    let options = new_options().await;
    let stores = open(&options).await;
    let ada = account(&stores).await;
    let mut feed = stores.changes.subscribe();
    let raw = mongodb::Client::with_uri_str(&options.0.uri).await.unwrap();
    let database = raw.default_database().unwrap();
    // Ends every change stream of the collection.
    database.collection::<Document>("changes").drop().await.unwrap();
    let other = open(&options).await;
    let new = version(ada, "hello");
    let id = new.function_id;
    other.functions.accept(new).await.unwrap();
    assert_eq!(next(&mut feed).await, Change::Function(id));
    assert_eq!(next(&mut feed).await, Change::DeploymentQueued);
    // And the stream, or the polling, goes on after that.
    other.functions.set_visibility(ada, id, Visibility::Public).await.unwrap();
    assert_eq!(next(&mut feed).await, Change::Function(id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_is_an_error_in_time_and_no_loss_when_it_is_back() {
    let (mongod, s3) = tokio::join!(servers::start_mongod(), servers::s3());
    let (mongo, s3) = servers::options(&mongod, s3, &servers::unique_name());
    let mongo = MongoOptions { operation_timeout_ms: 3_000, connect_timeout_ms: 1_000, ..mongo };
    let stores = open_production(&mongo, &s3).await.unwrap();
    let ada = account(&stores).await;

    // It hangs: as bad as being gone, and found out in time.
    let signal = |number| {
        // SAFETY: no memory is passed.
        unsafe { libc::kill(mongod.pid().cast_signed(), number) };
    };
    signal(libc::SIGSTOP);
    let begun = Instant::now();
    for _ in 0..2 {
        let failed = stores.accounts.user(ada).await;
        assert!(matches!(failed, Err(StoreError::Unavailable { .. })), "stopped");
        let failed = stores.functions.accept(version(ada, "lost")).await;
        assert!(matches!(failed, Err(StoreError::Unavailable { .. })), "stopped");
    }
    assert!(begun.elapsed() < Duration::from_mins(1), "{:?}", begun.elapsed());
    signal(libc::SIGCONT);
    let end = Instant::now() + Duration::from_mins(1);
    while let Err(error) = stores.accounts.user(ada).await {
        assert!(Instant::now() < end, "{error:?}");
    }
    let new = version(ada, "hello");
    stores.functions.accept(new.clone()).await.unwrap();
    assert!(stores.functions.function(ada, new.function_id).await.unwrap().is_some());

    drop(mongod);
    let error = open_production(&mongo, &s3).await.err().unwrap();
    assert!(matches!(error, OpenError::Unreachable { server: "MongoDB", .. }), "{error:?}");
    assert!(error.to_string().contains("127.0.0.1"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ours_is_refused_untouched() {
    let options = new_options().await;
    drop(open(&options).await);
    let raw = mongodb::Client::with_uri_str(&options.0.uri).await.unwrap();
    let database = raw.default_database().unwrap();
    let meta = database.collection::<Document>("meta");
    meta.update_one(doc! { "_id": "schema" }, doc! { "$set": { "version": 99_i64 } })
        .await
        .unwrap();
    let error = open_production(&options.0, &options.1).await.err().unwrap();
    assert!(error.to_string().contains("has version 99 but this release knows only 5"), "{error}");
    // One that stopped in the middle of making an older one goes on.
    meta.update_one(doc! { "_id": "schema" }, doc! { "$set": { "version": 0_i64 } }).await.unwrap();
    account(&open(&options).await).await;

    let foreign = new_options().await;
    let raw = mongodb::Client::with_uri_str(&foreign.0.uri).await.unwrap();
    let database = raw.default_database().unwrap();
    database.collection::<Document>("users").insert_one(doc! { "theirs": 1 }).await.unwrap();
    let error = open_production(&foreign.0, &foreign.1).await.err().unwrap();
    assert!(matches!(error, OpenError::ForeignDatabase { .. }), "{error:?}");
    assert_eq!(database.list_collection_names().await.unwrap(), ["users"]);

    let (mongo, foreign) = new_options().await;
    let raw = servers::client(foreign.endpoint.as_deref().unwrap().trim_start_matches("http://"));
    let keys = async || {
        let listed = raw.list_objects_v2().bucket(&foreign.bucket).send().await.unwrap();
        let objects = listed.contents.unwrap_or_default().into_iter();
        objects.map(|object| object.key.unwrap()).collect::<Vec<_>>()
    };
    // An empty one that was made for us is as good as none.
    raw.create_bucket().bucket(&foreign.bucket).send().await.unwrap();
    drop(open_production(&mongo, &foreign).await.unwrap());
    assert_eq!(keys().await, ["cloudserve.json"]);
    raw.delete_object().bucket(&foreign.bucket).key("cloudserve.json").send().await.unwrap();
    let body = Bytes::from_static(b"theirs").into();
    let put = raw.put_object().bucket(&foreign.bucket).key("photos/1.jpg").body(body);
    put.send().await.unwrap();
    let error = open_production(&mongo, &foreign).await.err().unwrap();
    assert!(matches!(error, OpenError::ForeignBucket { .. }), "{error:?}");
    assert_eq!(keys().await, ["photos/1.jpg"]);

    let wrong = S3Options { secret_key: "wrong".into(), ..options.1.clone() };
    let error = open_production(&options.0, &wrong).await.err().unwrap();
    assert!(matches!(error, OpenError::Unreachable { server: "S3", .. }), "{error:?}");
    assert!(!format!("{error:?}").contains("wrong"), "a secret is shown");
    for uri in ["mongodb://u:hunter2@", "nonsense hunter2", "mongodb://u:hunter2@127.0.0.1:1/"] {
        let mongo = MongoOptions { uri: uri.into(), ..options.0.clone() };
        let error = open_production(&mongo, &options.1).await.err().unwrap();
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_does_not_stop_the_queue() {
    let options = new_options().await;
    let stores = open(&options).await;
    let ada = account(&stores).await;
    let damaged = stores.functions.accept(version(ada, "damaged")).await.unwrap().function.id;
    let raw = mongodb::Client::with_uri_str(&options.0.uri).await.unwrap();
    let versions = raw.default_database().unwrap().collection::<Document>("versions");
    versions.update_one(doc! {}, doc! { "$set": { "source": "{" } }).await.unwrap();
    let next = stores.functions.accept(version(ada, "next")).await.unwrap().function.id;
    let unreadable = stores.functions.function(ada, damaged).await;
    assert!(matches!(unreadable, Err(StoreError::Corrupt { .. })), "{unreadable:?}");

    let minute = Duration::from_mins(1);
    let claimed = stores.functions.claim("b", minute).await.unwrap().unwrap();
    assert_eq!(claimed.function.id, next);
    assert!(stores.functions.claim("b", minute).await.unwrap().is_none());
    let found = versions.find_one(doc! { "status": "failed" }).await.unwrap().unwrap();
    assert_eq!(found.get_document("error").unwrap().get_str("code").unwrap(), "internal");
}

/// How long the server keeps logs and single calls.
async fn ages(database: &mongodb::Database) -> [Option<Duration>; 2] {
    let mut ages = [None; 2];
    for (age, name) in ages.iter_mut().zip(["logs", "usages"]) {
        let indexes = database.collection::<Document>(name).list_indexes().await.unwrap();
        let indexes: Vec<IndexModel> = indexes.try_collect().await.unwrap();
        *age = indexes.into_iter().find_map(|index| index.options?.expire_after);
    }
    ages
}

/// They are set beside the start. Waits for less than it takes until a failure is tried again.
async fn wait_for_ages(database: &mongodb::Database, expected: [Option<Duration>; 2]) {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let found = ages(database).await;
        if found == expected {
            return;
        }
        assert!(Instant::now() < end, "{found:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn keeping(logs: Duration, usages: Option<Duration>, options: &MongoOptions) -> MongoOptions {
    MongoOptions { ages: Some(Ages { logs, usages }), ..options.clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_those_who_serve_say_how_long_things_are_kept() {
    let (mongo, s3) = new_options().await;
    let raw = mongodb::Client::with_uri_str(&mongo.uri).await.unwrap();
    let database = raw.default_database().unwrap();
    let year = keeping(DAY * 365, Some(DAY * 400), &mongo);
    let serving = open_production(&year, &s3).await.unwrap();
    let for_a_year = [Some(DAY * 365), Some(DAY * 400)];
    wait_for_ages(&database, for_a_year).await;
    drop(serving);

    let month = keeping(DAY * 30, None, &mongo);
    drop(open_production_transfer(&month, &s3).await.unwrap());
    drop(open_production_import(&month, &s3).await.unwrap());
    // As commands of the operator do.
    let unsaid = MongoOptions { ages: None, ..mongo.clone() };
    let beside = open_production(&unsaid, &s3).await.unwrap();
    account(&beside).await;
    assert_eq!(ages(&database).await, for_a_year);

    let serving = open_production(&month, &s3).await.unwrap();
    wait_for_ages(&database, [Some(DAY * 30), None]).await;
    drop(serving);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_an_age_may_take_longer_than_an_operation_and_holds_no_start_up() {
    let (mongo, s3) = new_options().await;
    drop(open_production(&mongo, &s3).await.unwrap());
    let raw = mongodb::Client::with_uri_str(&mongo.uri).await.unwrap();
    let database = raw.default_database().unwrap();
    // An index over these rows waits for it, as it would for there being many.
    let mut session = raw.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    let usages = database.collection::<Document>("usages");
    usages.insert_one(doc! { "_id": "under way" }).session(&mut session).await.unwrap();

    let mongo = MongoOptions { operation_timeout_ms: 5_000, ..mongo };
    let aging = keeping(DAY * 365, Some(DAY * 400), &mongo);
    let serving = open_production(&aging, &s3).await.unwrap();
    account(&serving).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    session.abort_transaction().await.unwrap();
    wait_for_ages(&database, [Some(DAY * 365), Some(DAY * 400)]).await;
    drop(serving);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_schema_lacks_is_made_beside_the_start() {
    const INDEXES: [&str; 2] = ["status_1_queuedBy_1", "built.depHash_1"];
    let (mongo, s3) = new_options().await;
    let unsaid = MongoOptions { ages: None, ..mongo.clone() };
    drop(open_production(&unsaid, &s3).await.unwrap());
    let raw = mongodb::Client::with_uri_str(&mongo.uri).await.unwrap();
    let database = raw.default_database().unwrap();
    let older = doc! { "$set": { "version": 1_i64 } };
    let meta = database.collection::<Document>("meta");
    meta.update_one(doc! { "_id": "schema" }, older).await.unwrap();
    let versions = database.collection::<Document>("versions");
    let n_made = async || {
        let names = versions.list_index_names().await.unwrap();
        names.iter().filter(|name| INDEXES.contains(&name.as_str())).count()
    };
    assert_eq!(n_made().await, 0);
    // An index over these rows waits for it, as it would for there being many.
    let mut session = raw.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    versions.insert_one(doc! { "_id": "under way" }).session(&mut session).await.unwrap();

    let mongo = MongoOptions { operation_timeout_ms: 5_000, ..mongo };
    let serving = open_production(&mongo, &s3).await.unwrap();
    account(&serving).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    session.abort_transaction().await.unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    while n_made().await < INDEXES.len() {
        assert!(Instant::now() < end, "they are not made");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let schema = meta.find_one(doc! { "_id": "schema" }).await.unwrap().unwrap();
    assert_eq!(schema.get_i64("version").unwrap(), 5);
    drop(serving);
}

async fn read(artifacts: &dyn ArtifactStore, key: &ArtifactKey) -> Vec<u8> {
    let pieces: Vec<Bytes> = artifacts.stream(key).await.unwrap().try_collect().await.unwrap();
    pieces.concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn large_objects_go_in_parts_and_only_once() {
    let (mongo, s3) = new_options().await;
    for checksums in [ChecksumMode::Supported, ChecksumMode::Required] {
        let s3 = S3Options { part_bytes: PART_BYTES as u64, checksums, ..s3.clone() };
        let stores = open_production(&mongo, &s3).await.unwrap();
        let raw = servers::client(s3.endpoint.as_deref().unwrap().trim_start_matches("http://"));
        let large: Vec<u8> =
            (0..=u32::try_from(PART_BYTES * 3 / 4).unwrap()).flat_map(u32::to_le_bytes).collect();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&large).unwrap();
        let tree =
            ArtifactKey::DependencyTree { hash: DepHash::of(format!("{checksums:?}").as_bytes()) };
        stores.artifacts.put_file(&tree, file.path()).await.unwrap();
        assert!(read(stores.artifacts.as_ref(), &tree).await == large);
        let head = || raw.head_object().bucket(&s3.bucket).key(tree.to_string()).send();
        let first = head().await.unwrap();
        assert!(first.e_tag().unwrap().trim_matches('"').ends_with("-4"), "{first:?}");

        // It is there, so nothing is sent again; damaged, it is mended.
        stores.artifacts.put_file(&tree, file.path()).await.unwrap();
        assert_eq!(head().await.unwrap().last_modified(), first.last_modified());
        let damaged = Bytes::from_static(b"damaged").into();
        let put = raw.put_object().bucket(&s3.bucket).key(tree.to_string()).body(damaged);
        put.send().await.unwrap();
        stores.artifacts.put_file(&tree, file.path()).await.unwrap();
        assert!(read(stores.artifacts.as_ref(), &tree).await == large);
    }
}

/// The address of a relay to `server` that keeps its answers to POST back until `open` says so.
async fn relay(server: String, open: watch::Receiver<bool>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&server).await.unwrap();
            tokio::spawn(hand_on(client, server, open.clone()));
        }
    });
    format!("http://{address}")
}

async fn hand_on(
    mut client: TcpStream,
    mut server: TcpStream,
    mut open: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let (mut request, mut answer) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut is_post = false;
    loop {
        tokio::select! {
            length = client.read(&mut request) => {
                let piece = &request[..length?];
                if piece.is_empty() {
                    return Ok(());
                }
                // From then on: what follows may come in pieces.
                is_post |= piece.starts_with(b"POST ");
                server.write_all(piece).await?;
            }
            length = server.read(&mut answer) => {
                let piece = &answer[..length?];
                if piece.is_empty() {
                    return Ok(());
                }
                if is_post && open.wait_for(|is_open| *is_open).await.is_err() {
                    return Ok(());
                }
                client.write_all(piece).await?;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_given_up_leaves_no_parts() {
    let (mongo, s3) = new_options().await;
    let server = s3.endpoint.as_deref().unwrap().trim_start_matches("http://").to_owned();
    let raw = servers::client(&server);
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(20 * PART_BYTES as u64).unwrap();
    let uploads = async || {
        let listed = raw.list_multipart_uploads().bucket(&s3.bucket).send().await.unwrap();
        listed.uploads().len()
    };
    // Before who uploads knows that it has begun, and in the middle of its parts.
    for is_answered in [false, true] {
        let (gate, open) = watch::channel(is_answered);
        let s3 = S3Options {
            endpoint: Some(relay(server.clone(), open).await),
            part_bytes: PART_BYTES as u64,
            parts_in_parallel: 1,
            ..s3.clone()
        };
        let stores = open_production(&mongo, &s3).await.unwrap();
        let tree = ArtifactKey::DependencyTree { hash: DepHash::of(&[u8::from(is_answered)]) };
        let putting = tokio::spawn({
            let (artifacts, path) = (stores.artifacts.clone(), file.path().to_owned());
            let tree = tree.clone();
            async move { artifacts.put_file(&tree, &path).await }
        });
        while uploads().await == 0 {
            assert!(!putting.is_finished(), "{is_answered}: it was too fast to be given up");
        }
        putting.abort();
        gate.send_replace(true);
        let end = Instant::now() + Duration::from_secs(30);
        while uploads().await > 0 {
            assert!(Instant::now() < end, "{is_answered}: its parts stay");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(!stores.artifacts.exists(&tree).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_immutable_object_is_not_replaced_but_mended() {
    let (mongo, s3) = new_options().await;
    let stores = open_production(&mongo, &s3).await.unwrap();
    let raw = servers::client(s3.endpoint.as_deref().unwrap().trim_start_matches("http://"));
    let code = Bytes::from_static(b"export default 1");
    let key = ArtifactKey::Bundle { function: FunctionId::new(), hash: BundleHash::of(&code) };
    let puts = (0..8).map(|_| stores.artifacts.put(&key, code.clone()));
    futures::future::try_join_all(puts).await.unwrap();
    assert_eq!(stores.artifacts.get(&key, 100).await.unwrap(), code);

    let damaged = Bytes::from_static(b"export default 2").into();
    let put = raw.put_object().bucket(&s3.bucket).key(key.to_string()).body(damaged);
    put.send().await.unwrap();
    stores.artifacts.put(&key, code.clone()).await.unwrap();
    assert_eq!(stores.artifacts.get(&key, 100).await.unwrap(), code);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_objects_than_one_listing_has_are_removed() {
    let (mongo, s3) = new_options().await;
    let stores = open_production(&mongo, &s3).await.unwrap();
    let function = FunctionId::new();
    let key = |n: u32| ArtifactKey::Source { function, version: n, path: "a.ts".into() };
    for from in (0..1_100).step_by(50) {
        let keys: Vec<_> = (from..from + 50).map(key).collect();
        let puts = keys.iter().map(|key| stores.artifacts.put(key, Bytes::from_static(b"x")));
        futures::future::try_join_all(puts).await.unwrap();
    }
    stores.artifacts.delete_function(function).await.unwrap();
    for n in [0, 999, 1_000, 1_099] {
        assert!(!stores.artifacts.exists(&key(n)).await.unwrap(), "{n}");
    }
}
