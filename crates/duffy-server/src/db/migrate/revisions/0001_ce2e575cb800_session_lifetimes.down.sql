ALTER TABLE tenants DROP COLUMN session_lifetime_max;
ALTER TABLE tenants DROP COLUMN session_lifetime;
