CREATE INDEX nodes_state_index ON nodes (state);
CREATE INDEX sessions_nodes_session_id_index ON sessions_nodes (session_id);
