DROP TABLE idempotency_keys;
DROP TABLE pool_states;
DROP TABLE events;
ALTER TABLE nodes DROP COLUMN held_at;
ALTER TABLE nodes DROP COLUMN repairs;
ALTER TABLE nodes DROP COLUMN fence;
