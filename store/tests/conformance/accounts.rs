//! Accounts, keys, revoked tokens.

use cloudserve_protocol::ids::{ApiKeyId, AuditId, FunctionId, UserId};
use cloudserve_store::account::{Actor, ApiKey, AuditEntry, Quota, Scope};
use cloudserve_store::{StoreError, Stores, Timestamp};
use futures::future::join_all;

use crate::fixtures::{NOON, registered, user};

pub(crate) async fn names_and_addresses_are_unique(stores: &Stores) {
    let ada = user("ada");
    stores.accounts.create_user(ada.clone()).await.unwrap();

    let mut same_name = user("ada");
    same_name.email = "other@example.org".into();
    let mut same_email = user("bob");
    same_email.email.clone_from(&ada.email);
    for (second, taken) in [(same_name, "userName"), (same_email, "email")] {
        match stores.accounts.create_user(second).await {
            Err(StoreError::Taken { what }) => assert_eq!(what, taken),
            other => panic!("{taken}: {other:?}"),
        }
    }

    for found in [
        stores.accounts.user(ada.id).await.unwrap(),
        stores.accounts.user_by_name(&ada.user_name).await.unwrap(),
        stores.accounts.user_by_email(&ada.email).await.unwrap(),
    ] {
        let found = found.unwrap();
        assert_eq!(found.id, ada.id);
        assert_eq!(found.user_name, ada.user_name);
        assert_eq!(found.email, ada.email);
        assert_eq!(found.full_name, ada.full_name);
        assert_eq!(found.password_hash, ada.password_hash);
        assert_eq!(found.created_at, ada.created_at);
    }
    assert!(stores.accounts.user(UserId::new()).await.unwrap().is_none());
    assert!(stores.accounts.user_by_email("' OR 1=1 --").await.unwrap().is_none());
}

pub(crate) async fn concurrent_registrations_have_one_winner(stores: &Stores) {
    let attempts = (0..16).map(|_| {
        let accounts = stores.accounts.clone();
        tokio::spawn(async move { accounts.create_user(user("ada")).await })
    });
    let outcomes = join_all(attempts).await;
    let won = outcomes.iter().filter(|o| matches!(o, Ok(Ok(())))).count();
    let taken = outcomes.iter().filter(|o| matches!(o, Ok(Err(StoreError::Taken { .. })))).count();
    assert_eq!((won, taken), (1, 15));
}

fn key(user_id: UserId, name: &str, created_at: i64) -> ApiKey {
    ApiKey {
        id: ApiKeyId::new(),
        user_id,
        name: name.into(),
        key_hash: format!("hash of {name}"),
        prefix: "cs_abcd".into(),
        scopes: vec![Scope::Invoke, Scope::Read],
        functions: vec![FunctionId::new()],
        expires_at: Some(Timestamp(NOON + 1)),
        last_used_at: None,
        created_at: Timestamp(created_at),
    }
}

pub(crate) async fn keys_are_listed_found_and_removed(stores: &Stores) {
    let ada = registered(stores, "ada").await;
    let bob = registered(stores, "bob").await;
    let (old, new) = (key(ada, "old", NOON), key(ada, "new", NOON + 1));
    for key in [&old, &new] {
        stores.accounts.create_api_key(key.clone()).await.unwrap();
    }
    let again = stores.accounts.create_api_key(key(ada, "new", NOON)).await;
    assert!(matches!(again, Err(StoreError::Conflict)), "{again:?}");
    let orphan = stores.accounts.create_api_key(key(UserId::new(), "x", NOON)).await;
    assert!(matches!(orphan, Err(StoreError::Missing)), "{orphan:?}");

    let names: Vec<_> =
        stores.accounts.api_keys(ada).await.unwrap().into_iter().map(|k| k.name).collect();
    assert_eq!(names, ["new", "old"]);
    assert!(stores.accounts.api_keys(bob).await.unwrap().is_empty());

    let found = stores.accounts.api_key_by_hash(&new.key_hash).await.unwrap().unwrap();
    assert_eq!((found.id, found.user_id), (new.id, ada));
    assert_eq!((found.scopes, found.expires_at), (new.scopes, new.expires_at));
    assert_eq!((found.functions, found.last_used_at), (new.functions, None));
    assert_eq!((found.prefix, found.created_at), (new.prefix, new.created_at));

    assert!(!stores.accounts.delete_api_key(bob, new.id).await.unwrap());
    assert!(stores.accounts.delete_api_key(ada, new.id).await.unwrap());
    assert!(!stores.accounts.delete_api_key(ada, new.id).await.unwrap());
    assert!(stores.accounts.api_key_by_hash(&new.key_hash).await.unwrap().is_none());
}

pub(crate) async fn an_account_has_a_bounded_number_of_keys(stores: &Stores) {
    const MAX: usize = 3;
    let (ada, bob) = (registered(stores, "ada").await, registered(stores, "bob").await);
    let make = |key: ApiKey| {
        let accounts = stores.accounts.clone();
        tokio::spawn(async move { accounts.create_api_key_within(key, Some(MAX)).await })
    };
    let outcomes = join_all((0..10).map(|n| make(key(ada, &format!("k{n}"), NOON)))).await;
    let made = outcomes.iter().filter(|o| matches!(o, Ok(Ok(())))).count();
    let full = |outcome: &Result<(), StoreError>| {
        matches!(outcome, Err(StoreError::Full { max: MAX, .. }))
    };
    let refused = outcomes.iter().filter(|o| o.as_ref().is_ok_and(full)).count();
    assert_eq!((made, refused), (MAX, 10 - MAX), "{outcomes:?}");
    let of_ada = stores.accounts.api_keys(ada).await.unwrap();
    assert_eq!(of_ada.len(), MAX);
    // Others have a number of their own, and who removes one may have another.
    make(key(bob, "of bob", NOON)).await.unwrap().unwrap();
    assert!(stores.accounts.delete_api_key(ada, of_ada[0].id).await.unwrap());
    make(key(ada, "again", NOON)).await.unwrap().unwrap();
    assert!(full(&make(key(ada, "too many", NOON)).await.unwrap()));
    stores.accounts.create_api_key(key(ada, "whatever there is", NOON)).await.unwrap();
}

pub(crate) async fn revoked_tokens_are_known(stores: &Stores) {
    let end = Timestamp(Timestamp::now().0 + 60_000);
    for token in ["a", "a", "b"] {
        stores.accounts.revoke_token(token, end).await.unwrap();
    }
    for (token, revoked) in [("a", true), ("b", true), ("c", false)] {
        assert_eq!(stores.accounts.is_token_revoked(token).await.unwrap(), revoked, "{token}");
    }
}

pub(crate) async fn the_last_use_of_a_key_is_the_latest(stores: &Stores) {
    let ada = registered(stores, "ada").await;
    let (used, unused) = (key(ada, "used", NOON + 1), key(ada, "unused", NOON));
    for key in [&used, &unused] {
        stores.accounts.create_api_key(key.clone()).await.unwrap();
    }
    let gone = ApiKeyId::new();
    for at in [7, 9, 8] {
        let uses = vec![(used.id, Timestamp(NOON + at)), (gone, Timestamp(NOON))];
        stores.accounts.touch_api_keys(uses).await.unwrap();
    }
    let last: Vec<_> =
        stores.accounts.api_keys(ada).await.unwrap().iter().map(|k| k.last_used_at).collect();
    assert_eq!(last, [Some(Timestamp(NOON + 9)), None]);
}

pub(crate) async fn quotas_are_of_one_account(stores: &Stores) {
    let (ada, bob) = (registered(stores, "ada").await, registered(stores, "bob").await);
    let quota = Quota {
        calls_per_day: Some(u64::from(u32::MAX) + 1),
        gb_seconds_per_month: Some(0.25),
        rate_per_second: Some(0),
    };
    assert!(stores.accounts.set_quota(ada, quota).await.unwrap());
    assert!(!stores.accounts.set_quota(UserId::new(), quota).await.unwrap());
    let stored = |id| async move { stores.accounts.user(id).await.unwrap().unwrap().quota };
    assert_eq!((stored(ada).await, stored(bob).await), (quota, Quota::default()));
    // All of it is replaced.
    assert!(stores.accounts.set_quota(ada, Quota::default()).await.unwrap());
    assert_eq!(stored(ada).await, Quota::default());
}

pub(crate) async fn the_audit_trail_is_newest_first_and_ends(stores: &Stores) {
    const DAY: i64 = 86_400_000;
    let (ada, bob) = (registered(stores, "ada").await, registered(stores, "bob").await);
    let entry = |user_id, at: i64, actor| AuditEntry {
        id: AuditId::new(),
        user_id,
        actor,
        action: "apikey.created".into(),
        subject: (at % 2 == 0).then(|| "a subject".into()),
        detail: "\u{e9}".into(),
        at: Timestamp(at),
    };
    let actors = [Actor::Session, Actor::ApiKey(ApiKeyId::new()), Actor::Operator];
    let mut all: Vec<_> = (0..5)
        .zip(actors.into_iter().cycle())
        .map(|(n, by)| entry(ada, NOON + n / 2, by))
        .collect();
    for entry in &all {
        stores.accounts.record_audit(entry.clone()).await.unwrap();
    }
    stores.accounts.record_audit(entry(bob, NOON, Actor::Session)).await.unwrap();
    let orphan = stores.accounts.record_audit(entry(UserId::new(), NOON, Actor::Session)).await;
    assert!(matches!(orphan, Err(StoreError::Missing)), "{orphan:?}");

    let (mut read, mut cursor) = (Vec::new(), None);
    loop {
        let page = stores.accounts.audit(ada, 2, cursor.as_deref()).await.unwrap();
        read.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    all.reverse();
    assert_eq!(read, all);
    let refused = stores.accounts.audit(ada, 2, Some("nonsense")).await;
    assert!(matches!(refused, Err(StoreError::BadCursor)));

    let late = entry(ada, NOON + 401 * DAY, Actor::Session);
    stores.accounts.record_audit(late.clone()).await.unwrap();
    let mut kept = vec![late];
    assert_eq!(stores.accounts.audit(ada, 9, None).await.unwrap().items, kept);
    assert_eq!(stores.accounts.audit(bob, 9, None).await.unwrap().items.len(), 1);

    // Of more than are kept the oldest go, whose ids say so where their times are the same.
    for n in 1..6 {
        let next = entry(ada, NOON + 401 * DAY + n / 2, Actor::Session);
        stores.accounts.record_audit_within(next.clone(), 3).await.unwrap();
        kept.insert(0, next);
        kept.truncate(3);
        assert_eq!(stores.accounts.audit(ada, 9, None).await.unwrap().items, kept);
    }
    assert_eq!(stores.accounts.audit(bob, 9, None).await.unwrap().items.len(), 1);
}
