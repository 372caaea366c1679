//! The queries that must not grow with the tables, held to their indexes.

use rusqlite::Connection;

use super::{functions, queue, telemetry, usage};

fn plan(schema: &str, sql: &str) -> Vec<String> {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch(schema).unwrap();
    let mut query = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    // Parameters stay NULL: plans do not depend on them.
    query.raw_query().mapped(|row| row.get(3)).collect::<Result<_, _>>().unwrap()
}

#[test]
fn queries_use_their_indexes() {
    let meta = include_str!("schema/meta-1.sql");
    let telemetry = include_str!("schema/telemetry-1.sql");
    for (schema, sql, index, sorted) in [
        (meta, functions::ROUTE, "sqlite_autoindex_users_2 (user_name=?)", true),
        (meta, functions::LIST, "functions_by_age", true),
        (meta, queue::NEXT_IN_QUEUE, "versions_queue", true),
        (telemetry, telemetry::LOGS, "logs_by_function", true),
        (telemetry, telemetry::LOG_OF_CALL, "execution_id=?", true),
        (telemetry, usage::ROWS_OF_USER, "usage_by_user", true),
        (telemetry, usage::ROWS_OF_FUNCTION, "usage_by_function", true),
        (telemetry, usage::SUMS_OF_USER, "usage_days_by_user (user_id=? AND day>", false),
        (telemetry, usage::SUMS_OF_USER, "usage_by_user (user_id=? AND timestamp>", false),
        (
            telemetry,
            usage::SUMS_OF_FUNCTION,
            "usage_by_function (function_id=? AND timestamp>",
            false,
        ),
        (telemetry, usage::SUMS_OF_FUNCTION, "(function_id=? AND day>", false),
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
