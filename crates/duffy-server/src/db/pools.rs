//! The `pool_states` table: which pools' mechanisms keep failing, and which pools are drained. A row
//! for each pool and kind of work that there is something to say of.

use duffy_api::NodeState;

use super::{DbError, Timestamp, Tx};
use crate::db::nodes::{NodeRow, State};

/// How a pool's mechanism does at one kind of work.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct PoolStateRow {
    /// The pool's name.
    pub pool: String,
    /// `provisioning` or `deprovisioning`.
    #[sqlx(try_from = "String")]
    pub work: State,
    /// How many attempts in a row failed, on any node of the pool.
    pub failures: i32,
    /// Before that time it is not tried again; none while it is tried as ever.
    pub retry_at: Option<Timestamp>,
    /// When it failed last.
    pub failed_at: Option<Timestamp>,
    /// What the last failure was.
    pub detail: Option<String>,
    /// Since when an operator keeps it from being filled; of `provisioning` only.
    pub drained_at: Option<Timestamp>,
    /// Why.
    pub reason: Option<String>,
}

/// How all pools' mechanisms do, those left out of which there is nothing to say.
pub async fn list_pool_states(tx: &mut Tx) -> Result<Vec<PoolStateRow>, DbError> {
    tx.query("SELECT {pool_state_columns} FROM pool_states ORDER BY pool, work")
        .fetch_all()
        .await
}

/// How a pool's mechanism does at one kind of work, if there is something to say.
pub async fn find_pool_state(
    tx: &mut Tx,
    pool: &str,
    work: NodeState,
) -> Result<Option<PoolStateRow>, DbError> {
    tx.query("SELECT {pool_state_columns} FROM pool_states WHERE pool = $1 AND work = $2")
        .bind(pool)
        .bind(work.as_str())
        .fetch_optional()
        .await
}

/// Counts a failure of work that began `begun_ago` seconds ago. Returns how many there were in a
/// row; `None` when there were `threshold` already, one of them since then: that is the same one.
pub async fn count_failure(
    tx: &mut Tx,
    pool: &str,
    work: NodeState,
    detail: &str,
    threshold: u32,
    begun_ago: f64,
) -> Result<Option<u32>, DbError> {
    // PostgreSQL's text cannot hold U+0000.
    let detail = detail.replace('\0', "\u{fffd}");
    // From the threshold on only what was begun after the last failure: several that fail at the
    // same time fail for one reason.
    let failures = tx
        .query(
            "INSERT INTO pool_states (pool, work, failures, failed_at, detail) \
         VALUES ($1, $2, 1, {now}, $3) ON CONFLICT (pool, work) DO UPDATE SET \
         failures = pool_states.failures + 1, failed_at = excluded.failed_at, \
         detail = excluded.detail WHERE pool_states.failures < $4 \
         OR pool_states.failed_at <= {now + $5} RETURNING failures",
        )
        .bind(pool)
        .bind(work.as_str())
        .bind(&detail)
        .bind(i64::from(threshold))
        .bind(-begun_ago)
        .scalar::<i32>()
        .await?;
    Ok(failures.map(|failures| u32::try_from(failures).unwrap_or(1)))
}

/// The mechanism is tried again in `seconds`, not earlier.
pub async fn set_retry(
    tx: &mut Tx,
    pool: &str,
    work: NodeState,
    seconds: f64,
) -> Result<(), DbError> {
    tx.query("UPDATE pool_states SET retry_at = {now + $3} WHERE pool = $1 AND work = $2")
        .bind(pool)
        .bind(work.as_str())
        .bind(seconds)
        .execute()
        .await?;
    Ok(())
}

/// Takes the one try that a failing mechanism has now; the next one is in `seconds`. False when
/// another worker took it.
pub async fn take_try(
    tx: &mut Tx,
    pool: &str,
    work: NodeState,
    seconds: f64,
) -> Result<bool, DbError> {
    // One try for all workers: the first worker postpones the next try.
    Ok(tx
        .query(
            "UPDATE pool_states SET retry_at = {now + $3} WHERE pool = $1 AND work = $2 \
         AND retry_at <= {now}",
        )
        .bind(pool)
        .bind(work.as_str())
        .bind(seconds)
        .execute()
        .await?
        == 1)
}

/// The mechanism works. False when that is nothing new.
pub async fn clear_failures(tx: &mut Tx, pool: &str, work: NodeState) -> Result<bool, DbError> {
    Ok(tx
        .query(
            "UPDATE pool_states SET failures = 0, retry_at = NULL, failed_at = NULL, detail = NULL \
         WHERE pool = $1 AND work = $2 AND failures > 0",
        )
        .bind(pool)
        .bind(work.as_str())
        .execute()
        .await?
        == 1)
}

/// Keeps a pool from being filled.
pub async fn drain_pool(tx: &mut Tx, pool: &str, reason: &str) -> Result<(), DbError> {
    tx.query(
        "INSERT INTO pool_states (pool, work, drained_at, reason) \
         VALUES ($1, 'provisioning', {now}, $2) ON CONFLICT (pool, work) DO UPDATE SET \
         drained_at = coalesce(pool_states.drained_at, excluded.drained_at), \
         reason = excluded.reason",
    )
    .bind(pool)
    .bind(reason)
    .execute()
    .await?;
    Ok(())
}

/// Lets a pool be filled again, at once. False when nothing kept it from that.
pub async fn resume_pool(tx: &mut Tx, pool: &str) -> Result<bool, DbError> {
    Ok(tx.query("UPDATE pool_states SET drained_at = NULL, reason = NULL, retry_at = NULL, failures = 0 \
         WHERE pool = $1 AND (drained_at IS NOT NULL OR retry_at IS NOT NULL)").bind(pool).execute().await? > 0)
}

/// Nodes of drained pools that are `ready` or `provisioning`, and that nobody works on.
pub async fn list_nodes_of_drained(tx: &mut Tx) -> Result<Vec<NodeRow>, DbError> {
    tx.query(
        "SELECT {node_columns} FROM nodes WHERE nodes.retired_at IS NULL \
         AND nodes.held_at IS NULL AND nodes.state IN ('ready', 'provisioning') \
         AND (nodes.lease_expires_at IS NULL OR nodes.lease_expires_at <= {now}) \
         AND nodes.pool IN (SELECT pool FROM pool_states WHERE drained_at IS NOT NULL) \
         ORDER BY nodes.id",
    )
    .fetch_all()
    .await
}
