//! Leases: who works on a node in a transient state, and until when.
//!
//! A lease is set and judged by the database's clock. Every write that ends the work names
//! the lease, so that whoever lost it changes nothing.

use duffy_api::NodeState;

use super::dialect::{run, statements};
use super::{DbError, JsonObject, Tx};
use crate::db::nodes::{NodeRow, State};

/// Work that waits: so many nodes of a pool in a state, leased by nobody.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Waiting {
    /// The pool; none for a node that the original was about to deprovision.
    pub pool: Option<String>,
    /// `provisioning` or `deprovisioning`.
    #[sqlx(try_from = "String")]
    pub state: State,
    /// How many nodes.
    pub quantity: i64,
    /// Whether one of them came into this state ten minutes ago, or earlier.
    pub overdue: bool,
}

statements! {
    LIST_WAITING = [
        "SELECT pool, CAST(state AS TEXT) AS state, count(*) AS quantity, \
         min(coalesce(state_since, created_at)) <= " [now + "-600"] " AS overdue FROM nodes \
         WHERE retired_at IS NULL AND state IN ('provisioning', 'deprovisioning') \
         AND (lease_expires_at IS NULL OR lease_expires_at <= " now ") \
         AND (retry_at IS NULL OR retry_at <= " now ") \
         GROUP BY pool, state ORDER BY state, pool"
    ];
    CLAIM = [
        "WITH picked AS MATERIALIZED (SELECT id FROM nodes \
         WHERE retired_at IS NULL AND state IN ('provisioning', 'deprovisioning') \
         AND CAST(state AS TEXT) = $5 \
         AND (pool = $1 OR (pool IS NULL AND CAST($1 AS TEXT) IS NULL)) \
         AND (lease_expires_at IS NULL OR lease_expires_at <= " now ") \
         AND (retry_at IS NULL OR retry_at <= " now ") \
         ORDER BY id LIMIT $2" skip_locked ") \
         UPDATE nodes SET lease = $3, lease_expires_at = " [now + "$4"] ", \
         attempts = nodes.attempts + 1, retry_at = NULL FROM picked \
         WHERE nodes.id = picked.id RETURNING " node_columns
    ];
    RENEW = [
        "UPDATE nodes SET lease_expires_at = " [now + "$2"] " WHERE lease = $1 \
         AND retired_at IS NULL \
         AND state IN ('provisioning', 'contextualizing', 'deprovisioning')"
    ];
    HAND_BACK = [
        "UPDATE nodes SET lease = NULL, lease_expires_at = NULL, \
         attempts = CASE WHEN attempts > 0 THEN attempts - 1 ELSE 0 END WHERE lease = $1 \
         AND state IN ('provisioning', 'deprovisioning')"
    ];
    FINISH_READY = [
        "UPDATE nodes SET state = 'ready', hostname = $3, ipaddr = $4, data = $5, lease = NULL, \
         lease_expires_at = NULL, attempts = 0, retry_at = NULL, state_since = " now " \
         WHERE id = $1 AND lease = $2 AND state = 'provisioning'"
    ];
    FINISH_UNUSED = [
        "UPDATE nodes SET state = 'unused', pool = NULL, data = $3, lease = NULL, \
         lease_expires_at = NULL, attempts = 0, retry_at = NULL, state_since = " now " \
         WHERE id = $1 AND lease = $2 AND state = 'deprovisioning'"
    ];
    FINISH_DONE = [
        "UPDATE nodes SET state = 'done', pool = NULL, lease = NULL, lease_expires_at = NULL, \
         retry_at = NULL, state_since = " now ", retired_at = " now " \
         WHERE id = $1 AND lease = $2 AND state = 'deprovisioning'"
    ];
    FINISH_DEPLOYED = [
        "UPDATE nodes SET state = 'deployed', lease = NULL, lease_expires_at = NULL, \
         attempts = 0, state_since = " now " WHERE lease = $1 AND state = 'contextualizing' \
         AND id IN (SELECT node_id FROM sessions_nodes WHERE session_id = $2)"
    ];
    RETURN_READY = [
        "UPDATE nodes SET state = 'ready', data = $3, lease = NULL, lease_expires_at = NULL, \
         attempts = 0, state_since = " now " \
         WHERE id = $1 AND lease = $2 AND state = 'contextualizing'"
    ];
    FAIL = [
        "UPDATE nodes SET state = 'failed', data = $3, lease = NULL, lease_expires_at = NULL, \
         state_since = " now " WHERE id = $1 AND lease = $2"
    ];
    POSTPONE = [
        "UPDATE nodes SET data = $3, lease = NULL, lease_expires_at = NULL, \
         retry_at = " [now + "$4"] " WHERE id = $1 AND lease = $2"
    ];
    SET_POOL = [
        "UPDATE nodes SET pool = $2 WHERE id = $1 AND pool IS NULL AND state = 'deprovisioning'"
    ];
}

/// What waits to be worked on, by pool and state.
pub async fn list_waiting(tx: &mut Tx) -> Result<Vec<Waiting>, DbError> {
    run!(tx, LIST_WAITING, query_as::<Waiting>, fetch_all)
}

/// Leases up to `limit` nodes of a pool that wait in this state, for `seconds`, and counts
/// the attempt. In the order of their numbers.
pub async fn claim_nodes(
    tx: &mut Tx,
    state: NodeState,
    pool: Option<&str>,
    limit: i64,
    lease: &str,
    seconds: f64,
) -> Result<Vec<NodeRow>, DbError> {
    let mut rows = run!(
        tx,
        CLAIM,
        query_as::<NodeRow>,
        fetch_all,
        pool,
        limit,
        lease,
        seconds,
        state.as_str(),
    )?;
    rows.sort_by_key(|row| row.id);
    Ok(rows)
}

/// Extends a lease by `seconds` from now. Returns how many nodes are still under it.
pub async fn renew_lease(tx: &mut Tx, lease: &str, seconds: f64) -> Result<u64, DbError> {
    run!(tx, RENEW, query, execute, lease, seconds)
}

/// Gives a lease up unfinished: others may go on at once, and the attempt does not count.
pub async fn hand_back_lease(tx: &mut Tx, lease: &str) -> Result<u64, DbError> {
    let nodes = run!(tx, HAND_BACK, query, execute, lease)?;
    if nodes > 0 {
        tx.wake_workers();
    }
    Ok(nodes)
}

/// A provisioned node becomes ready. False when the lease is lost.
pub async fn finish_provisioning(
    tx: &mut Tx,
    id: i64,
    lease: &str,
    hostname: &str,
    ipaddr: &str,
    data: &JsonObject,
) -> Result<bool, DbError> {
    Ok(run!(
        tx,
        FINISH_READY,
        query,
        execute,
        id,
        lease,
        hostname,
        ipaddr,
        data
    )? == 1)
}

/// A deprovisioned node that can be used again becomes unused. False when the lease is lost.
pub async fn finish_reusable(
    tx: &mut Tx,
    id: i64,
    lease: &str,
    data: &JsonObject,
) -> Result<bool, DbError> {
    Ok(run!(tx, FINISH_UNUSED, query, execute, id, lease, data)? == 1)
}

/// A deprovisioned node that is gone becomes history. False when the lease is lost.
pub async fn finish_done(tx: &mut Tx, id: i64, lease: &str) -> Result<bool, DbError> {
    Ok(run!(tx, FINISH_DONE, query, execute, id, lease)? == 1)
}

/// The nodes of a session that have their key become deployed. Returns how many.
pub async fn finish_contextualizing(
    tx: &mut Tx,
    lease: &str,
    session_id: i64,
) -> Result<u64, DbError> {
    run!(tx, FINISH_DEPLOYED, query, execute, lease, session_id)
}

/// A reserved node without a key goes back to the ready ones. False when the lease is lost.
pub async fn return_to_ready(
    tx: &mut Tx,
    id: i64,
    lease: &str,
    data: &JsonObject,
) -> Result<bool, DbError> {
    Ok(run!(tx, RETURN_READY, query, execute, id, lease, data)? == 1)
}

/// Gives a node up: it is quarantined as failed. False when the lease is lost.
pub async fn fail_node(
    tx: &mut Tx,
    id: i64,
    lease: &str,
    data: &JsonObject,
) -> Result<bool, DbError> {
    Ok(run!(tx, FAIL, query, execute, id, lease, data)? == 1)
}

/// Ends an attempt that failed: the next one is in `seconds`. False when the lease is lost.
pub async fn postpone_node(
    tx: &mut Tx,
    id: i64,
    lease: &str,
    data: &JsonObject,
    seconds: f64,
) -> Result<bool, DbError> {
    Ok(run!(tx, POSTPONE, query, execute, id, lease, data, seconds)? == 1)
}

/// Gives a node being deprovisioned its pool back. False when it has one, or does something
/// else.
pub async fn set_pool(tx: &mut Tx, id: i64, pool: &str) -> Result<bool, DbError> {
    Ok(run!(tx, SET_POOL, query, execute, id, pool)? == 1)
}
