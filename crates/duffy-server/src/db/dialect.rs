//! Where PostgreSQL and SQLite differ: words of SQL, column types, how errors are told.
//!
//! A statement is written once, with `statements!`: text that both understand, and between the
//! texts the words below for what they spell differently.

pub(crate) mod values;

/// A statement in the words of each engine.
#[derive(Debug, Clone, Copy)]
pub struct Sql {
    /// In PostgreSQL's.
    pub postgres: &'static str,
    /// In SQLite's.
    pub sqlite: &'static str,
}

/// One part of a statement in PostgreSQL's words.
macro_rules! postgres_word {
    (now) => {
        "(now() AT TIME ZONE 'utc')"
    };
    ([now + $seconds:literal]) => {
        concat!(
            "(clock_timestamp() AT TIME ZONE 'utc' + make_interval(secs => ",
            $seconds,
            "))"
        )
    };
    // Milliseconds since 1970, so that the number grows for a machine whichever row it has.
    (next_fence) => {
        "greatest(nodes.fence + 1, \
         CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT))"
    };
    (for_update) => {
        " FOR UPDATE"
    };
    (for_no_key_update) => {
        " FOR NO KEY UPDATE"
    };
    (skip_locked) => {
        " FOR UPDATE SKIP LOCKED"
    };
    (pool_lock) => {
        "SELECT pg_advisory_xact_lock($2, hashtext($1))"
    };
    (try_pool_lock) => {
        "SELECT pg_try_advisory_xact_lock($2, hashtext($1))"
    };
    // Not every version has each of them.
    (no_timeouts) => {
        "SELECT set_config(name, '0', true) FROM pg_catalog.pg_settings WHERE name IN \
         ('statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')"
    };
    (lock_timeout) => {
        "SELECT set_config('lock_timeout', $1, true)"
    };
    (snapshot) => {
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
    };
    // Any fixed number that nobody else is likely to use.
    (schema_lock) => {
        "SELECT pg_advisory_xact_lock(7017706889)"
    };
    (notify) => {
        "SELECT pg_notify('duffy_work', '')"
    };
    // With IN the planner may expect so many rows that it reads the whole table.
    (in_rows) => {
        " = ANY (ARRAY("
    };
    (end_in_rows) => {
        "))"
    };
    (tables) => {
        "SELECT CAST(tablename AS TEXT) FROM pg_catalog.pg_tables \
         WHERE schemaname = current_schema() ORDER BY tablename"
    };
    ($other:tt) => {
        $crate::db::dialect::common_word!($other)
    };
}

/// The same in SQLite's. A writing transaction holds the whole database there, so rows need
/// no locks of their own.
macro_rules! sqlite_word {
    (now) => {
        "strftime('%Y-%m-%d %H:%M:%f000', 'now')"
    };
    ([now + $seconds:literal]) => {
        concat!(
            "strftime('%Y-%m-%d %H:%M:%f000', 'now', ",
            $seconds,
            " || ' seconds')"
        )
    };
    (next_fence) => {
        "max(nodes.fence + 1, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER))"
    };
    (for_update) => {
        ""
    };
    (for_no_key_update) => {
        ""
    };
    (skip_locked) => {
        ""
    };
    (pool_lock) => {
        "SELECT $1, $2"
    };
    (try_pool_lock) => {
        "SELECT $1 IS NOT NULL OR $2"
    };
    (no_timeouts) => {
        "SELECT 1"
    };
    (lock_timeout) => {
        "SELECT $1"
    };
    // What a transaction reads first is what it goes on reading.
    (snapshot) => {
        "SELECT 1"
    };
    (schema_lock) => {
        "SELECT 1"
    };
    (in_rows) => {
        " IN ("
    };
    (end_in_rows) => {
        ")"
    };
    // Other processes on a SQLite database poll.
    (notify) => {
        "SELECT 1"
    };
    (tables) => {
        "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
    };
    ($other:tt) => {
        $crate::db::dialect::common_word!($other)
    };
}

/// What both have in common: texts, and the columns of the rows. Never `*`: a column that is
/// added while the program runs must not come as a surprise to it.
macro_rules! common_word {
    (node_columns) => {
        "nodes.id, nodes.hostname, nodes.ipaddr, CAST(nodes.state AS TEXT) AS state, \
         nodes.comment, nodes.pool, nodes.reusable, nodes.data, nodes.created_at, \
         nodes.retired_at, nodes.attempts, nodes.fence, nodes.repairs, nodes.held_at, \
         nodes.retry_at, nodes.state_since, nodes.lease_expires_at"
    };
    // Nodes that a worker may claim. Of a held node it only takes the tenant's key off, once its session has ended:
    // `attempts` is 0 before that, and 1 without a lease after it.
    (claimable) => {
        "nodes.retired_at IS NULL AND (nodes.held_at IS NULL OR (nodes.pool IS NOT NULL \
         AND nodes.state = 'deprovisioning' AND (nodes.attempts = 0 OR nodes.lease IS NOT NULL))) \
         AND nodes.state IN ('provisioning', 'deprovisioning')"
    };
    // To the right of `nodes`: the running session that has the node, and its tenant.
    (lent_nodes) => {
        "LEFT JOIN (SELECT sessions_nodes.node_id, max(sessions.id) AS session_id \
         FROM sessions_nodes JOIN sessions ON sessions.id = sessions_nodes.session_id \
         WHERE sessions.retired_at IS NULL GROUP BY sessions_nodes.node_id) AS lent \
         ON lent.node_id = nodes.id LEFT JOIN sessions ON sessions.id = lent.session_id \
         LEFT JOIN tenants ON tenants.id = sessions.tenant_id"
    };
    (event_columns) => {
        "id, created_at, node_id, session_id, tenant_id, pool, from_state, to_state, cause, \
         actor, detail"
    };
    (pool_state_columns) => {
        "pool, work, failures, retry_at, failed_at, detail, drained_at, reason"
    };
    (session_columns) => {
        "id, tenant_id, expires_at, data, created_at, retired_at"
    };
    (tenant_columns) => {
        "id, name, is_admin, ssh_key, api_key, api_key_digest, node_quota, session_lifetime, \
         session_lifetime_max, created_at, retired_at"
    };
    ($text:literal) => {
        $text
    };
}

/// Declares the statements of a module, and lists them for the test that describes each.
macro_rules! statements {
    ($($(#[doc = $doc:literal])* $name:ident = [$($part:tt)+];)+) => {
        $(
            $(#[doc = $doc])*
            const $name: $crate::db::dialect::Sql = $crate::db::dialect::Sql {
                postgres: concat!($($crate::db::dialect::postgres_word!($part)),+),
                sqlite: concat!($($crate::db::dialect::sqlite_word!($part)),+),
            };
        )+

        /// Every statement of this module, by name.
        pub(crate) const STATEMENTS: &[(&str, $crate::db::dialect::Sql)] =
            &[$((stringify!($name), $name)),+];
    };
}

/// Runs a statement on whichever engine the transaction is with.
macro_rules! run {
    ($tx:expr, $sql:expr, $query:ident $(::<$row:ty>)?, $fetch:ident $(, $bind:expr)* $(,)?) => {
        match &mut $tx.inner {
            #[cfg(feature = "postgresql")]
            $crate::db::TxInner::Postgres(tx) => {
                $crate::db::dialect::query!(sqlx::Postgres, $query $(::<$row>)?, $sql.postgres)
                    $(.bind($bind))*
                    .$fetch(&mut **tx)
                    .await
                    .map($crate::db::dialect::Outcome::outcome)
                    .map_err($crate::db::DbError::from)
            }
            #[cfg(feature = "sqlite")]
            $crate::db::TxInner::Sqlite(tx) => {
                $crate::db::dialect::query!(sqlx::Sqlite, $query $(::<$row>)?, $sql.sqlite)
                    $(.bind($bind))*
                    .$fetch(&mut **tx)
                    .await
                    .map($crate::db::dialect::Outcome::outcome)
                    .map_err($crate::db::DbError::from)
            }
        }
    };
}

macro_rules! query {
    ($db:ty, query, $sql:expr) => {
        sqlx::query::<$db>($sql)
    };
    ($db:ty, query_as::<$row:ty>, $sql:expr) => {
        sqlx::query_as::<$db, $row>($sql)
    };
    ($db:ty, query_scalar::<$row:ty>, $sql:expr) => {
        sqlx::query_scalar::<$db, $row>($sql)
    };
}

/// What a statement gave: rows as they are, and of a change only how many rows it changed.
pub(crate) trait Outcome {
    type Outcome;
    fn outcome(self) -> Self::Outcome;
}

impl<T> Outcome for Vec<T> {
    type Outcome = Self;
    fn outcome(self) -> Self {
        self
    }
}

impl<T> Outcome for Option<T> {
    type Outcome = Self;
    fn outcome(self) -> Self {
        self
    }
}

#[cfg(feature = "postgresql")]
impl Outcome for sqlx::postgres::PgQueryResult {
    type Outcome = u64;
    fn outcome(self) -> u64 {
        self.rows_affected()
    }
}

#[cfg(feature = "sqlite")]
impl Outcome for sqlx::sqlite::SqliteQueryResult {
    type Outcome = u64;
    fn outcome(self) -> u64 {
        self.rows_affected()
    }
}

pub(crate) use {common_word, postgres_word, query, run, sqlite_word, statements};

/// A rule of the schema that two rows may not both satisfy.
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

/// Which rule an error is about, if it is about uniqueness.
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

/// Whether a statement waited for a lock for as long as it may.
pub(crate) fn is_lock_timeout(error: &dyn sqlx::error::DatabaseError) -> bool {
    matches!(error.code().as_deref(), Some("55P03"))
}

/// Whether the transaction lost against another one and may simply be done again:
/// serialization failure or deadlock in PostgreSQL, a busy or locked database in SQLite.
pub(crate) fn is_conflict(error: &dyn sqlx::error::DatabaseError) -> bool {
    let code = error.code();
    matches!(
        code.as_deref(),
        Some("40001" | "40P01" | "5" | "6" | "261" | "262" | "517" | "773")
    )
}

/// Whether the server is going away, coming up or full, or something took too long, so that
/// the same may work later.
pub(crate) fn is_unavailable(error: &dyn sqlx::error::DatabaseError) -> bool {
    error.code().is_some_and(|code| {
        code.len() == 5
            && (code.starts_with("08")
                || matches!(
                    &*code,
                    "57P01"
                        | "57P02"
                        | "57P03"
                        | "57P05"
                        | "53300"
                        | "25006"
                        | "25P03"
                        | "55P03"
                        | "57014"
                ))
    })
}
