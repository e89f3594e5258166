DROP INDEX active_hostname_index;
CREATE UNIQUE INDEX active_hostname_index ON nodes (hostname)
    WHERE retired_at IS NULL AND state <> 'provisioning' AND state <> 'failed';

DROP INDEX active_ipaddr_index;
CREATE UNIQUE INDEX active_ipaddr_index ON nodes (ipaddr)
    WHERE retired_at IS NULL AND state <> 'provisioning' AND state <> 'failed';
