//! The deploy queue and the pointer to what is served.

use std::collections::HashSet;
use std::time::Duration;

use cloudserve_protocol::ids::FunctionId;
use cloudserve_store::function::{Activation, DeployStatus, HoldingBounds, NewVersion, Visibility};
use cloudserve_store::{StoreError, Stores};
use futures::future::join_all;

use crate::fixtures::{built, deploy_error, first_version, next_version, registered};

const LEASE: Duration = Duration::from_mins(1);

pub(crate) async fn claims_are_oldest_first_and_exclusive(stores: &Stores) {
    let ada = registered(stores, "ada").await;
    let mut accepted = Vec::new();
    for number in 0..10 {
        let new = first_version(ada, &format!("f{number}"));
        accepted.push(new.function_id);
        stores.functions.accept(new).await.unwrap();
    }
    let oldest = stores.functions.claim("first", LEASE).await.unwrap().unwrap();
    assert_eq!((oldest.function.id, oldest.version.version), (accepted[0], 1));
    assert_eq!((oldest.attempt, oldest.owner_name.as_str()), (1, "ada"));
    assert_eq!(oldest.version.status, DeployStatus::Deploying);
    assert_eq!(oldest.function.status, DeployStatus::Deploying);

    let claims = (0..16).map(|number| {
        let functions = stores.functions.clone();
        tokio::spawn(async move { functions.claim(&format!("c{number}"), LEASE).await })
    });
    let claimed: Vec<FunctionId> = join_all(claims)
        .await
        .into_iter()
        .filter_map(|claim| claim.unwrap().unwrap())
        .map(|claim| claim.function.id)
        .collect();
    let distinct: HashSet<_> = claimed.iter().copied().collect();
    assert_eq!((claimed.len(), distinct.len()), (9, 9));
    assert!(!distinct.contains(&accepted[0]));
}

pub(crate) async fn accounts_with_nothing_in_work_come_first(stores: &Stores) {
    let (ada, bob) = (registered(stores, "ada").await, registered(stores, "bob").await);
    let mut of_ada = Vec::new();
    for number in 0..10 {
        let new = first_version(ada, &format!("f{number}"));
        of_ada.push(new.function_id);
        stores.functions.accept(new).await.unwrap();
    }
    let claim = || async { stores.functions.claim("a", LEASE).await.unwrap().unwrap().function.id };
    assert_eq!(claim().await, of_ada[0]);
    let of_bob = [first_version(bob, "first"), first_version(bob, "second")];
    for new in of_bob {
        let id = new.function_id;
        stores.functions.accept(new).await.unwrap();
        assert_eq!(claim().await, id, "bob has nothing in work, ada has");
        stores.functions.activate(id, 1, built()).await.unwrap();
    }
    // Nobody else waits: an account may have more than one in work.
    assert_eq!((claim().await, claim().await), (of_ada[1], of_ada[2]));
}

pub(crate) async fn accounts_take_turns_however_many_ask_at_once(stores: &Stores) {
    const ACCOUNTS: usize = 6;
    for number in 0..ACCOUNTS {
        let owner = registered(stores, &format!("owner-{number}")).await;
        for name in ["a", "b", "c"] {
            stores.functions.accept(first_version(owner, name)).await.unwrap();
        }
    }
    let claims = (0..ACCOUNTS).map(|number| {
        let functions = stores.functions.clone();
        tokio::spawn(async move { functions.claim(&format!("c{number}"), LEASE).await })
    });
    let claims = join_all(claims).await.into_iter().map(|claim| claim.unwrap().unwrap().unwrap());
    let claims: Vec<_> = claims.collect();
    let owners: HashSet<_> = claims.iter().map(|claim| claim.function.user_id).collect();
    assert_eq!(owners.len(), ACCOUNTS, "{claims:#?}");
    assert!(claims.iter().all(|claim| claim.function.name.as_str() == "a" && claim.attempt == 1));
}

pub(crate) async fn an_account_has_a_bounded_number_in_the_queue(stores: &Stores) {
    const MAX: u32 = 20;
    let (ada, bob) = (registered(stores, "ada").await, registered(stores, "bob").await);
    let bounds = HoldingBounds { queued: Some(MAX), ..HoldingBounds::default() };
    let accept = |new| stores.functions.accept_within(new, bounds);
    let queued = async |owner| stores.functions.holdings(owner).await.unwrap().queued;
    let first = first_version(ada, "f0");
    // Versions of one function and functions count alike, and at once as one after the other.
    let more = (1..MAX).map(|number| {
        let new = first_version(ada, &format!("f{number}"));
        let functions = stores.functions.clone();
        tokio::spawn(async move { functions.accept_within(new, bounds).await })
    });
    let more = join_all(more).await;
    assert!(more.into_iter().all(|accepted| accepted.unwrap().is_ok()));
    accept(first.clone()).await.unwrap();
    assert_eq!(queued(ada).await, MAX);
    for refused in [next_version(&first, 2), first_version(ada, "one-more")] {
        let refused = accept(refused).await;
        assert!(matches!(refused, Err(StoreError::QueueFull { max: MAX })), "{refused:?}");
    }
    assert_eq!(stores.functions.versions(ada, first.function_id, 9).await.unwrap().len(), 1);
    accept(first_version(bob, "f")).await.unwrap();
    assert_eq!(queued(bob).await, 1);

    // What is in work counts, what has ended or was deleted does not.
    let claimed = stores.functions.claim("a", LEASE).await.unwrap().unwrap().function.id;
    assert!(matches!(accept(next_version(&first, 2)).await, Err(StoreError::QueueFull { .. })));
    stores.functions.activate(claimed, 1, built()).await.unwrap();
    accept(next_version(&first, 2)).await.unwrap();
    stores.functions.fail(first.function_id, 2, deploy_error()).await.unwrap();
    stores.functions.delete_function(ada, first.function_id).await.unwrap();
    let left = if claimed == first.function_id { MAX - 1 } else { MAX - 2 };
    assert_eq!(queued(ada).await, left);
}

pub(crate) async fn an_expired_lease_lets_others_in(stores: &Stores) {
    let ada = registered(stores, "ada").await;
    let id = stores.functions.accept(first_version(ada, "hello")).await.unwrap().function.id;
    assert!(stores.functions.claim("a", LEASE).await.unwrap().is_some());
    assert!(stores.functions.claim("b", LEASE).await.unwrap().is_none());

    let short = Duration::from_millis(20);
    assert!(stores.functions.renew("a", id, 1, short).await.unwrap());
    tokio::time::sleep(short * 2).await;
    // Nobody else was there: it is still held, and can be made good.
    assert!(stores.functions.renew("a", id, 1, LEASE).await.unwrap());
    assert!(stores.functions.claim("b", LEASE).await.unwrap().is_none());

    assert!(stores.functions.renew("a", id, 1, Duration::ZERO).await.unwrap());
    let again = stores.functions.claim("b", LEASE).await.unwrap().unwrap();
    assert_eq!((again.function.id, again.attempt), (id, 2));
    assert!(!stores.functions.renew("a", id, 1, LEASE).await.unwrap());
    assert!(stores.functions.renew("b", id, 1, LEASE).await.unwrap());

    stores.functions.activate(id, 1, built()).await.unwrap();
    assert!(!stores.functions.renew("b", id, 1, LEASE).await.unwrap());
    assert!(stores.functions.claim("c", LEASE).await.unwrap().is_none());
}

pub(crate) async fn activation_only_moves_forward(stores: &Stores) {
    let ada = registered(stores, "ada").await;
    let new = first_version(ada, "hello");
    let id = new.function_id;
    for version in 1..=3 {
        stores.functions.accept(next_version(&new, version)).await.unwrap();
    }
    let record = || async { stores.functions.function(ada, id).await.unwrap().unwrap() };

    assert_eq!(stores.functions.activate(id, 2, built()).await.unwrap(), Activation::Activated);
    let after = record().await;
    assert_eq!(after.function.active_version, Some(2));
    assert_eq!(after.function.status, DeployStatus::Pending, "version 3 is the newest");
    assert_eq!(after.active.unwrap().built, Some(built()));
    assert_eq!(after.function.deployed_at, Some(after.function.updated_at));

    assert_eq!(stores.functions.activate(id, 1, built()).await.unwrap(), Activation::Superseded);
    assert_eq!(stores.functions.activate(id, 1, built()).await.unwrap(), Activation::Superseded);
    assert_eq!(stores.functions.activate(id, 2, built()).await.unwrap(), Activation::Activated);
    assert_eq!(record().await.function, after.function, "repeating changes nothing");

    assert_eq!(stores.functions.activate(id, 3, built()).await.unwrap(), Activation::Activated);
    let after = record().await;
    assert_eq!(after.function.status, DeployStatus::Active);
    assert_eq!(
        (after.function.active_version, after.active.as_ref()),
        (Some(3), Some(&after.latest))
    );
    assert_eq!(stores.functions.activate(id, 2, built()).await.unwrap(), Activation::Superseded);

    let statuses: Vec<_> =
        stores.functions.versions(ada, id, 9).await.unwrap().iter().map(|v| v.status).collect();
    assert_eq!(statuses, [DeployStatus::Active, DeployStatus::Active, DeployStatus::Superseded]);
    let unknown = stores.functions.activate(id, 9, built()).await;
    assert!(matches!(unknown, Err(StoreError::Missing)), "{unknown:?}");
    let gone = stores.functions.activate(FunctionId::new(), 1, built()).await.unwrap();
    assert_eq!(gone, Activation::Gone);
}

pub(crate) async fn concurrent_activations_end_with_the_newest(stores: &Stores) {
    let ada = registered(stores, "ada").await;
    let new = first_version(ada, "hello");
    let id = new.function_id;
    for version in 1..=12 {
        stores.functions.accept(next_version(&new, version)).await.unwrap();
    }
    let races = (1..=12).rev().map(|version| {
        let functions = stores.functions.clone();
        tokio::spawn(async move { (version, functions.activate(id, version, built()).await) })
    });
    for race in join_all(races).await {
        let (version, outcome) = race.unwrap();
        let outcome = outcome.unwrap();
        assert!(version < 12 || outcome == Activation::Activated);
        assert_ne!(outcome, Activation::Gone);
    }
    let record = stores.functions.function(ada, id).await.unwrap().unwrap();
    assert_eq!(record.function.active_version, Some(12));
    assert_eq!(record.function.status, DeployStatus::Active);
}

pub(crate) async fn a_failed_deploy_changes_nothing_that_is_served(stores: &Stores) {
    let ada = registered(stores, "ada").await;
    let new = first_version(ada, "hello");
    let id = new.function_id;
    stores.functions.accept(new.clone()).await.unwrap();
    stores.functions.activate(id, 1, built()).await.unwrap();
    stores.functions.fail(id, 1, deploy_error()).await.unwrap();
    let record = stores.functions.function(ada, id).await.unwrap().unwrap();
    assert_eq!(record.function.status, DeployStatus::Active, "what is active cannot fail");

    stores.functions.accept(next_version(&new, 2)).await.unwrap();
    stores.functions.fail(id, 2, deploy_error()).await.unwrap();
    let record = stores.functions.function(ada, id).await.unwrap().unwrap();
    assert_eq!(record.function.status, DeployStatus::Failed);
    assert_eq!(record.function.deploy_error, Some(deploy_error()));
    assert_eq!(record.latest.error, Some(deploy_error()));
    assert_eq!(record.function.active_version, Some(1));
    assert!(stores.functions.claim("b", LEASE).await.unwrap().is_none());
    // A builder that was too slow does not bring it back.
    let late = stores.functions.activate(id, 2, built()).await;
    assert!(matches!(late, Err(StoreError::Conflict)), "{late:?}");

    stores.functions.accept(next_version(&new, 3)).await.unwrap();
    let record = stores.functions.accept(next_version(&new, 4)).await.unwrap();
    assert_eq!(
        (record.function.status, record.function.deploy_error),
        (DeployStatus::Pending, None)
    );
    stores.functions.fail(id, 3, deploy_error()).await.unwrap();
    let record = stores.functions.function(ada, id).await.unwrap().unwrap();
    assert_eq!(record.function.status, DeployStatus::Pending, "version 4 is the newest");
    assert_eq!(record.function.deploy_error, None);
}

pub(crate) async fn a_function_becomes_public_with_the_version_that_is_served(stores: &Stores) {
    use Visibility::{Private, Public};
    let ada = registered(stores, "ada").await;
    let new = first_version(ada, "hello");
    let id = new.function_id;
    let accept = async |version, visibility| {
        let new = NewVersion { visibility, ..next_version(&new, version) };
        stores.functions.accept(new).await.unwrap()
    };
    let activate = async |version| stores.functions.activate(id, version, built()).await.unwrap();
    let now = async || stores.functions.function(ada, id).await.unwrap().unwrap();
    let visibility = async || now().await.function.visibility;
    accept(1, None).await;
    activate(1).await;

    // Not before it is served, and not if it fails.
    let record = accept(2, Some(Public)).await;
    assert_eq!((record.function.visibility, record.latest.makes_public), (Private, true));
    stores.functions.fail(id, 2, deploy_error()).await.unwrap();
    let record = now().await;
    assert_eq!((record.function.visibility, record.latest.makes_public), (Private, false));
    accept(3, None).await;
    activate(3).await;
    assert_eq!(visibility().await, Private, "what failed leaves nothing behind");

    // What waits may be overtaken by what comes after it, which does not lose it.
    accept(4, Some(Public)).await;
    assert!(!accept(5, None).await.latest.makes_public);
    assert_eq!(activate(5).await, Activation::Activated);
    assert_eq!(activate(4).await, Activation::Superseded);
    let record = now().await;
    assert_eq!((record.function.visibility, record.latest.makes_public), (Public, false));

    // Private it becomes at once, whatever waits.
    accept(6, Some(Public)).await;
    assert_eq!(accept(7, Some(Private)).await.function.visibility, Private);
    activate(6).await;
    activate(7).await;
    assert_eq!(visibility().await, Private);
    accept(8, Some(Public)).await;
    assert!(stores.functions.set_visibility(ada, id, Private).await.unwrap());
    assert_eq!(activate(8).await, Activation::Activated);
    assert_eq!(visibility().await, Private);

    // What a rollback keeps from being served changes nothing either.
    accept(9, Some(Public)).await;
    stores.functions.rollback(ada, id, 1).await.unwrap();
    assert!(!accept(10, None).await.latest.makes_public);
    assert_eq!(activate(9).await, Activation::Superseded);
    assert_eq!(visibility().await, Private);

    // What waits and then fails leaves nothing to what was accepted meanwhile, and what comes later
    // brings nothing to what is served before it.
    accept(11, Some(Public)).await;
    accept(12, None).await;
    accept(13, Some(Public)).await;
    stores.functions.fail(id, 11, deploy_error()).await.unwrap();
    assert_eq!(activate(12).await, Activation::Activated);
    assert_eq!(visibility().await, Private);
    assert_eq!(activate(13).await, Activation::Activated);
    assert_eq!(visibility().await, Public);
}
