//! The differences between PostgreSQL and SQLite: words of SQL, column types, error codes.
//!
//! A statement is one text for both engines. It contains `{words}` where they differ, and for lists of columns:
//! [`expand`] replaces them.

pub(crate) mod values;

/// Which database a statement is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// PostgreSQL.
    Postgres,
    /// SQLite. A writing transaction locks the whole database, so rows need no locks of their own.
    Sqlite,
}

/// A word, and what it means in PostgreSQL and in SQLite. `{}` stands for the value that follows the word.
type Word = (&'static str, &'static str, &'static str);

const WORDS: &[Word] = &[
    (
        "now",
        "(now() AT TIME ZONE 'utc')",
        "strftime('%Y-%m-%d %H:%M:%f000', 'now')",
    ),
    // A number of seconds from now.
    (
        "now +",
        "(clock_timestamp() AT TIME ZONE 'utc' + make_interval(secs => {}))",
        "strftime('%Y-%m-%d %H:%M:%f000', 'now', {} || ' seconds')",
    ),
    // A text as a node's state.
    (
        "as_state",
        "CAST(CAST({} AS TEXT) AS node_state_enum)",
        "{}",
    ),
    // A text as JSON.
    ("as_json", "CAST({} AS JSON)", "{}"),
    // The numbers in a JSON array.
    (
        "ids",
        "SELECT CAST(value AS INTEGER) FROM json_array_elements_text(CAST({} AS JSON))",
        "SELECT value FROM json_each({})",
    ),
    // A table whose column `value` has the members of a JSON array.
    (
        "json_rows",
        "json_array_elements(CAST({} AS JSON))",
        "json_each({})",
    ),
    // Milliseconds since 1970, so that the number also grows when the machine gets another row.
    (
        "next_fence",
        "greatest(nodes.fence + 1, CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT))",
        "max(nodes.fence + 1, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER))",
    ),
    ("for_update", "FOR UPDATE", ""),
    ("for_update_of", "FOR UPDATE OF {}", ""),
    ("for_no_key_update", "FOR NO KEY UPDATE", ""),
    ("skip_locked", "FOR UPDATE SKIP LOCKED", ""),
    (
        "pool_lock",
        "SELECT pg_advisory_xact_lock($2, hashtext($1))",
        "SELECT $1, $2",
    ),
    (
        "try_pool_lock",
        "SELECT pg_try_advisory_xact_lock($2, hashtext($1))",
        "SELECT $1 IS NOT NULL OR $2",
    ),
    // Not every version has all of these settings.
    (
        "no_timeouts",
        "SELECT set_config(name, '0', true) FROM pg_catalog.pg_settings WHERE name IN \
         ('statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')",
        "SELECT 1",
    ),
    (
        "lock_timeout",
        "SELECT set_config('lock_timeout', $1, true)",
        "SELECT $1",
    ),
    // A fixed number that other programs are unlikely to use.
    (
        "schema_lock",
        "SELECT pg_advisory_xact_lock(7017706889)",
        "SELECT 1",
    ),
    // With IN, PostgreSQL's planner may overestimate the number of rows and read the whole table.
    ("in_rows", "= ANY (ARRAY(", "IN ("),
    ("end_in_rows", "))", ")"),
    (
        "tables",
        "SELECT CAST(tablename AS TEXT) FROM pg_catalog.pg_tables \
         WHERE schemaname = current_schema() ORDER BY tablename",
        "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name",
    ),
];

/// Words that mean the same in both. Columns are never `*`: the program must not depend on a column that another
/// version adds.
const COMMON_WORDS: &[(&str, &str)] = &[
    (
        "node_columns",
        "nodes.id, nodes.hostname, nodes.ipaddr, CAST(nodes.state AS TEXT) AS state, \
         nodes.comment, nodes.pool, nodes.reusable, nodes.data, nodes.created_at, \
         nodes.retired_at, nodes.attempts, nodes.fence, nodes.repairs, nodes.held_at, \
         nodes.retry_at, nodes.state_since, nodes.lease_expires_at, nodes.probed_at",
    ),
    // Nodes that a worker may claim. It claims a held node only to take the tenant's key off, after the session has
    // ended: `attempts` is 0 before that, and 1 without a lease after it.
    (
        "claimable",
        "nodes.retired_at IS NULL AND (nodes.held_at IS NULL OR (nodes.pool IS NOT NULL \
         AND nodes.state = 'deprovisioning' AND (nodes.attempts = 0 OR nodes.lease IS NOT NULL))) \
         AND nodes.state IN ('provisioning', 'deprovisioning')",
    ),
    // Nodes whose names and addresses are unique.
    (
        "unique_names",
        "retired_at IS NULL AND state <> 'provisioning' AND state <> 'failed'",
    ),
    // Nodes that a session may take.
    (
        "lendable",
        "state = 'ready' AND retired_at IS NULL AND held_at IS NULL",
    ),
    // Follows `nodes`: the running session that has the node, and its tenant. MATERIALIZED for PostgreSQL and CROSS JOIN
    // for SQLite make them begin with the running sessions. Otherwise they read the past sessions of nodes.
    (
        "join_session",
        "LEFT JOIN (WITH running AS MATERIALIZED (\
         SELECT sessions_nodes.node_id, max(sessions.id) AS session_id \
         FROM sessions CROSS JOIN sessions_nodes WHERE sessions_nodes.session_id = sessions.id \
         AND sessions.retired_at IS NULL GROUP BY sessions_nodes.node_id) \
         SELECT node_id, session_id FROM running) AS lent \
         ON lent.node_id = nodes.id LEFT JOIN sessions ON sessions.id = lent.session_id \
         LEFT JOIN tenants ON tenants.id = sessions.tenant_id",
    ),
    (
        "event_columns",
        "id, created_at, node_id, session_id, tenant_id, pool, from_state, to_state, cause, actor, detail",
    ),
    (
        "pool_state_columns",
        "pool, work, failures, retry_at, failed_at, detail, drained_at, reason",
    ),
    (
        "session_columns",
        "id, tenant_id, expires_at, data, created_at, retired_at",
    ),
    // With `node_columns` and `from_whole_sessions`: a row for each node of a session, or one for a session without nodes.
    (
        "whole_session_columns",
        "sessions.id AS of_session, sessions.tenant_id AS of_tenant, \
         sessions.expires_at AS session_expires_at, sessions.data AS session_request, \
         sessions.created_at AS session_created_at, sessions.retired_at AS session_retired_at, \
         tenants.name AS tenant_name, tenants.is_admin AS tenant_is_admin, \
         tenants.node_quota AS tenant_quota, tenants.session_lifetime AS tenant_lifetime, \
         tenants.session_lifetime_max AS tenant_lifetime_max, \
         tenants.created_at AS tenant_created_at, tenants.retired_at AS tenant_retired_at, \
         sessions_nodes.session_id, sessions_nodes.data AS session_data",
    ),
    (
        "from_whole_sessions",
        "FROM sessions JOIN tenants ON tenants.id = sessions.tenant_id \
         LEFT JOIN sessions_nodes ON sessions_nodes.session_id = sessions.id \
         LEFT JOIN nodes ON nodes.id = sessions_nodes.node_id",
    ),
    // The predicate of nodes of ended sessions that the API shows as deployed: `shown_state` in `lifecycle/views.rs`, for
    // nodes of a pool.
    (
        "is_released",
        "state = 'deprovisioning' AND attempts = 0 AND repairs = 0 AND held_at IS NULL \
         AND (data -> 'nodes_spec') IS NOT NULL",
    ),
    (
        "tenant_columns",
        "id, name, is_admin, ssh_key, api_key, api_key_digest, node_quota, session_lifetime, \
         session_lifetime_max, created_at, retired_at",
    ),
];

/// Returns a statement in the words of an engine.
///
/// A value may follow a word: `{now + $2}`. `{}` stays, because it is an empty JSON object.
///
/// # Errors
/// An unknown word, which the error names.
pub fn expand(text: &str, engine: Engine) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len() * 2);
    let mut rest = text;
    while let Some((before, from)) = rest.split_once('{') {
        let (word, after) = from.split_once('}').ok_or("a { without a }")?;
        let meaning = meaning(word, engine).ok_or_else(|| format!("no such word: {{{word}}}"))?;
        expanded.push_str(before);
        expanded.push_str(&meaning);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn meaning(word: &str, engine: Engine) -> Option<String> {
    if word.is_empty() {
        return Some("{}".to_owned());
    }
    if let Some((_, meaning)) = COMMON_WORDS.iter().find(|(name, _)| *name == word) {
        return Some((*meaning).to_owned());
    }
    let (name, value) = word.rsplit_once(' ').unwrap_or((word, ""));
    let (_, postgres, sqlite) = WORDS.iter().find(|(known, ..)| *known == name)?;
    let meaning = match engine {
        Engine::Postgres => postgres,
        Engine::Sqlite => sqlite,
    };
    Some(meaning.replace("{}", value))
}

/// A unique index of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unique {
    /// Tenants' names.
    TenantName,
    /// Active nodes' host names.
    NodeHostname,
    /// Active nodes' addresses.
    NodeAddress,
    /// Any other.
    Other,
}

/// Returns the unique index that an error is about.
pub(crate) fn violated_unique(error: &dyn sqlx::error::DatabaseError) -> Option<Unique> {
    if !error.is_unique_violation() {
        return None;
    }
    // PostgreSQL names the constraint, SQLite table and column in the message.
    let name = error.constraint().unwrap_or_else(|| error.message());
    let rules = [
        ("tenants_name_key", Unique::TenantName),
        ("tenants.name", Unique::TenantName),
        ("active_hostname_index", Unique::NodeHostname),
        ("nodes.hostname", Unique::NodeHostname),
        ("active_ipaddr_index", Unique::NodeAddress),
        ("nodes.ipaddr", Unique::NodeAddress),
    ];
    let rule = rules.iter().find(|(part, _)| name.contains(part));
    Some(rule.map_or(Unique::Other, |(_, unique)| *unique))
}

/// Whether a statement waited too long for a lock.
pub(crate) fn is_lock_timeout(error: &dyn sqlx::error::DatabaseError) -> bool {
    matches!(error.code().as_deref(), Some("55P03"))
}

/// Whether the transaction lost against another one and can be retried: serialization failure or deadlock in
/// PostgreSQL, a busy or locked database in SQLite.
pub(crate) fn is_conflict(error: &dyn sqlx::error::DatabaseError) -> bool {
    let code = error.code();
    matches!(
        code.as_deref(),
        Some("40001" | "40P01" | "5" | "6" | "261" | "262" | "517" | "773")
    )
}

/// The codes of a server that stops, starts or is full, and of statements that took too long.
const UNAVAILABLE: [&str; 9] = [
    "57P01", "57P02", "57P03", "57P05", "53300", "25006", "25P03", "55P03", "57014",
];

/// Whether the server says that it ends the connection.
pub(crate) fn ends_connection(error: &dyn sqlx::error::DatabaseError) -> bool {
    let code = error.code().unwrap_or_default();
    code.len() == 5 && code.starts_with("08")
        || ["57P01", "57P02", "57P03", "57P05"].contains(&&*code)
}

/// Whether the same statement may work later. Class 08 is about connections.
pub(crate) fn is_unavailable(error: &dyn sqlx::error::DatabaseError) -> bool {
    let code = error.code().unwrap_or_default();
    code.len() == 5 && code.starts_with("08") || UNAVAILABLE.contains(&&*code)
}
