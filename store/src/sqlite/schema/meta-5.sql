-- Functions that are not there and of which objects may be, and since when that is so: their source is
-- stored before they are accepted, and when they are deleted their objects are removed later.
CREATE TABLE remains (
    function_id BLOB NOT NULL PRIMARY KEY,
    noted_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX remains_by_age ON remains (noted_at);
