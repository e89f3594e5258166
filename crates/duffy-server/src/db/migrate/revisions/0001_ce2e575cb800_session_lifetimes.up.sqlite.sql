ALTER TABLE tenants ADD COLUMN session_lifetime DATETIME;
ALTER TABLE tenants ADD COLUMN session_lifetime_max DATETIME;
