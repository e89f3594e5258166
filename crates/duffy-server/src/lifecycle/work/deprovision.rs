//! Deprovisions leased nodes.

use std::collections::HashSet;

use futures::stream::{self, StreamExt};
use serde_json::json;

use super::backoff;
use super::failure;
use super::job::{self, AT_ONCE, Job};
use super::lease;
use crate::context::Ctx;
use crate::db::nodes::NodeRow;
use crate::db::transitions::{self, Change};
use crate::db::{DbError, JsonObject, leases, sessions};
use crate::lifecycle::nodes::ssh_target;
use crate::lifecycle::rules;
use crate::node_state::Transition;
use crate::nodes::mechanism::{MechanismError, match_deprovisioned};

/// Takes the tenant's key off nodes under one lease, runs the mechanism, and writes the result of each: unused, done,
/// postponed or failed.
pub async fn deprovision_nodes(
    ctx: &Ctx,
    work: &Job<'_>,
    nodes: Vec<NodeRow>,
) -> Result<(), DbError> {
    let (held, nodes): (Vec<_>, Vec<_>) =
        nodes.into_iter().partition(|node| node.held_at.is_some());
    let nodes = failure::fail_interrupted_too_often(ctx, work, nodes).await?;
    let removal = remove_keys(ctx, work, held.iter().chain(&nodes));
    let Some(stale) = work.stop.run_until_cancelled(removal).await else {
        let stopped = MechanismError::Stopped;
        return failure::settle_failure(ctx, work, &nodes, &stopped).await;
    };
    let mut result = Ok(());
    for node in &held {
        let written = leave_held(ctx, work, node, stale.contains(&node.id)).await;
        result = result.and(written);
    }
    if nodes.is_empty() {
        return result;
    }
    let inputs: Vec<_> = nodes.iter().map(job::mechanism_node).collect();
    let results = match work.mechanism.deprovision(&inputs, work.stop).await {
        Ok(results) => results,
        Err(error) => {
            return result.and(failure::settle_failure(ctx, work, &nodes, &error).await);
        }
    };
    for (node, matched) in nodes.iter().zip(match_deprovisioned(&inputs, &results)) {
        // No result can name a node that was never made. It is enough that the mechanism succeeded.
        let never_made =
            !node.reusable && node.ipaddr.is_none() && !node.data.0.contains_key("provision");
        let written = if matched || never_made {
            finish(ctx, work, node, stale.contains(&node.id)).await
        } else {
            let detail = "deprovisioning node failed: no result names it";
            failure::postpone_or_fail(ctx, work, node, detail, None).await
        };
        // A node that cannot be written must not block the others.
        result = result.and(written);
    }
    result
}

/// Takes the tenant's key off nodes. After use a node may be in any condition, so a failure does not stop the work, but
/// is recorded for a reusable node. Returns the nodes where it failed.
async fn remove_keys(
    ctx: &Ctx,
    work: &Job<'_>,
    nodes: impl Iterator<Item = &NodeRow>,
) -> HashSet<i64> {
    let targets: Vec<_> = nodes.map(|node| (node.id, ssh_target(node))).collect();
    let each = targets.into_iter().map(|(id, target)| async move {
        let target = target?;
        if !work.keeper.is_fresh() {
            return Some(id);
        }
        match ctx.ssh.remove_keys(&target).await {
            Ok(()) => None,
            Err(error) => {
                tracing::debug!(node.id = id, %error, "cannot take the tenant's key off the node");
                Some(id)
            }
        }
    });
    let failed = stream::iter(each).buffer_unordered(AT_ONCE);
    failed.filter_map(std::future::ready).collect().await
}

async fn finish(ctx: &Ctx, work: &Job<'_>, node: &NodeRow, stale: bool) -> Result<(), DbError> {
    let mut data = rules::without_ephemeral(&node.data.0);
    if stale {
        data.insert(rules::STALE_KEYS.into(), json!(true));
    }
    let data = JsonObject(data);
    let lease = Some(work.keeper.lease());
    let reuse = Change {
        lease,
        data: Some(&data),
        ..Change::default()
    };
    let finish = Change {
        lease,
        ..Change::default()
    };
    work.keeper.expect_fewer(1);
    let write = async |mut tx| {
        // By the current row: an operator may have retired the node meanwhile.
        let mut done = transitions::apply_to(&mut tx, Transition::MakeUnused, node, &reuse).await?;
        if done.is_none() {
            done = transitions::apply_to(&mut tx, Transition::Finish, node, &finish).await?;
        }
        if done.is_some() {
            backoff::note_success(&mut tx, work).await?;
        }
        Ok(done.is_some())
    };
    if lease::persist(ctx, || ctx.db.transaction(write)).await? {
        tracing::info!(
            node.id,
            pool.name = work.pool,
            reusable = node.reusable,
            "node done"
        );
    } else {
        tracing::warn!(node.id, "deprovisioned, but the lease is lost");
    }
    Ok(())
}

/// Ends the work on a node that an operator holds. Only the tenant's key is taken off. While that fails, it is retried
/// after a pause that grows with the time since the session's end.
async fn leave_held(ctx: &Ctx, work: &Job<'_>, node: &NodeRow, stale: bool) -> Result<(), DbError> {
    let since = node.state_since.map(|since| ctx.clock.now() - since.0);
    let elapsed = since.and_then(|since| since.to_std().ok());
    let tasks = &ctx.config.tasks;
    let (shortest, longest) = (tasks.backoff_min, tasks.backoff_max);
    let pause = elapsed.unwrap_or(shortest).min(longest).max(shortest);
    work.keeper.expect_fewer(1);
    let (transition, detail) = if stale {
        let detail = "the node is held, and the tenant's key could not be taken off it";
        (Transition::PostponeKeys, Some(detail))
    } else {
        (Transition::RemoveKeys, None)
    };
    let change = Change {
        lease: Some(work.keeper.lease()),
        pause: Some(pause),
        detail,
        ..Change::default()
    };
    let write = async |mut tx| transitions::apply_to(&mut tx, transition, node, &change).await;
    let left = lease::persist(ctx, || ctx.db.transaction(write)).await?;
    match (left.is_some(), stale) {
        (false, _) => tracing::warn!(node.id, "the lease on a held node is lost"),
        (true, false) => tracing::info!(node.id, "the tenant's key is off the held node"),
        (true, true) => tracing::warn!(
            node.id,
            again_in_s = pause.as_secs(),
            "cannot take the tenant's key off the held node"
        ),
    }
    Ok(())
}

/// Restores the pools of nodes that the original was deprovisioning: it clears a node's pool, but the node's last
/// session still has it. A node without a known pool fails.
pub async fn restore_pools(ctx: &Ctx, nodes: Vec<NodeRow>, lease: &str) -> Result<(), DbError> {
    for node in &nodes {
        let mut data = node.data.clone();
        let detail = "the node belongs to no pool, and no session knows one; see to it by hand";
        rules::record_error(&mut data.0, ctx.clock.now(), detail, None);
        let change = Change {
            lease: Some(lease),
            data: Some(&data),
            detail: Some(detail),
            ..Change::default()
        };
        let write = async |mut tx| -> Result<_, DbError> {
            let pool = sessions::last_pool_of_node(&mut tx, node.id).await?;
            let restored = match pool {
                Some(pool) => leases::set_pool(&mut tx, node.id, &pool).await?,
                None => false,
            };
            if !restored {
                transitions::apply_to(&mut tx, Transition::Fail, node, &change).await?;
                tracing::error!(node.id, "{detail}");
            }
            Ok(())
        };
        ctx.db.transaction(write).await?;
    }
    lease::hand_back(ctx, lease).await
}
