-- Calls by how long they took, by day: written in the transaction that inserts the rows. The
-- buckets are those of LATENCY_BOUNDS_MS.
CREATE TABLE usage_latency (
    function_id BLOB NOT NULL,
    day         INTEGER NOT NULL,
    user_id     BLOB NOT NULL,
    bucket      INTEGER NOT NULL,
    calls       INTEGER NOT NULL,
    PRIMARY KEY (function_id, day, user_id, bucket)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_latency_by_user ON usage_latency (user_id, day);

-- A comparison is 1 or 0, so this sum is the number of bounds that a call has passed. Rows are of
-- after 1970, so the division rounds down.
INSERT INTO usage_latency (function_id, day, user_id, bucket, calls)
SELECT function_id, timestamp / 86400000 AS day, user_id,
       (duration_ms > 0.25) + (duration_ms > 0.5) + (duration_ms > 1) + (duration_ms > 2)
     + (duration_ms > 5) + (duration_ms > 10) + (duration_ms > 20) + (duration_ms > 50)
     + (duration_ms > 100) + (duration_ms > 200) + (duration_ms > 500) + (duration_ms > 1000)
     + (duration_ms > 2000) + (duration_ms > 5000) + (duration_ms > 10000)
     + (duration_ms > 30000) + (duration_ms > 60000) + (duration_ms > 300000)
     + (duration_ms > 600000) + (duration_ms > 900000) AS bucket,
       count(*)
FROM usage
GROUP BY function_id, day, user_id, bucket;
