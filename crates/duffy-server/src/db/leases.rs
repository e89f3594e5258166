//! Leases: which nodes wait for a worker, and until when a worker has them.
//!
//! The database's clock sets and judges a lease. Each write that ends the work names the lease, so that a process that
//! lost it changes nothing.

use std::time::Duration;

use super::nodes::{NodeRow, State};
use super::transitions::{self, Change};
use super::{DbResult, Tx, Unique};
use crate::node_state::Transition;

/// Nodes of a pool in one state that wait for a worker.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Waiting {
    /// The pool; `None` for a node that the original was about to deprovision.
    pub pool: Option<String>,
    /// `provisioning` or `deprovisioning`.
    #[sqlx(try_from = "String")]
    pub state: State,
    /// How many nodes.
    pub quantity: i64,
    /// Whether one of them has been in this state for ten minutes or longer.
    pub overdue: bool,
    /// Whether the pool's mechanism keeps failing at this work, and may be tried once now.
    pub failing: bool,
    /// Whether an operator holds them. The mechanism is not used for held nodes.
    pub held: bool,
}

/// Lists the nodes that wait for a worker, by pool and state.
pub async fn list_waiting(tx: &mut Tx) -> DbResult<Vec<Waiting>> {
    let sql = "SELECT nodes.pool, CAST(nodes.state AS TEXT) AS state, count(*) AS quantity, \
        min(coalesce(nodes.state_since, nodes.created_at)) <= {now + -600} AS overdue, \
        count(pool_states.retry_at) > 0 AS failing, nodes.held_at IS NOT NULL AS held \
        FROM nodes LEFT JOIN pool_states ON pool_states.pool = nodes.pool \
        AND nodes.held_at IS NULL AND pool_states.work = CAST(nodes.state AS TEXT) \
        WHERE {claimable} AND (nodes.lease_expires_at IS NULL OR nodes.lease_expires_at <= {now}) \
        AND (nodes.retry_at IS NULL OR nodes.retry_at <= {now}) \
        AND (pool_states.retry_at IS NULL OR (pool_states.retry_at <= {now} \
        AND NOT EXISTS (SELECT 1 FROM nodes AS busy WHERE busy.pool = nodes.pool \
        AND busy.state = nodes.state AND busy.retired_at IS NULL \
        AND busy.lease_expires_at > {now}))) \
        GROUP BY nodes.pool, nodes.state, nodes.held_at IS NOT NULL \
        ORDER BY nodes.state, nodes.pool";
    tx.fetch_all(sql, &[]).await
}

/// How many nodes one claim takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Portion {
    /// One.
    One,
    /// Up to this number, each with a lease of its own: [`transitions::lease_of_node`].
    Each(u32),
    /// All that wait. A node whose work failed before is claimed alone, so that it does not make the others fail too.
    Batch,
}

/// A batch has only nodes whose work failed less often than this.
const FAILURES_IN_BATCH: i32 = 2;

/// Claims nodes of a group under `lease`. Returns them in the order of their numbers.
pub async fn claim_nodes(
    tx: &mut Tx,
    group: &Waiting,
    portion: Portion,
    lease: &str,
    length: Duration,
) -> DbResult<Vec<NodeRow>> {
    let mut ids = Vec::new();
    let limit = match portion {
        Portion::Each(limit) => i64::from(limit),
        Portion::One | Portion::Batch => 1,
    };
    if portion == Portion::Batch {
        ids = pick(tx, group, i64::from(i32::MAX), FAILURES_IN_BATCH).await?;
    } else if !group.held {
        ids = pick_fresh(tx, group, limit).await?;
    }
    if ids.is_empty() {
        ids = pick(tx, group, limit, i32::MAX).await?;
    }
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let change = Change {
        lease: Some(lease),
        lease_length: length,
        lease_each: matches!(portion, Portion::Each(_)),
        ..Change::default()
    };
    transitions::apply_from(tx, Transition::Claim, &[group.state.0], &ids, &change).await
}

/// Picks nodes on which no work has begun, in the order of the index, so that the number of waiting nodes does not
/// matter. They come before those that failed.
async fn pick_fresh(tx: &mut Tx, group: &Waiting, limit: i64) -> DbResult<Vec<i64>> {
    let sql = "SELECT id FROM nodes WHERE pool = $1 AND state = {as_state $2} \
        AND retired_at IS NULL AND held_at IS NULL AND repairs = 0 AND attempts = 0 \
        AND (lease_expires_at IS NULL OR lease_expires_at <= {now}) \
        AND (retry_at IS NULL OR retry_at <= {now}) \
        ORDER BY state_since NULLS FIRST, id LIMIT $3 {skip_locked}";
    let state = group.state.0.as_str();
    tx.ids(sql, &[&group.pool, &state, &limit]).await
}

/// Nodes that never failed come first, so that one bad node cannot block the others.
async fn pick(tx: &mut Tx, group: &Waiting, limit: i64, failures_below: i32) -> DbResult<Vec<i64>> {
    let sql = "SELECT id FROM nodes WHERE {claimable} AND CAST(state AS TEXT) = $1 \
        AND (pool = $2 OR (pool IS NULL AND CAST($2 AS TEXT) IS NULL)) \
        AND (lease_expires_at IS NULL OR lease_expires_at <= {now}) \
        AND (retry_at IS NULL OR retry_at <= {now}) \
        AND repairs + attempts < $3 AND (held_at IS NOT NULL) = $4 \
        ORDER BY repairs + attempts, id LIMIT $5 {skip_locked}";
    let state = group.state.0.as_str();
    tx.ids(
        sql,
        &[&state, &group.pool, &failures_below, &group.held, &limit],
    )
    .await
}

/// Extends a lease by `seconds` from now. Returns how many nodes are still under it.
pub async fn renew_lease(tx: &mut Tx, lease: &str, seconds: f64) -> DbResult<u64> {
    let sql = "UPDATE nodes SET lease_expires_at = {now + $2} WHERE lease = $1 \
        AND retired_at IS NULL \
        AND state IN ('provisioning', 'contextualizing', 'deprovisioning')";
    tx.count_changes(sql, &[&lease, &seconds]).await
}

/// Hands back the nodes of a lease before their work has ended: others may go on immediately, and the attempt does not
/// count. Returns how many nodes were under it.
pub async fn hand_back_lease(tx: &mut Tx, lease: &str) -> DbResult<usize> {
    let leased = "SELECT id FROM nodes WHERE lease = $1";
    let ids = tx.ids(leased, &[&lease]).await?;
    let change = Change {
        lease: Some(lease),
        pause: Some(Duration::ZERO),
        ..Change::default()
    };
    let held = transitions::apply(tx, Transition::HandBackHeld, &ids, &change).await?;
    let others = transitions::apply(tx, Transition::HandBack, &ids, &change).await?;
    Ok(held.len() + others.len())
}

/// Returns which of the name and the address that were made for this node another node has. The unique indexes ignore
/// nodes that are `failed` or `provisioning`, but a registered node has its name and address in these states too. There, a
/// second registration of the same node does not count.
pub async fn taken_elsewhere(
    tx: &mut Tx,
    id: i64,
    hostname: &str,
    ipaddr: &str,
) -> DbResult<Option<Unique>> {
    let sql = "SELECT coalesce(taken.ipaddr = $2, FALSE) FROM (\
        SELECT other.ipaddr FROM nodes AS other JOIN nodes AS own ON own.id = $1 \
        WHERE other.id <> own.id AND other.reusable AND other.retired_at IS NULL \
        AND other.state IN ('provisioning', 'failed') \
        AND (other.ipaddr = $2 OR other.hostname = $3) \
        AND NOT (own.reusable AND coalesce(own.ipaddr = other.ipaddr, FALSE)) \
        UNION ALL SELECT ipaddr FROM nodes WHERE {unique_names} AND id <> $1 AND ipaddr = $2 \
        UNION ALL SELECT ipaddr FROM nodes WHERE {unique_names} AND id <> $1 AND hostname = $3\
        ) AS taken LIMIT 1";
    let by_address: Option<bool> = tx.scalar(sql, &[&id, &ipaddr, &hostname]).await?;
    Ok(match by_address {
        None => None,
        Some(true) => Some(Unique::NodeAddress),
        Some(false) => Some(Unique::NodeHostname),
    })
}

/// Sets the pool of a node that is being deprovisioned. False when the node has a pool, or is in another state.
pub async fn set_pool(tx: &mut Tx, id: i64, pool: &str) -> DbResult<bool> {
    let sql =
        "UPDATE nodes SET pool = $2 WHERE id = $1 AND pool IS NULL AND state = 'deprovisioning'";
    tx.changes(sql, &[&id, &pool]).await
}
