-- Calls by function and time, and by nothing else: a call is written to one tree instead of three.
-- Those of an account are found by the functions and days that `usage_days` has of it. A call that
-- is recorded again has the same function, time and execution id, so uniqueness costs nothing here
-- either.
CREATE TABLE usage_clustered (
    function_id  BLOB NOT NULL,
    timestamp    INTEGER NOT NULL,
    execution_id BLOB NOT NULL,
    user_id      BLOB NOT NULL,
    version      INTEGER NOT NULL,
    duration_ms  REAL NOT NULL,
    cpu_ms       REAL NOT NULL,
    memory_mb    REAL NOT NULL,
    failed       INTEGER NOT NULL,
    code         TEXT NOT NULL,
    cold         INTEGER NOT NULL,
    PRIMARY KEY (function_id, timestamp, execution_id)
) STRICT, WITHOUT ROWID;

-- By the index that has this order: nothing is sorted, so no temporary file is needed.
INSERT INTO usage_clustered (function_id, timestamp, execution_id, user_id, version, duration_ms,
                             cpu_ms, memory_mb, failed, code, cold)
SELECT function_id, timestamp, execution_id, user_id, version, duration_ms, cpu_ms, memory_mb,
       failed, code, cold
FROM usage INDEXED BY usage_by_function
ORDER BY function_id, timestamp, execution_id;

DROP TABLE usage;
ALTER TABLE usage_clustered RENAME TO usage;

-- From now on there are sums wherever there are calls. An import of what was exported beside a
-- running server may have brought calls without them: these get sums of nothing. Times are after
-- 1970, so the division rounds down.
INSERT INTO usage_days (function_id, day, user_id, executed, errors, cold, duration_ms, cpu_ms,
                        memory_mb, gb_seconds)
SELECT DISTINCT function_id, timestamp / 86400000, user_id, 0, 0, 0, 0, 0, 0, 0
FROM usage
WHERE true
ON CONFLICT DO NOTHING;
