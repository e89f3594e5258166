//! The `pool_states` table: which pools' mechanisms keep failing, and which pools are drained. A pool that never
//! failed and never was drained has no row.

use duffy_api::NodeState;
use serde::Serialize;

use super::{DbError, DbResult, Timestamp, Tx};
use crate::db::nodes::{NodeRow, State};
use crate::db::query::{Joined, Table};

/// The state of a pool's mechanism for one kind of work. JSON has only what is about failures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct PoolStateRow {
    /// The pool's name.
    #[serde(skip)]
    pub pool: String,
    /// `provisioning` or `deprovisioning`.
    #[sqlx(try_from = "String")]
    pub work: State,
    /// How many attempts in a row failed, on any node of the pool.
    pub failures: i32,
    /// When it failed last.
    pub failed_at: Option<Timestamp>,
    /// When a failing mechanism is tried again; `None` while it is not failing.
    pub retry_at: Option<Timestamp>,
    /// What the last failure was.
    pub detail: Option<String>,
    /// Since when an operator keeps it from being filled; of `provisioning` only.
    #[serde(skip)]
    pub drained_at: Option<Timestamp>,
    /// The operator's reason.
    #[serde(skip)]
    pub reason: Option<String>,
}

impl Table for PoolStateRow {
    const KEY: &'static str = "work";
}

/// How many nodes of a pool are in these states. Held nodes are not ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct PoolCounts {
    /// `provisioning`
    pub provisioning: i64,
    /// `ready`
    pub ready: i64,
    /// `contextualizing`
    pub contextualizing: i64,
    /// `deployed`
    pub deployed: i64,
    /// `deprovisioning`
    pub deprovisioning: i64,
    /// How many of these no worker has claimed since their sessions ended.
    pub released: i64,
}

#[derive(sqlx::FromRow)]
struct PoolLine {
    #[sqlx(flatten)]
    counts: PoolCounts,
    #[sqlx(flatten)]
    state: Joined<PoolStateRow>,
}

/// Counts the nodes of a pool, and lists the states of its mechanism.
pub async fn count_nodes(tx: &mut Tx, pool: &str) -> DbResult<(PoolCounts, Vec<PoolStateRow>)> {
    let sql = "SELECT provisioning, ready, contextualizing, deployed, deprovisioning, released, \
        {pool_state_columns} FROM (SELECT count(CASE WHEN state = 'provisioning' THEN 1 END) \
        AS provisioning, count(CASE WHEN state = 'ready' AND held_at IS NULL THEN 1 END) AS ready, \
        count(CASE WHEN state = 'contextualizing' THEN 1 END) AS contextualizing, \
        count(CASE WHEN state = 'deployed' THEN 1 END) AS deployed, \
        count(CASE WHEN state = 'deprovisioning' THEN 1 END) AS deprovisioning, \
        count(CASE WHEN {is_released} THEN 1 END) AS released \
        FROM nodes WHERE retired_at IS NULL AND pool = $1) AS counts \
        LEFT JOIN pool_states ON pool_states.pool = $1 ORDER BY work";
    let lines: Vec<PoolLine> = tx.fetch_all(sql, &[&pool]).await?;
    let counts = lines.first().map(|line| line.counts);
    let counts = counts.ok_or_else(|| DbError::Corrupt("a count has no row".into()))?;
    let states = lines.into_iter().filter_map(|line| line.state.0);
    Ok((counts, states.collect()))
}

/// Lists the states of all pools' mechanisms.
pub async fn list_pool_states(tx: &mut Tx) -> DbResult<Vec<PoolStateRow>> {
    let sql = "SELECT {pool_state_columns} FROM pool_states ORDER BY pool, work";
    tx.fetch_all(sql, &[]).await
}

/// Finds the state of a pool's mechanism for one kind of work.
pub async fn find_pool_state(
    tx: &mut Tx,
    pool: &str,
    work: NodeState,
) -> DbResult<Option<PoolStateRow>> {
    let sql = "SELECT {pool_state_columns} FROM pool_states WHERE pool = $1 AND work = $2";
    tx.fetch_optional(sql, &[&pool, &work.as_str()]).await
}

/// Counts a failure of work that began `begun_ago` seconds ago. Returns the number of failures in a row; `None` when
/// there were `threshold` already and one of them came after the work began: then both have the same reason.
pub async fn count_failure(
    tx: &mut Tx,
    pool: &str,
    work: NodeState,
    detail: &str,
    threshold: u32,
    begun_ago: f64,
) -> DbResult<Option<u32>> {
    // PostgreSQL's text cannot hold U+0000.
    let detail = detail.replace('\0', "\u{fffd}");
    // From the threshold on, only work that began after the last failure counts: attempts that fail at the same time
    // fail for the same reason.
    let sql = "INSERT INTO pool_states (pool, work, failures, failed_at, detail) \
        VALUES ($1, $2, 1, {now}, $3) ON CONFLICT (pool, work) DO UPDATE SET \
        failures = pool_states.failures + 1, failed_at = excluded.failed_at, \
        detail = excluded.detail WHERE pool_states.failures < $4 \
        OR pool_states.failed_at <= {now + $5} RETURNING failures";
    let (work, threshold) = (work.as_str(), i64::from(threshold));
    let failures: Option<i32> = tx
        .scalar(sql, &[&pool, &work, &detail, &threshold, &-begun_ago])
        .await?;
    Ok(failures.map(|failures| u32::try_from(failures).unwrap_or(1)))
}

/// Sets that the mechanism is tried again in `seconds`, not earlier.
pub async fn set_retry(tx: &mut Tx, pool: &str, work: NodeState, seconds: f64) -> DbResult<()> {
    let sql = "UPDATE pool_states SET retry_at = {now + $3} WHERE pool = $1 AND work = $2";
    tx.execute(sql, &[&pool, &work.as_str(), &seconds]).await
}

/// Takes the one try that a failing mechanism has now. The next one is in `seconds`. False when another worker took it.
pub async fn take_try(tx: &mut Tx, pool: &str, work: NodeState, seconds: f64) -> DbResult<bool> {
    // One try for all workers: the first worker postpones the next try.
    let sql = "UPDATE pool_states SET retry_at = {now + $3} WHERE pool = $1 AND work = $2 \
        AND retry_at <= {now}";
    tx.changes(sql, &[&pool, &work.as_str(), &seconds]).await
}

/// Records that the mechanism works. False when it did not fail before.
pub async fn clear_failures(tx: &mut Tx, pool: &str, work: NodeState) -> DbResult<bool> {
    let sql = "UPDATE pool_states SET failures = 0, retry_at = NULL, failed_at = NULL, \
        detail = NULL WHERE pool = $1 AND work = $2 AND failures > 0";
    tx.changes(sql, &[&pool, &work.as_str()]).await
}

/// Keeps a pool from being filled.
pub async fn drain_pool(tx: &mut Tx, pool: &str, reason: &str) -> DbResult<()> {
    let sql = "INSERT INTO pool_states (pool, work, drained_at, reason) \
        VALUES ($1, 'provisioning', {now}, $2) ON CONFLICT (pool, work) DO UPDATE SET \
        drained_at = coalesce(pool_states.drained_at, excluded.drained_at), \
        reason = excluded.reason";
    tx.execute(sql, &[&pool, &reason]).await
}

/// Lets a pool be filled again immediately. False when nothing prevented it.
pub async fn resume_pool(tx: &mut Tx, pool: &str) -> DbResult<bool> {
    let sql = "UPDATE pool_states SET drained_at = NULL, reason = NULL, retry_at = NULL, \
        failures = 0 WHERE pool = $1 AND (drained_at IS NOT NULL OR retry_at IS NOT NULL)";
    tx.changes(sql, &[&pool]).await
}

/// Lists nodes of drained pools that are `ready` or `provisioning` and that nobody works on.
pub async fn list_nodes_of_drained(tx: &mut Tx) -> DbResult<Vec<NodeRow>> {
    let sql = "SELECT {node_columns} FROM nodes WHERE nodes.retired_at IS NULL \
        AND nodes.held_at IS NULL AND nodes.state IN ('ready', 'provisioning') \
        AND (nodes.lease_expires_at IS NULL OR nodes.lease_expires_at <= {now}) \
        AND nodes.pool IN (SELECT pool FROM pool_states WHERE drained_at IS NOT NULL) \
        ORDER BY nodes.id";
    tx.fetch_all(sql, &[]).await
}
