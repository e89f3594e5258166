ALTER TABLE nodes DROP COLUMN probed_at;
