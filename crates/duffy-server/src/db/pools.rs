//! The `pool_states` table: which pools' mechanisms keep failing, and which pools are drained. A row
//! for each pool and kind of work that there is something to say of.

use duffy_api::NodeState;

use super::dialect::{run, statements};
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
    /// How many attempts in a row failed, whichever node they were for.
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

statements! {
    LIST_POOL_STATES = [
        "SELECT " pool_state_columns " FROM pool_states ORDER BY pool, work"
    ];
    FIND_POOL_STATE = [
        "SELECT " pool_state_columns " FROM pool_states WHERE pool = $1 AND work = $2"
    ];
    COUNT_FAILURE = [
        "INSERT INTO pool_states (pool, work, failures, failed_at, detail) \
         VALUES ($1, $2, 1, " now ", $3) ON CONFLICT (pool, work) DO UPDATE SET \
         failures = pool_states.failures + 1, failed_at = excluded.failed_at, \
         detail = excluded.detail RETURNING failures"
    ];
    SET_RETRY = [
        "UPDATE pool_states SET retry_at = " [now + "$3"] " WHERE pool = $1 AND work = $2"
    ];
    /// One try for all workers: who comes first moves the next one away.
    TAKE_TRY = [
        "UPDATE pool_states SET retry_at = " [now + "$3"] " WHERE pool = $1 AND work = $2 \
         AND retry_at <= " now
    ];
    CLEAR_FAILURES = [
        "UPDATE pool_states SET failures = 0, retry_at = NULL, failed_at = NULL, detail = NULL \
         WHERE pool = $1 AND work = $2 AND failures > 0"
    ];
    DRAIN_POOL = [
        "INSERT INTO pool_states (pool, work, drained_at, reason) \
         VALUES ($1, 'provisioning', " now ", $2) ON CONFLICT (pool, work) DO UPDATE SET \
         drained_at = coalesce(pool_states.drained_at, excluded.drained_at), \
         reason = excluded.reason"
    ];
    RESUME_POOL = [
        "UPDATE pool_states SET drained_at = NULL, reason = NULL, retry_at = NULL, failures = 0 \
         WHERE pool = $1 AND work = 'provisioning' \
         AND (drained_at IS NOT NULL OR retry_at IS NOT NULL)"
    ];
    RELEASE_NODES_OF_DRAINED = [
        "WITH picked AS MATERIALIZED (SELECT id FROM nodes WHERE retired_at IS NULL \
         AND held_at IS NULL AND state IN ('ready', 'provisioning') \
         AND (lease_expires_at IS NULL OR lease_expires_at <= " now ") \
         AND pool IN (SELECT pool FROM pool_states WHERE drained_at IS NOT NULL) \
         ORDER BY id" skip_locked ") \
         UPDATE nodes SET state = 'deprovisioning', lease = NULL, lease_expires_at = NULL, \
         attempts = 0, retry_at = NULL, state_since = " now " FROM picked \
         WHERE nodes.id = picked.id RETURNING " node_columns
    ];
}

/// How all pools' mechanisms do, those left out of which there is nothing to say.
pub async fn list_pool_states(tx: &mut Tx) -> Result<Vec<PoolStateRow>, DbError> {
    run!(tx, LIST_POOL_STATES, query_as::<PoolStateRow>, fetch_all)
}

/// How a pool's mechanism does at one kind of work, if there is something to say.
pub async fn find_pool_state(
    tx: &mut Tx,
    pool: &str,
    work: NodeState,
) -> Result<Option<PoolStateRow>, DbError> {
    run!(
        tx,
        FIND_POOL_STATE,
        query_as::<PoolStateRow>,
        fetch_optional,
        pool,
        work.as_str()
    )
}

/// Counts a failure. Returns how many there were in a row.
pub async fn count_failure(
    tx: &mut Tx,
    pool: &str,
    work: NodeState,
    detail: &str,
) -> Result<u32, DbError> {
    // PostgreSQL's text cannot hold U+0000.
    let detail = detail.replace('\0', "\u{fffd}");
    let failures = run!(
        tx,
        COUNT_FAILURE,
        query_scalar::<i32>,
        fetch_optional,
        pool,
        work.as_str(),
        &detail
    )?;
    Ok(failures.map_or(1, |failures| u32::try_from(failures).unwrap_or(1)))
}

/// The mechanism is tried again in `seconds`, not earlier.
pub async fn set_retry(
    tx: &mut Tx,
    pool: &str,
    work: NodeState,
    seconds: f64,
) -> Result<(), DbError> {
    run!(tx, SET_RETRY, query, execute, pool, work.as_str(), seconds)?;
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
    Ok(run!(tx, TAKE_TRY, query, execute, pool, work.as_str(), seconds)? == 1)
}

/// The mechanism works. False when that is nothing new.
pub async fn clear_failures(tx: &mut Tx, pool: &str, work: NodeState) -> Result<bool, DbError> {
    Ok(run!(tx, CLEAR_FAILURES, query, execute, pool, work.as_str())? == 1)
}

/// Keeps a pool from being filled.
pub async fn drain_pool(tx: &mut Tx, pool: &str, reason: &str) -> Result<(), DbError> {
    run!(tx, DRAIN_POOL, query, execute, pool, reason)?;
    Ok(())
}

/// Lets a pool be filled again, at once. False when nothing kept it from that.
pub async fn resume_pool(tx: &mut Tx, pool: &str) -> Result<bool, DbError> {
    Ok(run!(tx, RESUME_POOL, query, execute, pool)? == 1)
}

/// Hands over to be deprovisioned what drained pools have and nobody uses. Returns these nodes as
/// they are then.
pub async fn release_nodes_of_drained(tx: &mut Tx) -> Result<Vec<NodeRow>, DbError> {
    let nodes = run!(tx, RELEASE_NODES_OF_DRAINED, query_as::<NodeRow>, fetch_all)?;
    if !nodes.is_empty() {
        tx.wake_workers();
    }
    Ok(nodes)
}
