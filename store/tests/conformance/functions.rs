//! Functions and versions.

use std::time::Duration;

use cloudserve_protocol::ids::{FunctionId, UserId};
use cloudserve_store::account::Quota;
use cloudserve_store::function::{
    Activation, BuiltVersion, DeployStatus, Listed, NewVersion, Page, Source, SourceFile, Version,
    Visibility,
};
use cloudserve_store::telemetry::{LogFilter, LogQuery, UsageQuery};
use cloudserve_store::{Change, StoreError, Stores, Timestamp};
use futures::future::join_all;
use tokio::sync::broadcast::Receiver;

use crate::fixtures::{
    NOON, built, deploy_error, first_version, function_name, log, next_version, registered, usage,
    user,
};

pub(crate) async fn accept_makes_a_pending_function(stores: &Stores) {
    let ada = registered(stores, "ada").await;
    let new = first_version(ada, "hello");
    let before = Timestamp::now();
    let record = stores.functions.accept(new.clone()).await.unwrap();
    let after = Timestamp::now();

    let function = &record.function;
    assert_eq!((function.id, function.user_id), (new.function_id, ada));
    assert_eq!((&function.name, function.visibility), (&new.name, Visibility::Private));
    assert_eq!((function.status, &function.deploy_error), (DeployStatus::Pending, &None));
    assert_eq!((function.latest_version, function.active_version), (1, None));
    assert_eq!((function.updated_at, function.deployed_at), (function.created_at, None));
    assert!((before..=after).contains(&function.created_at));
    let latest = &record.latest;
    assert_eq!((latest.function_id, latest.version), (new.function_id, 1));
    assert_eq!((latest.status, &latest.built), (DeployStatus::Pending, &None));
    assert_eq!((&latest.source, &latest.source_hash), (&new.source, &new.source_hash));
    assert_eq!((&latest.env, latest.limits), (&new.env, new.limits));
    assert!(record.active.is_none());

    let read = stores.functions.function(ada, new.function_id).await.unwrap();
    assert_eq!(read.as_ref(), Some(&record));
    assert_eq!(stores.functions.function_by_name(ada, &new.name).await.unwrap(), read);
}

pub(crate) async fn accept_refuses_duplicates_and_strangers(stores: &Stores) {
    let (ada, bob) = (registered(stores, "ada").await, registered(stores, "bob").await);
    let new = first_version(ada, "hello");
    stores.functions.accept(new.clone()).await.unwrap();

    let mut by_bob = next_version(&new, 2);
    by_bob.user_id = bob;
    for (case, refused, conflict) in [
        ("same name", first_version(ada, "hello"), true),
        ("same version", new.clone(), true),
        ("version 0", next_version(&new, 0), true),
        ("version left out", next_version(&new, 3), true),
        ("of another account", by_bob, false),
        ("no account", first_version(UserId::new(), "hello"), false),
        ("no function", next_version(&first_version(ada, "x"), 2), false),
    ] {
        match stores.functions.accept(refused).await {
            Err(StoreError::Conflict) if conflict => {}
            Err(StoreError::Missing) if !conflict => {}
            other => panic!("{case}: {other:?}"),
        }
    }
    // Nothing of the refused ones is left, and another account may use the name.
    assert_eq!(stores.functions.versions(ada, new.function_id, 10).await.unwrap().len(), 1);
    assert!(stores.functions.function_by_name(ada, &function_name("x")).await.unwrap().is_none());
    stores.functions.accept(first_version(bob, "hello")).await.unwrap();

    for version in [2, 3] {
        let record = stores.functions.accept(next_version(&new, version)).await.unwrap();
        assert_eq!((record.function.latest_version, record.latest.version), (version, version));
    }
}

pub(crate) async fn concurrent_deploys_have_one_winner(stores: &Stores) {
    let ada = registered(stores, "ada").await;
    let first = first_version(ada, "hello");
    for version in 1..=3 {
        let attempts = (0..12).map(|_| {
            let functions = stores.functions.clone();
            let mut new = next_version(&first, version);
            if version == 1 {
                // Two creations of one name: ids differ.
                new.function_id = FunctionId::new();
            }
            tokio::spawn(async move { functions.accept(new).await })
        });
        let outcomes = join_all(attempts).await;
        let won: Vec<_> =
            outcomes.iter().filter_map(|o| o.as_ref().unwrap().as_ref().ok()).collect();
        let lost = outcomes.iter().filter(|o| matches!(o, Ok(Err(StoreError::Conflict)))).count();
        if version == 1 {
            assert_eq!((won.len(), lost), (1, 11));
            let id = won[0].function.id;
            assert!(stores.functions.delete_function(ada, id).await.unwrap());
            stores.functions.accept(first.clone()).await.unwrap();
        } else {
            assert_eq!((won.len(), lost), (1, 11));
        }
    }
    assert_eq!(stores.functions.versions(ada, first.function_id, 10).await.unwrap().len(), 3);
}

pub(crate) async fn lists_are_newest_first_and_cursors_are_stable(stores: &Stores) {
    let (ada, bob) = (registered(stores, "ada").await, registered(stores, "bob").await);
    for number in 0..7 {
        stores.functions.accept(first_version(ada, &format!("f{number}"))).await.unwrap();
        if number % 2 == 0 {
            // Others are of the same millisecond: the id decides.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    stores.functions.accept(first_version(bob, "other")).await.unwrap();

    let names = |page: &Page<Listed>| -> Vec<String> {
        page.items.iter().map(|listed| listed.function.name.to_string()).collect()
    };
    let first = stores.functions.functions(ada, 3, None).await.unwrap();
    assert_eq!(names(&first), ["f6", "f5", "f4"]);

    // What is new or gone does not shift the rest.
    stores.functions.accept(first_version(ada, "new")).await.unwrap();
    assert!(stores.functions.delete_function(ada, first.items[2].function.id).await.unwrap());
    let second = stores.functions.functions(ada, 3, first.next.as_deref()).await.unwrap();
    assert_eq!(names(&second), ["f3", "f2", "f1"]);
    let third = stores.functions.functions(ada, 3, second.next.as_deref()).await.unwrap();
    assert_eq!((names(&third), third.next), (vec!["f0".to_owned()], None));
    // A full last page has no successor either.
    let whole = stores.functions.functions(ada, 7, None).await.unwrap();
    assert_eq!((whole.items.len(), whole.next), (7, None));

    for nonsense in ["", "x", "00", &"f".repeat(49)] {
        let refused = stores.functions.functions(ada, 3, Some(nonsense)).await;
        assert!(matches!(refused, Err(StoreError::BadCursor)), "{nonsense}");
    }
}

pub(crate) async fn a_list_shows_what_the_functions_are(stores: &Stores) {
    let ada = registered(stores, "ada").await;
    let waiting = first_version(ada, "waiting");
    let mut many = first_version(ada, "many-files");
    let more =
        (0..3).map(|n| SourceFile { path: format!("{n}.ts"), ..many.source.files[0].clone() });
    many.source.files = more.collect();
    let mut empty = first_version(ada, "empty");
    empty.source.files.clear();
    let served = first_version(ada, "served");
    for new in [&waiting, &many, &empty, &served] {
        stores.functions.accept(new.clone()).await.unwrap();
    }
    stores.functions.activate(served.function_id, 1, built()).await.unwrap();
    // Of its newest version nothing is built yet; of the other one it is the newest that counts.
    stores.functions.accept(next_version(&served, 2)).await.unwrap();
    stores.functions.activate(many.function_id, 1, built()).await.unwrap();
    let known = BuiltVersion { bundle_bytes: 7, ..built() };
    let next = NewVersion { built: Some(known), ..next_version(&many, 2) };
    stores.functions.accept(next).await.unwrap();
    stores.functions.fail(many.function_id, 2, deploy_error()).await.unwrap();

    let listed = stores.functions.functions(ada, 10, None).await.unwrap().items;
    assert_eq!(listed.len(), 4);
    for of in listed {
        let record = stores.functions.function(ada, of.function.id).await.unwrap().unwrap();
        assert!(record.latest.source.package_lock.is_some());
        let (name, built) = (of.function.name.to_string(), of.built.clone());
        let (only_file, bytes) = match name.as_str() {
            "waiting" => (Some("index.ts"), None),
            "served" => (Some("index.ts"), Some(6)),
            "many-files" => (None, Some(7)),
            _ => (None, None),
        };
        assert_eq!(of.source.only_file.as_deref(), only_file, "{name}");
        assert_eq!(built.map(|built| built.bundle_bytes), bytes, "{name}");
        assert_eq!(of, Listed::from(record), "{name}");
    }
}

pub(crate) async fn functions_of_one_millisecond_are_told_apart(stores: &Stores) {
    let ada = registered(stores, "ada").await;
    let accepts = (0..40).map(|number| {
        let functions = stores.functions.clone();
        let new = first_version(ada, &format!("f{number}"));
        tokio::spawn(async move { functions.accept(new).await.unwrap() })
    });
    join_all(accepts).await.into_iter().for_each(|accepted| drop(accepted.unwrap()));

    let whole = stores.functions.functions(ada, 100, None).await.unwrap().items;
    assert_eq!(whole.len(), 40);
    let mut read = Vec::new();
    let mut cursor = None;
    loop {
        let page = stores.functions.functions(ada, 3, cursor.as_deref()).await.unwrap();
        read.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert!(read == whole);
}

pub(crate) async fn versions_and_visibility_belong_to_their_owner(stores: &Stores) {
    let (ada, bob) = (registered(stores, "ada").await, registered(stores, "bob").await);
    let new = first_version(ada, "hello");
    let id = new.function_id;
    for version in 1..=3 {
        stores.functions.accept(next_version(&new, version)).await.unwrap();
    }
    let versions = stores.functions.versions(ada, id, 2).await.unwrap();
    assert_eq!(versions.iter().map(|v| v.version).collect::<Vec<_>>(), [3, 2]);
    // A list has no lock files; whoever builds has one.
    let whole = stores.functions.version(ada, id, 3).await.unwrap().unwrap();
    assert_eq!(whole.source, new.source);
    assert!(whole.source.package_lock.is_some());
    let source = Source { package_lock: None, ..whole.source.clone() };
    assert_eq!(versions[0], Version { source, ..whole });
    let claimed = stores.functions.claim("b", Duration::from_mins(1)).await.unwrap().unwrap();
    assert_eq!(claimed.version.source, new.source);

    assert!(stores.functions.versions(bob, id, 10).await.unwrap().is_empty());
    assert!(stores.functions.function(bob, id).await.unwrap().is_none());
    assert!(stores.functions.function_by_name(bob, &new.name).await.unwrap().is_none());
    assert!(!stores.functions.set_visibility(bob, id, Visibility::Public).await.unwrap());
    assert!(!stores.functions.delete_function(bob, id).await.unwrap());

    assert!(stores.functions.set_visibility(ada, id, Visibility::Public).await.unwrap());
    let record = stores.functions.function(ada, id).await.unwrap().unwrap();
    assert_eq!(record.function.visibility, Visibility::Public);
}

pub(crate) async fn a_route_shows_what_is_served(stores: &Stores) {
    let ada = registered(stores, "ada").await;
    let owner = user("ada").user_name;
    let new = first_version(ada, "hello");
    assert!(stores.functions.route(&owner, &new.name).await.unwrap().is_none());

    stores.functions.accept(new.clone()).await.unwrap();
    let route = stores.functions.route(&owner, &new.name).await.unwrap().unwrap();
    assert_eq!((route.function_id, route.owner_id), (new.function_id, ada));
    assert_eq!((&route.owner_name, &route.function_name), (&owner, &new.name));
    assert_eq!((route.status, &route.active), (DeployStatus::Pending, &None));

    stores.functions.activate(new.function_id, 1, built()).await.unwrap();
    stores.functions.accept(next_version(&new, 2)).await.unwrap();
    stores.functions.fail(new.function_id, 2, deploy_error()).await.unwrap();
    let route = stores.functions.route(&owner, &new.name).await.unwrap().unwrap();
    let active = route.active.unwrap();
    assert_eq!((route.status, route.visibility), (DeployStatus::Failed, Visibility::Private));
    assert_eq!((active.version, active.built.as_ref()), (1, Some(&built())));
    assert_eq!((&active.env, active.limits), (&new.env, new.limits));
    // The name of a function is case-sensitive.
    assert!(stores.functions.route(&owner, &function_name("Hello")).await.unwrap().is_none());
}

pub(crate) async fn deletion_takes_versions_and_logs_but_not_usage(stores: &Stores) {
    let ada = registered(stores, "ada").await;
    let (gone, kept) = (first_version(ada, "gone"), first_version(ada, "kept"));
    for new in [&gone, &kept] {
        stores.functions.accept(new.clone()).await.unwrap();
        let logs = vec![log(new.function_id, NOON)];
        let calls = vec![usage(ada, new.function_id, NOON)];
        stores.telemetry.record(calls, logs).await.unwrap();
    }
    let id = gone.function_id;
    assert!(stores.functions.delete_function(ada, id).await.unwrap());
    assert!(!stores.functions.delete_function(ada, id).await.unwrap());

    assert!(stores.functions.function(ada, id).await.unwrap().is_none());
    assert!(stores.functions.versions(ada, id, 10).await.unwrap().is_empty());
    let left = stores.functions.claim("b", Duration::from_mins(1)).await.unwrap().unwrap();
    assert_eq!(left.function.id, kept.function_id);
    assert!(stores.functions.claim("b", Duration::from_mins(1)).await.unwrap().is_none());
    assert_eq!(stores.functions.activate(id, 1, built()).await.unwrap(), Activation::Gone);
    stores.functions.fail(id, 1, deploy_error()).await.unwrap();
    assert!(!stores.functions.renew("b", id, 1, Duration::from_mins(1)).await.unwrap());

    for (function_id, rows) in [(id, 0), (kept.function_id, 1)] {
        let query = LogQuery {
            function_id,
            limit: 10,
            after: None,
            execution_id: None,
            filter: LogFilter::default(),
        };
        assert_eq!(stores.telemetry.logs(query).await.unwrap().rows.len(), rows);
    }
    let query = UsageQuery { user_id: ada, function_id: Some(id), from: None, to: None };
    assert_eq!(stores.telemetry.usage_totals(query).await.unwrap().executed, 1);

    // The name is free again, for another identity.
    stores.functions.accept(first_version(ada, "gone")).await.unwrap();
}

async fn next(feed: &mut Receiver<Change>) -> Change {
    feed.recv().await.unwrap()
}

pub(crate) async fn changes_are_announced_after_the_commit(stores: &Stores) {
    let mut feed = stores.changes.subscribe();
    // Of a new account no cache knows anything yet: it is no change.
    let ada = registered(stores, "ada").await;
    let new = first_version(ada, "hello");
    let id = new.function_id;

    let reader = stores.functions.clone();
    let seen = tokio::spawn(async move {
        let change = next(&mut feed).await;
        (change, reader.function(ada, id).await.unwrap().is_some(), feed)
    });
    stores.functions.accept(new.clone()).await.unwrap();
    let (change, visible, mut feed) = seen.await.unwrap();
    assert_eq!((change, visible), (Change::Function(id), true));
    assert_eq!(next(&mut feed).await, Change::DeploymentQueued);

    stores.functions.activate(id, 1, built()).await.unwrap();
    assert_eq!(next(&mut feed).await, Change::Function(id));
    // What changes nothing is not announced: repeating, failing too late, losing a race.
    stores.functions.activate(id, 1, built()).await.unwrap();
    stores.functions.fail(id, 1, deploy_error()).await.unwrap();
    stores.functions.accept(new).await.unwrap_err();
    stores.functions.set_visibility(ada, id, Visibility::Public).await.unwrap();
    assert_eq!(next(&mut feed).await, Change::Function(id));
    stores.accounts.revoke_token("t", Timestamp(i64::MAX)).await.unwrap();
    assert_eq!(next(&mut feed).await, Change::Token);
    stores.functions.delete_function(ada, id).await.unwrap();
    assert_eq!(next(&mut feed).await, Change::Function(id));
    stores.accounts.set_quota(ada, Quota::default()).await.unwrap();
    assert_eq!(next(&mut feed).await, Change::User(ada));
    assert!(feed.try_recv().is_err());
}

pub(crate) async fn what_may_be_left_of_functions_that_are_not_there_is_known(stores: &Stores) {
    let ada = registered(stores, "ada").await;
    let functions = &stores.functions;
    let remains = async |age| functions.remains(age).await.unwrap();
    let (now, hour) = (Duration::ZERO, Duration::from_hours(1));
    let soon = async || tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(remains(now).await, None);

    // Of one whose source is stored, until it is accepted.
    let new = first_version(ada, "hello");
    let id = new.function_id;
    functions.note_ahead(id).await.unwrap();
    assert_eq!(remains(hour).await, None, "it may be accepted yet");
    assert_eq!(remains(now).await, Some(id));
    functions.accept(new.clone()).await.unwrap();
    assert_eq!(remains(now).await, None);

    // Of one that was not accepted.
    let refused = NewVersion { function_id: FunctionId::new(), ..new.clone() };
    functions.note_ahead(refused.function_id).await.unwrap();
    functions.accept(refused.clone()).await.unwrap_err();
    assert_eq!(remains(now).await, Some(refused.function_id));

    // Of one that was deleted; each in its turn, until nothing is stored of it.
    assert!(!functions.delete_function(ada, FunctionId::new()).await.unwrap());
    soon().await;
    assert!(functions.delete_function(ada, id).await.unwrap());
    assert!(!functions.delete_function(ada, id).await.unwrap());
    for expected in [refused.function_id, id, refused.function_id, id] {
        soon().await;
        assert_eq!(remains(now).await, Some(expected));
    }
    assert_eq!(remains(hour).await, None);
    functions.forget_remains(id).await.unwrap();
    for _ in 0..2 {
        soon().await;
        assert_eq!(remains(now).await, Some(refused.function_id));
    }
    functions.forget_remains(refused.function_id).await.unwrap();
    functions.forget_remains(refused.function_id).await.unwrap();
    assert_eq!(remains(now).await, None);
    assert!(functions.function(ada, id).await.unwrap().is_none());
}
