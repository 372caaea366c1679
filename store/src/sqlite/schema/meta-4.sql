-- Whose objects are being removed, by whom, and until when at most.
CREATE TABLE sweeps (
    function_id BLOB NOT NULL PRIMARY KEY REFERENCES functions (id) ON DELETE CASCADE,
    holder      TEXT NOT NULL,
    until       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
