-- Ids are the 16 bytes of a UUID, times are milliseconds since the epoch (UTC), structures that
-- are only ever read whole are JSON.

CREATE TABLE users (
    id            BLOB NOT NULL PRIMARY KEY,
    full_name     TEXT NOT NULL,
    user_name     TEXT NOT NULL UNIQUE,
    email         TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    created_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE api_keys (
    id         BLOB NOT NULL PRIMARY KEY,
    user_id    BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name       TEXT NOT NULL,
    key_hash   TEXT NOT NULL UNIQUE,
    prefix     TEXT NOT NULL,
    scopes     TEXT NOT NULL,
    expires_at INTEGER,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX api_keys_by_user ON api_keys (user_id, created_at);

CREATE TABLE revoked_tokens (
    token_id   TEXT NOT NULL PRIMARY KEY,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX revoked_tokens_by_end ON revoked_tokens (expires_at);

-- A function's status is that of its newest version and is not stored a second time.
CREATE TABLE functions (
    id             BLOB NOT NULL PRIMARY KEY,
    user_id        BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name           TEXT NOT NULL,
    latest_version INTEGER NOT NULL,
    active_version INTEGER,
    visibility     TEXT NOT NULL,
    created_at     INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL,
    deployed_at    INTEGER,
    UNIQUE (user_id, name),
    CHECK (active_version <= latest_version)
) STRICT, WITHOUT ROWID;

-- Serves the list of an account's functions, in order and from any cursor.
CREATE INDEX functions_by_age ON functions (user_id, created_at, id);

-- The wide columns come last: reading a status does not touch the overflow pages of a lock file.
CREATE TABLE versions (
    function_id  BLOB NOT NULL REFERENCES functions (id) ON DELETE CASCADE,
    version      INTEGER NOT NULL CHECK (version >= 1),
    status       TEXT NOT NULL,
    lease_holder TEXT,
    lease_until  INTEGER,
    attempts     INTEGER NOT NULL DEFAULT 0,
    created_at   INTEGER NOT NULL,
    source_hash  TEXT NOT NULL,
    limits       TEXT NOT NULL,
    built        TEXT,
    error        TEXT,
    env          BLOB NOT NULL,
    source       TEXT NOT NULL,
    PRIMARY KEY (function_id, version)
) STRICT;

-- The deploy queue: only what waits or is in work, so it stays small whatever the history.
CREATE INDEX versions_queue ON versions (created_at, function_id, version)
    WHERE status IN ('pending', 'deploying');
