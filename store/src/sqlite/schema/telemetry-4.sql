-- The highest number that a removed log had. Followers know where they are by numbers, so none is given
-- again.
CREATE TABLE log_numbers (
    last INTEGER NOT NULL
) STRICT;

INSERT INTO log_numbers (last) VALUES (0);
