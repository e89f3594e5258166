//! The `nodes` table: looking, adding, lending. What is leased stands in [`crate::db::leases`].

use duffy_api::{NodeCreate, NodeState};
use serde::Serialize;

use super::events::{self, Event};
use super::{DbError, JsonObject, Timestamp, Tx};
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
    /// What it is doing.
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
    /// How often the work on its present state was begun.
    pub attempts: i32,
    /// Grows with each claim and reservation. A process with an older number is late, and the node refuses it.
    pub fence: i64,
    /// How often it was repaired since it was last lent.
    pub repairs: i32,
    /// Since when an operator keeps it as it is.
    pub held_at: Option<Timestamp>,
    /// Before that time nobody acts on it.
    pub retry_at: Option<Timestamp>,
    /// Since when it is in its state; unknown of what the original wrote.
    pub state_since: Option<Timestamp>,
    /// Until when a process works on it.
    pub lease_expires_at: Option<Timestamp>,
}

/// A state as it stands in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct State(pub NodeState);

impl TryFrom<String> for State {
    type Error = duffy_api::UnknownNodeState;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

#[derive(Debug, sqlx::FromRow)]
struct StateCount {
    #[sqlx(try_from = "String")]
    state: State,
    quantity: i64,
}

/// How many nodes of a pool are ready or soon will be.
#[derive(Debug, sqlx::FromRow)]
pub struct PoolCount {
    /// The pool's name.
    pub name: String,
    /// How many.
    pub quantity: i64,
    /// How many of these are being provisioned.
    pub provisioning: i64,
}

/// The node of this number, retired ones too.
pub async fn find_node(tx: &mut Tx, id: i64) -> Result<Option<NodeRow>, DbError> {
    tx.fetch_optional(
        "SELECT {node_columns} FROM nodes WHERE nodes.id = $1",
        &[&id],
    )
    .await
}

/// All nodes that are not retired.
pub async fn list_active_nodes(tx: &mut Tx) -> Result<Vec<NodeRow>, DbError> {
    tx.fetch_all(
        "SELECT {node_columns} FROM nodes WHERE nodes.retired_at IS NULL ORDER BY nodes.id",
        &[],
    )
    .await
}

/// The next ones after the node of this number.
pub async fn list_active_nodes_after(
    tx: &mut Tx,
    id: i64,
    limit: i64,
) -> Result<Vec<NodeRow>, DbError> {
    tx.fetch_all(
        "SELECT {node_columns} FROM nodes WHERE nodes.retired_at IS NULL AND nodes.id > $1 \
         ORDER BY nodes.id LIMIT $2",
        &[&id, &limit],
    )
    .await
}

/// Adds a node, which is `unused` or `ready`.
pub async fn insert_node(
    tx: &mut Tx,
    node: &NodeCreate,
    state: NodeState,
) -> Result<NodeRow, DbError> {
    let row: NodeRow = tx
        .fetch_one(
            "INSERT INTO nodes (hostname, ipaddr, comment, pool, reusable, data, state, \
             created_at, state_since) VALUES ($1, $2, $3, $4, $5, $6, {as_state $7}, \
             {now}, {now}) RETURNING {node_columns}",
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

/// How many active nodes of a pool are in which state.
pub async fn count_by_state(tx: &mut Tx, pool: &str) -> Result<Vec<(NodeState, i64)>, DbError> {
    let rows = tx
        .fetch_all::<StateCount>(
            "SELECT CAST(state AS TEXT) AS state, count(*) AS quantity FROM nodes \
             WHERE retired_at IS NULL AND pool = $1 \
             AND NOT (state = 'ready' AND held_at IS NOT NULL) GROUP BY state",
            &[&pool],
        )
        .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.state.0, row.quantity))
        .collect())
}

/// Nodes of this pool whose deprovisioning has not begun.
pub async fn list_untouched_nodes(tx: &mut Tx, pool: &str) -> Result<Vec<NodeRow>, DbError> {
    tx.fetch_all(
        "SELECT {node_columns} FROM nodes WHERE nodes.retired_at IS NULL AND nodes.pool = $1 \
         AND nodes.state = 'deprovisioning' AND nodes.attempts = 0 ORDER BY nodes.id",
        &[&pool],
    )
    .await
}

/// How many nodes of each pool are ready or being provisioned; pools without one are left out.
pub async fn count_filled(tx: &mut Tx) -> Result<Vec<PoolCount>, DbError> {
    tx.fetch_all(
        "SELECT pool AS name, count(*) AS quantity, count(CASE WHEN state = \
         'provisioning' THEN 1 END) AS provisioning FROM nodes WHERE retired_at IS NULL \
         AND held_at IS NULL AND pool IS NOT NULL AND state IN ('ready', \
         'provisioning') GROUP BY pool",
        &[],
    )
    .await
}

/// How many nodes of this pool are ready or being provisioned.
pub async fn count_filled_of(tx: &mut Tx, pool: &str) -> Result<i64, DbError> {
    tx.value(
        "SELECT count(*) FROM nodes WHERE retired_at IS NULL AND pool = $1 \
         AND held_at IS NULL AND state IN ('ready', 'provisioning')",
        &[&pool],
    )
    .await
}

/// The reusable nodes that no pool has.
pub async fn list_reusable_nodes(tx: &mut Tx) -> Result<Vec<NodeRow>, DbError> {
    tx.fetch_all(
        "SELECT {node_columns} FROM nodes WHERE nodes.retired_at IS NULL AND \
         nodes.held_at IS NULL AND nodes.pool IS NULL AND nodes.reusable AND \
         nodes.state = 'unused' ORDER BY nodes.id",
        &[],
    )
    .await
}

/// Adds `quantity` nodes, to be provisioned, to a pool that this transaction has locked.
pub async fn insert_provisioning_nodes(
    tx: &mut Tx,
    pool: &str,
    quantity: u32,
) -> Result<(), DbError> {
    if quantity == 0 {
        return Ok(());
    }
    let ids = tx
        .ids(
            "INSERT INTO nodes (pool, state, reusable, data, created_at, state_since) \
             WITH RECURSIVE rows(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM rows WHERE n < $2) \
             SELECT $1, 'provisioning', FALSE, '{}', {now}, {now} FROM rows RETURNING id",
            &[&pool, &i64::from(quantity)],
        )
        .await?;
    let filled = ids.into_iter().map(|id| Event {
        node_id: Some(id),
        to: Some(NodeState::Provisioning),
        ..Event::of_pool(Cause::Filled, pool)
    });
    events::record_all(tx, filled.collect()).await
}

/// Locks up to `quantity` ready nodes of a pool, those that have been ready longest. It
/// skips those that another transaction has locked.
pub async fn take_ready_nodes(
    tx: &mut Tx,
    pool: &str,
    quantity: u32,
) -> Result<Vec<NodeRow>, DbError> {
    // Oldest first: every node gets its turn, and none rots at the end of the line.
    tx.fetch_all(
        "SELECT {node_columns} FROM nodes WHERE nodes.pool = $1 AND nodes.state = 'ready' \
         AND nodes.retired_at IS NULL AND nodes.held_at IS NULL \
         ORDER BY nodes.state_since NULLS FIRST, nodes.id LIMIT $2 {skip_locked}",
        &[&pool, &i64::from(quantity)],
    )
    .await
}

/// The node that [`take_ready_nodes`] would take first.
pub async fn next_ready_node(tx: &mut Tx, pool: &str) -> Result<Option<NodeRow>, DbError> {
    tx.fetch_optional(
        "SELECT {node_columns} FROM nodes WHERE nodes.pool = $1 AND nodes.state = 'ready' \
         AND nodes.retired_at IS NULL AND nodes.held_at IS NULL \
         ORDER BY nodes.state_since NULLS FIRST, nodes.id LIMIT 1",
        &[&pool],
    )
    .await
}

/// How many nodes of a pool are ready, those that other transactions hold included.
pub async fn count_ready(tx: &mut Tx, pool: &str) -> Result<i64, DbError> {
    tx.value(
        "SELECT count(*) FROM nodes WHERE pool = $1 AND state = 'ready' AND retired_at IS NULL \
         AND held_at IS NULL",
        &[&pool],
    )
    .await
}

/// What is done to a pool as a whole by one transaction at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolLock {
    /// Filling it.
    Fill = 1,
    /// Reserving when its ready nodes run out.
    Reserve = 2,
}

/// Waits until no other transaction does the same to this pool, and keeps them from it until
/// this one ends.
pub async fn lock_pool(tx: &mut Tx, pool: &str, lock: PoolLock) -> Result<(), DbError> {
    tx.execute("{pool_lock}", &[&pool, &(lock as i32)]).await
}

/// The same without waiting. False when another transaction holds the lock.
pub async fn try_lock_pool(tx: &mut Tx, pool: &str, lock: PoolLock) -> Result<bool, DbError> {
    tx.value("{try_pool_lock}", &[&pool, &(lock as i32)]).await
}

/// Waits until the transactions that hold ready nodes of a pool have ended.
pub async fn await_ready_nodes(tx: &mut Tx, pool: &str, quantity: u32) -> Result<(), DbError> {
    tx.column::<i32>(
        "SELECT id FROM nodes WHERE pool = $1 AND state = 'ready' AND retired_at IS NULL \
         AND held_at IS NULL ORDER BY id LIMIT $2 {for_update}",
        &[&pool, &i64::from(quantity)],
    )
    .await?;
    Ok(())
}
