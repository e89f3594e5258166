//! Fills pools.

use std::collections::HashMap;

use duffy_api::NodeState;
use duffy_config::Pool;
use serde_json::{Map, Value};

use super::configured_pools;
use crate::context::Ctx;
use crate::db::nodes::{self, PoolLock};
use crate::db::transitions::{self, Change};
use crate::db::{DbError, Tx, pools};
use crate::lifecycle::rules;
use crate::node_state::Transition;

/// Adds to each pool the nodes that it lacks: reusable ones that fit if the pool has `reuse-nodes`, otherwise new ones.
/// Returns how many were added.
pub async fn fill_pools(ctx: &Ctx) -> Result<u32, DbError> {
    let read = async |mut tx| -> Result<_, DbError> {
        let counts = nodes::count_filled(&mut tx).await?;
        let states = pools::list_pool_states(&mut tx).await?;
        Ok((counts, states))
    };
    let (counts, states) = ctx.db.read(read).await?;
    let states: HashMap<_, _> = states
        .into_iter()
        .filter(|state| state.work.0 == NodeState::Provisioning)
        .map(|state| (state.pool.clone(), state))
        .collect();
    let counts: HashMap<_, _> = counts
        .into_iter()
        .map(|row| (row.name, (row.quantity, row.provisioning)))
        .collect();
    let mut added = 0;
    for pool in configured_pools(ctx) {
        let Some(fill_level) = pool.fill_level else {
            continue;
        };
        let (filled, provisioning) = counts.get(&pool.name).copied().unwrap_or((0, 0));
        let fill_level = match states.get(&pool.name) {
            Some(state) if state.drained_at.is_some() => 0,
            // One node waits for the next try of a failing mechanism. More would fail too.
            Some(state) if state.retry_at.is_some() => {
                let tried = filled + i64::from(provisioning == 0);
                fill_level.min(u32::try_from(tried).unwrap_or(u32::MAX))
            }
            _ => fill_level,
        };
        if rules::count_missing(fill_level, filled) > 0 {
            match fill_pool(ctx, pool, fill_level).await {
                Ok(more) => added += more,
                Err(error @ DbError::Unavailable(_)) => return Err(error),
                Err(error) => tracing::error!(pool.name, %error, "cannot fill pool"),
            }
        }
    }
    Ok(added)
}

/// Counts again under the pool's lock, because another worker may have filled it meanwhile.
async fn fill_pool(ctx: &Ctx, pool: &Pool, fill_level: u32) -> Result<u32, DbError> {
    let wanted = match &pool.reuse_nodes {
        None => None,
        Some(reuse) => match rules::reuse_members(pool, reuse) {
            Ok(wanted) => Some(wanted),
            Err(error) => {
                tracing::error!(pool.name, error, "cannot fill pool: reuse-nodes is wrong");
                return Ok(0);
            }
        },
    };
    let wanted = &wanted;
    let write = async |mut tx: Tx| -> Result<_, DbError> {
        if !nodes::try_lock_pool(&mut tx, &pool.name, PoolLock::Fill).await? {
            // Another worker fills it.
            return Ok((0, 0));
        }
        let filled = nodes::count_filled_of(&mut tx, &pool.name).await?;
        let missing = rules::count_missing(fill_level, filled);
        let added = match wanted {
            None => {
                nodes::insert_provisioning_nodes(&mut tx, &pool.name, missing).await?;
                missing
            }
            Some(wanted) => pick_reusable(&mut tx, &pool.name, wanted, missing).await?,
        };
        if added > 0 {
            tx.wake_workers();
        }
        Ok((missing, added))
    };
    let added = ctx.db.transaction(write).await?;
    match added {
        (0, _) => {}
        (missing, 0) => tracing::debug!(pool.name, missing, "no unused node fits the pool"),
        (missing, added) => tracing::info!(pool.name, missing, added, "filling pool"),
    }
    Ok(added.1)
}

async fn pick_reusable(
    tx: &mut Tx,
    pool: &str,
    wanted: &Map<String, Value>,
    missing: u32,
) -> Result<u32, DbError> {
    let mut picked = 0;
    for node in nodes::list_reusable_nodes(tx).await? {
        if picked == missing {
            break;
        }
        if rules::matches_reuse(&node.data.0, wanted) {
            let change = Change {
                pool: Some(pool),
                ..Change::default()
            };
            let filled = transitions::apply_to(tx, Transition::Fill, &node, &change).await?;
            picked += u32::from(filled.is_some());
        }
    }
    Ok(picked)
}
