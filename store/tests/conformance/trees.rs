//! Dependency trees that are in use, and the removal of others.

use std::time::Duration;

use cloudserve_protocol::ids::DepHash;
use cloudserve_store::function::NewVersion;
use cloudserve_store::{Stores, Timestamp};

use crate::fixtures::{built, deploy_error, first_version, registered};

const LEASE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

pub(crate) async fn a_tree_that_a_version_names_is_in_use(stores: &Stores) {
    let ada = registered(stores, "ada").await;
    let hash = built().dep_hash.unwrap();
    let look = async |age| stores.trees.look_at_tree(&hash, age, LEASE).await.unwrap();
    // One that waits, and whose build is known.
    let waiting = NewVersion { built: Some(built()), ..first_version(ada, "waiting") };
    stores.functions.accept(waiting.clone()).await.unwrap();
    for _ in 0..3 {
        assert_eq!(look(Duration::ZERO).await, None);
    }
    stores.functions.fail(waiting.function_id, 1, deploy_error()).await.unwrap();
    assert_eq!(look(Duration::ZERO).await, None);
    // One whose build was not known.
    let served = first_version(ada, "served");
    stores.functions.accept(served.clone()).await.unwrap();
    stores.functions.activate(served.function_id, 1, built()).await.unwrap();
    assert!(stores.functions.delete_function(ada, waiting.function_id).await.unwrap());
    assert_eq!(look(Duration::ZERO).await, None);

    // It was in use when it was looked at last, not long ago.
    assert!(stores.functions.delete_function(ada, served.function_id).await.unwrap());
    assert_eq!(look(HOUR).await, None);
    assert!(look(Duration::ZERO).await.is_some());
    // A version that names it by now is seen while it is being removed, too.
    let late = NewVersion { built: Some(built()), ..first_version(ada, "late") };
    stores.functions.accept(late).await.unwrap();
    assert_eq!(look(Duration::ZERO).await, None);
    assert!(!stores.trees.use_tree(&hash).await.unwrap());
}

pub(crate) async fn a_removal_keeps_others_out_until_it_is_over(stores: &Stores) {
    const SHORT: Duration = Duration::from_millis(500);
    let (trees, hash) = (&stores.trees, DepHash::of(b"deps"));
    let look = async |age, lease| trees.look_at_tree(&hash, age, lease).await.unwrap();
    // How long one has not been used is known from the first look on.
    assert_eq!(look(Duration::ZERO, LEASE).await, None);
    assert_eq!(look(HOUR, LEASE).await, None);
    let until = look(Duration::ZERO, LEASE).await.unwrap();
    assert!(until > Timestamp::now());
    assert_eq!(look(Duration::ZERO, LEASE).await, None);
    assert!(!trees.use_tree(&hash).await.unwrap());
    // Others are not concerned.
    let other = DepHash::of(b"other");
    assert!(trees.use_tree(&other).await.unwrap());
    assert_eq!(trees.look_at_tree(&other, HOUR, LEASE).await.unwrap(), None);

    // Only whoever removes it ends that.
    trees.forget_tree(&hash, Timestamp(until.0 - 1)).await.unwrap();
    assert!(!trees.use_tree(&hash).await.unwrap());
    trees.forget_tree(&hash, until).await.unwrap();
    assert_eq!(look(Duration::ZERO, LEASE).await, None, "it is not known");

    // One that does not end is over in time, and goes on with the next look.
    assert!(look(Duration::ZERO, SHORT).await.is_some());
    tokio::time::sleep(SHORT * 2).await;
    assert!(look(SHORT, SHORT).await.is_some());
    tokio::time::sleep(SHORT * 2).await;
    assert!(trees.use_tree(&hash).await.unwrap());
    assert_eq!(look(HOUR, LEASE).await, None);
}

pub(crate) async fn of_two_servers_one_uses_a_tree_or_one_removes_it(one: &Stores, other: &Stores) {
    const AGE: Duration = Duration::from_secs(2);
    let hashes: Vec<DepHash> = (0..20_u8).map(|n| DepHash::of(&[n])).collect();
    for hash in &hashes {
        let looks = tokio::join!(
            one.trees.look_at_tree(hash, Duration::ZERO, LEASE),
            other.trees.look_at_tree(hash, AGE, LEASE),
        );
        assert!(matches!(looks.1, Ok(None)), "{looks:?}");
        // The second one may remove it.
        if let Some(until) = looks.0.unwrap() {
            one.trees.forget_tree(hash, until).await.unwrap();
        }
        one.trees.use_tree(hash).await.unwrap();
    }
    tokio::time::sleep(AGE).await;
    for hash in &hashes {
        let (used, removed, as_well) = tokio::join!(
            one.trees.use_tree(hash),
            other.trees.look_at_tree(hash, AGE, LEASE),
            one.trees.look_at_tree(hash, AGE, LEASE),
        );
        let removed = [removed.unwrap(), as_well.unwrap()].iter().flatten().count();
        assert_eq!(removed, usize::from(!used.unwrap()), "{hash}");
    }
}
