//! The revisions of the schema: what each changes, in the words of each engine.
//!
//! The first four are the original's, under its numbers, so that `alembic_version` means the
//! same to both programs. Columns added later are nullable or have a default: the original
//! still runs on them.

/// One step from a schema to the next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    /// As it stands in `alembic_version`.
    pub(super) id: &'static str,
    /// What it is for.
    pub(super) title: &'static str,
    pub(super) up: Script,
    pub(super) down: Script,
}

/// Statements in the words of each engine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Script {
    pub(super) postgres: &'static [&'static str],
    pub(super) sqlite: &'static [&'static str],
}

impl Script {
    const fn same(statements: &'static [&'static str]) -> Self {
        Self {
            postgres: statements,
            sqlite: statements,
        }
    }
}

/// The tables, in an order in which they can be created.
pub(super) const TABLES: [&str; 8] = [
    "alembic_version",
    "events",
    "idempotency_keys",
    "nodes",
    "pool_states",
    "sessions",
    "sessions_nodes",
    "tenants",
];

/// The oldest schema that is known, before its first numbered revision.
pub(super) const BASE: Script = Script {
    postgres: &[
        "CREATE TYPE node_state_enum AS ENUM ('unused', 'provisioning', 'ready', \
         'contextualizing', 'deployed', 'deprovisioning', 'done', 'failed')",
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, \
         CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))",
        "CREATE TABLE tenants (id SERIAL NOT NULL, name TEXT NOT NULL, \
         is_admin BOOLEAN DEFAULT FALSE NOT NULL, ssh_key TEXT NOT NULL, api_key TEXT NOT NULL, \
         node_quota INTEGER, \
         created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT (now() AT TIME ZONE 'utc') NOT NULL, \
         retired_at TIMESTAMP WITHOUT TIME ZONE, \
         CONSTRAINT tenants_pkey PRIMARY KEY (id), CONSTRAINT tenants_name_key UNIQUE (name))",
        "CREATE TABLE nodes (id SERIAL NOT NULL, hostname TEXT, ipaddr TEXT, \
         state node_state_enum DEFAULT 'unused' NOT NULL, comment TEXT, pool TEXT, \
         reusable BOOLEAN DEFAULT FALSE NOT NULL, data JSON DEFAULT '{}' NOT NULL, \
         created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT (now() AT TIME ZONE 'utc') NOT NULL, \
         retired_at TIMESTAMP WITHOUT TIME ZONE, CONSTRAINT nodes_pkey PRIMARY KEY (id))",
        "CREATE TABLE sessions (id SERIAL NOT NULL, tenant_id INTEGER NOT NULL, \
         expires_at TIMESTAMP WITHOUT TIME ZONE, data JSON DEFAULT '{}' NOT NULL, \
         created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT (now() AT TIME ZONE 'utc') NOT NULL, \
         retired_at TIMESTAMP WITHOUT TIME ZONE, CONSTRAINT sessions_pkey PRIMARY KEY (id), \
         CONSTRAINT sessions_tenant_id_tenants_fkey FOREIGN KEY(tenant_id) \
         REFERENCES tenants (id))",
        "CREATE TABLE sessions_nodes (session_id INTEGER NOT NULL, node_id INTEGER NOT NULL, \
         pool TEXT NOT NULL, data JSON DEFAULT '{}' NOT NULL, \
         CONSTRAINT sessions_nodes_pkey PRIMARY KEY (session_id, node_id), \
         CONSTRAINT sessions_nodes_session_id_sessions_fkey FOREIGN KEY(session_id) \
         REFERENCES sessions (id), \
         CONSTRAINT sessions_nodes_node_id_nodes_fkey FOREIGN KEY(node_id) REFERENCES nodes (id))",
        HOSTNAME_INDEX,
        IPADDR_INDEX,
        "CREATE INDEX nodes_pool_index ON nodes (pool)",
        "CREATE INDEX sessions_nodes_pool_index ON sessions_nodes (pool)",
    ],
    sqlite: &[
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, \
         CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))",
        "CREATE TABLE tenants (id INTEGER NOT NULL, name TEXT NOT NULL, \
         is_admin BOOLEAN DEFAULT FALSE NOT NULL, ssh_key TEXT NOT NULL, api_key TEXT NOT NULL, \
         node_quota INTEGER, created_at DATETIME DEFAULT CURRENT_TIMESTAMP NOT NULL, \
         retired_at DATETIME, \
         CONSTRAINT tenants_pkey PRIMARY KEY (id), CONSTRAINT tenants_name_key UNIQUE (name))",
        "CREATE TABLE nodes (id INTEGER NOT NULL, hostname TEXT, ipaddr TEXT, \
         state VARCHAR(15) DEFAULT 'unused' NOT NULL, comment TEXT, pool TEXT, \
         reusable BOOLEAN DEFAULT FALSE NOT NULL, data JSON DEFAULT '{}' NOT NULL, \
         created_at DATETIME DEFAULT CURRENT_TIMESTAMP NOT NULL, retired_at DATETIME, \
         CONSTRAINT nodes_pkey PRIMARY KEY (id))",
        "CREATE TABLE sessions (id INTEGER NOT NULL, tenant_id INTEGER NOT NULL, \
         expires_at DATETIME, data JSON DEFAULT '{}' NOT NULL, \
         created_at DATETIME DEFAULT CURRENT_TIMESTAMP NOT NULL, retired_at DATETIME, \
         CONSTRAINT sessions_pkey PRIMARY KEY (id), \
         CONSTRAINT sessions_tenant_id_tenants_fkey FOREIGN KEY(tenant_id) \
         REFERENCES tenants (id))",
        "CREATE TABLE sessions_nodes (session_id INTEGER NOT NULL, node_id INTEGER NOT NULL, \
         pool TEXT NOT NULL, data JSON DEFAULT '{}' NOT NULL, \
         CONSTRAINT sessions_nodes_pkey PRIMARY KEY (session_id, node_id), \
         CONSTRAINT sessions_nodes_session_id_sessions_fkey FOREIGN KEY(session_id) \
         REFERENCES sessions (id), \
         CONSTRAINT sessions_nodes_node_id_nodes_fkey FOREIGN KEY(node_id) REFERENCES nodes (id))",
        HOSTNAME_INDEX,
        IPADDR_INDEX,
        "CREATE INDEX nodes_pool_index ON nodes (pool)",
        "CREATE INDEX sessions_nodes_pool_index ON sessions_nodes (pool)",
    ],
};

const HOSTNAME_INDEX: &str = "CREATE UNIQUE INDEX active_hostname_index ON nodes (hostname) \
     WHERE retired_at IS NULL AND state <> 'provisioning'";
const IPADDR_INDEX: &str = "CREATE UNIQUE INDEX active_ipaddr_index ON nodes (ipaddr) \
     WHERE retired_at IS NULL AND state <> 'provisioning'";

/// All revisions, oldest first.
pub(super) const STEPS: [Step; 6] = [
    Step {
        id: "ce2e575cb800",
        title: "session lifetimes of tenants",
        up: Script {
            postgres: &[
                "ALTER TABLE tenants ADD COLUMN session_lifetime INTERVAL",
                "ALTER TABLE tenants ADD COLUMN session_lifetime_max INTERVAL",
            ],
            sqlite: &[
                "ALTER TABLE tenants ADD COLUMN session_lifetime DATETIME",
                "ALTER TABLE tenants ADD COLUMN session_lifetime_max DATETIME",
            ],
        },
        down: Script::same(&[
            "ALTER TABLE tenants DROP COLUMN session_lifetime_max",
            "ALTER TABLE tenants DROP COLUMN session_lifetime",
        ]),
    },
    Step {
        id: "36cf064c0481",
        title: "failed nodes may share a name or address",
        up: Script::same(&[
            "DROP INDEX active_hostname_index",
            "CREATE UNIQUE INDEX active_hostname_index ON nodes (hostname) \
             WHERE retired_at IS NULL AND state <> 'provisioning' AND state <> 'failed'",
            "DROP INDEX active_ipaddr_index",
            "CREATE UNIQUE INDEX active_ipaddr_index ON nodes (ipaddr) \
             WHERE retired_at IS NULL AND state <> 'provisioning' AND state <> 'failed'",
        ]),
        down: Script::same(&[
            "DROP INDEX active_hostname_index",
            HOSTNAME_INDEX,
            "DROP INDEX active_ipaddr_index",
            IPADDR_INDEX,
        ]),
    },
    Step {
        id: "6654d536b836",
        title: "indexes on nodes' states and sessions' nodes",
        up: Script::same(&[
            "CREATE INDEX nodes_state_index ON nodes (state)",
            "CREATE INDEX sessions_nodes_session_id_index ON sessions_nodes (session_id)",
        ]),
        down: Script::same(&[
            "DROP INDEX sessions_nodes_session_id_index",
            "DROP INDEX nodes_state_index",
        ]),
    },
    Step {
        id: "a81c5d2f0e37",
        title: "leases on nodes",
        up: Script {
            postgres: &[
                "ALTER TABLE nodes ADD COLUMN lease TEXT",
                "ALTER TABLE nodes ADD COLUMN lease_expires_at TIMESTAMP WITHOUT TIME ZONE",
                "ALTER TABLE nodes ADD COLUMN attempts INTEGER DEFAULT 0 NOT NULL",
                "ALTER TABLE nodes ADD COLUMN retry_at TIMESTAMP WITHOUT TIME ZONE",
                "ALTER TABLE nodes ADD COLUMN state_since TIMESTAMP WITHOUT TIME ZONE",
                LEASE_INDEX,
                "CREATE INDEX nodes_active_pool_state_index \
                 ON nodes (pool, state, state_since NULLS FIRST, id) WHERE retired_at IS NULL",
                TENANT_INDEX,
                EXPIRY_INDEX,
                NODE_INDEX,
            ],
            sqlite: &[
                "ALTER TABLE nodes ADD COLUMN lease TEXT",
                "ALTER TABLE nodes ADD COLUMN lease_expires_at DATETIME",
                "ALTER TABLE nodes ADD COLUMN attempts INTEGER DEFAULT 0 NOT NULL",
                "ALTER TABLE nodes ADD COLUMN retry_at DATETIME",
                "ALTER TABLE nodes ADD COLUMN state_since DATETIME",
                LEASE_INDEX,
                "CREATE INDEX nodes_active_pool_state_index \
                 ON nodes (pool, state, state_since, id) WHERE retired_at IS NULL",
                TENANT_INDEX,
                EXPIRY_INDEX,
                NODE_INDEX,
            ],
        },
        down: Script::same(&[
            "DROP INDEX sessions_nodes_node_id_index",
            "DROP INDEX sessions_expires_at_index",
            "DROP INDEX sessions_active_tenant_id_index",
            "DROP INDEX nodes_active_pool_state_index",
            "DROP INDEX nodes_lease_index",
            "ALTER TABLE nodes DROP COLUMN state_since",
            "ALTER TABLE nodes DROP COLUMN retry_at",
            "ALTER TABLE nodes DROP COLUMN attempts",
            "ALTER TABLE nodes DROP COLUMN lease_expires_at",
            "ALTER TABLE nodes DROP COLUMN lease",
        ]),
    },
    Step {
        id: "d2f6409be713",
        title: "history, pools that fail, repair of nodes, idempotency keys",
        up: Script {
            postgres: &[
                "ALTER TABLE nodes ADD COLUMN fence BIGINT DEFAULT 0 NOT NULL",
                "ALTER TABLE nodes ADD COLUMN repairs INTEGER DEFAULT 0 NOT NULL",
                "ALTER TABLE nodes ADD COLUMN held_at TIMESTAMP WITHOUT TIME ZONE",
                "CREATE TABLE events (id BIGSERIAL NOT NULL, \
                 created_at TIMESTAMP WITHOUT TIME ZONE NOT NULL, \
                 node_id INTEGER, session_id INTEGER, tenant_id INTEGER, pool TEXT, \
                 from_state TEXT, to_state TEXT, cause TEXT NOT NULL, actor TEXT NOT NULL, \
                 detail TEXT, CONSTRAINT events_pkey PRIMARY KEY (id))",
                EVENTS_NODE_INDEX,
                EVENTS_SESSION_INDEX,
                "CREATE TABLE pool_states (pool TEXT NOT NULL, work TEXT NOT NULL, \
                 failures INTEGER DEFAULT 0 NOT NULL, \
                 retry_at TIMESTAMP WITHOUT TIME ZONE, failed_at TIMESTAMP WITHOUT TIME ZONE, \
                 detail TEXT, drained_at TIMESTAMP WITHOUT TIME ZONE, reason TEXT, \
                 CONSTRAINT pool_states_pkey PRIMARY KEY (pool, work))",
                "CREATE TABLE idempotency_keys (tenant_id INTEGER NOT NULL, key TEXT NOT NULL, \
                 request TEXT NOT NULL, session_id INTEGER NOT NULL, reply TEXT, \
                 fetched BOOLEAN DEFAULT FALSE NOT NULL, \
                 created_at TIMESTAMP WITHOUT TIME ZONE NOT NULL, \
                 CONSTRAINT idempotency_keys_pkey PRIMARY KEY (tenant_id, key))",
                KEYS_SESSION_INDEX,
            ],
            sqlite: &[
                "ALTER TABLE nodes ADD COLUMN fence BIGINT DEFAULT 0 NOT NULL",
                "ALTER TABLE nodes ADD COLUMN repairs INTEGER DEFAULT 0 NOT NULL",
                "ALTER TABLE nodes ADD COLUMN held_at DATETIME",
                "CREATE TABLE events (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, \
                 created_at DATETIME NOT NULL, \
                 node_id INTEGER, session_id INTEGER, tenant_id INTEGER, pool TEXT, \
                 from_state TEXT, to_state TEXT, cause TEXT NOT NULL, actor TEXT NOT NULL, \
                 detail TEXT)",
                EVENTS_NODE_INDEX,
                EVENTS_SESSION_INDEX,
                "CREATE TABLE pool_states (pool TEXT NOT NULL, work TEXT NOT NULL, \
                 failures INTEGER DEFAULT 0 NOT NULL, retry_at DATETIME, failed_at DATETIME, \
                 detail TEXT, drained_at DATETIME, reason TEXT, \
                 CONSTRAINT pool_states_pkey PRIMARY KEY (pool, work))",
                "CREATE TABLE idempotency_keys (tenant_id INTEGER NOT NULL, key TEXT NOT NULL, \
                 request TEXT NOT NULL, session_id INTEGER NOT NULL, reply TEXT, \
                 fetched BOOLEAN DEFAULT FALSE NOT NULL, created_at DATETIME NOT NULL, \
                 CONSTRAINT idempotency_keys_pkey PRIMARY KEY (tenant_id, key))",
                KEYS_SESSION_INDEX,
            ],
        },
        down: Script::same(&[
            "DROP TABLE idempotency_keys",
            "DROP TABLE pool_states",
            "DROP TABLE events",
            "ALTER TABLE nodes DROP COLUMN held_at",
            "ALTER TABLE nodes DROP COLUMN repairs",
            "ALTER TABLE nodes DROP COLUMN fence",
        ]),
    },
    Step {
        id: "5b90c7e4a2d8",
        title: "digests of API keys, index on the history's times",
        up: Script::same(&[
            "ALTER TABLE tenants ADD COLUMN api_key_digest TEXT",
            "CREATE INDEX events_created_at_index ON events (created_at, id)",
        ]),
        down: Script::same(&[
            "DROP INDEX events_created_at_index",
            "ALTER TABLE tenants DROP COLUMN api_key_digest",
        ]),
    },
];

// No foreign keys: history may be older than what it tells of, and costs no lock.
const EVENTS_NODE_INDEX: &str =
    "CREATE INDEX events_node_id_index ON events (node_id, id) WHERE node_id IS NOT NULL";
const EVENTS_SESSION_INDEX: &str =
    "CREATE INDEX events_session_id_index ON events (session_id, id) WHERE session_id IS NOT NULL";
const KEYS_SESSION_INDEX: &str =
    "CREATE INDEX idempotency_keys_session_id_index ON idempotency_keys (session_id)";

const LEASE_INDEX: &str = "CREATE INDEX nodes_lease_index ON nodes (lease) WHERE lease IS NOT NULL";
const TENANT_INDEX: &str = "CREATE INDEX sessions_active_tenant_id_index \
     ON sessions (tenant_id) WHERE retired_at IS NULL";
const EXPIRY_INDEX: &str = "CREATE INDEX sessions_expires_at_index \
     ON sessions (expires_at) WHERE retired_at IS NULL";
const NODE_INDEX: &str = "CREATE INDEX sessions_nodes_node_id_index ON sessions_nodes (node_id)";
