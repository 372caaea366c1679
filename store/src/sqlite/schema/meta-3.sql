-- Whether the function becomes public when this version is served. Only of one that waits or is in
-- work.
ALTER TABLE versions ADD COLUMN makes_public INTEGER NOT NULL DEFAULT 0;
