//! The rows of an installation that was in use for years: nearly all nodes and sessions are retired.

use duffy_server::db::dialect::{Engine, expand};

/// Retired nodes; retired sessions, of one node each; old idempotency keys are a tenth of these.
pub const RETIRED: u32 = 1_000_000;

/// Other nodes, in all states. A fifth of them is in running sessions.
///
/// The first twenty are reused: half of the retired sessions had them.
pub const ACTIVE: u32 = 2_000;

/// Returns the statements that add the rows, in the words of an engine.
///
/// Numbers of rows begin at 1. So the retired nodes and sessions have the numbers up to [`RETIRED`], the others follow.
pub fn insert_statements(engine: Engine) -> Vec<String> {
    // SQLite keeps no statistics, so fewer events give the same plans.
    let causes = match engine {
        Engine::Postgres => {
            "(SELECT 'reserved' AS cause UNION ALL SELECT 'deployed' \
             UNION ALL SELECT 'retired' UNION ALL SELECT 'deprovisioned') AS causes"
        }
        Engine::Sqlite => "(SELECT 'retired' AS cause) AS causes",
    };
    let [retired, active] = [RETIRED, ACTIVE].map(|n| n.to_string());
    INSERTS
        .iter()
        .map(|text| {
            let text = text
                .replace("RETIRED", &retired)
                .replace("ACTIVE", &active)
                .replace("CAUSES", causes);
            expand(&text, engine).unwrap_or_else(|error| panic!("{text}: {error}"))
        })
        .collect()
}

const INSERTS: [&str; 9] = [
    "INSERT INTO tenants (name, ssh_key, api_key, created_at) \
     WITH RECURSIVE rows(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM rows WHERE n < 20) \
     SELECT 'tenant' || n, 'ssh-ed25519 AAAA', 'hash', {now} FROM rows",
    // A node every twenty seconds, for eight months.
    "INSERT INTO nodes (hostname, ipaddr, state, data, created_at, retired_at) \
     WITH RECURSIVE rows(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM rows WHERE n < RETIRED) \
     SELECT 'old' || n, '10.' || (n / 65536) || '.' || (n / 256 % 256) || '.' || (n % 256), 'done', \
     '{}', {now + (20*(n-2000000))}, {now} FROM rows",
    "INSERT INTO sessions (tenant_id, expires_at, data, created_at, retired_at) \
     SELECT id % 20 + 1, created_at, '{}', created_at, retired_at FROM nodes ORDER BY id",
    "INSERT INTO sessions_nodes (session_id, node_id, pool, data) \
     SELECT id, CASE WHEN id % 2 = 0 THEN id ELSE RETIRED + 1 + id / 2 % 20 END, 'pool' || id % 10, \
     '{}' FROM nodes ORDER BY id",
    "INSERT INTO events (created_at, node_id, session_id, tenant_id, pool, cause, actor) \
     SELECT created_at, node_id, session_id, tenant_id, sessions_nodes.pool, cause, 'worker' \
     FROM sessions_nodes JOIN sessions ON sessions.id = session_id CROSS JOIN CAUSES ORDER BY session_id",
    // A key each second, for a day.
    "INSERT INTO idempotency_keys (tenant_id, key, request, session_id, reply, created_at) \
     SELECT id % 20 + 1, 'key' || id, 'digest', id, '{}', {now + ((id-1000000)/10)} \
     FROM sessions WHERE id % 10 = 0",
    "INSERT INTO nodes (hostname, ipaddr, state, pool, reusable, data, created_at, state_since, \
     lease, lease_expires_at, retry_at, held_at) \
     WITH RECURSIVE rows(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM rows WHERE n < ACTIVE) \
     SELECT 'node' || n, '192.0.' || (n / 256) || '.' || (n % 256), {as_state state}, \
     CASE WHEN state <> 'unused' THEN 'pool' || (n / 20 % 10) END, n <= 20 OR state = 'unused', '{}', \
     {now}, {now}, \
     CASE WHEN state LIKE '%ing' THEN 'lease' || n END, \
     CASE WHEN state LIKE '%ing' THEN {now + (60*(n%3-1))} END, \
     CASE WHEN state LIKE '%ed' THEN {now + (60*(n%3-1))} END, \
     CASE WHEN n % 20 = 0 THEN {now} END \
     FROM (SELECT n, CASE WHEN n % 20 < 11 THEN 'ready' WHEN n % 20 < 13 THEN 'deployed' \
     WHEN n % 20 < 15 THEN 'contextualizing' WHEN n % 20 = 15 THEN 'provisioning' \
     WHEN n % 20 = 16 THEN 'deprovisioning' WHEN n % 20 = 17 THEN 'failed' ELSE 'unused' END \
     AS state FROM rows) AS active",
    "INSERT INTO sessions (tenant_id, expires_at, data, created_at) \
     SELECT id % 20 + 1, {now + (60*(id%20-5))}, '{}', {now} FROM nodes WHERE id > RETIRED \
     AND state IN ('deployed', 'contextualizing') ORDER BY id",
    "INSERT INTO sessions_nodes (session_id, node_id, pool, data) \
     SELECT RETIRED + row_number() OVER (ORDER BY id), id, pool, '{}' FROM nodes \
     WHERE id > RETIRED AND state IN ('deployed', 'contextualizing')",
];
