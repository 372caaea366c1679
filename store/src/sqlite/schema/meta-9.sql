-- Bundles that a version in work is about to store, as JSON: it may refer to one of them in the end.
ALTER TABLE versions ADD COLUMN making TEXT;
