//! The status of nodes and pools for operators. It leaves nothing out.

use std::collections::BTreeMap;

use duffy_api::{Event, NodeState};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::context::Ctx;
use crate::db::pools::PoolStateRow;
use crate::db::{DbError, Timestamp, events, operators, pools};
use crate::lifecycle::history;
use crate::lifecycle::pools::configured_pools;

pub use crate::db::operators::NodeStatus;

/// A node with all that is known of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeDetails {
    /// Its status.
    pub node: NodeStatus,
    /// What is known of it; `error` has the last failure with its log.
    pub data: Map<String, Value>,
    /// What happened to it last, oldest first.
    pub events: Vec<Event>,
}

/// Which nodes to list.
#[derive(Debug, Clone, Default)]
pub struct NodeFilter {
    /// Of this pool only.
    pub pool: Option<String>,
    /// In this state only.
    pub state: Option<NodeState>,
    /// Retired ones too.
    pub all: bool,
}

/// Nodes by number.
pub async fn list_nodes(ctx: &Ctx, filter: &NodeFilter) -> Result<Vec<NodeStatus>, DbError> {
    let NodeFilter { pool, state, all } = filter;
    let pool = pool.as_deref();
    // A filter for the state `done` means retired rows.
    let all = *all || *state == Some(NodeState::Done);
    let list = async |mut tx| operators::list_nodes(&mut tx, pool, *state, all).await;
    ctx.db.read(list).await
}

/// A node with its last `limit` events.
pub async fn find_node(ctx: &Ctx, id: i64, limit: u32) -> Result<Option<NodeDetails>, DbError> {
    let find = async |mut tx| -> Result<_, DbError> {
        let node = operators::show_node(&mut tx, id).await?;
        let events = events::last_of_node(&mut tx, id, limit).await?;
        Ok(node.map(|node| (node, events)))
    };
    let found = ctx.db.read(find).await?;
    Ok(found.map(|(node, events)| NodeDetails {
        data: node.data.0.clone(),
        node,
        events: events
            .into_iter()
            .rev()
            .map(|row| history::event(row, true))
            .collect(),
    }))
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PoolStatus {
    /// Its name.
    pub name: String,
    /// Whether it is in the configuration.
    pub configured: bool,
    /// How many nodes it keeps ready.
    pub fill_level: Option<u32>,
    /// How many active nodes are in which state.
    pub levels: BTreeMap<NodeState, i64>,
    /// How many nodes are held.
    pub held: i64,
    /// Set if an operator keeps it from being filled.
    pub drained: Option<Drained>,
    /// The kinds of work at which its mechanism keeps failing.
    pub failing: Vec<PoolStateRow>,
}

/// Since when and why a pool is drained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drained {
    /// Since when.
    pub since: Timestamp,
    /// The operator's reason.
    pub reason: Option<String>,
}

impl PoolStatus {
    fn new(name: &str) -> Self {
        let states = NodeState::ALL.into_iter();
        let states = states.filter(|state| *state != NodeState::Done);
        Self {
            name: name.to_owned(),
            configured: false,
            fill_level: None,
            levels: states.map(|state| (state, 0)).collect(),
            held: 0,
            drained: None,
            failing: Vec::new(),
        }
    }
}

/// The pools of the configuration, in its order. Other pools that have nodes, are drained or keep failing follow.
pub async fn list_pools(ctx: &Ctx) -> Result<Vec<PoolStatus>, DbError> {
    let list = async |mut tx| -> Result<_, DbError> {
        let levels = operators::list_levels(&mut tx).await?;
        Ok((levels, pools::list_pool_states(&mut tx).await?))
    };
    let (levels, states) = ctx.db.read(list).await?;
    let configured = configured_pools(ctx).map(|pool| PoolStatus {
        configured: true,
        fill_level: pool.fill_level,
        ..PoolStatus::new(&pool.name)
    });
    let mut pools: Vec<_> = configured.collect();
    for row in levels {
        let pool = status_of(&mut pools, &row.pool);
        pool.levels.insert(row.state.0, row.quantity);
        pool.held += row.held;
    }
    for mut state in states {
        if let Some(since) = state.drained_at {
            let reason = state.reason.take();
            status_of(&mut pools, &state.pool).drained = Some(Drained { since, reason });
        }
        if state.retry_at.is_some() {
            status_of(&mut pools, &state.pool).failing.push(state);
        }
    }
    Ok(pools)
}

fn status_of<'a>(pools: &'a mut Vec<PoolStatus>, name: &str) -> &'a mut PoolStatus {
    let at = pools.iter().position(|status| status.name == name);
    let at = at.unwrap_or_else(|| {
        pools.push(PoolStatus::new(name));
        pools.len() - 1
    });
    &mut pools[at]
}
