ALTER TABLE nodes ADD COLUMN lease TEXT;
ALTER TABLE nodes ADD COLUMN lease_expires_at TIMESTAMP WITHOUT TIME ZONE;
ALTER TABLE nodes ADD COLUMN attempts INTEGER DEFAULT 0 NOT NULL;
ALTER TABLE nodes ADD COLUMN retry_at TIMESTAMP WITHOUT TIME ZONE;
ALTER TABLE nodes ADD COLUMN state_since TIMESTAMP WITHOUT TIME ZONE;

CREATE INDEX nodes_lease_index ON nodes (lease) WHERE lease IS NOT NULL;
CREATE INDEX nodes_active_pool_state_index ON nodes (pool, state, state_since NULLS FIRST, id) WHERE retired_at IS NULL;
CREATE INDEX sessions_active_tenant_id_index ON sessions (tenant_id) WHERE retired_at IS NULL;
CREATE INDEX sessions_expires_at_index ON sessions (expires_at) WHERE retired_at IS NULL;
CREATE INDEX sessions_nodes_node_id_index ON sessions_nodes (node_id);
