DROP INDEX events_created_at_index;
ALTER TABLE tenants DROP COLUMN api_key_digest;
