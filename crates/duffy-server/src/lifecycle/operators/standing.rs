//! How nodes and pools stand, as operators see it: nothing is left out or shown otherwise.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use duffy_api::{Event, NodeState};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::context::Ctx;
use crate::db::operators::{self, LentNodeRow};
use crate::db::pools::PoolStateRow;
use crate::db::{DbError, events, pools};
use crate::lifecycle::history;

/// A node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeStanding {
    /// Its number.
    pub id: i64,
    /// Host name.
    pub hostname: Option<String>,
    /// IPv4 or IPv6 address.
    pub ipaddr: Option<String>,
    /// Its pool.
    pub pool: Option<String>,
    /// What it is doing.
    pub state: NodeState,
    /// Since when; unknown of what the original wrote.
    pub since: Option<DateTime<Utc>>,
    /// Whether it is used again.
    pub reusable: bool,
    /// How often the work on its present state was begun.
    pub attempts: i32,
    /// How often it was repaired since it was last lent.
    pub repairs: i32,
    /// Since when an operator keeps it as it is.
    pub held_at: Option<DateTime<Utc>>,
    /// Before that time nobody acts on it.
    pub retry_at: Option<DateTime<Utc>>,
    /// Until when it belongs to a process that works on it, if that does not renew its lease.
    pub leased_until: Option<DateTime<Utc>>,
    /// The running session that has it.
    pub session_id: Option<i64>,
    /// Whose session.
    pub tenant: Option<String>,
    /// What went wrong last, in short.
    pub error: Option<String>,
    /// An operator's remark.
    pub comment: Option<String>,
    /// When the row was made.
    pub created_at: DateTime<Utc>,
    /// When it was retired.
    pub retired_at: Option<DateTime<Utc>>,
}

impl From<&LentNodeRow> for NodeStanding {
    fn from(row: &LentNodeRow) -> Self {
        let node = row.node.clone();
        let error = node.data.0.get("error").and_then(|error| {
            let detail = error.get("detail")?.as_str()?;
            detail.lines().next().map(str::to_owned)
        });
        Self {
            id: node.id,
            hostname: node.hostname,
            ipaddr: node.ipaddr,
            pool: node.pool,
            state: node.state.0,
            since: node.state_since.map(|time| time.0),
            reusable: node.reusable,
            attempts: node.attempts,
            repairs: node.repairs,
            held_at: node.held_at.map(|time| time.0),
            retry_at: node.retry_at.map(|time| time.0),
            leased_until: node.lease_expires_at.map(|time| time.0),
            session_id: row.session_id.map(i64::from),
            tenant: row.tenant.clone(),
            error,
            comment: node.comment,
            created_at: node.created_at.0,
            retired_at: node.retired_at.map(|time| time.0),
        }
    }
}

/// A node with all that is known of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeDossier {
    /// How it stands.
    pub node: NodeStanding,
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
pub async fn list_nodes(ctx: &Ctx, filter: &NodeFilter) -> Result<Vec<NodeStanding>, DbError> {
    let NodeFilter { pool, state, all } = filter;
    let pool = pool.as_deref();
    // A filter for the state `done` means retired rows.
    let all = *all || *state == Some(NodeState::Done);
    let rows = ctx
        .db
        .read(async |mut tx| operators::list_nodes(&mut tx, pool, *state, all).await)
        .await?;
    Ok(rows.iter().map(NodeStanding::from).collect())
}

/// A node with its last `limit` events.
pub async fn find_node(ctx: &Ctx, id: i64, limit: u32) -> Result<Option<NodeDossier>, DbError> {
    let found = ctx
        .db
        .read(async |mut tx| -> Result<_, DbError> {
            let row = operators::show_node(&mut tx, id).await?;
            let events = events::last_of_node(&mut tx, id, limit).await?;
            Ok(row.map(|row| (row, events)))
        })
        .await?;
    Ok(found.map(|(row, events)| NodeDossier {
        node: NodeStanding::from(&row),
        data: row.node.data.0,
        events: events
            .into_iter()
            .rev()
            .map(|row| history::event(row, true))
            .collect(),
    }))
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PoolStanding {
    /// Its name.
    pub name: String,
    /// Whether it is in the configuration.
    pub configured: bool,
    /// How many nodes it is to keep ready.
    pub fill_level: Option<u32>,
    /// How many active nodes are in which state.
    pub levels: BTreeMap<NodeState, i64>,
    /// How many nodes are held.
    pub held: i64,
    /// That an operator keeps it from being filled.
    pub drained: Option<Drained>,
    /// What its mechanism fails at again and again.
    pub failing: Vec<Failing>,
}

/// That a pool is drained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drained {
    /// Since when.
    pub since: DateTime<Utc>,
    /// Why.
    pub reason: Option<String>,
}

/// That a mechanism keeps failing and is tried more rarely.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failing {
    /// `provisioning` or `deprovisioning`.
    pub work: NodeState,
    /// How many attempts in a row failed.
    pub failures: i32,
    /// When the last one did.
    pub failed_at: Option<DateTime<Utc>>,
    /// When it is tried again.
    pub retry_at: DateTime<Utc>,
    /// How the last one failed.
    pub detail: Option<String>,
}

impl PoolStanding {
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

    fn note(&mut self, state: PoolStateRow) {
        if let Some(since) = state.drained_at {
            self.drained = Some(Drained {
                since: since.0,
                reason: state.reason,
            });
        }
        if let Some(retry_at) = state.retry_at {
            self.failing.push(Failing {
                work: state.work.0,
                failures: state.failures,
                failed_at: state.failed_at.map(|time| time.0),
                retry_at: retry_at.0,
                detail: state.detail,
            });
        }
    }
}

/// The pools of the configuration, in its order, and behind them others that have nodes or are
/// drained.
pub async fn list_pools(ctx: &Ctx) -> Result<Vec<PoolStanding>, DbError> {
    let (levels, states) = ctx
        .db
        .read(async |mut tx| -> Result<_, DbError> {
            let levels = operators::list_levels(&mut tx).await?;
            let states = pools::list_pool_states(&mut tx).await?;
            Ok((levels, states))
        })
        .await?;
    let configured = ctx.config.nodepools.iter();
    let configured = configured.flat_map(duffy_config::NodePools::concrete);
    let mut standings: Vec<_> = configured
        .map(|pool| PoolStanding {
            configured: true,
            fill_level: pool.fill_level,
            ..PoolStanding::new(&pool.name)
        })
        .collect();
    for row in levels {
        let standing = standing_of(&mut standings, &row.pool);
        standing.levels.insert(row.state.0, row.quantity);
        standing.held += row.held;
    }
    for state in states {
        if state.drained_at.is_some() || state.retry_at.is_some() {
            standing_of(&mut standings, &state.pool).note(state);
        }
    }
    Ok(standings)
}

fn standing_of<'a>(standings: &'a mut Vec<PoolStanding>, name: &str) -> &'a mut PoolStanding {
    let at = standings.iter().position(|standing| standing.name == name);
    let at = at.unwrap_or_else(|| {
        standings.push(PoolStanding::new(name));
        standings.len() - 1
    });
    &mut standings[at]
}
