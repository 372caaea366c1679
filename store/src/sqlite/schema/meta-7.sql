-- What deploys of an account have added to the dependency trees, on the last day (UTC, counted from the
-- epoch) on which they added something.
CREATE TABLE trees_added (
    user_id BLOB NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    day     INTEGER NOT NULL,
    bytes   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
