//! Operators' commands for nodes and the history. Those for pools are in [`crate::lifecycle::pools::drain`].
//!
//! Each is one transaction that locks the node's row first. It takes no lease away, except for nodes that nothing can
//! deprovision (`Forget`): the next write of a process that works on the node changes nothing.

pub mod status;

use std::time::Duration;

use chrono::{DateTime, Utc};
use duffy_api::NodeState;
use serde_json::json;

use crate::cause::Cause;
use crate::context::Ctx;
use crate::db::events::{self, Event};
use crate::db::nodes::NodeRow;
use crate::db::operators;
use crate::db::transitions::{self, Change};
use crate::db::{DbError, JsonObject, Tx, pools};
use crate::lifecycle::history::prune;
use crate::lifecycle::rules;
use crate::node_state::Transition;

/// Why an operator's command is refused.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// There is no such node.
    #[error("there is no node {0}")]
    UnknownNode(i64),
    /// The node is retired.
    #[error("node {0} is retired")]
    Retired(i64),
    /// The node is held.
    #[error("node {0} is held; release it first: duffy admin hold-node --release {0}")]
    Held(i64),
    /// The node is not held.
    #[error("node {0} is not held")]
    NotHeld(i64),
    /// The node has not failed.
    #[error(
        "node {id} is {state}: only a node that failed, or waits for its next attempt, can be repaired"
    )]
    NotBroken {
        /// Its number.
        id: i64,
        /// Its state.
        state: NodeState,
    },
    /// A process works on it.
    #[error("node {0} is being worked on: wait for the end of this attempt")]
    AtWork(i64),
    /// No mechanism can deprovision it.
    #[error(
        "node {0} is in no pool and not reusable, so no mechanism can repair it; \
         retire it instead: duffy admin retire-node {0}"
    )]
    NoPool(i64),
    /// Another node seems to have its machine.
    #[error(
        "another active node has the name or address of node {0}, and so its machine; \
         retire it instead: duffy admin retire-node {0}"
    )]
    Taken(i64),
    /// There is no such pool.
    #[error("there is no pool {name:?}, only: {}", known.join(", "))]
    UnknownPool {
        /// The name.
        name: String,
        /// The pools of the configuration.
        known: Vec<String>,
    },
    /// The pool is neither drained nor failing.
    #[error("pool {0:?} is neither drained nor failing")]
    NotDrained(String),
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Locks a node that is not retired.
async fn lock_active(tx: &mut Tx, id: i64) -> Result<NodeRow, OperatorError> {
    let node = operators::lock_node(tx, id).await?;
    let node = node.ok_or(OperatorError::UnknownNode(id))?;
    match node.retired_at {
        Some(_) => Err(OperatorError::Retired(id)),
        None => Ok(node),
    }
}

/// Locks a node that is neither retired nor held.
async fn lock_free(tx: &mut Tx, id: i64) -> Result<NodeRow, OperatorError> {
    let node = lock_active(tx, id).await?;
    match node.held_at {
        Some(_) => Err(OperatorError::Held(id)),
        None => Ok(node),
    }
}

/// Applies a transition to a locked node. Fails when a process works on the node.
async fn apply(
    tx: &mut Tx,
    transition: Transition,
    node: &NodeRow,
    data: Option<&JsonObject>,
    reason: &str,
) -> Result<(), OperatorError> {
    let change = Change {
        data,
        detail: Some(reason),
        ..Change::default()
    };
    let moved = transitions::apply_to(tx, transition, node, &change).await?;
    moved.map(drop).ok_or(OperatorError::AtWork(node.id))
}

/// What becomes of a node that an operator retires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retired {
    /// A worker deprovisions it.
    Deprovisioning,
    /// It is lent: a worker deprovisions it when its session ends.
    WhenReturned {
        /// The session, if it runs.
        session_id: Option<i64>,
        /// Whose session.
        tenant: Option<String>,
    },
    /// It is gone: no mechanism can deprovision it.
    Gone,
    /// It is gone: another active node has its name or address, and so its machine.
    MachineTaken,
}

/// Retires a node.
pub async fn retire_node(ctx: &Ctx, id: i64, reason: &str) -> Result<Retired, OperatorError> {
    let retired = match try_retire(ctx, id, reason, false).await {
        Err(OperatorError::Db(DbError::NotUnique(_))) => try_retire(ctx, id, reason, true).await,
        other => other,
    }?;
    tracing::info!(node.id = id, ?retired, "node retired");
    Ok(retired)
}

/// `taken` says whether another active node has the machine.
async fn try_retire(
    ctx: &Ctx,
    id: i64,
    reason: &str,
    taken: bool,
) -> Result<Retired, OperatorError> {
    let write = async |mut tx| {
        let node = lock_free(&mut tx, id).await?;
        let (retired, transition) = match node.state.0 {
            // If its session is not granted, it would be ready again, and lent.
            NodeState::Contextualizing => return Err(OperatorError::AtWork(id)),
            NodeState::Deployed => {
                let lent = operators::show_node(&mut tx, id).await?;
                let (session_id, tenant) =
                    lent.map_or((None, None), |lent| (lent.session_id, lent.tenant));
                let session_id = session_id.map(i64::from);
                let retired = Retired::WhenReturned { session_id, tenant };
                (retired, Transition::ForbidReuse)
            }
            NodeState::Deprovisioning => (Retired::Deprovisioning, Transition::ForbidReuse),
            NodeState::Unused | NodeState::Done => (Retired::Gone, Transition::Forget),
            NodeState::Provisioning | NodeState::Ready | NodeState::Failed => {
                match (&node.pool, taken) {
                    (None, _) => (Retired::Gone, Transition::Forget),
                    (Some(_), true) => (Retired::MachineTaken, Transition::Forget),
                    (Some(_), false) => (Retired::Deprovisioning, Transition::TakeDown),
                }
            }
        };
        apply(&mut tx, transition, &node, None, reason).await?;
        Ok(retired)
    };
    ctx.db.transaction(write).await
}

/// What becomes of a node that an operator has repaired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repaired {
    /// It is deprovisioned.
    Deprovisioning,
    /// A pool can pick it.
    Unused,
    /// The next attempt is now.
    TriedNow,
}

/// A repair, and what may delay it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    /// What becomes of the node.
    pub repaired: Repaired,
    /// When the failing mechanism of its pool is tried again.
    pub pool_waits_until: Option<DateTime<Utc>>,
}

/// Deprovisions a failed node, or retries a waiting one now.
pub async fn repair_node(ctx: &Ctx, id: i64, reason: &str) -> Result<Repair, OperatorError> {
    let write = async |mut tx| {
        let node = lock_free(&mut tx, id).await?;
        let repaired = repair(&mut tx, &node, reason).await?;
        let work = match repaired {
            Repaired::TriedNow => node.state.0,
            Repaired::Deprovisioning | Repaired::Unused => NodeState::Deprovisioning,
        };
        let pool = match &node.pool {
            Some(pool) => pools::find_pool_state(&mut tx, pool, work).await?,
            None => None,
        };
        Ok(Repair {
            repaired,
            pool_waits_until: pool.and_then(|pool| pool.retry_at).map(|time| time.0),
        })
    };
    let repair = ctx.db.transaction(write).await;
    let repair = repair.map_err(|error| match error {
        OperatorError::Db(DbError::NotUnique(_)) => OperatorError::Taken(id),
        error => error,
    })?;
    tracing::info!(node.id = id, repaired = ?repair.repaired, "node repaired");
    Ok(repair)
}

async fn repair(tx: &mut Tx, node: &NodeRow, reason: &str) -> Result<Repaired, OperatorError> {
    let id = node.id;
    match (node.state.0, &node.pool) {
        (NodeState::Failed, Some(_)) => {
            apply(tx, Transition::RepairByHand, node, None, reason).await?;
            Ok(Repaired::Deprovisioning)
        }
        (NodeState::Failed, None) if node.reusable => {
            let mut data = rules::without_ephemeral(&node.data.0);
            // It may have failed before the key was off.
            data.insert(rules::STALE_KEYS.into(), json!(true));
            apply(tx, Transition::Reuse, node, Some(&JsonObject(data)), reason).await?;
            Ok(Repaired::Unused)
        }
        (NodeState::Failed, None) => Err(OperatorError::NoPool(id)),
        (NodeState::Provisioning | NodeState::Deprovisioning, _) => {
            apply(tx, Transition::RetryNow, node, None, reason).await?;
            Ok(Repaired::TriedNow)
        }
        (state, _) => Err(OperatorError::NotBroken { id, state }),
    }
}

/// Holds a node: it is not lent, picked, worked on or repaired until it is released. A lent node stays with its
/// session.
pub async fn hold_node(ctx: &Ctx, id: i64, reason: &str) -> Result<(), OperatorError> {
    let write = async |mut tx| -> Result<_, OperatorError> {
        let node = lock_free(&mut tx, id).await?;
        let transition = match node.state.0 {
            NodeState::Deprovisioning => Transition::HoldReturned,
            _ => Transition::Hold,
        };
        apply(&mut tx, transition, &node, None, reason).await
    };
    ctx.db.transaction(write).await?;
    tracing::info!(node.id = id, "node held");
    Ok(())
}

/// Releases a held node.
pub async fn release_node(ctx: &Ctx, id: i64, reason: &str) -> Result<(), OperatorError> {
    let write = async |mut tx| {
        let node = lock_active(&mut tx, id).await?;
        if node.held_at.is_none() {
            return Err(OperatorError::NotHeld(id));
        }
        let transition = match node.state.0 {
            NodeState::Deprovisioning => Transition::LetGoReturned,
            _ => Transition::Release,
        };
        apply(&mut tx, transition, &node, None, reason).await
    };
    ctx.db.transaction(write).await?;
    tracing::info!(node.id = id, "node released");
    Ok(())
}

/// Removes history older than this. Returns how many events.
pub async fn purge_history(ctx: &Ctx, age: Duration, reason: &str) -> Result<u64, DbError> {
    let found = prune::count_older(ctx, age).await?;
    if found == 0 {
        return Ok(0);
    }
    // Recorded first, so that the event stays if the process dies.
    let write = async |mut tx| {
        let detail = format!("{found} events older than {} s: {reason}", age.as_secs());
        let event = Event::new(Cause::Purged).with_detail(detail);
        events::record(&mut tx, event).await
    };
    ctx.db.transaction(write).await?;
    prune::remove_older(ctx, age, u32::MAX).await
}
