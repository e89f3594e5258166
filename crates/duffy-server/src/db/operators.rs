//! Nodes as operators see them, and the locks for changes by hand and for repairs.

use duffy_api::NodeState;

use serde::{Serialize, Serializer};

use super::{DbResult, JsonObject, Timestamp, Tx};
use crate::db::nodes::{NodeRow, State};

/// A node as operators see it: its row, and the session that has it. JSON has the last error in place of the data.
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow)]
pub struct NodeStatus {
    /// Number of the node.
    #[sqlx(try_from = "i32")]
    pub id: i64,
    /// Host name.
    pub hostname: Option<String>,
    /// IPv4 or IPv6 address.
    pub ipaddr: Option<String>,
    /// The pool that it belongs to.
    pub pool: Option<String>,
    /// Its state.
    #[sqlx(try_from = "String")]
    pub state: State,
    /// Since when it is in its state. `None` if the original wrote the row.
    #[serde(rename = "since")]
    pub state_since: Option<Timestamp>,
    /// Whether it goes back to `unused` after use.
    pub reusable: bool,
    /// How many attempts at the work of its present state have begun.
    pub attempts: i32,
    /// How often it was repaired since it was last lent.
    pub repairs: i32,
    /// Since when an operator holds it.
    pub held_at: Option<Timestamp>,
    /// Nobody acts on it before this time.
    pub retry_at: Option<Timestamp>,
    /// When the lease of the process that works on it ends, if the process does not renew it.
    #[serde(rename = "leased_until")]
    pub lease_expires_at: Option<Timestamp>,
    /// When Duffy last checked that it lets Duffy in, while it was ready.
    pub probed_at: Option<Timestamp>,
    /// The running session that has it.
    pub session_id: Option<i32>,
    /// The tenant of that session.
    pub tenant: Option<String>,
    /// What is known of it; `error` has the last failure with its log.
    #[serde(rename = "error", serialize_with = "serialize_error")]
    pub data: JsonObject,
    /// An operator's remark.
    pub comment: Option<String>,
    /// When the row was made.
    pub created_at: Timestamp,
    /// When it was retired.
    pub retired_at: Option<Timestamp>,
}

impl NodeStatus {
    /// The first line of the last error.
    pub fn error(&self) -> Option<&str> {
        self.data.error_detail()?.lines().next()
    }
}

fn serialize_error<S: Serializer>(data: &JsonObject, serializer: S) -> Result<S::Ok, S::Error> {
    let detail = data.error_detail().and_then(|text| text.lines().next());
    detail.serialize(serializer)
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

/// Locks a node until this transaction ends.
pub async fn lock_node(tx: &mut Tx, id: i64) -> DbResult<Option<NodeRow>> {
    let sql = "SELECT {node_columns} FROM nodes WHERE nodes.id = $1 {for_update}";
    tx.fetch_optional(sql, &[&id]).await
}

/// Lists nodes: with a pool or a state only such nodes, with `all` retired ones too.
pub async fn list_nodes(
    tx: &mut Tx,
    pool: Option<&str>,
    state: Option<NodeState>,
    all: bool,
) -> DbResult<Vec<NodeStatus>> {
    if all {
        return list_nodes_ever(tx, pool, state).await;
    }
    let state = state.map(NodeState::as_str);
    let sql = "SELECT {node_columns}, lent.session_id, tenants.name AS tenant FROM nodes \
        {join_session} WHERE (CAST($1 AS TEXT) IS NULL OR nodes.pool = $1) \
        AND (CAST($2 AS TEXT) IS NULL OR CAST(nodes.state AS TEXT) = $2) \
        AND nodes.retired_at IS NULL ORDER BY nodes.id";
    tx.fetch_all(sql, &[&pool, &state]).await
}

/// As [`list_nodes`], retired ones too. A statement of its own, so that the other one does not read them.
async fn list_nodes_ever(
    tx: &mut Tx,
    pool: Option<&str>,
    state: Option<NodeState>,
) -> DbResult<Vec<NodeStatus>> {
    let state = state.map(NodeState::as_str);
    let sql = "SELECT {node_columns}, lent.session_id, tenants.name AS tenant FROM nodes \
        {join_session} WHERE (CAST($1 AS TEXT) IS NULL OR nodes.pool = $1) \
        AND (CAST($2 AS TEXT) IS NULL OR CAST(nodes.state AS TEXT) = $2) ORDER BY nodes.id";
    tx.fetch_all(sql, &[&pool, &state]).await
}

/// Finds a node, retired or not, and the session that has it.
pub async fn show_node(tx: &mut Tx, id: i64) -> DbResult<Option<NodeStatus>> {
    let sql = "SELECT {node_columns}, lent.session_id, tenants.name AS tenant FROM nodes \
        {join_session} WHERE nodes.id = $1";
    tx.fetch_optional(sql, &[&id]).await
}

/// Counts the active nodes by pool and state.
pub async fn list_levels(tx: &mut Tx) -> DbResult<Vec<LevelRow>> {
    let sql = "SELECT pool, CAST(state AS TEXT) AS state, count(*) AS quantity, \
        count(held_at) AS held FROM nodes WHERE retired_at IS NULL AND pool IS NOT NULL \
        GROUP BY pool, state ORDER BY pool, state";
    tx.fetch_all(sql, &[]).await
}

/// Lists up to `limit` failed nodes whose repair is due.
pub async fn list_repairable(tx: &mut Tx, limit: u32) -> DbResult<Vec<i64>> {
    let sql = "SELECT id FROM nodes WHERE retired_at IS NULL AND held_at IS NULL \
        AND state = 'failed' AND pool IS NOT NULL AND retry_at <= {now} ORDER BY retry_at LIMIT $1";
    tx.ids(sql, &[&i64::from(limit)]).await
}

/// Locks a failed node whose repair is due. `None` when the repair is not due.
pub async fn lock_repairable(tx: &mut Tx, id: i64) -> DbResult<Option<NodeRow>> {
    let sql = "SELECT {node_columns} FROM nodes WHERE nodes.id = $1 \
        AND nodes.retired_at IS NULL AND nodes.state = 'failed' AND nodes.pool IS NOT NULL \
        AND nodes.retry_at <= {now} {for_update}";
    tx.fetch_optional(sql, &[&id]).await
}
