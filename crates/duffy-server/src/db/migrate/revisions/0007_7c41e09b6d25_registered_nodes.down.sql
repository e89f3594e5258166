DROP INDEX nodes_registered_index;
