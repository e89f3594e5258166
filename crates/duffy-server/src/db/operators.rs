//! What operators do to nodes by hand, and what they look at. Each change is of a row that the
//! transaction has locked with [`lock_node`].

use duffy_api::NodeState;

use super::events::{self, Cause, Event};
use super::{DbError, JsonObject, Tx};
use crate::db::nodes::{NodeRow, State};

/// A node, and who has it.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct LentNodeRow {
    /// The node.
    #[sqlx(flatten)]
    pub node: NodeRow,
    /// The running session that has it.
    pub session_id: Option<i32>,
    /// Whose session.
    pub tenant: Option<String>,
}

/// How many active nodes of a pool are in a state.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct LevelRow {
    /// The pool's name.
    pub pool: String,
    /// The state.
    #[sqlx(try_from = "String")]
    pub state: State,
    /// How many nodes.
    pub quantity: i64,
    /// How many of these are held.
    pub held: i64,
}

/// The node of this number; no other transaction changes it until this one ends.
pub async fn lock_node(tx: &mut Tx, id: i64) -> Result<Option<NodeRow>, DbError> {
    tx.query("SELECT {node_columns} FROM nodes WHERE nodes.id = $1 {for_update}")
        .bind(id)
        .fetch_optional()
        .await
}

/// Nodes, of one pool or in one state only if these are named, retired ones too if `all`.
pub async fn list_nodes(
    tx: &mut Tx,
    pool: Option<&str>,
    state: Option<NodeState>,
    all: bool,
) -> Result<Vec<LentNodeRow>, DbError> {
    let state = state.map(NodeState::as_str);
    tx.query("SELECT {node_columns}, lent.session_id, tenants.name AS tenant FROM nodes {lent_nodes} WHERE (CAST($1 AS TEXT) IS NULL OR nodes.pool = $1) \
         AND (CAST($2 AS TEXT) IS NULL OR CAST(nodes.state AS TEXT) = $2) \
         AND ($3 OR nodes.retired_at IS NULL) ORDER BY nodes.id").bind(pool).bind(state).bind(all).fetch_all().await
}

/// The node of this number, retired or not, and who has it.
pub async fn show_node(tx: &mut Tx, id: i64) -> Result<Option<LentNodeRow>, DbError> {
    tx.query("SELECT {node_columns}, lent.session_id, tenants.name AS tenant FROM nodes {lent_nodes} WHERE nodes.id = $1").bind(id).fetch_optional().await
}

/// How many active nodes of each pool are in which state.
pub async fn list_levels(tx: &mut Tx) -> Result<Vec<LevelRow>, DbError> {
    tx.query(
        "SELECT pool, CAST(state AS TEXT) AS state, count(*) AS quantity, \
         count(held_at) AS held FROM nodes WHERE retired_at IS NULL AND pool IS NOT NULL \
         GROUP BY pool, state ORDER BY pool, state",
    )
    .fetch_all()
    .await
}

/// What becomes of a node that is taken out for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retirement {
    /// It is deprovisioned.
    TakenDown,
    /// It is deprovisioned when its session ends, or its deprovisioning goes on.
    UsedUp,
    /// It is history at once: nobody can take it down, or its machine is somebody else's.
    Forgotten,
}

/// Takes a node out for good.
pub async fn retire_node(
    tx: &mut Tx,
    node: &NodeRow,
    retirement: Retirement,
    reason: &str,
) -> Result<(), DbError> {
    let (statement, to) = match retirement {
        Retirement::TakenDown => (
            "UPDATE nodes SET state = 'deprovisioning', reusable = FALSE, attempts = 0, \
         retry_at = NULL, state_since = {now} WHERE id = $1",
            NodeState::Deprovisioning,
        ),
        Retirement::UsedUp => (
            "UPDATE nodes SET reusable = FALSE, retry_at = NULL WHERE id = $1",
            node.state.0,
        ),
        Retirement::Forgotten => (
            "UPDATE nodes SET state = 'done', pool = NULL, reusable = FALSE, lease = NULL, \
         lease_expires_at = NULL, retry_at = NULL, state_since = {now}, retired_at = {now} \
         WHERE id = $1",
            NodeState::Done,
        ),
    };
    tx.query(statement).bind(node.id).execute().await?;
    record(tx, node, Cause::NodeRetired, to, reason).await
}

async fn record(
    tx: &mut Tx,
    node: &NodeRow,
    cause: Cause,
    to: NodeState,
    reason: &str,
) -> Result<(), DbError> {
    let event = Event::of_node(cause, node.id, node.state.0, to).with_detail(reason);
    events::record(tx, &event.in_pool(node.pool.as_deref())).await?;
    // A worker may have something to do now, or a pool may lack a node.
    tx.wake_workers();
    Ok(())
}

/// Has a failed node deprovisioned, as if it had never failed.
pub async fn deprovision_failed(tx: &mut Tx, node: &NodeRow, reason: &str) -> Result<(), DbError> {
    tx.query(
        "UPDATE nodes SET state = 'deprovisioning', lease = NULL, lease_expires_at = NULL, \
         attempts = 0, repairs = 0, retry_at = NULL, state_since = {now} WHERE id = $1",
    )
    .bind(node.id)
    .execute()
    .await?;
    record(tx, node, Cause::Repaired, NodeState::Deprovisioning, reason).await
}

/// Makes a failed node that is in no pool unused again, with these data.
pub async fn reuse_failed(
    tx: &mut Tx,
    node: &NodeRow,
    data: &JsonObject,
    reason: &str,
) -> Result<(), DbError> {
    tx.query(
        "UPDATE nodes SET state = 'unused', data = $2, lease = NULL, lease_expires_at = NULL, \
         attempts = 0, repairs = 0, retry_at = NULL, state_since = {now} WHERE id = $1",
    )
    .bind(node.id)
    .bind(data)
    .execute()
    .await?;
    record(tx, node, Cause::Repaired, NodeState::Unused, reason).await
}

/// Ends the pause before the next attempt on a node. False when somebody is at work on it.
pub async fn try_now(tx: &mut Tx, node: &NodeRow, reason: &str) -> Result<bool, DbError> {
    let written = tx
        .query(
            "UPDATE nodes SET attempts = 0, retry_at = NULL WHERE id = $1 \
         AND (lease_expires_at IS NULL OR lease_expires_at <= {now})",
        )
        .bind(node.id)
        .execute()
        .await?
        == 1;
    if written {
        record(tx, node, Cause::Repaired, node.state.0, reason).await?;
    }
    Ok(written)
}

/// Keeps a node as it is, or lets go of it.
pub async fn set_held(
    tx: &mut Tx,
    node: &NodeRow,
    held: bool,
    reason: &str,
) -> Result<(), DbError> {
    let (statement, cause) = if held {
        (
            "UPDATE nodes SET held_at = {now}, \
         attempts = CASE WHEN state = 'deprovisioning' THEN 0 ELSE attempts END, \
         retry_at = CASE WHEN state = 'deprovisioning' THEN NULL ELSE retry_at END WHERE id = $1",
            Cause::Held,
        )
    } else {
        (
            "UPDATE nodes SET held_at = NULL, \
         retry_at = CASE WHEN state = 'deprovisioning' THEN NULL ELSE retry_at END WHERE id = $1",
            Cause::Released,
        )
    };
    tx.query(statement).bind(node.id).execute().await?;
    record(tx, node, cause, node.state.0, reason).await
}
