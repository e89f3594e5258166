DROP INDEX sessions_active_id_index;
DROP INDEX nodes_active_id_index;
