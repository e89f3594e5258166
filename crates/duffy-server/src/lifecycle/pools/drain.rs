//! Drained pools: they are emptied, and not filled until an operator resumes them.

use duffy_api::NodeState;

use super::configured_pools;
use crate::cause::Cause;
use crate::context::Ctx;
use crate::db::events::{self, Event};
use crate::db::nodes::NodeRow;
use crate::db::transitions::{self, Change};
use crate::db::{DbError, Tx, operators, pools};
use crate::lifecycle::operators::OperatorError;
use crate::node_state::Transition;

/// Empties a pool and keeps it empty: its ready and provisioning nodes are deprovisioned, lent nodes stay until their
/// sessions end. Returns how many nodes are deprovisioned now.
pub async fn drain_pool(ctx: &Ctx, name: &str, reason: &str) -> Result<usize, OperatorError> {
    let configured = configured_pools(ctx).any(|pool| pool.name == name);
    let write = async |mut tx: Tx| {
        // A pool that was removed from the configuration may still have nodes.
        let levels = operators::list_levels(&mut tx).await?;
        if !configured && !levels.iter().any(|level| level.pool == name) {
            return Err(unknown_pool(ctx, name));
        }
        pools::drain_pool(&mut tx, name, reason).await?;
        let event = Event::of_pool(Cause::Drained, name).with_detail(reason);
        events::record(&mut tx, event).await?;
        tx.wake_workers();
        Ok(())
    };
    ctx.db.transaction(write).await?;
    // If this fails, a worker does it.
    let released = empty_drained(ctx).await?;
    let released = released.iter().filter(|pool| *pool == name).count();
    tracing::info!(pool.name = name, nodes = released, "pool drained");
    Ok(released)
}

/// Lets a pool be filled again, and retries a failing mechanism now.
pub async fn resume_pool(ctx: &Ctx, name: &str, reason: &str) -> Result<(), OperatorError> {
    let configured = configured_pools(ctx).any(|pool| pool.name == name);
    let write = async |mut tx: Tx| {
        if !pools::resume_pool(&mut tx, name).await? {
            return Err(if configured {
                OperatorError::NotDrained(name.into())
            } else {
                unknown_pool(ctx, name)
            });
        }
        let event = Event::of_pool(Cause::Resumed, name).with_detail(reason);
        events::record(&mut tx, event).await?;
        tx.wake_workers();
        Ok(())
    };
    ctx.db.transaction(write).await?;
    tracing::info!(pool.name = name, "pool resumed");
    Ok(())
}

fn unknown_pool(ctx: &Ctx, name: &str) -> OperatorError {
    OperatorError::UnknownPool {
        name: name.to_owned(),
        known: configured_pools(ctx)
            .map(|pool| pool.name.clone())
            .collect(),
    }
}

/// Deprovisions nodes of drained pools. Returns the pool of each of these nodes.
pub async fn empty_drained(ctx: &Ctx) -> Result<Vec<String>, DbError> {
    let list = async |mut tx| pools::list_nodes_of_drained(&mut tx).await;
    let nodes = ctx.db.read(list).await?;
    let mut released = Vec::new();
    // Each in its own transaction: one that cannot be released does not block the others.
    for node in nodes {
        match release(ctx, &node).await {
            Ok(true) => released.extend(node.pool),
            Ok(false) => {}
            Err(error @ DbError::Unavailable(_)) => return Err(error),
            Err(error) => {
                tracing::warn!(node.id, %error, "cannot deprovision a node of a drained pool");
            }
        }
    }
    if !released.is_empty() {
        tracing::info!(nodes = released.len(), "emptying drained pools");
    }
    Ok(released)
}

async fn release(ctx: &Ctx, node: &NodeRow) -> Result<bool, DbError> {
    let pool = node.pool.as_deref().unwrap_or_default();
    let write = async |mut tx| {
        let state = pools::find_pool_state(&mut tx, pool, NodeState::Provisioning).await?;
        if state.is_none_or(|state| state.drained_at.is_none()) {
            return Ok(false);
        }
        let change = Change::default();
        let moved = transitions::apply_to(&mut tx, Transition::Drain, node, &change).await?;
        Ok(moved.is_some())
    };
    ctx.db.transaction(write).await
}
