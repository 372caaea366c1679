//! Versions that are there already: served again, removed, sealed under another key.

use std::time::Duration;

use cloudserve_protocol::ids::{BundleHash, FunctionId, SourceHash, UserId};
use cloudserve_store::function::{
    Activation, DeployStatus, NewVersion, Pruned, Rollback, SealedEnv, StoredSource, StoredVersion,
    Sweep,
};
use cloudserve_store::{Change, StoreError, Stores};

use crate::fixtures::{built, deploy_error, first_version, next_version, registered};

async fn numbers(stores: &Stores, owner: UserId, id: FunctionId) -> Vec<u32> {
    let versions = stores.functions.versions(owner, id, 100).await.unwrap();
    versions.iter().map(|version| version.version).collect()
}

pub(crate) async fn a_rollback_moves_the_pointer_and_holds(stores: &Stores) {
    let (ada, bob) = (registered(stores, "ada").await, registered(stores, "bob").await);
    let new = first_version(ada, "hello");
    let id = new.function_id;
    for version in 1..=4 {
        stores.functions.accept(next_version(&new, version)).await.unwrap();
    }
    stores.functions.activate(id, 2, built()).await.unwrap();
    stores.functions.activate(id, 1, built()).await.unwrap();
    stores.functions.fail(id, 3, deploy_error()).await.unwrap();
    let rollback = |owner, version| stores.functions.rollback(owner, id, version);
    for (owner, version, expected) in [
        (ada, 3, Rollback::NotBuilt),
        (ada, 4, Rollback::NotBuilt),
        (ada, 5, Rollback::Unknown),
        (ada, 0, Rollback::Unknown),
        (bob, 1, Rollback::Unknown),
    ] {
        assert_eq!(rollback(owner, version).await.unwrap(), expected, "{version}");
    }
    assert_eq!(
        stores.functions.rollback(ada, FunctionId::new(), 1).await.unwrap(),
        Rollback::Unknown
    );

    let mut feed = stores.changes.subscribe();
    assert_eq!(rollback(ada, 1).await.unwrap(), Rollback::Moved);
    assert_eq!(feed.recv().await.unwrap(), Change::Function(id));
    let record = stores.functions.function(ada, id).await.unwrap().unwrap();
    assert_eq!((record.function.active_version, record.function.latest_version), (Some(1), 4));
    let active = record.active.unwrap();
    assert_eq!((active.version, active.status), (1, DeployStatus::Active));
    assert_eq!(record.function.deployed_at, Some(record.function.updated_at));

    // Accepted before, so it does not undo the rollback; accepted after, so it does.
    assert_eq!(stores.functions.activate(id, 4, built()).await.unwrap(), Activation::Superseded);
    assert_eq!(stores.functions.activate(id, 2, built()).await.unwrap(), Activation::Superseded);
    assert_eq!(stores.functions.activate(id, 1, built()).await.unwrap(), Activation::Activated);
    stores.functions.accept(next_version(&new, 5)).await.unwrap();
    assert_eq!(stores.functions.activate(id, 5, built()).await.unwrap(), Activation::Activated);
    assert_eq!(rollback(ada, 4).await.unwrap(), Rollback::Moved);
    assert_eq!(rollback(ada, 4).await.unwrap(), Rollback::Moved);

    let found = stores.functions.version(ada, id, 4).await.unwrap().unwrap();
    assert_eq!((found.version, found.status), (4, DeployStatus::Active));
    for (owner, version) in [(bob, 4), (ada, 6)] {
        assert!(stores.functions.version(owner, id, version).await.unwrap().is_none());
    }
}

pub(crate) async fn what_was_built_before_is_queued_with_it(stores: &Stores) {
    let ada = registered(stores, "ada").await;
    let new = NewVersion { built: Some(built()), ..first_version(ada, "hello") };
    let record = stores.functions.accept(new.clone()).await.unwrap();
    assert_eq!(record.latest.status, DeployStatus::Pending);
    let lease = std::time::Duration::from_mins(1);
    let claimed = stores.functions.claim("a", lease).await.unwrap().unwrap();
    assert_eq!(claimed.version.built, Some(built()));
    // Not built by being known: it is served when it was loaded.
    let id = new.function_id;
    assert_eq!(stores.functions.rollback(ada, id, 1).await.unwrap(), Rollback::NotBuilt);
    assert_eq!(stores.functions.activate(id, 1, built()).await.unwrap(), Activation::Activated);
}

pub(crate) async fn what_is_of_a_version_that_is_no_longer_served_is_not_accepted(stores: &Stores) {
    let ada = registered(stores, "ada").await;
    let new = first_version(ada, "hello");
    let id = new.function_id;
    for version in 1..=3 {
        stores.functions.accept(next_version(&new, version)).await.unwrap();
        stores.functions.activate(id, version, built()).await.unwrap();
    }
    let accept = |version, of| {
        let built = Some(built());
        let of_served = Some(of);
        stores.functions.accept(NewVersion { of_served, built, ..next_version(&new, version) })
    };
    stores.functions.rollback(ada, id, 1).await.unwrap();
    for of in [2, 3] {
        let refused = accept(4, of).await;
        assert!(matches!(refused, Err(StoreError::Conflict)), "{refused:?}");
    }
    accept(4, 1).await.unwrap();
    stores.functions.fail(id, 4, deploy_error()).await.unwrap();

    // Gone back at the same time, after which it goes: it is accepted and keeps its objects, or is not.
    let gone = async {
        stores.functions.rollback(ada, id, 3).await.unwrap();
        stores.functions.prune(id, 1, &Sweep::default()).await.unwrap()
    };
    let (accepted, pruned) = tokio::join!(accept(5, 1), gone);
    assert!(pruned.removed.iter().any(|version| version.version == 1));
    let is_kept = pruned.kept.iter().any(|version| version.version == 5);
    match accepted {
        Ok(_) => assert!(is_kept),
        Err(error) => assert!(matches!(error, StoreError::Conflict) && !is_kept, "{error:?}"),
    }
}

pub(crate) async fn old_versions_go_and_what_is_served_stays(stores: &Stores) {
    let ada = registered(stores, "ada").await;
    let new = first_version(ada, "hello");
    let id = new.function_id;
    // Sweeps that are over at once.
    let sweep = Sweep::default();
    let prune = |keep| stores.functions.prune(id, keep, &sweep);
    for version in 1..=6 {
        stores.functions.accept(next_version(&new, version)).await.unwrap();
        let pruned = prune(9).await.unwrap();
        assert_eq!((pruned.removed.len(), pruned.kept.len()), (0, version as usize));
        if version == 3 {
            stores.functions.fail(id, version, deploy_error()).await.unwrap();
        } else {
            stores.functions.activate(id, version, built()).await.unwrap();
        }
    }
    stores.functions.rollback(ada, id, 2).await.unwrap();
    let other = first_version(ada, "other");
    stores.functions.accept(other.clone()).await.unwrap();

    let of = |versions: &[StoredVersion]| -> Vec<u32> {
        versions.iter().map(|version| version.version).collect()
    };
    let pruned = prune(5).await.unwrap();
    assert_eq!((of(&pruned.removed), of(&pruned.kept)), (vec![], vec![6, 5, 4, 3, 2, 1]));
    assert_eq!(pruned.kept[0].built, Some(built()));
    assert_eq!(pruned.kept[3].built, None);
    // One that failed takes no place of those that were built.
    let pruned = prune(2).await.unwrap();
    assert_eq!((of(&pruned.removed), of(&pruned.kept)), (vec![4, 1], vec![6, 5, 3, 2]));
    let source = StoredSource {
        version: new.source.stored_version,
        only_file: new.source.only_file().map(str::to_owned),
    };
    for version in pruned.removed.iter().chain(&pruned.kept) {
        assert_eq!(version.source_hash, new.source_hash);
        assert_eq!(version.source.as_ref(), Some(&source), "{}", version.version);
    }
    assert_eq!(numbers(stores, ada, id).await, [6, 5, 3, 2]);
    assert_eq!(numbers(stores, ada, other.function_id).await, [1]);
    assert_eq!(of(&prune(0).await.unwrap().kept), [6, 3, 2]);
    let none = stores.functions.prune(FunctionId::new(), 1, &sweep).await.unwrap();
    assert_eq!(none, Pruned::default());
    // Numbers are not given again.
    stores.functions.accept(next_version(&new, 7)).await.unwrap();
}

pub(crate) async fn sweeps_and_deploys_take_turns(stores: &Stores) {
    let ada = registered(stores, "ada").await;
    let new = first_version(ada, "hello");
    let id = new.function_id;
    let sweep = |holder: &str, stored: &[u8]| Sweep {
        holder: holder.to_owned(),
        lease: Duration::from_mins(1),
        stored: vec![BundleHash::of(stored)],
        sources: Vec::new(),
    };
    let begin = async |sweep: &Sweep| stores.functions.prune(id, 9, sweep).await.unwrap();
    let is_swept = async || stores.functions.is_swept(id).await.unwrap();

    // What a version in work has noted, none removes that begins later.
    stores.functions.accept(new.clone()).await.unwrap();
    stores.functions.claim("builder", Duration::from_mins(1)).await.unwrap().unwrap();
    for _ in 0..2 {
        stores.functions.note_bundle(id, 1, &BundleHash::of(b"bundle")).await.unwrap();
        stores.functions.note_bundle(id, 1, &BundleHash::of(b"of another attempt")).await.unwrap();
    }
    for stored in [&b"bundle"[..], b"of another attempt"] {
        let pruned = begin(&sweep("a", stored)).await;
        assert_eq!((pruned.kept.len(), pruned.is_swept), (1, false));
        assert!(pruned.kept[0].making.contains(&BundleHash::of(stored)));
    }
    let pruned = begin(&sweep("a", b"nobody's")).await;
    assert!(pruned.is_swept && pruned.kept[0].making.contains(&BundleHash::of(b"bundle")));
    stores.functions.end_sweep(id, "a").await.unwrap();
    stores.functions.activate(id, 1, built()).await.unwrap();
    // It has ended: it refers to one of them, and makes the other no more.
    stores.functions.note_bundle(id, 1, &BundleHash::of(b"too late")).await.unwrap();
    for stored in [&b"of another attempt"[..], b"too late"] {
        let pruned = begin(&sweep("a", stored)).await;
        assert!(pruned.is_swept && pruned.kept[0].making.is_empty());
        stores.functions.end_sweep(id, "a").await.unwrap();
    }

    // Nor when there is nothing to remove.
    let pruned = begin(&sweep("a", b"bundle")).await;
    assert_eq!((pruned.kept.len(), pruned.is_swept), (1, false));
    assert_eq!(pruned.kept[0].built.as_ref().unwrap().bundle_hash, BundleHash::of(b"bundle"));
    assert!(!is_swept().await);

    // One that has begun is seen by what is accepted meanwhile, and keeps others away.
    let pruned = begin(&sweep("a", b"nobody's")).await;
    assert_eq!((pruned.kept.len(), pruned.removed.len(), pruned.is_swept), (1, 0, true));
    stores.functions.accept(next_version(&new, 2)).await.unwrap();
    assert!(is_swept().await);
    stores.functions.fail(id, 2, deploy_error()).await.unwrap();
    assert_eq!(begin(&sweep("b", b"nobody's")).await, Pruned::default());
    stores.functions.end_sweep(id, "b").await.unwrap();
    assert!(is_swept().await, "it is not theirs to end");
    stores.functions.end_sweep(id, "a").await.unwrap();
    assert!(!is_swept().await);

    // One that nobody ends is over with its lease, and can end no other then.
    let lost = Sweep { lease: Duration::ZERO, ..sweep("lost", b"nobody's") };
    assert!(begin(&lost).await.is_swept);
    assert!(!is_swept().await);
    assert!(begin(&sweep("b", b"nobody's")).await.is_swept);
    stores.functions.end_sweep(id, "lost").await.unwrap();
    assert!(is_swept().await);

    assert!(stores.functions.delete_function(ada, id).await.unwrap());
    assert!(!is_swept().await);
}

pub(crate) async fn versions_that_go_begin_a_sweep(stores: &Stores) {
    let ada = registered(stores, "ada").await;
    let new = first_version(ada, "hello");
    let id = new.function_id;
    for version in 1..=2 {
        stores.functions.accept(next_version(&new, version)).await.unwrap();
        stores.functions.activate(id, version, built()).await.unwrap();
    }
    let sweep = |holder: &str| Sweep {
        holder: holder.to_owned(),
        lease: Duration::from_mins(1),
        ..Sweep::default()
    };
    // Two servers at once: the versions go to one of them.
    let (a, b) = (sweep("a"), sweep("b"));
    let (a, b) = tokio::join!(stores.functions.prune(id, 1, &a), stores.functions.prune(id, 1, &b));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!(a.removed.len() + b.removed.len(), 1);
    assert_ne!(a.is_swept, b.is_swept);
    assert!(stores.functions.is_swept(id).await.unwrap());
}

pub(crate) async fn old_versions_go_while_others_wait_and_are_in_work(stores: &Stores) {
    let ada = registered(stores, "ada").await;
    let new = first_version(ada, "hello");
    let id = new.function_id;
    let minute = Duration::from_mins(1);
    for version in 1..=4 {
        stores.functions.accept(next_version(&new, version)).await.unwrap();
        stores.functions.activate(id, version, built()).await.unwrap();
    }
    for version in 5..=6 {
        stores.functions.accept(next_version(&new, version)).await.unwrap();
    }
    let claimed = stores.functions.claim("builder", minute).await.unwrap().unwrap();
    assert_eq!(claimed.version.version, 5);
    // A note and a sweep at once: it is seen by the one, or sees the other.
    let bundle = BundleHash::of(b"of 5");
    let sweep = Sweep { lease: minute, ..Sweep::default() };
    let note = async {
        stores.functions.note_bundle(id, 5, &bundle).await.unwrap();
        stores.functions.is_swept(id).await.unwrap()
    };
    let (pruned, is_swept) = tokio::join!(stores.functions.prune(id, 2, &sweep), note);
    let pruned = pruned.unwrap();
    assert!(pruned.is_swept);
    let is_seen =
        pruned.kept.iter().any(|kept| kept.version == 5 && kept.making == [bundle.clone()]);
    assert!(is_seen || is_swept);
    let removed: Vec<u32> = pruned.removed.iter().map(|version| version.version).collect();
    assert_eq!(removed, [2, 1]);
    assert_eq!(numbers(stores, ada, id).await, [6, 5, 4, 3]);
    // What is left ends as ever.
    for version in 5..=6 {
        let activated = stores.functions.activate(id, version, built()).await.unwrap();
        assert_eq!(activated, Activation::Activated);
    }
}

pub(crate) async fn sources_that_none_refers_to_begin_a_sweep(stores: &Stores) {
    let ada = registered(stores, "ada").await;
    let new = first_version(ada, "hello");
    let id = new.function_id;
    let begin = async |sources: &[&SourceHash]| {
        let sources = sources.iter().map(|hash| (*hash).clone()).collect();
        let sweep = Sweep { lease: Duration::from_mins(1), sources, ..Sweep::default() };
        stores.functions.prune(id, 9, &sweep).await.unwrap().is_swept
    };
    let nobodys = SourceHash::of(b"nobody's");
    stores.functions.accept(new.clone()).await.unwrap();
    assert!(!begin(&[&new.source_hash]).await);
    assert!(begin(&[&new.source_hash, &nobodys]).await);
}

pub(crate) async fn functions_are_looked_at_in_turn(stores: &Stores) {
    let ada = registered(stores, "ada").await;
    let next = async |age| stores.functions.next_look(age).await.unwrap();
    let (now, hour) = (Duration::ZERO, Duration::from_hours(1));
    assert_eq!(next(now).await, None);
    let mut ids = Vec::new();
    for name in ["a", "b", "c"] {
        let new = first_version(ada, name);
        ids.push(new.function_id);
        stores.functions.accept(new.clone()).await.unwrap();
        // Nobody has looked at it yet.
        assert_eq!(next(hour).await, Some(new.function_id));
        assert_eq!(next(hour).await, None);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Two servers at once share them.
    let (one, other) = tokio::join!(next(now), next(now));
    let mut first = [one.unwrap(), other.unwrap()];
    first.sort_unstable();
    assert_eq!(first, ids[..2]);
    assert_eq!(next(now).await, Some(ids[2]));
    tokio::time::sleep(Duration::from_millis(10)).await;
    stores.functions.delete_function(ada, first[0]).await.unwrap();
    assert_eq!(next(now).await, Some(first[1]));
}

pub(crate) async fn environments_are_walked_and_replaced(stores: &Stores) {
    let ada = registered(stores, "ada").await;
    let mut expected = Vec::new();
    for name in ["a", "b"] {
        let new = first_version(ada, name);
        for version in 1..=3 {
            let env = if version == 2 { SealedEnv::default() } else { SealedEnv(vec![1, 2]) };
            let next = NewVersion { env, ..next_version(&new, version) };
            stores.functions.accept(next).await.unwrap();
            if version != 2 {
                expected.push((new.function_id, version));
            }
        }
    }
    expected.sort_unstable();
    let (mut walked, mut after) = (Vec::new(), None);
    loop {
        let page = stores.functions.sealed_envs(after, 3).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some((last.function_id, last.version));
        walked.extend(page.into_iter().map(|v| (v.function_id, v.version)));
    }
    assert_eq!(walked, expected);

    let (id, version) = walked[0];
    let (old, new) = (SealedEnv(vec![1, 2]), SealedEnv(vec![3]));
    let replace = |old: &SealedEnv, new: &SealedEnv| {
        stores.functions.replace_env(id, version, old.clone(), new.clone())
    };
    assert!(replace(&old, &new).await.unwrap());
    assert!(!replace(&old, &new).await.unwrap());
    let stored = stores.functions.version(ada, id, version).await.unwrap().unwrap();
    assert_eq!(stored.env, new);
}
