//! What operators see of nodes, and rows that are locked to be changed by hand or to be repaired.

use duffy_api::NodeState;

use super::{DbError, Tx};
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

/// Up to `limit` failed nodes whose repair is due.
pub async fn list_repairable(tx: &mut Tx, limit: u32) -> Result<Vec<i64>, DbError> {
    let rows = tx.query("SELECT id FROM nodes WHERE retired_at IS NULL AND held_at IS NULL AND state = 'failed' \
         AND pool IS NOT NULL AND retry_at <= {now} ORDER BY retry_at LIMIT $1").bind(i64::from(limit)).column::<i32>().await?;
    Ok(rows.into_iter().map(i64::from).collect())
}

/// Locks a failed node whose repair is due. `None` when it is not due, or not any more.
pub async fn lock_repairable(tx: &mut Tx, id: i64) -> Result<Option<NodeRow>, DbError> {
    tx.query(
        "SELECT {node_columns} FROM nodes WHERE nodes.id = $1 AND nodes.retired_at IS NULL \
         AND nodes.state = 'failed' AND nodes.pool IS NOT NULL AND nodes.retry_at <= {now} {for_update}",
    )
    .bind(id)
    .fetch_optional()
    .await
}
