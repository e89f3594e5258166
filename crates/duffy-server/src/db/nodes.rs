//! The `nodes` table: finding, adding and lending nodes. Leases are in [`crate::db::leases`].

use duffy_api::{NodeCreate, NodeState};
use serde::Serialize;

use super::events::{self, Event};
use super::{DbResult, JsonObject, Timestamp, Tx};
use crate::cause::Cause;

/// A node's row.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct NodeRow {
    /// Number of the node.
    #[sqlx(try_from = "i32")]
    pub id: i64,
    /// Host name.
    pub hostname: Option<String>,
    /// IPv4 or IPv6 address.
    pub ipaddr: Option<String>,
    /// Its state.
    #[sqlx(try_from = "String")]
    pub state: State,
    /// An operator's remark.
    pub comment: Option<String>,
    /// The pool that it belongs to.
    pub pool: Option<String>,
    /// Whether it goes back to `unused` after use.
    pub reusable: bool,
    /// What is known of it.
    pub data: JsonObject,
    /// When the row was made.
    pub created_at: Timestamp,
    /// When it was retired.
    pub retired_at: Option<Timestamp>,
    /// How many attempts at the work of its present state have begun.
    pub attempts: i32,
    /// Grows with each claim and reservation. A process with an older number is late, and the node refuses it.
    pub fence: i64,
    /// How often it was repaired since it was last lent.
    pub repairs: i32,
    /// Since when an operator holds it.
    pub held_at: Option<Timestamp>,
    /// Nobody acts on it before this time.
    pub retry_at: Option<Timestamp>,
    /// Since when it is in its state. `None` if the original wrote the row.
    pub state_since: Option<Timestamp>,
    /// When the lease of the process that works on it ends.
    pub lease_expires_at: Option<Timestamp>,
}

/// A state in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct State(pub NodeState);

impl TryFrom<String> for State {
    type Error = duffy_api::UnknownNodeState;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

/// How many nodes of a pool are ready or being provisioned.
#[derive(Debug, sqlx::FromRow)]
pub struct PoolCount {
    /// The pool's name.
    pub name: String,
    /// How many.
    pub quantity: i64,
    /// How many of these are being provisioned.
    pub provisioning: i64,
}

/// Finds a node by its number, retired ones too.
pub async fn find_node(tx: &mut Tx, id: i64) -> DbResult<Option<NodeRow>> {
    let sql = "SELECT {node_columns} FROM nodes WHERE nodes.id = $1";
    tx.fetch_optional(sql, &[&id]).await
}

/// Lists all nodes that are not retired.
pub async fn list_active_nodes(tx: &mut Tx) -> DbResult<Vec<NodeRow>> {
    let sql = "SELECT {node_columns} FROM nodes WHERE nodes.retired_at IS NULL ORDER BY nodes.id";
    tx.fetch_all(sql, &[]).await
}

/// Lists the next nodes after the node of this number.
pub async fn list_active_nodes_after(tx: &mut Tx, id: i64, limit: i64) -> DbResult<Vec<NodeRow>> {
    let sql = "SELECT {node_columns} FROM nodes WHERE nodes.retired_at IS NULL AND nodes.id > $1 \
        ORDER BY nodes.id LIMIT $2";
    tx.fetch_all(sql, &[&id, &limit]).await
}

/// Adds a node, which is `unused` or `ready`.
pub async fn insert_node(tx: &mut Tx, node: &NodeCreate, state: NodeState) -> DbResult<NodeRow> {
    let sql = "INSERT INTO nodes (hostname, ipaddr, comment, pool, reusable, data, state, \
        created_at, state_since) VALUES ($1, $2, $3, $4, $5, $6, {as_state $7}, \
        {now}, {now}) RETURNING {node_columns}";
    let row: NodeRow = tx
        .fetch_one(
            sql,
            &[
                &node.hostname,
                &node.ipaddr,
                &node.comment,
                &node.pool,
                &node.reusable,
                &JsonObject(node.data.clone()),
                &state.as_str(),
            ],
        )
        .await?;
    let event = Event {
        node_id: Some(row.id),
        pool: row.pool.clone(),
        to: Some(row.state.0),
        ..Event::new(Cause::Registered)
    };
    events::record(tx, event).await?;
    Ok(row)
}

/// Counts the nodes of each pool that are ready or being provisioned. Leaves out pools without such nodes.
pub async fn count_filled(tx: &mut Tx) -> DbResult<Vec<PoolCount>> {
    let sql = "SELECT pool AS name, count(*) AS quantity, \
        count(CASE WHEN state = 'provisioning' THEN 1 END) AS provisioning FROM nodes \
        WHERE retired_at IS NULL AND held_at IS NULL AND pool IS NOT NULL \
        AND state IN ('ready', 'provisioning') GROUP BY pool";
    tx.fetch_all(sql, &[]).await
}

/// Counts the nodes of one pool that are ready or being provisioned.
pub async fn count_filled_of(tx: &mut Tx, pool: &str) -> DbResult<i64> {
    let sql = "SELECT count(*) FROM nodes WHERE retired_at IS NULL AND pool = $1 \
        AND held_at IS NULL AND state IN ('ready', 'provisioning')";
    tx.value(sql, &[&pool]).await
}

/// Lists the reusable nodes that belong to no pool.
pub async fn list_reusable_nodes(tx: &mut Tx) -> DbResult<Vec<NodeRow>> {
    let sql = "SELECT {node_columns} FROM nodes WHERE nodes.retired_at IS NULL \
        AND nodes.held_at IS NULL AND nodes.pool IS NULL AND nodes.reusable \
        AND nodes.state = 'unused' ORDER BY nodes.id";
    tx.fetch_all(sql, &[]).await
}

/// Adds `quantity` nodes, to be provisioned, to a pool that this transaction has locked.
pub async fn insert_provisioning_nodes(tx: &mut Tx, pool: &str, quantity: u32) -> DbResult<()> {
    if quantity == 0 {
        return Ok(());
    }
    let sql = "INSERT INTO nodes (pool, state, reusable, data, created_at, state_since) \
        WITH RECURSIVE rows(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM rows WHERE n < $2) \
        SELECT $1, 'provisioning', FALSE, '{}', {now}, {now} FROM rows RETURNING id";
    let ids = tx.ids(sql, &[&pool, &i64::from(quantity)]).await?;
    let filled = ids.into_iter().map(|id| Event {
        node_id: Some(id),
        to: Some(NodeState::Provisioning),
        ..Event::of_pool(Cause::Filled, pool)
    });
    events::record_all(tx, filled.collect()).await
}

/// Locks up to `quantity` ready nodes of a pool, those that have been ready longest. It
/// skips those that another transaction has locked.
pub async fn take_ready_nodes(tx: &mut Tx, pool: &str, quantity: u32) -> DbResult<Vec<NodeRow>> {
    // The longest waiting first, so that every node is used.
    let sql = "SELECT {node_columns} FROM nodes WHERE nodes.pool = $1 AND nodes.state = 'ready' \
        AND nodes.retired_at IS NULL AND nodes.held_at IS NULL \
        ORDER BY nodes.state_since NULLS FIRST, nodes.id LIMIT $2 {skip_locked}";
    tx.fetch_all(sql, &[&pool, &i64::from(quantity)]).await
}

/// The node that [`take_ready_nodes`] would take first.
pub async fn next_ready_node(tx: &mut Tx, pool: &str) -> DbResult<Option<NodeRow>> {
    let sql = "SELECT {node_columns} FROM nodes WHERE nodes.pool = $1 AND nodes.state = 'ready' \
        AND nodes.retired_at IS NULL AND nodes.held_at IS NULL \
        ORDER BY nodes.state_since NULLS FIRST, nodes.id LIMIT 1";
    tx.fetch_optional(sql, &[&pool]).await
}

/// Counts the ready nodes of a pool, including those that other transactions have locked.
pub async fn count_ready(tx: &mut Tx, pool: &str) -> DbResult<i64> {
    let sql = "SELECT count(*) FROM nodes WHERE pool = $1 AND state = 'ready' \
        AND retired_at IS NULL AND held_at IS NULL";
    tx.value(sql, &[&pool]).await
}

/// What only one transaction at a time does to a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolLock {
    /// Filling it.
    Fill = 1,
    /// Reserving its last ready nodes.
    Reserve = 2,
}

/// Waits until no other transaction has this lock of this pool, and keeps it until this transaction ends.
pub async fn lock_pool(tx: &mut Tx, pool: &str, lock: PoolLock) -> DbResult<()> {
    tx.execute("{pool_lock}", &[&pool, &(lock as i32)]).await
}

/// As [`lock_pool`], without waiting. False when another transaction has the lock.
pub async fn try_lock_pool(tx: &mut Tx, pool: &str, lock: PoolLock) -> DbResult<bool> {
    tx.value("{try_pool_lock}", &[&pool, &(lock as i32)]).await
}

/// Waits until the transactions that hold ready nodes of a pool have ended.
pub async fn await_ready_nodes(tx: &mut Tx, pool: &str, quantity: u32) -> DbResult<()> {
    let sql = "SELECT id FROM nodes WHERE pool = $1 AND state = 'ready' AND retired_at IS NULL \
        AND held_at IS NULL ORDER BY id LIMIT $2 {for_update}";
    tx.column::<i32>(sql, &[&pool, &i64::from(quantity)])
        .await?;
    Ok(())
}
