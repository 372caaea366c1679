-- When somebody last looked for objects of a function that none of its versions refers to.
ALTER TABLE functions ADD COLUMN looked_at INTEGER NOT NULL DEFAULT 0;

CREATE INDEX functions_by_look ON functions (looked_at);
