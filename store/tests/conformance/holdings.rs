//! What one account may have of functions and versions.

use cloudserve_protocol::ids::UserId;
use cloudserve_store::function::{FunctionRecord, HoldingBounds, Holdings, NewVersion, Sweep};
use cloudserve_store::{StoreError, Stores};
use futures::future::join_all;

use crate::fixtures::{built, deploy_error, first_version, next_version, registered};

type Accepted = Result<FunctionRecord, StoreError>;

/// All at the same time; those that were accepted, and how many were refused as said.
async fn accept_all(
    stores: &Stores,
    all: Vec<NewVersion>,
    bounds: HoldingBounds,
    is_refused: impl Fn(&Accepted) -> bool,
) -> (Vec<FunctionRecord>, usize) {
    let accepting = all.into_iter().map(|new| {
        let functions = stores.functions.clone();
        tokio::spawn(async move { functions.accept_within(new, bounds).await })
    });
    let outcomes: Vec<Accepted> =
        join_all(accepting).await.into_iter().map(Result::unwrap).collect();
    let refused = outcomes.iter().filter(|outcome| is_refused(outcome)).count();
    (outcomes.into_iter().flatten().collect(), refused)
}

fn named(owner: UserId, n: usize) -> Vec<NewVersion> {
    (0..n).map(|number| first_version(owner, &format!("f{number}"))).collect()
}

pub(crate) async fn an_account_has_a_bounded_number_of_functions(stores: &Stores) {
    const MAX: u32 = 3;
    let (ada, bob) = (registered(stores, "ada").await, registered(stores, "bob").await);
    let bounds = HoldingBounds { functions: Some(MAX), ..HoldingBounds::default() };
    let is_full =
        |outcome: &Accepted| matches!(outcome, Err(StoreError::TooManyFunctions { max: MAX }));
    let all = named(ada, 8);
    let (made, refused) = accept_all(stores, all.clone(), bounds, is_full).await;
    assert_eq!((made.len(), refused), (3, 5));
    assert_eq!(stores.functions.holdings(ada).await.unwrap().functions, MAX);

    // One that is there may have more versions, and others have a number of their own.
    let there = all.iter().find(|new| new.function_id == made[0].function.id).unwrap();
    stores.functions.accept_within(next_version(there, 2), bounds).await.unwrap();
    stores.functions.accept_within(first_version(bob, "f"), bounds).await.unwrap();
    let another = first_version(ada, "another");
    assert!(is_full(&stores.functions.accept_within(another.clone(), bounds).await));
    assert!(stores.functions.delete_function(ada, made[1].function.id).await.unwrap());
    stores.functions.accept_within(another, bounds).await.unwrap();
    stores.functions.accept(first_version(ada, "whatever-there-is")).await.unwrap();
}

pub(crate) async fn what_versions_take_of_storage_is_bounded_for_an_account(stores: &Stores) {
    let (ada, bob) = (registered(stores, "ada").await, registered(stores, "bob").await);
    let all = named(ada, 8);
    let one = all[0].bytes();
    let of_build = built().bytes();
    assert!(of_build == 9 && one > of_build);
    let max_bytes = 3 * one + of_build;
    let bounds = HoldingBounds { bytes: Some(max_bytes), ..HoldingBounds::default() };
    let bytes = async |owner| stores.functions.holdings(owner).await.unwrap().bytes;
    let is_full = |outcome: &Accepted| {
        let Err(StoreError::TooManyBytes { max_bytes: max, held_bytes, more_bytes }) = outcome
        else {
            return false;
        };
        *max == max_bytes && *held_bytes >= 3 * one && *more_bytes == one
    };
    let (made, refused) = accept_all(stores, all.clone(), bounds, is_full).await;
    assert_eq!((made.len(), refused), (3, 5));
    let held = Holdings { queued: 3, functions: 3, bytes: 3 * one };
    assert_eq!(stores.functions.holdings(ada).await.unwrap(), held);
    assert_eq!(bytes(bob).await, 0);
    stores.functions.accept_within(first_version(bob, "f"), bounds).await.unwrap();

    // What was built counts from when it is served, once.
    let id = made[0].function.id;
    for _ in 0..2 {
        stores.functions.activate(id, 1, built()).await.unwrap();
        assert_eq!(bytes(ada).await, 3 * one + of_build);
    }
    // Versions count like functions, and with what was built before.
    let there = all.iter().find(|new| new.function_id == id).unwrap();
    let next = NewVersion { built: Some(built()), ..next_version(there, 2) };
    assert_eq!(next.bytes(), one + of_build);
    assert!(is_full(&stores.functions.accept_within(next_version(there, 2), bounds).await));
    // What is built already is not refused: a new environment stores no object.
    stores.functions.accept_within(next, bounds).await.unwrap();
    stores.functions.activate(id, 2, built()).await.unwrap();
    assert_eq!(bytes(ada).await, 4 * one + 2 * of_build);

    // What goes, with a version or with its function, counts no more; what has failed does.
    stores.functions.fail(made[1].function.id, 1, deploy_error()).await.unwrap();
    let pruned = stores.functions.prune(id, 1, &Sweep::default()).await.unwrap();
    assert_eq!(pruned.removed.len(), 1);
    assert_eq!(bytes(ada).await, 3 * one + of_build);
    assert!(is_full(&stores.functions.accept_within(first_version(ada, "g"), bounds).await));
    assert!(stores.functions.delete_function(ada, made[1].function.id).await.unwrap());
    assert_eq!(bytes(ada).await, 2 * one + of_build);
    stores.functions.accept_within(first_version(ada, "g"), bounds).await.unwrap();
}

pub(crate) async fn what_an_account_adds_to_the_trees_counts_for_a_day(stores: &Stores) {
    let (ada, bob) = (registered(stores, "ada").await, registered(stores, "bob").await);
    let added = async |owner, day| stores.functions.trees_added(owner, day).await.unwrap();
    let add = async |day, bytes| stores.functions.add_tree(ada, day, bytes).await.unwrap();
    assert_eq!(added(ada, 20_000).await, 0);
    add(20_000, 5).await;
    add(20_000, 7).await;
    assert_eq!((added(ada, 20_000).await, added(ada, 20_001).await), (12, 0));
    add(20_001, 3).await;
    assert_eq!((added(ada, 20_001).await, added(bob, 20_001).await), (3, 0));
    // What is late of the day before takes nothing off this one, and a clock that was wrong bounds nobody.
    add(20_000, 9).await;
    assert_eq!(added(ada, 20_001).await, 3);
    add(30_000, 1).await;
    add(20_001, 4).await;
    assert_eq!(added(ada, 20_001).await, 4);
    // Of an account that is not there nothing is kept.
    stores.functions.add_tree(UserId::new(), 20_001, 1).await.unwrap();
}
