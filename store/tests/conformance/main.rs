//! What every back end must do, written against the traits alone.
//!
//! A new back end is one more line in [`backends!`]; a new rule is one more case in the list.

#![allow(clippy::unwrap_used, clippy::large_futures)]

mod accounts;
mod artifacts;
mod fixtures;
mod functions;
mod holdings;
mod queue;
#[path = "../servers/mod.rs"]
mod servers;
mod telemetry;
mod transfer;
mod trees;
mod versions;

use cloudserve_store::transfer::Transfer;
use cloudserve_store::{
    MongoOptions, OpenError, S3Options, Stores, open_embedded, open_embedded_transfer,
    open_production, open_production_transfer,
};
use tempfile::TempDir;

/// An empty installation and what keeps it alive.
struct Installation {
    stores: Stores,
    transfer: Transfer,
    place: Place,
}

/// Where an installation is.
enum Place {
    Embedded(TempDir),
    Production(Box<(MongoOptions, S3Options)>),
}

impl Place {
    /// Opens it, as one more process does.
    async fn open(&self) -> Result<Stores, OpenError> {
        match self {
            Self::Embedded(directory) => open_embedded(directory.path()),
            Self::Production(servers) => open_production(&servers.0, &servers.1).await,
        }
    }

    async fn open_transfer(&self) -> Result<Transfer, OpenError> {
        match self {
            Self::Embedded(directory) => open_embedded_transfer(directory.path()),
            Self::Production(servers) => open_production_transfer(&servers.0, &servers.1).await,
        }
    }

    async fn installation(self) -> Installation {
        let stores = self.open().await.unwrap();
        let transfer = self.open_transfer().await.unwrap();
        Installation { stores, transfer, place: self }
    }
}

/// SQLite and local files.
async fn embedded() -> Installation {
    Place::Embedded(tempfile::tempdir().unwrap()).installation().await
}

/// MongoDB and S3.
async fn production() -> Installation {
    let (mongod, s3) = tokio::join!(servers::mongod(), servers::s3());
    let servers = servers::options(mongod, s3, &servers::unique_name());
    Place::Production(Box::new(servers)).installation().await
}

macro_rules! cases {
    ($open:path, $($module:ident::$case:ident,)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $case() {
            let installation = $open().await;
            crate::$module::$case(&installation.stores).await;
        }
    )*};
}

macro_rules! backends {
    ($($name:ident: $open:path;)*) => {$(
        mod $name {
            cases! {
                $open,
                accounts::names_and_addresses_are_unique,
                accounts::concurrent_registrations_have_one_winner,
                accounts::keys_are_listed_found_and_removed,
                accounts::an_account_has_a_bounded_number_of_keys,
                accounts::revoked_tokens_are_known,
                accounts::the_last_use_of_a_key_is_the_latest,
                accounts::quotas_are_of_one_account,
                accounts::the_audit_trail_is_newest_first_and_ends,
                functions::accept_makes_a_pending_function,
                functions::accept_refuses_duplicates_and_strangers,
                functions::concurrent_deploys_have_one_winner,
                functions::lists_are_newest_first_and_cursors_are_stable,
                functions::a_list_shows_what_the_functions_are,
                functions::functions_of_one_millisecond_are_told_apart,
                functions::versions_and_visibility_belong_to_their_owner,
                functions::a_route_shows_what_is_served,
                functions::deletion_takes_versions_and_logs_but_not_usage,
                functions::changes_are_announced_after_the_commit,
                functions::what_may_be_left_of_functions_that_are_not_there_is_known,
                holdings::an_account_has_a_bounded_number_of_functions,
                holdings::what_versions_take_of_storage_is_bounded_for_an_account,
                holdings::what_an_account_adds_to_the_trees_counts_for_a_day,
                queue::claims_are_oldest_first_and_exclusive,
                queue::accounts_with_nothing_in_work_come_first,
                queue::accounts_take_turns_however_many_ask_at_once,
                queue::an_account_has_a_bounded_number_in_the_queue,
                queue::an_expired_lease_lets_others_in,
                queue::activation_only_moves_forward,
                queue::concurrent_activations_end_with_the_newest,
                queue::a_failed_deploy_changes_nothing_that_is_served,
                queue::a_function_becomes_public_with_the_version_that_is_served,
                telemetry::recording_twice_counts_once,
                telemetry::logs_are_read_newest_first_by_cursor,
                telemetry::pages_of_large_logs_are_bounded,
                telemetry::sums_agree_with_the_rows,
                telemetry::calls_of_all_functions_are_in_one_order,
                telemetry::logs_expire_and_usage_stays,
                telemetry::logs_are_searched_by_level_and_text,
                telemetry::a_tail_shows_what_is_recorded_from_then_on,
                telemetry::a_tail_misses_nothing_when_logs_go,
                telemetry::a_tail_goes_on_within_one_millisecond,
                telemetry::usage_is_summed_by_function_and_latency_by_day,
                versions::a_rollback_moves_the_pointer_and_holds,
                versions::what_was_built_before_is_queued_with_it,
                versions::what_is_of_a_version_that_is_no_longer_served_is_not_accepted,
                versions::old_versions_go_and_what_is_served_stays,
                versions::sweeps_and_deploys_take_turns,
                versions::versions_that_go_begin_a_sweep,
                versions::old_versions_go_while_others_wait_and_are_in_work,
                versions::sources_that_none_refers_to_begin_a_sweep,
                versions::functions_are_looked_at_in_turn,
                versions::environments_are_walked_and_replaced,
                artifacts::objects_round_trip,
                artifacts::hostile_keys_stay_inside,
                artifacts::readers_see_all_or_nothing,
                artifacts::deletion_leaves_other_functions_and_trees,
                artifacts::one_object_is_deleted_alone,
                artifacts::objects_of_a_function_are_listed_with_their_age,
                artifacts::objects_of_dependencies_are_listed_in_order,
                trees::a_tree_that_a_version_names_is_in_use,
                trees::a_removal_keeps_others_out_until_it_is_over,
            }
        }
    )*};
}

backends! {
    embedded_installation: crate::embedded;
    production_installation: crate::production;
}

macro_rules! directions {
    ($($name:ident: $from:path => $to:path;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $name() {
            let (from, to) = ($from().await, $to().await);
            crate::transfer::everything_moves(&from, &to).await;
        }
    )*};
}

mod transfers {
    directions! {
        embedded_to_embedded: crate::embedded => crate::embedded;
        embedded_to_production: crate::embedded => crate::production;
        production_to_embedded: crate::production => crate::embedded;
        production_to_production: crate::production => crate::production;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn an_unfinished_import_keeps_others_out() {
        for installation in [crate::embedded().await, crate::production().await] {
            crate::transfer::an_unfinished_import_keeps_others_out(&installation).await;
        }
    }
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_call_without_its_sum_is_found() {
        for installation in [crate::embedded().await, crate::production().await] {
            crate::transfer::a_call_without_its_sum_is_found(&installation).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_servers_one_uses_a_tree_or_one_removes_it() {
    for installation in [embedded().await, production().await] {
        let other = installation.place.open().await.unwrap();
        trees::of_two_servers_one_uses_a_tree_or_one_removes_it(&installation.stores, &other).await;
    }
}
