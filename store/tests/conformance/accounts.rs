//! Accounts, keys, revoked tokens.

use cloudserve_protocol::ids::{ApiKeyId, UserId};
use cloudserve_store::account::{ApiKey, Scope};
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
        expires_at: Some(Timestamp(NOON + 1)),
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
    assert_eq!((found.prefix, found.created_at), (new.prefix, new.created_at));

    assert!(!stores.accounts.delete_api_key(bob, new.id).await.unwrap());
    assert!(stores.accounts.delete_api_key(ada, new.id).await.unwrap());
    assert!(!stores.accounts.delete_api_key(ada, new.id).await.unwrap());
    assert!(stores.accounts.api_key_by_hash(&new.key_hash).await.unwrap().is_none());
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
