-- Dependency trees: when a build or a look at the versions last found each in use, and until when it may be
-- removed.
CREATE TABLE trees (
    dep_hash    TEXT NOT NULL PRIMARY KEY,
    used_at     INTEGER NOT NULL,
    swept_until INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- Which versions name a tree. One that cannot be read names none.
CREATE INDEX versions_by_tree ON versions (
    CASE WHEN json_valid(built) THEN json_extract(built, '$.depHash') END
) WHERE built IS NOT NULL;
