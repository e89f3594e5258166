CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

CREATE TABLE tenants (
    id INTEGER NOT NULL,
    name TEXT NOT NULL,
    is_admin BOOLEAN DEFAULT FALSE NOT NULL,
    ssh_key TEXT NOT NULL,
    api_key TEXT NOT NULL,
    node_quota INTEGER,
    created_at DATETIME DEFAULT CURRENT_TIMESTAMP NOT NULL,
    retired_at DATETIME,
    CONSTRAINT tenants_pkey PRIMARY KEY (id),
    CONSTRAINT tenants_name_key UNIQUE (name)
);

CREATE TABLE nodes (
    id INTEGER NOT NULL,
    hostname TEXT,
    ipaddr TEXT,
    state VARCHAR(15) DEFAULT 'unused' NOT NULL,
    comment TEXT,
    pool TEXT,
    reusable BOOLEAN DEFAULT FALSE NOT NULL,
    data JSON DEFAULT '{}' NOT NULL,
    created_at DATETIME DEFAULT CURRENT_TIMESTAMP NOT NULL,
    retired_at DATETIME,
    CONSTRAINT nodes_pkey PRIMARY KEY (id)
);

CREATE TABLE sessions (
    id INTEGER NOT NULL,
    tenant_id INTEGER NOT NULL,
    expires_at DATETIME,
    data JSON DEFAULT '{}' NOT NULL,
    created_at DATETIME DEFAULT CURRENT_TIMESTAMP NOT NULL,
    retired_at DATETIME,
    CONSTRAINT sessions_pkey PRIMARY KEY (id),
    CONSTRAINT sessions_tenant_id_tenants_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (id)
);

CREATE TABLE sessions_nodes (
    session_id INTEGER NOT NULL,
    node_id INTEGER NOT NULL,
    pool TEXT NOT NULL,
    data JSON DEFAULT '{}' NOT NULL,
    CONSTRAINT sessions_nodes_pkey PRIMARY KEY (session_id, node_id),
    CONSTRAINT sessions_nodes_session_id_sessions_fkey FOREIGN KEY(session_id) REFERENCES sessions (id),
    CONSTRAINT sessions_nodes_node_id_nodes_fkey FOREIGN KEY(node_id) REFERENCES nodes (id)
);

CREATE UNIQUE INDEX active_hostname_index ON nodes (hostname)
    WHERE retired_at IS NULL AND state <> 'provisioning';

CREATE UNIQUE INDEX active_ipaddr_index ON nodes (ipaddr)
    WHERE retired_at IS NULL AND state <> 'provisioning';

CREATE INDEX nodes_pool_index ON nodes (pool);
CREATE INDEX sessions_nodes_pool_index ON sessions_nodes (pool);
