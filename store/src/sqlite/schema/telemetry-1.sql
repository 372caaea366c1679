-- Ids are the 16 bytes of a UUID, times are milliseconds since the epoch (UTC), days are counted
-- from the epoch (UTC).

-- Clustered by execution id: uniqueness costs no second tree, and ids grow with time, so that
-- inserts go to the end.
CREATE TABLE usage (
    execution_id BLOB NOT NULL PRIMARY KEY,
    function_id  BLOB NOT NULL,
    user_id      BLOB NOT NULL,
    version      INTEGER NOT NULL,
    duration_ms  REAL NOT NULL,
    cpu_ms       REAL NOT NULL,
    memory_mb    REAL NOT NULL,
    failed       INTEGER NOT NULL,
    code         TEXT NOT NULL,
    cold         INTEGER NOT NULL,
    timestamp    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Rows of an account or of one function, in order and from any cursor (the primary key is the
-- last column of every index).
CREATE INDEX usage_by_user ON usage (user_id, timestamp);
CREATE INDEX usage_by_function ON usage (function_id, timestamp);

-- Running sums, written in the transaction that inserts the rows: totals, days and statistics
-- read a row per day instead of a row per call.
CREATE TABLE usage_days (
    function_id BLOB NOT NULL,
    day         INTEGER NOT NULL,
    user_id     BLOB NOT NULL,
    executed    INTEGER NOT NULL,
    errors      INTEGER NOT NULL,
    cold        INTEGER NOT NULL,
    duration_ms REAL NOT NULL,
    cpu_ms      REAL NOT NULL,
    memory_mb   REAL NOT NULL,
    gb_seconds  REAL NOT NULL,
    PRIMARY KEY (function_id, day, user_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_days_by_user ON usage_days (user_id, day);

-- Not clustered: a row may hold a megabyte of text.
CREATE TABLE logs (
    row_number   INTEGER PRIMARY KEY,
    execution_id BLOB NOT NULL UNIQUE,
    function_id  BLOB NOT NULL,
    timestamp    INTEGER NOT NULL,
    duration_ms  REAL NOT NULL,
    memory_mb    REAL NOT NULL,
    failed       INTEGER NOT NULL,
    truncated    INTEGER NOT NULL,
    lines        TEXT NOT NULL
) STRICT;

CREATE INDEX logs_by_function ON logs (function_id, timestamp, execution_id);

-- For expiry.
CREATE INDEX logs_by_age ON logs (timestamp);
