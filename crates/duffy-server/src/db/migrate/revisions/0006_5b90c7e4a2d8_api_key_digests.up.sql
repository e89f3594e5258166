ALTER TABLE tenants ADD COLUMN api_key_digest TEXT;
CREATE INDEX events_created_at_index ON events (created_at, id);
