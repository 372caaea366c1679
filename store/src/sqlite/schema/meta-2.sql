-- What an account may use, as JSON; an empty object sets no bounds.
ALTER TABLE users ADD COLUMN quota TEXT NOT NULL DEFAULT '{}';

-- The functions a key is for, as JSON; an empty list means all.
ALTER TABLE api_keys ADD COLUMN functions TEXT NOT NULL DEFAULT '[]';
ALTER TABLE api_keys ADD COLUMN last_used_at INTEGER;

-- Versions up to this one no longer move the pointer when their build ends: a newer one was
-- activated, or a rollback came after they were accepted.
ALTER TABLE functions ADD COLUMN settled_version INTEGER NOT NULL DEFAULT 0;
UPDATE functions SET settled_version = coalesce(active_version, 0);

CREATE TABLE audit (
    id      BLOB NOT NULL PRIMARY KEY,
    user_id BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    actor   TEXT NOT NULL,
    action  TEXT NOT NULL,
    subject TEXT,
    detail  TEXT NOT NULL,
    at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Serves the list of an account's entries, in order and from any cursor, and their expiry.
CREATE INDEX audit_by_user ON audit (user_id, at);
