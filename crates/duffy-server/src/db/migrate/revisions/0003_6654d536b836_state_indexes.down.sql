DROP INDEX sessions_nodes_session_id_index;
DROP INDEX nodes_state_index;
