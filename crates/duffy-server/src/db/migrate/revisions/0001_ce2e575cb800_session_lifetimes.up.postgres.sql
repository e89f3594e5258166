ALTER TABLE tenants ADD COLUMN session_lifetime INTERVAL;
ALTER TABLE tenants ADD COLUMN session_lifetime_max INTERVAL;
