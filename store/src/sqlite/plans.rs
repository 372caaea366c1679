//! The queries that must not grow with the tables, held to their indexes.

use rusqlite::Connection;

use super::schema::{META_FILES, TELEMETRY_FILES};
use super::usage::{calls, expiry};
use super::{
    audit, holdings, logs, queue, records, remains, sweeps, transfer, trees, usage, versions,
};

fn plan(schema: &[&str], sql: &str) -> Vec<String> {
    let connection = Connection::open_in_memory().unwrap();
    for file in schema {
        connection.execute_batch(file).unwrap();
    }
    let mut query = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    // Parameters stay NULL: plans do not depend on them.
    query.raw_query().mapped(|row| row.get(3)).collect::<Result<_, _>>().unwrap()
}

#[test]
fn queries_use_their_indexes() {
    let (meta, telemetry): (&[&str], &[&str]) = (&META_FILES, &TELEMETRY_FILES);
    for (schema, sql, index, sorted) in [
        (meta, records::ROUTE, "sqlite_autoindex_users_2 (user_name=?)", true),
        (meta, records::LIST, "functions_by_age", true),
        (meta, queue::NEXT_IN_QUEUE, "versions_queue", true),
        (meta, queue::NEXT_OF_THE_IDLE, "SCAN v USING INDEX versions_queue", true),
        (meta, holdings::HELD, "f USING COVERING INDEX", true),
        (meta, holdings::HELD, "COVERING INDEX versions_by_bytes (function_id=?)", true),
        (meta, queue::QUEUED, "SCAN v USING INDEX versions_queue", true),
        (meta, queue::RELEASE_LEASES, "SCAN versions USING INDEX versions_queue", true),
        (meta, queue::STANDING, "(function_id=? AND version<?)", true),
        (meta, remains::OLDEST, "remains_by_age (noted_at<?)", true),
        (meta, sweeps::NEXT_LOOK, "functions_by_look (looked_at<?)", true),
        (meta, trees::NAMED, "versions_by_tree (<expr>=?)", true),
        (telemetry, logs::LOGS, "logs_by_function", true),
        (telemetry, logs::LOG_OF_CALL, "execution_id=?", true),
        (telemetry, calls::ROWS_OF_FUNCTION, "(function_id=? AND timestamp>? AND (", true),
        (telemetry, calls::NEWEST_DAY, "usage_days_by_user (user_id=? AND day>? AND day<", true),
        (telemetry, calls::FUNCTIONS_OF_DAYS, "usage_days_by_user (user_id=? AND day>", false),
        (telemetry, expiry::OLDEST_OF_NEXT, "PRIMARY KEY (function_id>?)", true),
        (telemetry, expiry::REMOVE, "PRIMARY KEY (function_id=? AND timestamp<?)", true),
        (telemetry, expiry::REMOVE, "(function_id=? AND timestamp=? AND execution_id=?)", true),
        (telemetry, usage::SUMS_OF_USER, "usage_days_by_user (user_id=? AND day>", false),
        (telemetry, usage::SUMS_OF_USER, "usage_days_by_user (user_id=? AND day=?)", false),
        (telemetry, usage::SUMS_OF_USER, "u USING PRIMARY KEY (function_id=? AND ti", false),
        (telemetry, usage::SUMS_OF_FUNCTION, "d USING PRIMARY KEY (function_id=? AND day=", false),
        (telemetry, usage::SUMS_OF_FUNCTION, "u USING PRIMARY KEY (function_id=? AND ti", false),
        (telemetry, usage::SUMS_OF_FUNCTION, "(function_id=? AND day>", false),
        (meta, audit::AUDIT, "audit_by_user (user_id=?", true),
        (meta, audit::SURPLUS, "INDEX audit_by_user (user_id=? AND (at,id)<(", true),
        (meta, versions::SEALED, "function_id,version", true),
        (telemetry, logs::TAIL, "USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)", true),
        (telemetry, logs::TAIL_END, "USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)", true),
        (telemetry, usage::SUMS_BY_FUNCTION, "usage_days_by_user (user_id=? AND day>", false),
        (telemetry, usage::SUMS_BY_FUNCTION, "usage_days_by_user (user_id=? AND day=?)", false),
        (telemetry, usage::SUMS_BY_FUNCTION, "u USING PRIMARY KEY (function_id=? AND ti", false),
        (telemetry, transfer::calls::KEYS_OF_DAY, "(function_id=? AND timestamp>", true),
        (telemetry, transfer::calls::CALL, "timestamp=? AND execution_id=?", true),
        (telemetry, usage::LATENCY_OF_USER, "usage_latency_by_user (user_id=? AND day>", false),
        (telemetry, usage::LATENCY_OF_FUNCTION, "(function_id=? AND day>", false),
    ] {
        let steps = plan(schema, sql);
        assert!(steps.iter().any(|step| step.contains(index)), "{index}: {steps:#?}");
        let sorts = steps.iter().any(|step| step.contains("TEMP B-TREE"));
        assert!(!sorts || !sorted, "{steps:#?}");
        // An index that is scanned in order is fine for the queue, which is all of it.
        let scans = steps.iter().any(|step| {
            step.starts_with("SCAN")
                && !step.contains("versions_queue")
                && !step.contains("subquery")
        });
        assert!(!scans, "{steps:#?}");
    }
}
