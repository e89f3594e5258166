-- Few nodes are in it, so that a look-up does not read all nodes that are being provisioned.
CREATE INDEX nodes_registered_index ON nodes (id)
    WHERE reusable AND retired_at IS NULL AND state IN ('provisioning', 'failed');
