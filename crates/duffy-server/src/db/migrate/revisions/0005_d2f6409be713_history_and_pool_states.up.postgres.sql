ALTER TABLE nodes ADD COLUMN fence BIGINT DEFAULT 0 NOT NULL;
ALTER TABLE nodes ADD COLUMN repairs INTEGER DEFAULT 0 NOT NULL;
ALTER TABLE nodes ADD COLUMN held_at TIMESTAMP WITHOUT TIME ZONE;

-- No foreign keys: an event may be older than the rows that it names, and an insert takes no lock on them.
CREATE TABLE events (
    id BIGSERIAL NOT NULL,
    created_at TIMESTAMP WITHOUT TIME ZONE NOT NULL,
    node_id INTEGER,
    session_id INTEGER,
    tenant_id INTEGER,
    pool TEXT,
    from_state TEXT,
    to_state TEXT,
    cause TEXT NOT NULL,
    actor TEXT NOT NULL,
    detail TEXT,
    CONSTRAINT events_pkey PRIMARY KEY (id)
);

CREATE INDEX events_node_id_index ON events (node_id, id) WHERE node_id IS NOT NULL;
CREATE INDEX events_session_id_index ON events (session_id, id) WHERE session_id IS NOT NULL;

CREATE TABLE pool_states (
    pool TEXT NOT NULL,
    work TEXT NOT NULL,
    failures INTEGER DEFAULT 0 NOT NULL,
    retry_at TIMESTAMP WITHOUT TIME ZONE,
    failed_at TIMESTAMP WITHOUT TIME ZONE,
    detail TEXT,
    drained_at TIMESTAMP WITHOUT TIME ZONE,
    reason TEXT,
    CONSTRAINT pool_states_pkey PRIMARY KEY (pool, work)
);

CREATE TABLE idempotency_keys (
    tenant_id INTEGER NOT NULL,
    key TEXT NOT NULL,
    request TEXT NOT NULL,
    session_id INTEGER NOT NULL,
    reply TEXT,
    fetched BOOLEAN DEFAULT FALSE NOT NULL,
    created_at TIMESTAMP WITHOUT TIME ZONE NOT NULL,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (tenant_id, key)
);

CREATE INDEX idempotency_keys_session_id_index ON idempotency_keys (session_id);
