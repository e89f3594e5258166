//! Drained pools: an operator has them emptied, and not filled until they are resumed.

use super::operator::OperatorError;
use crate::context::Ctx;
use crate::db::events::{self, Cause, Event};
use crate::db::{DbError, Tx, operators, pools};

/// Empties a pool and keeps it empty: what it has ready or in the making is deprovisioned, what is
/// lent stays until its session ends. Returns how many nodes are deprovisioned at once.
pub async fn drain_pool(ctx: &Ctx, name: &str, reason: &str) -> Result<usize, OperatorError> {
    let configured = configured_pools(ctx).any(|pool| pool == name);
    let released = ctx
        .db
        .transaction(|mut tx| async move {
            if !configured && !has_nodes(&mut tx, name).await? {
                return Err(unknown_pool(ctx, name));
            }
            pools::drain_pool(&mut tx, name, reason).await?;
            let event = Event::of_pool(Cause::Drained, name).with_detail(reason);
            events::record(&mut tx, &event).await?;
            let released = empty(&mut tx, name).await?;
            tx.wake_workers();
            Ok((tx, released))
        })
        .await?;
    tracing::info!(pool.name = name, nodes = released, "pool drained");
    Ok(released)
}

/// A pool that was taken out of the configuration may still have nodes.
async fn has_nodes(tx: &mut Tx, pool: &str) -> Result<bool, DbError> {
    let levels = operators::list_levels(tx).await?;
    Ok(levels.iter().any(|level| level.pool == pool))
}

/// Has a pool filled again, and a mechanism that keeps failing tried at once.
pub async fn resume_pool(ctx: &Ctx, name: &str, reason: &str) -> Result<(), OperatorError> {
    let configured = configured_pools(ctx).any(|pool| pool == name);
    ctx.db
        .transaction(|mut tx| async move {
            if !pools::resume_pool(&mut tx, name).await? {
                return Err(if configured {
                    OperatorError::NotDrained { name: name.into() }
                } else {
                    unknown_pool(ctx, name)
                });
            }
            let event = Event::of_pool(Cause::Resumed, name).with_detail(reason);
            events::record(&mut tx, &event).await?;
            tx.wake_workers();
            Ok((tx, ()))
        })
        .await?;
    tracing::info!(pool.name = name, "pool resumed");
    Ok(())
}

fn configured_pools(ctx: &Ctx) -> impl Iterator<Item = &str> {
    let pools = ctx.config.nodepools.iter();
    let pools = pools.flat_map(duffy_config::NodePools::concrete);
    pools.map(|pool| pool.name.as_str())
}

fn unknown_pool(ctx: &Ctx, name: &str) -> OperatorError {
    OperatorError::UnknownPool {
        name: name.to_owned(),
        known: configured_pools(ctx).map(str::to_owned).collect(),
    }
}

/// Empties drained pools: what they have ready is deprovisioned. Returns how many nodes.
pub async fn empty_drained(ctx: &Ctx) -> Result<usize, DbError> {
    let released = ctx
        .db
        .transaction(|mut tx| async move {
            let released = release(&mut tx).await?;
            Ok::<_, DbError>((tx, released.len()))
        })
        .await?;
    if released > 0 {
        tracing::info!(nodes = released, "emptying drained pools");
    }
    Ok(released)
}

/// The same, but counts the nodes of one pool only.
async fn empty(tx: &mut Tx, pool: &str) -> Result<usize, DbError> {
    let released = release(tx).await?;
    let of_pool = released.iter().filter(|name| *name == pool);
    Ok(of_pool.count())
}

/// Returns of each node its pool.
async fn release(tx: &mut Tx) -> Result<Vec<String>, DbError> {
    let nodes = pools::release_nodes_of_drained(tx).await?;
    for node in &nodes {
        let event = Event {
            node_id: Some(node.id),
            to: Some(node.state.0),
            ..Event::new(Cause::Drained)
        };
        events::record(tx, &event.in_pool(node.pool.as_deref())).await?;
    }
    Ok(nodes.into_iter().filter_map(|node| node.pool).collect())
}
