-- What a version takes of storage: its source, its environment and what was built of it. Of versions that
-- are there already, without their source maps and the files beside their bundles.
ALTER TABLE versions ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;

UPDATE versions SET bytes = CAST(
    length(CAST(source AS BLOB)) + length(env)
    + coalesce((SELECT sum(json_extract(value, '$.bytes')) FROM json_each(source, '$.files')), 0)
    + coalesce(json_extract(built, '$.bundleBytes'), 0)
AS INTEGER)
WHERE json_valid(source) AND (built IS NULL OR json_valid(built));

-- Summed without a look at the versions, which may be wide.
CREATE INDEX versions_by_bytes ON versions (function_id, bytes);
