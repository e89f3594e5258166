//! Leases: who works on a node in a transient state, and until when.
//!
//! A lease is set and judged by the database's clock. Every write that ends the work names
//! the lease, so that whoever lost it changes nothing.

use duffy_api::NodeState;

use super::events::{self, Cause, Event};
use super::{DbError, JsonObject, Tx, Unique};
use crate::db::nodes::{NodeRow, State};
use crate::db::sessions::SessionRow;

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
    /// Whether the pool's mechanism keeps failing at this, and has one try now.
    pub failing: bool,
    /// Whether an operator holds them: then the mechanism is not used.
    pub held: bool,
}

/// What waits to be worked on, by pool and state.
pub async fn list_waiting(tx: &mut Tx) -> Result<Vec<Waiting>, DbError> {
    tx.query("SELECT nodes.pool, CAST(nodes.state AS TEXT) AS state, count(*) AS quantity, \
         min(coalesce(nodes.state_since, nodes.created_at)) <= {now + -600} AS overdue, \
         count(pool_states.retry_at) > 0 AS failing, nodes.held_at IS NOT NULL AS held \
         FROM nodes LEFT JOIN pool_states ON pool_states.pool = nodes.pool AND nodes.held_at IS NULL \
         AND pool_states.work = CAST(nodes.state AS TEXT) \
         WHERE {claimable} AND (nodes.lease_expires_at IS NULL OR nodes.lease_expires_at <= {now}) \
         AND (nodes.retry_at IS NULL OR nodes.retry_at <= {now}) \
         AND (pool_states.retry_at IS NULL OR (pool_states.retry_at <= {now} \
         AND NOT EXISTS (SELECT 1 FROM nodes AS busy WHERE busy.pool = nodes.pool \
         AND busy.state = nodes.state AND busy.retired_at IS NULL \
         AND busy.lease_expires_at > {now}))) \
         GROUP BY nodes.pool, nodes.state, nodes.held_at IS NOT NULL ORDER BY nodes.state, nodes.pool").fetch_all().await
}

/// How many nodes to claim at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Portion {
    /// One.
    One,
    /// All that wait; but one whose work failed before by itself, so that it does not make the
    /// others' fail with its own.
    Batch,
}

/// In a batch are nodes whose work failed less often than this.
const FAILURES_IN_BATCH: i32 = 2;

/// Leases nodes of a group for `seconds`, and counts the attempt. In the
/// order of their numbers.
pub async fn claim_nodes(
    tx: &mut Tx,
    group: &Waiting,
    portion: Portion,
    lease: &str,
    seconds: f64,
) -> Result<Vec<NodeRow>, DbError> {
    if portion == Portion::Batch {
        let all = i64::from(i32::MAX);
        let batch = claim(tx, group, all, lease, seconds, FAILURES_IN_BATCH).await?;
        if !batch.is_empty() {
            return Ok(batch);
        }
    }
    claim(tx, group, 1, lease, seconds, i32::MAX).await
}

async fn claim(
    tx: &mut Tx,
    group: &Waiting,
    limit: i64,
    lease: &str,
    seconds: f64,
    failures_below: i32,
) -> Result<Vec<NodeRow>, DbError> {
    let (state, pool) = (group.state.0, group.pool.as_deref());
    // Such as never failed come first: one node that always fails shall not hold up the others.
    let mut rows = tx
        .query(
            "WITH picked AS MATERIALIZED (SELECT id FROM nodes \
         WHERE {claimable} AND CAST(state AS TEXT) = $5 \
         AND (pool = $1 OR (pool IS NULL AND CAST($1 AS TEXT) IS NULL)) \
         AND (lease_expires_at IS NULL OR lease_expires_at <= {now}) \
         AND (retry_at IS NULL OR retry_at <= {now}) AND repairs + attempts < $6 \
         AND (held_at IS NOT NULL) = $7 \
         ORDER BY repairs + attempts, id LIMIT $2 {skip_locked}) \
         UPDATE nodes SET lease = $3, lease_expires_at = {now + $4}, \
         attempts = nodes.attempts + 1, fence = {next_fence}, retry_at = NULL FROM picked \
         WHERE nodes.id = picked.id RETURNING {node_columns}",
        )
        .bind(pool)
        .bind(limit)
        .bind(lease)
        .bind(seconds)
        .bind(state.as_str())
        .bind(failures_below)
        .bind(group.held)
        .fetch_all::<NodeRow>()
        .await?;
    rows.sort_by_key(|row| row.id);
    for row in &rows {
        let attempt = format!("attempt {}", row.attempts);
        let event = Event::of_node(Cause::Claimed, row.id, state, state)
            .in_pool(pool)
            .with_detail(&attempt);
        events::record(tx, &event).await?;
    }
    Ok(rows)
}

/// Extends a lease by `seconds` from now. Returns how many nodes are still under it.
pub async fn renew_lease(tx: &mut Tx, lease: &str, seconds: f64) -> Result<u64, DbError> {
    tx.query(
        "UPDATE nodes SET lease_expires_at = {now + $2} WHERE lease = $1 \
         AND retired_at IS NULL \
         AND state IN ('provisioning', 'contextualizing', 'deprovisioning')",
    )
    .bind(lease)
    .bind(seconds)
    .execute()
    .await
}

/// Gives a lease up unfinished: others may go on at once, and the attempt does not count.
/// Returns how many nodes were under it.
pub async fn hand_back_lease(tx: &mut Tx, lease: &str) -> Result<usize, DbError> {
    // The next attempt is due now: the row says since when nobody is at work.
    let nodes = tx
        .query(
            "UPDATE nodes SET lease = NULL, lease_expires_at = NULL, retry_at = {now}, \
         attempts = CASE WHEN held_at IS NULL AND attempts > 0 THEN attempts - 1 ELSE 0 END \
         WHERE lease = $1 AND state IN ('provisioning', 'deprovisioning') RETURNING {node_columns}",
        )
        .bind(lease)
        .fetch_all::<NodeRow>()
        .await?;
    for node in &nodes {
        let state = node.state.0;
        let event = Event::of_node(Cause::HandedBack, node.id, state, state);
        events::record(tx, &event.in_pool(node.pool.as_deref())).await?;
        tx.wake_workers();
    }
    Ok(nodes.len())
}

/// A provisioned node becomes ready, with the name, address and data in this row. False when the
/// lease is lost, or an operator has taken the node out; then it is deprovisioned as this row says.
/// [`DbError::NotUnique`] when name or address are another active node's.
pub async fn finish_provisioning(
    tx: &mut Tx,
    node: &NodeRow,
    lease: &str,
) -> Result<bool, DbError> {
    // The unique indexes do not look at nodes that fail or are provisioned. A registered node has its name and
    // address in these states too. One that was registered again is another matter.
    let elsewhere = tx
        .query(
            "SELECT coalesce(other.ipaddr = $2, FALSE) FROM nodes AS other \
         JOIN nodes AS own ON own.id = $1 \
         WHERE other.id <> own.id AND other.reusable AND other.retired_at IS NULL \
         AND other.state IN ('provisioning', 'failed') \
         AND (other.ipaddr = $2 OR other.hostname = $3) \
         AND NOT (own.reusable AND coalesce(own.ipaddr = other.ipaddr, FALSE)) LIMIT 1",
        )
        .bind(node.id)
        .bind(&node.ipaddr)
        .bind(&node.hostname)
        .scalar::<bool>()
        .await?;
    match elsewhere {
        Some(true) => return Err(DbError::NotUnique(Unique::NodeAddress)),
        Some(false) => return Err(DbError::NotUnique(Unique::NodeHostname)),
        None => {}
    }
    let from = NodeState::Provisioning;
    for (statement, to) in [
        (
            "UPDATE nodes SET state = 'ready', hostname = $3, ipaddr = $4, data = $5, lease = NULL, \
         lease_expires_at = NULL, attempts = 0, retry_at = NULL, state_since = {now} \
         WHERE id = $1 AND lease = $2 AND state = 'provisioning'",
            NodeState::Ready,
        ),
        // An operator has taken it out meanwhile: whoever takes it down has to know what was made.
        (
            "UPDATE nodes SET hostname = $3, ipaddr = $4, data = $5, lease = NULL, \
         lease_expires_at = NULL, attempts = 0, retry_at = NULL \
         WHERE id = $1 AND lease = $2 AND state = 'deprovisioning'",
            NodeState::Deprovisioning,
        ),
    ] {
        let written = tx
            .query(statement)
            .bind(node.id)
            .bind(lease)
            .bind(&node.hostname)
            .bind(&node.ipaddr)
            .bind(&node.data)
            .execute()
            .await?
            == 1;
        if written {
            let event = Event::of_node(Cause::Provisioned, node.id, from, to);
            note(tx, true, node, event).await?;
            let ready = to == NodeState::Ready;
            if !ready {
                tx.wake_workers();
            }
            return Ok(ready);
        }
    }
    Ok(false)
}

/// Writes to the history what was written to a node's row, if it was.
async fn note(
    tx: &mut Tx,
    written: bool,
    node: &NodeRow,
    event: Event<'_>,
) -> Result<bool, DbError> {
    if written {
        events::record(tx, &event.in_pool(node.pool.as_deref())).await?;
    }
    Ok(written)
}

/// A deprovisioned node is unused again if it is reusable, with these data, and history otherwise.
/// False when the lease is lost.
pub async fn finish_deprovisioning(
    tx: &mut Tx,
    node: &NodeRow,
    lease: &str,
    data: &JsonObject,
) -> Result<bool, DbError> {
    // Not as it was when the work began: an operator may have taken the node out meanwhile.
    let reused = tx
        .query(
            "UPDATE nodes SET state = 'unused', pool = NULL, data = $3, lease = NULL, \
         lease_expires_at = NULL, attempts = 0, retry_at = NULL, state_since = {now} \
         WHERE id = $1 AND lease = $2 AND state = 'deprovisioning' AND reusable",
        )
        .bind(node.id)
        .bind(lease)
        .bind(data)
        .execute()
        .await?
        == 1;
    let written = reused || tx.query("UPDATE nodes SET state = 'done', pool = NULL, lease = NULL, lease_expires_at = NULL, \
         retry_at = NULL, state_since = {now}, retired_at = {now} \
         WHERE id = $1 AND lease = $2 AND state = 'deprovisioning'").bind(node.id).bind(lease).execute().await? == 1;
    let to = if reused {
        NodeState::Unused
    } else {
        NodeState::Done
    };
    if reused {
        // A pool may want to pick it again.
        tx.wake_workers();
    }
    let from = NodeState::Deprovisioning;
    note(
        tx,
        written,
        node,
        Event::of_node(Cause::Deprovisioned, node.id, from, to),
    )
    .await
}

/// The nodes of a session that have their key become deployed. Returns how many.
pub async fn finish_contextualizing(
    tx: &mut Tx,
    lease: &str,
    session_id: i64,
) -> Result<u64, DbError> {
    events::record_nodes_of_session(tx, session_id, NodeState::Deployed, Cause::Deployed).await?;
    tx.query(
        "UPDATE nodes SET state = 'deployed', lease = NULL, lease_expires_at = NULL, \
         attempts = 0, repairs = 0, state_since = {now} \
         WHERE lease = $1 AND state = 'contextualizing' \
         AND id IN (SELECT node_id FROM sessions_nodes WHERE session_id = $2)",
    )
    .bind(lease)
    .bind(session_id)
    .execute()
    .await
}

/// A reserved node without a key goes back to the ready ones. False when the lease is lost.
pub async fn return_to_ready(
    tx: &mut Tx,
    node: &NodeRow,
    session: &SessionRow,
    lease: &str,
    data: &JsonObject,
) -> Result<bool, DbError> {
    let written = tx
        .query(
            "UPDATE nodes SET state = 'ready', data = $3, lease = NULL, lease_expires_at = NULL, \
         attempts = 0, state_since = {now} \
         WHERE id = $1 AND lease = $2 AND state = 'contextualizing'",
        )
        .bind(node.id)
        .bind(lease)
        .bind(data)
        .execute()
        .await?
        == 1;
    let (from, to) = (NodeState::Contextualizing, NodeState::Ready);
    let event = Event::of_node(Cause::Returned, node.id, from, to)
        .in_session(session.id, session.tenant_id);
    note(tx, written, node, event).await
}

/// Why and for how long a node is given up or put off.
#[derive(Debug, Clone, Copy)]
pub struct Failure<'a> {
    /// The node's data, with the error in it.
    pub data: &'a JsonObject,
    /// The error in one line, and the last lines of what a playbook or SSH printed.
    pub detail: &'a str,
    /// In how many seconds the next attempt, or repair, is due; never without.
    pub again_in: Option<f64>,
    /// The session for which the node was worked on.
    pub session: Option<&'a SessionRow>,
}

/// Gives a node up: it is quarantined as failed, until it is repaired, if it is. False when the
/// lease is lost, or somebody has decided otherwise about the node meanwhile.
pub async fn fail_node(
    tx: &mut Tx,
    node: &NodeRow,
    lease: &str,
    failure: Failure<'_>,
) -> Result<bool, DbError> {
    let again_in = failure.again_in;
    let written = tx
        .query(
            "UPDATE nodes SET state = 'failed', data = $3, lease = NULL, lease_expires_at = NULL, \
         retry_at = {now + $4}, state_since = {now} WHERE id = $1 AND lease = $2 \
         AND CAST(state AS TEXT) = $5",
        )
        .bind(node.id)
        .bind(lease)
        .bind(failure.data)
        .bind(again_in)
        .bind(node.state.0.as_str())
        .execute()
        .await?
        == 1;
    let event = Event::of_node(Cause::Failed, node.id, node.state.0, NodeState::Failed);
    note_failure(tx, written, node, event, failure).await
}

/// Ends an attempt that failed: the next one is in some seconds. False as with [`fail_node`].
pub async fn postpone_node(
    tx: &mut Tx,
    node: &NodeRow,
    lease: &str,
    failure: Failure<'_>,
) -> Result<bool, DbError> {
    let again_in = failure.again_in;
    let written = tx
        .query(
            "UPDATE nodes SET data = $3, lease = NULL, lease_expires_at = NULL, \
         retry_at = {now + $4} WHERE id = $1 AND lease = $2 \
         AND CAST(state AS TEXT) = $5",
        )
        .bind(node.id)
        .bind(lease)
        .bind(failure.data)
        .bind(again_in)
        .bind(node.state.0.as_str())
        .execute()
        .await?
        == 1;
    let event = Event::of_node(Cause::Postponed, node.id, node.state.0, node.state.0);
    note_failure(tx, written, node, event, failure).await
}

async fn note_failure(
    tx: &mut Tx,
    written: bool,
    node: &NodeRow,
    event: Event<'_>,
    failure: Failure<'_>,
) -> Result<bool, DbError> {
    let event = match failure.session {
        Some(session) => event.in_session(session.id, session.tenant_id),
        None => event,
    };
    note(tx, written, node, event.with_detail(failure.detail)).await
}

/// Leaves a held node alone: the tenant's key is off it, or comes off in another attempt after so many seconds. False
/// when the lease is lost.
pub async fn leave_held_node(
    tx: &mut Tx,
    node: &NodeRow,
    lease: &str,
    again_in: Option<f64>,
) -> Result<bool, DbError> {
    let attempts = i32::from(again_in.is_none());
    let written = tx
        .query(
            "UPDATE nodes SET lease = NULL, lease_expires_at = NULL, attempts = $3, \
         retry_at = {now + $4} WHERE id = $1 AND lease = $2 AND state = 'deprovisioning'",
        )
        .bind(node.id)
        .bind(lease)
        .bind(attempts)
        .bind(again_in)
        .execute()
        .await?
        == 1;
    let state = node.state.0;
    let event = match again_in {
        None => Event::of_node(Cause::KeysRemoved, node.id, state, state),
        Some(_) => Event::of_node(Cause::Postponed, node.id, state, state)
            .with_detail("the node is held, and the tenant's key could not be taken off it"),
    };
    note(tx, written, node, event).await
}

/// Gives a node being deprovisioned its pool back. False when it has one, or does something
/// else.
pub async fn set_pool(tx: &mut Tx, id: i64, pool: &str) -> Result<bool, DbError> {
    Ok(tx.query("UPDATE nodes SET pool = $2 WHERE id = $1 AND pool IS NULL AND state = 'deprovisioning'").bind(id).bind(pool).execute().await? == 1)
}
