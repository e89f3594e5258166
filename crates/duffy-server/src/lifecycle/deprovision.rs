//! Taking leased nodes out of use.

use std::collections::HashMap;

use futures::future::join_all;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::lease::{self, Work};
use super::nodes::ssh_target;
use super::rules;
use crate::context::Ctx;
use crate::db::nodes::NodeRow;
use crate::db::{DbError, JsonObject, leases, sessions};
use crate::nodes::mechanism::match_deprovisioned;

/// Takes the tenant's key off nodes under one lease, runs the mechanism, and writes what
/// became of each: unused, done, to be tried again later, or failed.
pub async fn deprovision_nodes(
    ctx: &Ctx,
    work: &Work<'_>,
    nodes: Vec<NodeRow>,
    stop: &CancellationToken,
) -> Result<(), DbError> {
    let nodes = lease::give_up_on_hopeless(ctx, work, nodes, "deprovisioning").await?;
    if nodes.is_empty() {
        return Ok(());
    }
    let stale = remove_keys(ctx, &nodes).await;
    let inputs: Vec<_> = nodes.iter().map(lease::mechanism_node).collect();
    let results = match work.mechanism.deprovision(&inputs, stop).await {
        Ok(results) => results,
        Err(error) => {
            return lease::settle_failure(ctx, work, &nodes, "deprovisioning", &error).await;
        }
    };
    for (node, matched) in nodes.iter().zip(match_deprovisioned(&inputs, &results)) {
        if matched {
            finish(ctx, work, node, stale.contains_key(&node.id)).await?;
        } else {
            let detail = "deprovisioning node failed: no result names it";
            lease::postpone_or_fail(ctx, work, node, detail, None).await?;
        }
    }
    Ok(())
}

/// After use a node may be in any condition, so that this fails is no obstacle; but it is
/// remembered of a node that is used again. Returns the nodes where it failed.
async fn remove_keys(ctx: &Ctx, nodes: &[NodeRow]) -> HashMap<i64, String> {
    let each = nodes.iter().map(|node| async move {
        let target = ssh_target(node)?;
        match ctx.ssh.remove_keys(&target).await {
            Ok(()) => None,
            Err(error) => {
                tracing::debug!(node.id, %error, "cannot take the tenant's key off the node");
                Some((node.id, error.to_string()))
            }
        }
    });
    join_all(each).await.into_iter().flatten().collect()
}

async fn finish(ctx: &Ctx, work: &Work<'_>, node: &NodeRow, stale: bool) -> Result<(), DbError> {
    let mut data = rules::without_ephemeral(&node.data.0);
    if stale {
        data.insert(rules::STALE_KEYS.into(), json!(true));
    }
    let data = &JsonObject(data);
    let written = ctx
        .db
        .transaction(|mut tx| async move {
            let written = if node.reusable {
                // A pool may want to pick it again.
                tx.wake_workers();
                leases::finish_reusable(&mut tx, node.id, work.lease, data).await?
            } else {
                leases::finish_done(&mut tx, node.id, work.lease).await?
            };
            Ok::<_, DbError>((tx, written))
        })
        .await?;
    if written {
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

/// Gives nodes their pools back that the original took them from: it forgets the pool of a
/// node that it deprovisions, and the session it was in still knows it. What nobody knows
/// the pool of is given up.
pub async fn restore_pools(ctx: &Ctx, nodes: Vec<NodeRow>, lease: &str) -> Result<(), DbError> {
    for node in &nodes {
        let mut data = node.data.clone();
        let detail = "deprovisioning node failed: it belongs to no pool, and was in no session; \
                      deprovision it by hand";
        rules::record_error(&mut data.0, ctx.clock.now(), detail, None);
        let data = &data;
        ctx.db
            .transaction(|mut tx| async move {
                if let Some(pool) = sessions::last_pool_of_node(&mut tx, node.id).await? {
                    leases::set_pool(&mut tx, node.id, &pool).await?;
                } else {
                    leases::fail_node(&mut tx, node.id, lease, data).await?;
                    tracing::error!(node.id, "{detail}");
                }
                Ok::<_, DbError>((tx, ()))
            })
            .await?;
    }
    ctx.db
        .transaction(|mut tx| async move {
            leases::hand_back_lease(&mut tx, lease).await?;
            Ok((tx, ()))
        })
        .await
}
