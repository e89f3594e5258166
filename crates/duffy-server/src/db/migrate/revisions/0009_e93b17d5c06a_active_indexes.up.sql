CREATE INDEX nodes_active_id_index ON nodes (id) WHERE retired_at IS NULL;
CREATE INDEX sessions_active_id_index ON sessions (id) WHERE retired_at IS NULL;
